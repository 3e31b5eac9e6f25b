//! The expansion, and the errors of what cannot be expanded.

use proc_macro2::TokenStream;
use quote::quote;

fn expand(item: TokenStream) -> syn::Result<TokenStream> {
    crate::expand(quote!(namespace = "socket"), item)
}

/// The texts of all errors that the trait causes.
fn errors(item: TokenStream) -> Vec<String> {
    match expand(item) {
        Ok(tokens) => panic!("accepted: {tokens}"),
        Err(error) => error.into_iter().map(|error| error.to_string()).collect(),
    }
}

/// The errors of a trait that has nothing but this method.
fn method_errors(method: &TokenStream) -> Vec<String> {
    errors(quote! {
        /// Transfer of data.
        pub trait Transfer { #method }
    })
}

fn bulk_transfer() -> TokenStream {
    quote! {
        /// Transfer of data.
        pub trait BulkTransfer {
            /// Receives bytes.
            ///
            /// Blocks.
            #[method(name = "recv")]
            async fn recv(
                &self,
                handle: Handle,
                /// At most this
                /// many bytes.
                bufsize: i64,
                /// Flags.
                #[argument(rename = "type")]
                kind: Option<Constant>,
            ) -> RpcResult<Received>;

            /// Says whether.
            #[deprecated]
            #[method(name = "CMSG_LEN", blocking)]
            fn length(&self) -> jsonrpsee::core::RpcResult<Option<f64>>;
        }
    }
}

fn expected_halves() -> TokenStream {
    quote! {
        #[cfg(any(feature = "server", feature = "client"))]
        #[cfg_attr(
            all(feature = "server", feature = "client"),
            ::jsonrpsee::proc_macros::rpc(server, client, namespace = "socket", namespace_separator = ".")
        )]
        #[cfg_attr(
            all(feature = "server", not(feature = "client")),
            ::jsonrpsee::proc_macros::rpc(server, namespace = "socket", namespace_separator = ".")
        )]
        #[cfg_attr(
            all(not(feature = "server"), feature = "client"),
            ::jsonrpsee::proc_macros::rpc(client, namespace = "socket", namespace_separator = ".")
        )]
        /// Transfer of data.
        pub trait BulkTransfer {
            /// Receives bytes.
            ///
            /// Blocks.
            #[method(name = "recv", param_kind = map, with_extensions)]
            async fn recv(
                &self,
                handle: Handle,
                bufsize: i64,
                #[argument(rename = "type")] kind: Option<Constant>,
            ) -> RpcResult<Received>;

            /// Says whether.
            #[deprecated]
            #[method(name = "CMSG_LEN", param_kind = map, with_extensions, blocking)]
            fn length(&self) -> jsonrpsee::core::RpcResult<Option<f64>>;
        }

        #[cfg(any(feature = "server", feature = "client"))]
        const _: ::core::option::Option<RpcResult<Received>> = ::core::option::Option::None;
    }
}

fn expected_description() -> TokenStream {
    quote! {
        #[doc = "Describes, for OpenRPC, the methods of namespace `socket` that `BulkTransfer` declares."]
        pub fn bulk_transfer_methods(
            schemas: &mut crate::openrpc::Schemas,
        ) -> ::std::vec::Vec<crate::openrpc::Method> {
            ::std::vec![
                crate::openrpc::Method::new("socket.recv", "Receives bytes.\n\nBlocks.")
                    .required::<Handle>(
                        schemas, "handle", "The handle of the object that the call acts upon."
                    )
                    .required::<i64>(schemas, "bufsize", "At most this\nmany bytes.")
                    .optional::<Option<Constant> >(schemas, "type", "Flags.")
                    .result::<Received>(schemas),
                crate::openrpc::Method::new("socket.CMSG_LEN", "Says whether.")
                    .deprecated()
                    .result::<Option<f64> >(schemas)
            ]
        }

        #[doc = "The methods of namespace `socket` that `BulkTransfer` declares, each with the names of its parameters in order."]
        pub const BULK_TRANSFER_PARAMETERS: &[(&str, &[&str])] = &[
            ("socket.recv", &["handle", "bufsize", "type"]),
            ("socket.CMSG_LEN", &[])
        ];
    }
}

#[test]
fn a_trait_becomes_halves_description_and_parameter_table() {
    let same = |tokens: TokenStream| {
        let file: syn::File = syn::parse2(tokens).unwrap();
        quote!(#file).to_string()
    };
    let (halves, description) = (expected_halves(), expected_description());
    assert_eq!(same(expand(bulk_transfer()).unwrap()), same(quote!(#halves #description)));
}

#[test]
fn the_namespace_is_asked_for() {
    let item = quote! {
        /// Text.
        trait T {}
    };
    let error = |arguments| {
        crate::expand(arguments, item.clone()).map_or_else(|e| e.to_string(), |t| t.to_string())
    };
    assert_eq!(error(quote!()), "expected `namespace = \"..\"`");
    assert_eq!(error(quote!(name = "a")), "expected `namespace = \"..\"`");
    assert_eq!(error(quote!(namespace = "A.b")), "a namespace is one word in lower case");
}

#[test]
fn documentation_is_mandatory() {
    let found = errors(quote! {
        pub trait Transfer {
            #[method(name = "recv")]
            fn recv(&self, handle: Handle, bufsize: i64, #[argument(rename = "type")] kind: u8) -> RpcResult<()>;
        }
    });
    assert_eq!(
        found,
        [
            "trait `Transfer` has no documentation",
            "method `recv` has no documentation",
            "parameter `bufsize` has no documentation",
            "parameter `type` has no documentation",
        ]
    );
}

#[test]
fn a_method_needs_a_name_of_one_word() {
    let missing = "expected `#[method(name = \"..\")]`";
    let of = |attribute: TokenStream| {
        method_errors(&quote! {
            /// Text.
            #attribute
            fn recv(&self) -> RpcResult<()>;
        })
    };
    assert_eq!(of(quote!()), [missing]);
    assert_eq!(of(quote!(#[method(blocking)])), [missing]);
    assert_eq!(
        of(quote!(#[method(name = "socket.recv")])),
        ["a method's name is one word, without namespace"]
    );
    assert_eq!(
        of(quote!(#[method(name = "recv", with_extensions)])),
        ["expected `name = \"..\"` or `blocking`"]
    );
    assert_eq!(
        of(quote!(#[cfg(unix)] #[method(name = "recv")])),
        ["only documentation, `method` and `deprecated` reach the generated methods"]
    );
}

#[test]
fn a_method_returns_an_rpc_result() {
    for output in [
        quote!(),
        quote!(-> u8),
        quote!(-> Result<u8, E>),
        quote!(-> RpcResult),
        quote!(-> RpcResult<u8, E>),
        quote!(-> (u8,)),
    ] {
        let found = method_errors(&quote! {
            /// Text.
            #[method(name = "recv")]
            fn recv(&self) #output;
        });
        assert_eq!(found, ["expected `-> RpcResult<T>`"], "{output}");
    }
}

#[test]
fn parameters_are_plain_documented_names_in_order() {
    let of = |inputs: TokenStream| {
        method_errors(&quote! {
            /// Text.
            #[method(name = "recv")]
            fn recv(#inputs) -> RpcResult<()>;
        })
    };
    let cases = [
        (quote!(), "the first argument must be `&self`"),
        (quote!(&mut self), "the first argument must be `&self`"),
        (quote!(self: &Self), "the first argument must be `&self`"),
        (quote!(&self, _: u8), "a parameter must be a plain name"),
        (quote!(&self, (a, b): (u8, u8)), "a parameter must be a plain name"),
        (quote!(&self, mut a: u8), "a parameter must be a plain name"),
        (
            quote!(&self, #[doc = "A."] a: u8, #[doc = "B."] #[argument(rename = "a")] b: u8),
            "there are two parameters `a`",
        ),
        (quote!(&self, #[argument(name = "a")] b: u8), "expected `rename = \"..\"`"),
        (quote!(&self, #[doc = "A."] #[cfg(unix)] a: u8), "expected documentation or `argument`"),
        (
            quote!(&self, ext: u8),
            "jsonrpsee's code uses `ext`; choose another name and `#[argument(rename = \"ext\")]`",
        ),
        (
            quote!(&self, #[doc = "T."] r#type: u8),
            "`r#type` is no name for the wire; choose a plain one and `#[argument(rename = \"..\")]`",
        ),
    ];
    for (inputs, text) in cases {
        assert_eq!(of(inputs.clone()), [text], "{inputs}");
    }
}

#[test]
fn a_trait_has_distinct_methods_and_nothing_else() {
    let found = errors(quote! {
        /// Transfer of data.
        #[expect(dead_code)]
        pub trait Transfer<T>: Send {
            const A: u8;
            /// Text.
            #[method(name = "recv")]
            fn recv(&self) -> RpcResult<()>;
            /// Text.
            #[method(name = "recv")]
            fn again(&self) -> RpcResult<()>;
            /// Text.
            #[method(name = "third")]
            fn third<U>(&self) -> RpcResult<()> {}
        }
    });
    assert_eq!(
        found,
        [
            "only documentation reaches the generated traits",
            "an RPC trait has neither generics nor supertraits",
            "an RPC trait has methods only",
            "`socket.recv` is declared twice",
            "a method of an RPC trait has no body",
            "a method of an RPC trait has no generics",
        ]
    );
}
