//! Names: the resolver and the databases of services and protocols.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::{AddressItem, AddressValue};
use crate::api::values::Netns;
use crate::constant::Constant;

/// One result of `getaddrinfo`: `[family, type, proto, canonname, sockaddr]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AddressInfo(
    /// `AF_*`.
    pub i32,
    /// `SOCK_*`.
    pub i32,
    /// `IPPROTO_*`.
    pub i32,
    /// The canonical name, if `AI_CANONNAME` is set; otherwise empty.
    pub String,
    /// The address.
    pub AddressValue,
);

/// A host: `[hostname, aliaslist, ipaddrlist]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostEntry(
    /// The primary name.
    pub String,
    /// The aliases.
    pub Vec<String>,
    /// Addresses of one family, as text.
    pub Vec<String>,
);

/// A service: its name or its port.
pub type Service = AddressItem;

/// Names.
///
/// The look-ups run in the broker, with its configuration, and do not block other calls.
#[sockbroker_proto_macros::api(namespace = "socket")]
pub trait Names {
    /// `socket.getaddrinfo(host, port, family=AF_UNSPEC, type=0, proto=0, flags=0)`.
    #[method(name = "getaddrinfo")]
    async fn getaddrinfo(
        &self,
        /// A name or address; `null` for the wildcard or loopback address.
        host: Option<String>,
        /// A number, a service name, or `null`.
        port: Option<Service>,
        /// `AF_*`.
        family: Option<Constant>,
        /// `SOCK_*`.
        #[argument(rename = "type")]
        kind: Option<Constant>,
        /// `IPPROTO_*`.
        proto: Option<Constant>,
        /// `AI_*`.
        flags: Option<Constant>,
        /// The network namespace in which the host is looked up, as for `socket.socket`: `/etc/netns/NAME` has the files.
        netns: Option<Netns>,
    ) -> RpcResult<Vec<AddressInfo>>;

    /// `socket.getfqdn([name])`.
    #[method(name = "getfqdn")]
    async fn getfqdn(
        &self,
        /// A name; the broker's own host if absent, empty or `0.0.0.0`.
        name: Option<String>,
        /// The network namespace, as for `getaddrinfo`.
        netns: Option<Netns>,
    ) -> RpcResult<String>;

    /// `socket.gethostbyname(hostname)`: one IPv4 address as text.
    #[method(name = "gethostbyname")]
    async fn gethostbyname(
        &self,
        /// A name or address.
        hostname: String,
        /// The network namespace, as for `getaddrinfo`.
        netns: Option<Netns>,
    ) -> RpcResult<String>;

    /// `socket.gethostbyname_ex(hostname)`: name, aliases and IPv4 addresses.
    #[method(name = "gethostbyname_ex")]
    async fn gethostbyname_ex(
        &self,
        /// A name or address.
        hostname: String,
        /// The network namespace, as for `getaddrinfo`.
        netns: Option<Netns>,
    ) -> RpcResult<HostEntry>;

    /// `socket.gethostbyaddr(ip_address)`: name, aliases and addresses.
    #[method(name = "gethostbyaddr")]
    async fn gethostbyaddr(
        &self,
        /// An IPv4 or IPv6 address, or a name that is resolved first.
        ip_address: String,
        /// The network namespace, as for `getaddrinfo`.
        netns: Option<Netns>,
    ) -> RpcResult<HostEntry>;

    /// `socket.getnameinfo(sockaddr, flags)`: host and service as text.
    #[method(name = "getnameinfo")]
    async fn getnameinfo(
        &self,
        /// `[host, port]` or `[host, port, flowinfo, scope_id]`; the host must be numeric.
        sockaddr: AddressValue,
        /// `NI_*`.
        flags: Constant,
        /// The network namespace, as for `getaddrinfo`.
        netns: Option<Netns>,
    ) -> RpcResult<(String, String)>;

    /// `socket.getprotobyname(protocolname)`.
    #[method(name = "getprotobyname")]
    async fn getprotobyname(
        &self,
        /// The name of the protocol, such as `icmp`.
        protocolname: String,
    ) -> RpcResult<i32>;

    /// `socket.getservbyname(servicename[, protocolname])`: the port, host order.
    #[method(name = "getservbyname")]
    async fn getservbyname(
        &self,
        /// The name of the service, such as `http`.
        servicename: String,
        /// `tcp` or `udp`; any if absent.
        protocolname: Option<String>,
    ) -> RpcResult<u16>;

    /// `socket.getservbyport(port[, protocolname])`.
    #[method(name = "getservbyport")]
    async fn getservbyport(
        &self,
        /// 0 to 65535, host order.
        port: i64,
        /// `tcp` or `udp`; any if absent.
        protocolname: Option<String>,
    ) -> RpcResult<String>;
}
