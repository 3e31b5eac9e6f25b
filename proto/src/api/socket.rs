//! Sockets from creation to close, with addresses, connections and readiness.

use super::values::{Accepted, Attributes, Created, Netns, Position};
use crate::address::AddressValue;
use crate::constant::Constant;
use crate::handle::Handle;

/// Sockets from creation to close.
#[sockbroker_proto_macros::api(namespace = "socket")]
pub trait Socket {
    /// `socket.socket(family=AF_INET, type=SOCK_STREAM, proto=0, fileno=None)`: a new socket.
    ///
    /// `AF_INET, SOCK_RAW, IPPROTO_IP`, which Linux refuses, creates a socket that emulates Windows'
    /// `SIO_RCVALL`: bind it to an address, switch it on with `ioctl(SIO_RCVALL, RCVALL_ON)`, and it
    /// receives the IP packets of the interface that has the address.
    #[method(name = "socket")]
    async fn socket(
        &self,
        /// `AF_*`; if absent or -1, `AF_INET` or the family of `fileno`.
        family: Option<Constant>,
        /// `SOCK_*`, with `SOCK_NONBLOCK` if wanted; `SOCK_STREAM` if absent or -1.
        #[argument(rename = "type")]
        kind: Option<Constant>,
        /// The protocol; 0 if absent or -1.
        proto: Option<Constant>,
        /// Adopts a descriptor instead: its index among those attached to the frame, counted from 0.
        fileno: Option<u32>,
        /// Seconds as for `settimeout`; the session's default if absent, `null` blocks.
        timeout: Option<Option<f64>>,
        /// Whether to attach a descriptor of the new socket to the response.
        want_fd: Option<bool>,
        /// The network namespace of the new socket: absent for that of the broker, `caller` for that of the
        /// socket with which the client connected to the broker, a name of `ip netns list`, or the descriptor of one
        /// that belongs to a user namespace of this user.
        netns: Option<Netns>,
        /// Whether to open a channel of the new socket, as `channel.open` without further parameters does.
        want_channel: Option<bool>,
    ) -> RpcResult<Created>;

    /// `socket.socketpair([family[, type[, proto]]])`: two connected sockets.
    #[method(name = "socketpair")]
    async fn socketpair(
        &self,
        /// `AF_*`; `AF_UNIX` if absent.
        family: Option<Constant>,
        /// `SOCK_*`; `SOCK_STREAM` if absent.
        #[argument(rename = "type")]
        kind: Option<Constant>,
        /// The protocol; 0 if absent.
        proto: Option<Constant>,
        /// Seconds as for `settimeout`; the session's default if absent, `null` blocks.
        timeout: Option<Option<f64>>,
        /// Whether to attach a descriptor of each socket to the response.
        want_fd: Option<bool>,
        /// The network namespace of the pair, as for `socket.socket`. Pairs are only made in that of the broker, which
        /// `caller` can mean.
        netns: Option<Netns>,
    ) -> RpcResult<(Created, Created)>;

    /// `socket.fromfd(fd, family, type, proto=0)`: adopts a descriptor attached to the frame.
    ///
    /// The broker keeps the descriptor that arrived; the client can close its own. An error of kind
    /// `descriptor` if there is none, `ENOTSOCK` if it is not a socket.
    #[method(name = "fromfd")]
    fn fromfd(
        &self,
        /// The index of a descriptor attached to the frame, counted from 0.
        fd: Option<u32>,
        /// `AF_*`; that of the descriptor if absent or -1.
        family: Option<Constant>,
        /// `SOCK_*`; that of the descriptor if absent or -1.
        #[argument(rename = "type")]
        kind: Option<Constant>,
        /// The protocol; that of the descriptor if absent or -1.
        proto: Option<Constant>,
        /// Seconds as for `settimeout`; the session's default if absent, `null` blocks.
        timeout: Option<Option<f64>>,
    ) -> RpcResult<Created>;

    /// `socket.create_connection(address, timeout=..., source_address=None, all_errors=False)`:
    /// resolves the host, then tries each address until one accepts the connection.
    ///
    /// The timeout applies to each attempt, as in Python, and remains the timeout of the socket.
    #[method(name = "create_connection")]
    async fn create_connection(
        &self,
        /// `[host, port]`; the port may be a service name.
        address: AddressValue,
        /// Seconds; the session's default if absent, `null` blocks.
        timeout: Option<Option<f64>>,
        /// `[host, port]` to bind to first.
        source_address: Option<AddressValue>,
        /// Whether `errors` contains the error of every attempt, not only of the last one.
        all_errors: Option<bool>,
        /// The network namespace of the new socket, as for `socket.socket`. A host name is looked up in it.
        netns: Option<Netns>,
        /// Whether to open a channel of the new socket, as `channel.open` without further parameters does.
        want_channel: Option<bool>,
    ) -> RpcResult<Created>;

    /// `socket.create_server(address, *, family=AF_INET, backlog=None, reuse_port=False,
    /// dualstack_ipv6=False)`: a listening TCP socket with `SO_REUSEADDR`.
    #[method(name = "create_server")]
    async fn create_server(
        &self,
        /// `[host, port]`.
        address: AddressValue,
        /// `AF_INET` or `AF_INET6`.
        family: Option<Constant>,
        /// As for `listen`.
        backlog: Option<i64>,
        /// Whether to set `SO_REUSEPORT`.
        reuse_port: Option<bool>,
        /// Whether an IPv6 socket also serves IPv4.
        dualstack_ipv6: Option<bool>,
        /// The network namespace of the new socket, as for `socket.socket`. A host name is looked up in it.
        netns: Option<Netns>,
    ) -> RpcResult<Created>;

    /// `socket.has_dualstack_ipv6()`: whether one socket can serve IPv4 and IPv6.
    #[method(name = "has_dualstack_ipv6")]
    fn has_dualstack_ipv6(&self) -> RpcResult<bool>;

    /// `sock.accept()`: waits for a connection and accepts it.
    ///
    /// The new socket has the session's default timeout, not the listener's.
    #[method(name = "accept")]
    async fn accept(
        &self,
        handle: Handle,
        /// Whether to attach a descriptor of the new socket to the response.
        want_fd: Option<bool>,
        /// Whether to open a channel of the new socket, as `channel.open` without further parameters does.
        want_channel: Option<bool>,
    ) -> RpcResult<Accepted>;

    /// `sock.bind(address)`; resolves a host name first.
    #[method(name = "bind")]
    async fn bind(
        &self,
        handle: Handle,
        /// The address, in the form of the socket's family.
        address: AddressValue,
    ) -> RpcResult<()>;

    /// `sock.listen([backlog])`.
    #[method(name = "listen")]
    async fn listen(
        &self,
        handle: Handle,
        /// Negative counts as 0; 128 if absent.
        backlog: Option<i64>,
    ) -> RpcResult<()>;

    /// `sock.connect(address)`: waits until the connection is established.
    #[method(name = "connect")]
    async fn connect(
        &self,
        handle: Handle,
        /// The address, in the form of the socket's family.
        address: AddressValue,
    ) -> RpcResult<()>;

    /// `sock.connect_ex(address)`: like `connect`, with the error number as the result.
    ///
    /// 0 is success; a timeout returns `EAGAIN`; errors of the resolver are errors of this call too.
    #[method(name = "connect_ex")]
    async fn connect_ex(
        &self,
        handle: Handle,
        /// The address, in the form of the socket's family.
        address: AddressValue,
    ) -> RpcResult<i32>;

    /// `sock.shutdown(how)`.
    ///
    /// Waits for data that the same connection sent before it; never for a blocked receive or for
    /// other connections.
    #[method(name = "shutdown")]
    async fn shutdown(
        &self,
        handle: Handle,
        /// `SHUT_RD`, `SHUT_WR` or `SHUT_RDWR`.
        how: Constant,
    ) -> RpcResult<()>;

    /// `sock.close()`: removes the handle immediately; calls in progress on it are completed. Waits until the
    /// socket is closed, with `SO_LINGER` for its peer, unless such calls or copies keep it open.
    #[method(name = "close")]
    async fn close(&self, handle: Handle) -> RpcResult<()>;

    /// `sock.dup()`: a second handle for the same socket, with the same timeout.
    #[method(name = "dup")]
    fn dup(
        &self,
        handle: Handle,
        /// Whether to attach a descriptor of the socket to the response.
        want_fd: Option<bool>,
    ) -> RpcResult<Created>;

    /// `sock.fileno()`: attaches a descriptor of the socket to the response; the handle remains.
    ///
    /// The result is the number of attached descriptors. Only framed connections on Unix sockets
    /// carry descriptors; on others the call fails with the error `descriptor`.
    #[method(name = "fileno")]
    fn fileno(&self, handle: Handle) -> RpcResult<u32>;

    /// `sock.detach()`: attaches a descriptor of the socket to the response, and removes the handle.
    #[method(name = "detach")]
    fn detach(&self, handle: Handle) -> RpcResult<u32>;

    /// `sock.getsockname()`.
    #[method(name = "getsockname")]
    fn getsockname(&self, handle: Handle) -> RpcResult<AddressValue>;

    /// `sock.getpeername()`.
    #[method(name = "getpeername")]
    fn getpeername(&self, handle: Handle) -> RpcResult<AddressValue>;

    /// The bytes that a TCP connection has sent and received, as the kernel counts them (`TCP_INFO`, tcp(7)).
    ///
    /// After the end of the process that served a persistent session, the difference to an earlier result is what a
    /// call has sent or received whose response was lost. `EOPNOTSUPP` for another socket.
    #[method(name = "position")]
    fn position(&self, handle: Handle) -> RpcResult<Position>;

    /// Continues a TCP stream of a session with `exactly_once` after a change of `epoch`: drops what is still queued of the
    /// bytes that the client has received. The result is how many bytes receivers have taken since the connection began.
    ///
    /// Fails with `interrupted` once if bytes are lost, and if the client does not know how many it has received and the
    /// next receive may return some again. After that, and while the process is the same, it has no effect.
    #[method(name = "resume")]
    fn resume(
        &self,
        handle: Handle,
        /// How many bytes the client has received since the connection began; `null` if it does not know.
        received: Option<u64>,
    ) -> RpcResult<u64>;

    /// `sock.family`, `sock.type` and `sock.proto` in one result, with the timeout.
    #[method(name = "attributes")]
    fn attributes(&self, handle: Handle) -> RpcResult<Attributes>;

    /// `select.poll` over handles: waits until one of them has an event.
    ///
    /// The result lists handles with events, as `poll.poll()` does; `POLLERR`, `POLLHUP` and, for an
    /// unknown handle, `POLLNVAL` are always reported. Unlike Python's, the timeout is in seconds.
    #[method(name = "poll")]
    async fn poll(
        &self,
        /// Pairs of handle and `POLL*` events.
        fds: Vec<(Handle, Constant)>,
        /// Seconds; no timeout if absent or `null`.
        timeout: Option<f64>,
    ) -> RpcResult<Vec<(Handle, i32)>>;
}
