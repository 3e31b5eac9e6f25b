//! The attribute macro `#[api]`: generates the server trait, the client trait and the OpenRPC
//! description from one plain trait. It requires documentation of every method and parameter.

#![forbid(unsafe_code)]

mod read;
mod write;
#[cfg(test)]
mod tests;

use proc_macro::TokenStream;

/// Declares the methods of one namespace, or a part of them, as a plain trait.
///
/// ```text
/// /// Transfer of data.
/// #[sockbroker_proto_macros::api(namespace = "socket")]
/// pub trait Transfer {
///     /// `socket.recv(bufsize[, flags])`: receives at most `bufsize` bytes.
///     #[method(name = "recv")]
///     async fn recv(
///         &self,
///         handle: Handle,
///         /// At most this many bytes.
///         bufsize: i64,
///         /// `MSG_*` flags.
///         flags: Option<Flags>,
///     ) -> RpcResult<Received>;
/// }
/// ```
///
/// The macro emits
///
/// - with the feature `server` of the using crate: a struct of each method's parameters, `RecvParams`, which is
///   decoded once, by name or by position, and the trait `TransferServer` with a `register` function;
/// - with the feature `client`: the trait `TransferClient` of jsonrpsee, which sends parameters by name;
/// - `fn transfer_methods(&mut crate::openrpc::Schemas) -> Vec<crate::openrpc::Method>`;
/// - `const TRANSFER_PARAMETERS: &[(&str, &[&str])]`, the parameter names of each method in order.
///
/// Documentation is mandatory for the trait, each method and each parameter except `handle`. `#[method(name = "..")]`
/// names a method; `#[argument(rename = "..")]` names a parameter whose name is not a
/// Rust identifier. An `Option` parameter can be absent or null; by position it can be absent only at the end.
/// If `null` differs from absence, the type is `Option<Option<_>>`.
#[proc_macro_attribute]
pub fn api(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

fn expand(
    arguments: proc_macro2::TokenStream,
    item: proc_macro2::TokenStream,
) -> syn::Result<proc_macro2::TokenStream> {
    Ok(write::api(&read::api(arguments, item)?))
}
