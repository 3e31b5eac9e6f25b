//! Writes the trait for jsonrpsee, the description for OpenRPC and the table of parameter names.

use heck::{ToShoutySnakeCase, ToSnakeCase};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{ReturnType, Signature, TraitItem, TraitItemFn};

use crate::read::{Api, Method, Parameter};

pub(crate) fn api(api: &Api) -> TokenStream {
    let halves = halves(api);
    let methods = methods(api);
    let parameters = parameters(api);
    quote! {
        #halves
        #methods
        #parameters
    }
}

/// The trait as it goes to `#[rpc]`; which halves it makes is for the features to say.
fn halves(Api { namespace, item, .. }: &Api) -> TokenStream {
    let rpc = |halves: TokenStream| {
        quote!(::jsonrpsee::proc_macros::rpc(
            #halves, namespace = #namespace, namespace_separator = "."
        ))
    };
    let both = rpc(quote!(server, client));
    let server = rpc(quote!(server));
    let client = rpc(quote!(client));
    // The client half spells the results itself, which would leave the author's import unused.
    let output = item.items.iter().find_map(|entry| match entry {
        TraitItem::Fn(TraitItemFn {
            sig: Signature { output: ReturnType::Type(_, ty), .. },
            ..
        }) => Some(ty),
        _ => None,
    });
    let used = output.map(|ty| {
        quote! {
            #[cfg(any(feature = "server", feature = "client"))]
            const _: ::core::option::Option<#ty> = ::core::option::Option::None;
        }
    });
    quote! {
        #[cfg(any(feature = "server", feature = "client"))]
        #[cfg_attr(all(feature = "server", feature = "client"), #both)]
        #[cfg_attr(all(feature = "server", not(feature = "client")), #server)]
        #[cfg_attr(all(not(feature = "server"), feature = "client"), #client)]
        #item

        #used
    }
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

fn method(Method { name, doc, deprecated, parameters, result }: &Method) -> TokenStream {
    let deprecated = deprecated.then(|| quote!(.deprecated()));
    let parameters = parameters.iter().map(|Parameter { name, doc, required, ty }| {
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
