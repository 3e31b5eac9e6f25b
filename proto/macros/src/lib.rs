//! The attribute macro `#[api]`: one plain trait becomes the server's and the client's half and the OpenRPC
//! description. It requires documentation of every method and parameter.

#![forbid(unsafe_code)]

mod read;
mod write;
#[cfg(test)]
mod tests;

use proc_macro::TokenStream;

/// Declares the methods of one namespace, or of one theme of it, as a plain trait.
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
/// Emitted are
///
/// - with the feature `server` of the using crate: a struct of each method's parameters, `RecvParams`, which is
///   decoded once, by name or by position, and the trait `TransferServer` with a `register` function;
/// - with the feature `client`: the trait `TransferClient` of jsonrpsee; parameters travel by name;
/// - `fn transfer_methods(&mut crate::openrpc::Schemas) -> Vec<crate::openrpc::Method>`;
/// - `const TRANSFER_PARAMETERS: &[(&str, &[&str])]`, the parameter names of each method in order.
///
/// Documentation is mandatory for the trait, each method and each parameter but `handle`. A method
/// is named by `#[method(name = "..")]`; a parameter whose name is no
/// Rust identifier by `#[argument(rename = "..")]`. An `Option` parameter may be absent or null; by
/// position it may be absent only at the end. Where `null` means something else than absence, it is an
/// `Option<Option<_>>`.
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
