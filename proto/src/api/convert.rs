//! Conversions that use neither a socket nor the kernel.

use crate::bytes::Bytes;
use crate::constant::Constant;

/// Conversions.
#[sockbroker_proto_macros::api(namespace = "socket")]
pub trait Convert {
    /// `socket.ntohl(x)`.
    #[method(name = "ntohl")]
    fn ntohl(
        &self,
        /// 0 to 2^32 - 1.
        x: i64,
    ) -> RpcResult<u32>;

    /// `socket.ntohs(x)`.
    #[method(name = "ntohs")]
    fn ntohs(
        &self,
        /// 0 to 65535.
        x: i64,
    ) -> RpcResult<u16>;

    /// `socket.htonl(x)`.
    #[method(name = "htonl")]
    fn htonl(
        &self,
        /// 0 to 2^32 - 1.
        x: i64,
    ) -> RpcResult<u32>;

    /// `socket.htons(x)`.
    #[method(name = "htons")]
    fn htons(
        &self,
        /// 0 to 65535.
        x: i64,
    ) -> RpcResult<u16>;

    /// `socket.inet_aton(ip_string)`: 4 bytes, network order; takes the short forms of `inet_aton(3)`.
    #[method(name = "inet_aton")]
    fn inet_aton(
        &self,
        /// Such as `127.1`.
        ip_string: String,
    ) -> RpcResult<Bytes>;

    /// `socket.inet_ntoa(packed_ip)`.
    #[method(name = "inet_ntoa")]
    fn inet_ntoa(
        &self,
        /// 4 bytes, network order.
        packed_ip: Bytes,
    ) -> RpcResult<String>;

    /// `socket.inet_pton(address_family, ip_string)`: 4 or 16 bytes, network order.
    #[method(name = "inet_pton")]
    fn inet_pton(
        &self,
        /// `AF_INET` or `AF_INET6`.
        address_family: Constant,
        /// The address as text.
        ip_string: String,
    ) -> RpcResult<Bytes>;

    /// `socket.inet_ntop(address_family, packed_ip)`.
    #[method(name = "inet_ntop")]
    fn inet_ntop(
        &self,
        /// `AF_INET` or `AF_INET6`.
        address_family: Constant,
        /// 4 or 16 bytes, network order.
        packed_ip: Bytes,
    ) -> RpcResult<String>;

    /// `socket.CMSG_LEN(length)`: the length of an item with `length` bytes of data, without padding.
    #[method(name = "CMSG_LEN")]
    fn cmsg_len(
        &self,
        /// The number of bytes of data.
        length: i64,
    ) -> RpcResult<u64>;

    /// `socket.CMSG_SPACE(length)`: the space of such an item, with padding.
    #[method(name = "CMSG_SPACE")]
    fn cmsg_space(
        &self,
        /// The number of bytes of data.
        length: i64,
    ) -> RpcResult<u64>;
}
