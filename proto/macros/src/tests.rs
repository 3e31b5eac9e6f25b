//! The expansion, and the errors of traits that cannot be expanded.

use proc_macro2::TokenStream;
use quote::quote;

fn expand(item: TokenStream) -> syn::Result<TokenStream> {
    crate::expand(quote!(namespace = "socket"), item)
}

/// The texts of all errors of the trait.
fn errors(item: TokenStream) -> Vec<String> {
    match expand(item) {
        Ok(tokens) => panic!("accepted: {tokens}"),
        Err(error) => error.into_iter().map(|error| error.to_string()).collect(),
    }
}

/// The errors of a trait with this one method.
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
                /// Seconds.
                timeout: Option<Option<f64>>,
            ) -> RpcResult<Received>;

            /// Reports a state.
            #[deprecated]
            #[method(name = "CMSG_LEN")]
            fn length(&self) -> jsonrpsee::core::RpcResult<Option<f64>>;
        }
    }
}

fn expected_client() -> TokenStream {
    quote! {
        #[cfg(feature = "client")]
        #[::jsonrpsee::proc_macros::rpc(client, namespace = "socket", namespace_separator = ".")]
        /// Transfer of data.
        pub trait BulkTransfer {
            /// Receives bytes.
            ///
            /// Blocks.
            #[method(name = "recv", param_kind = map)]
            async fn recv(
                &self,
                handle: Handle,
                bufsize: i64,
                #[argument(rename = "type")] kind: Option<Constant>,
                timeout: Option<Option<f64>>,
            ) -> ::jsonrpsee::core::RpcResult<Received>;

            /// Reports a state.
            #[deprecated]
            #[method(name = "CMSG_LEN", param_kind = map)]
            fn length(&self) -> ::jsonrpsee::core::RpcResult<Option<f64>>;
        }
    }
}

fn expected_server() -> TokenStream {
    quote! {
        #[cfg(feature = "server")]
        #[doc = "The methods of namespace `socket` that `BulkTransfer` declares, for a server."]
        pub trait BulkTransferServer: 'static {
            /// The context of a call.
            type Call: ::core::marker::Send + 'static;
            /// The error type of methods.
            type Error: ::core::marker::Send + 'static;

            #[doc = "Receives bytes.\n\nBlocks."]
            fn recv(
                call: Self::Call,
                params: RecvParams,
            ) -> impl ::core::future::Future<
                Output = ::core::result::Result<Received, Self::Error>
            > + ::core::marker::Send;

            #[doc = "Reports a state."]
            fn length(
                call: &Self::Call,
                params: LengthParams
            ) -> ::core::result::Result<Option<f64>, Self::Error>;

            /// Adds every method to a table.
            fn register<R>(table: &mut R)
            where
                R: crate::method::Register<Call = Self::Call, Error = Self::Error>,
            {
                table.add_async::<RecvParams, _, _>(Self::recv);
                table.add::<LengthParams, _>(Self::length);
            }
        }
    }
}

fn expected_params() -> TokenStream {
    quote! {
        #[cfg(feature = "server")]
        #[doc = "The parameters of `socket.recv`."]
        #[derive(Debug)]
        pub struct RecvParams {
            #[doc = "The handle of the socket."]
            pub handle: Handle,
            #[doc = "At most this\nmany bytes."]
            pub bufsize: i64,
            #[doc = "Flags."]
            pub kind: Option<Constant>,
            #[doc = "Seconds."]
            pub timeout: Option<Option<f64> >
        }

        #[cfg(feature = "server")]
        #[doc(hidden)]
        #[doc = "The parameters of `socket.recv` that are decoded so far."]
        #[derive(Debug, Default)]
        pub struct RecvParamsSlots {
            handle: ::core::option::Option<Handle>,
            bufsize: ::core::option::Option<i64>,
            kind: ::core::option::Option<Option<Constant> >,
            timeout: ::core::option::Option<Option<f64> >
        }
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
                        schemas, "handle", "The handle of the socket."
                    )
                    .required::<i64>(schemas, "bufsize", "At most this\nmany bytes.")
                    .optional::<Option<Constant> >(schemas, "type", "Flags.")
                    .optional::<Option<Option<f64> > >(schemas, "timeout", "Seconds.")
                    .result::<Received>(schemas),
                crate::openrpc::Method::new("socket.CMSG_LEN", "Reports a state.")
                    .deprecated()
                    .result::<Option<f64> >(schemas)
            ]
        }

        #[doc = "The methods of namespace `socket` that `BulkTransfer` declares, each with the names of its parameters in order."]
        pub const BULK_TRANSFER_PARAMETERS: &[(&str, &[&str])] = &[
            ("socket.recv", &["handle", "bufsize", "type", "timeout"]),
            ("socket.CMSG_LEN", &[])
        ];
    }
}

/// The items of an expansion, each as text.
fn items(tokens: TokenStream) -> Vec<String> {
    let file: syn::File = syn::parse2(tokens).unwrap();
    file.items.iter().map(|item| quote!(#item).to_string()).collect()
}

#[test]
fn a_trait_becomes_client_server_params_description_and_parameter_table() {
    let expansion = items(expand(bulk_transfer()).unwrap());
    let parts = [expected_client(), expected_server(), expected_params(), expected_description()];
    for expected in parts.into_iter().flat_map(items) {
        assert!(expansion.contains(&expected), "{expected}\nis missing in\n{expansion:#?}");
    }
    // The decoders of both methods and the slots of the second one, which has no parameters.
    assert_eq!(expansion.len(), 10, "{expansion:#?}");
}

#[test]
fn decoder_has_a_slot_for_each_parameter_and_distinguishes_null_from_absence() {
    let expansion = items(expand(bulk_transfer()).unwrap());
    let decoder = |of: &str| {
        let head = format!("impl crate :: method :: Parameters for {of} ");
        expansion.iter().find(|item| item.contains(&head)).unwrap()
    };
    let recv = decoder("RecvParams");
    for part in [
        "const METHOD : & 'static str = \"socket.recv\" ;",
        "& [\"handle\" , \"bufsize\" , \"type\" , \"timeout\"]",
        "3usize => { slots . timeout = :: core :: option :: Option :: Some",
        "handle : slots . handle . ok_or (\"handle\") ?",
        "kind : slots . kind . flatten ()",
        "timeout : slots . timeout }",
    ] {
        assert!(recv.contains(part), "{part}\nis missing in\n{recv}");
    }
    assert!(decoder("LengthParams").contains("Ok (Self { })"));
}

#[test]
fn namespace_is_mandatory() {
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
    assert_eq!(of(quote!(#[method()])), [missing]);
    assert_eq!(
        of(quote!(#[method(name = "socket.recv")])),
        ["a method's name is one word, without namespace"]
    );
    assert_eq!(of(quote!(#[method(name = "recv", with_extensions)])), ["expected `name = \"..\"`"]);
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
            "`r#type` is not a name for the wire; choose a plain one and `#[argument(rename = \"..\")]`",
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
