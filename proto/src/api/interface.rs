//! Interfaces and the host name.

use super::values::Netns;

/// Interfaces and the host name.
#[sockbroker_proto_macros::api(namespace = "socket")]
pub trait Interfaces {
    /// `socket.if_nameindex()`: pairs of index and name.
    #[method(name = "if_nameindex")]
    fn if_nameindex(
        &self,
        /// The network namespace, as for `socket.socket`.
        netns: Option<Netns>,
    ) -> RpcResult<Vec<(u32, String)>>;

    /// `socket.if_nametoindex(if_name)`.
    #[method(name = "if_nametoindex")]
    fn if_nametoindex(
        &self,
        /// The name of the interface.
        if_name: String,
        /// The network namespace, as for `socket.socket`.
        netns: Option<Netns>,
    ) -> RpcResult<u32>;

    /// `socket.if_indextoname(if_index)`.
    #[method(name = "if_indextoname")]
    fn if_indextoname(
        &self,
        /// The index of the interface.
        if_index: i64,
        /// The network namespace, as for `socket.socket`.
        netns: Option<Netns>,
    ) -> RpcResult<String>;

    /// `socket.gethostname()`.
    #[method(name = "gethostname")]
    fn gethostname(&self) -> RpcResult<String>;

    /// `socket.sethostname(name)`.
    #[method(name = "sethostname")]
    fn sethostname(
        &self,
        /// The new host name.
        name: String,
    ) -> RpcResult<()>;
}
