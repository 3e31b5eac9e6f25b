//! The domain, type and protocol of a socket.

/// The three arguments of `socket(2)`, without the flags of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketSpec {
    /// `AF_*`, which Python calls the family.
    pub domain: i32,
    /// `SOCK_*`.
    pub ty: i32,
    /// `IPPROTO_*`, or the domain's own numbers.
    pub protocol: i32,
}
