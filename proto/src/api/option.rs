//! Options, timeouts, filters and `ioctl`.

use super::values::{OptionValue, Seconds};
use crate::bytes::Bytes;
use crate::constant::Constant;
use crate::handle::Handle;

/// Options, timeouts, filters and `ioctl`.
#[sockbroker_proto_macros::api(namespace = "socket")]
pub trait Options {
    /// `sock.getsockopt(level, optname[, buflen])`: an integer, or bytes if `buflen` is given.
    ///
    /// The broker refuses options whose value contains a pointer or a descriptor number with `EACCES`.
    #[method(name = "getsockopt")]
    fn getsockopt(
        &self,
        handle: Handle,
        /// `SOL_*` or `IPPROTO_*`.
        level: Constant,
        /// `SO_*`, `IP_*`, `TCP_*` ...
        optname: Constant,
        /// The size of the buffer: 1 to 1024; 0 or absent requests an integer.
        buflen: Option<i64>,
    ) -> RpcResult<OptionValue>;

    /// `sock.setsockopt(level, optname, value)` and `setsockopt(level, optname, None, optlen)`.
    ///
    /// Takes effect after all data that the connection submitted before it and before all data that it
    /// submits after it. The broker refuses options whose value contains a pointer or a descriptor number
    /// with `EACCES`; `attach_filter` attaches a classic filter.
    #[method(name = "setsockopt")]
    async fn setsockopt(
        &self,
        handle: Handle,
        /// `SOL_*` or `IPPROTO_*`.
        level: Constant,
        /// `SO_*`, `IP_*`, `TCP_*` ...
        optname: Constant,
        /// An integer, bytes, or `null` together with `optlen`.
        value: Option<OptionValue>,
        /// The length of a `null` value.
        optlen: Option<i64>,
    ) -> RpcResult<()>;

    /// `sock.settimeout(value)`: for calls that start later.
    #[method(name = "settimeout")]
    fn settimeout(
        &self,
        handle: Handle,
        /// Seconds; `null` blocks, 0 never waits.
        value: Seconds,
    ) -> RpcResult<()>;

    /// `sock.gettimeout()`: seconds, or `null`.
    #[method(name = "gettimeout")]
    fn gettimeout(&self, handle: Handle) -> RpcResult<Option<f64>>;

    /// `sock.setblocking(flag)`: `settimeout(None)` or `settimeout(0)`.
    #[method(name = "setblocking")]
    fn setblocking(
        &self,
        handle: Handle,
        /// `true` for `settimeout(None)`, `false` for `settimeout(0)`.
        flag: bool,
    ) -> RpcResult<()>;

    /// `sock.getblocking()`: whether the timeout is not 0.
    #[method(name = "getblocking")]
    fn getblocking(&self, handle: Handle) -> RpcResult<bool>;

    /// `sock.get_inheritable()`: the value that `set_inheritable` last stored for this handle.
    ///
    /// A handle is not a descriptor of the client. The client library applies the value to the
    /// descriptor that it receives. The broker's own descriptors are never inheritable.
    #[method(name = "get_inheritable")]
    fn get_inheritable(&self, handle: Handle) -> RpcResult<bool>;

    /// `sock.set_inheritable(inheritable)`.
    #[method(name = "set_inheritable")]
    fn set_inheritable(
        &self,
        handle: Handle,
        /// Whether descriptors that the client receives are to be inheritable.
        inheritable: bool,
    ) -> RpcResult<()>;

    /// `socket.getdefaulttimeout()` of this session: seconds, or `null`.
    #[method(name = "getdefaulttimeout")]
    fn getdefaulttimeout(&self) -> RpcResult<Option<f64>>;

    /// `socket.setdefaulttimeout(timeout)` for this session.
    #[method(name = "setdefaulttimeout")]
    fn setdefaulttimeout(
        &self,
        /// Seconds, or `null`.
        timeout: Seconds,
    ) -> RpcResult<()>;

    /// `sock.ioctl(control, option)`: known requests only, with typed results.
    ///
    /// `SIO_RCVALL` with `RCVALL_ON` or `RCVALL_OFF` on an emulated `SIO_RCVALL` socket; `FIONREAD`, `SIOCINQ`,
    /// `SIOCOUTQ` and `SIOCATMARK` return an integer; `SIOCGIFINDEX`, `SIOCGIFFLAGS`, `SIOCGIFMTU` take
    /// an interface name and return an integer; `SIOCGIFADDR`, `SIOCGIFNETMASK`, `SIOCGIFBRDADDR` and
    /// `SIOCGIFHWADDR` return bytes in network order. Others fail with `ENOTTY`.
    #[method(name = "ioctl")]
    async fn ioctl(
        &self,
        handle: Handle,
        /// The request: one of those above.
        control: Constant,
        /// The argument: an integer or its name, or an interface name.
        option: Option<IoctlArgument>,
    ) -> RpcResult<Option<OptionValue>>;

    /// `SO_ATTACH_FILTER`: a classic BPF program (`socket(7)`, `struct sock_filter`).
    #[method(name = "attach_filter")]
    async fn attach_filter(
        &self,
        handle: Handle,
        /// The instructions, 8 bytes each, host order; 1 to 4096 of them.
        program: Bytes,
    ) -> RpcResult<()>;

    /// `SO_DETACH_FILTER`.
    #[method(name = "detach_filter")]
    async fn detach_filter(&self, handle: Handle) -> RpcResult<()>;
}

/// The argument of `ioctl`.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(untagged, expecting = "a number, the name of a constant, or an interface name")]
pub enum IoctlArgument {
    /// A number, such as `RCVALL_ON`.
    Number(i64),
    /// The name of a constant or of an interface, depending on the request.
    Name(String),
}
