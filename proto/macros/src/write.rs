//! Writes the server trait with the types of its parameters, the client trait for jsonrpsee, the description for
//! OpenRPC and the table of parameter names.

use heck::{ToShoutySnakeCase, ToSnakeCase, ToUpperCamelCase};
use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::{Type, Visibility};

use crate::read::{Api, Method, Parameter, is_option, option_of};

pub(crate) fn api(api: &Api) -> TokenStream {
    let (client, server, params) = (client(api), server(api), params(api));
    let (methods, parameters) = (methods(api), parameters(api));
    quote! {
        #client
        #server
        #params
        #methods
        #parameters
    }
}

/// The client trait for jsonrpsee.
fn client(Api { namespace, item, .. }: &Api) -> TokenStream {
    quote! {
        #[cfg(feature = "client")]
        #[::jsonrpsee::proc_macros::rpc(client, namespace = #namespace, namespace_separator = ".")]
        #item
    }
}

/// The server trait: each method with decoded parameters, and the function that registers all of them.
fn server(Api { namespace, item, methods }: &Api) -> TokenStream {
    let (visibility, name) = (&item.vis, format_ident!("{}Server", item.ident));
    let doc = format!(
        "The methods of namespace `{namespace}` that `{}` declares, for a server.",
        item.ident
    );
    let functions = methods.iter().map(|method| {
        let Method { ident, is_async, doc, result, .. } = method;
        let params = params_type(ident);
        let result = quote!(::core::result::Result<#result, Self::Error>);
        if *is_async {
            quote! {
                #[doc = #doc]
                fn #ident(
                    call: Self::Call,
                    params: #params,
                ) -> impl ::core::future::Future<Output = #result> + ::core::marker::Send;
            }
        } else {
            quote! {
                #[doc = #doc]
                fn #ident(call: &Self::Call, params: #params) -> #result;
            }
        }
    });
    let registrations = methods.iter().map(|Method { ident, is_async, .. }| {
        let params = params_type(ident);
        if *is_async {
            quote!(table.add_async::<#params, _, _>(Self::#ident);)
        } else {
            quote!(table.add::<#params, _>(Self::#ident);)
        }
    });
    quote! {
        #[cfg(feature = "server")]
        #[doc = #doc]
        #visibility trait #name: 'static {
            /// The context of a call.
            type Call: ::core::marker::Send + 'static;
            /// The error type of methods.
            type Error: ::core::marker::Send + 'static;

            #(#functions)*

            /// Adds every method to a table.
            fn register<R>(table: &mut R)
            where
                R: crate::method::Register<Call = Self::Call, Error = Self::Error>,
            {
                #(#registrations)*
            }
        }
    }
}

/// The struct of each method's parameters, and its decoder.
fn params(Api { item, methods, .. }: &Api) -> TokenStream {
    let structs = methods.iter().map(|method| {
        let (declared, decoded) = (params_struct(&item.vis, method), params_decoder(method));
        quote!(#declared #decoded)
    });
    quote!(#(#structs)*)
}

fn params_struct(visibility: &Visibility, method: &Method) -> TokenStream {
    let Method { ident, name, parameters, .. } = method;
    let params = params_type(ident);
    let slots = format_ident!("{params}Slots");
    let doc = format!("The parameters of `{name}`.");
    let slots_doc = format!("The parameters of `{name}` that are decoded so far.");
    let fields = parameters
        .iter()
        .map(|Parameter { ident, doc, ty, .. }| quote!(#[doc = #doc] #visibility #ident: #ty));
    let decoded = parameters.iter().map(|parameter| {
        let (ident, ty) = (&parameter.ident, decoded_type(parameter));
        quote!(#ident: ::core::option::Option<#ty>)
    });
    quote! {
        #[cfg(feature = "server")]
        #[doc = #doc]
        #[derive(Debug)]
        #visibility struct #params {
            #(#fields),*
        }

        #[cfg(feature = "server")]
        #[doc(hidden)]
        #[doc = #slots_doc]
        #[derive(Debug, Default)]
        #visibility struct #slots {
            #(#decoded),*
        }
    }
}

fn params_decoder(Method { ident, name, parameters, result, .. }: &Method) -> TokenStream {
    let params = params_type(ident);
    let slots = format_ident!("{params}Slots");
    let names = parameters.iter().map(|parameter| &parameter.name);
    let decoded = parameters.iter().enumerate().map(|(index, parameter)| {
        let ident = &parameter.ident;
        quote! {
            #index => {
                slots.#ident = ::core::option::Option::Some(::serde::Deserialize::deserialize(value)?);
                ::core::result::Result::Ok(())
            }
        }
    });
    let taken = parameters.iter().map(|Parameter { ident, name, required, ty, .. }| {
        if *required {
            quote!(#ident: slots.#ident.ok_or(#name)?)
        } else if is_nested(ty) {
            quote!(#ident: slots.#ident)
        } else {
            quote!(#ident: slots.#ident.flatten())
        }
    });
    // A method without parameters uses none of these.
    let (slots_name, value_name) = if parameters.is_empty() {
        (format_ident!("_slots"), format_ident!("_value"))
    } else {
        (format_ident!("slots"), format_ident!("value"))
    };
    quote! {
        #[cfg(feature = "server")]
        impl crate::method::Parameters for #params {
            const METHOD: &'static str = #name;
            const NAMES: &'static [&'static str] = &[#(#names),*];
            type Result = #result;
            type Slots = #slots;

            fn decode_slot<'de, D: ::serde::Deserializer<'de>>(
                #slots_name: &mut #slots,
                index: usize,
                #value_name: D,
            ) -> ::core::result::Result<(), D::Error> {
                match index {
                    #(#decoded)*
                    other => ::core::result::Result::Err(crate::method::unknown_index(other)),
                }
            }

            fn from_slots(#slots_name: #slots) -> ::core::result::Result<Self, &'static str> {
                ::core::result::Result::Ok(Self { #(#taken),* })
            }
        }
    }
}

/// Whether `null` differs from an absent parameter: `Option<Option<T>>`.
fn is_nested(ty: &Type) -> bool {
    option_of(ty).is_some_and(is_option)
}

/// The type that a given value decodes to; the value of an optional parameter can be `null`.
fn decoded_type(Parameter { ty, required, .. }: &Parameter) -> TokenStream {
    match option_of(ty) {
        Some(inner) if !required && is_option(inner) => quote!(#inner),
        _ => quote!(#ty),
    }
}

fn params_type(method: &Ident) -> Ident {
    format_ident!("{}Params", method.unraw().to_string().to_upper_camel_case())
}

fn methods(Api { namespace, item, methods }: &Api) -> TokenStream {
    let visibility = &item.vis;
    let name = format_ident!("{}_methods", item.ident.to_string().to_snake_case());
    let doc = format!(
        "Describes, for OpenRPC, the methods of namespace `{namespace}` that `{}` declares.",
        item.ident
    );
    let methods = methods.iter().map(method);
    quote! {
        #[doc = #doc]
        #visibility fn #name(
            schemas: &mut crate::openrpc::Schemas,
        ) -> ::std::vec::Vec<crate::openrpc::Method> {
            ::std::vec![#(#methods),*]
        }
    }
}

fn method(Method { name, doc, deprecated, parameters, result, .. }: &Method) -> TokenStream {
    let deprecated = deprecated.then(|| quote!(.deprecated()));
    let parameters = parameters.iter().map(|Parameter { name, doc, required, ty, .. }| {
        let kind = format_ident!("{}", if *required { "required" } else { "optional" });
        quote!(.#kind::<#ty>(schemas, #name, #doc))
    });
    quote! {
        crate::openrpc::Method::new(#name, #doc)
            #deprecated
            #(#parameters)*
            .result::<#result>(schemas)
    }
}

fn parameters(Api { namespace, item, methods }: &Api) -> TokenStream {
    let visibility = &item.vis;
    let name = format_ident!("{}_PARAMETERS", item.ident.to_string().to_shouty_snake_case());
    let doc = format!(
        "The methods of namespace `{namespace}` that `{}` declares, each with the names of its \
         parameters in order.",
        item.ident
    );
    let rows = methods.iter().map(|Method { name, parameters, .. }| {
        let parameters = parameters.iter().map(|Parameter { name, .. }| name);
        quote!((#name, &[#(#parameters),*]))
    });
    quote! {
        #[doc = #doc]
        #visibility const #name: &[(&str, &[&str])] = &[#(#rows),*];
    }
}
