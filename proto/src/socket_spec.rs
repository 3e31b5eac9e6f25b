//! What kind of socket: domain, type and protocol.

/// The three arguments of `socket(2)`, without the flags of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketSpec {
    /// `AF_*`, which Python calls the family.
    pub domain: i32,
    /// `SOCK_*`.
    pub ty: i32,
    /// `IPPROTO_*`, or what the domain has in its place.
    pub protocol: i32,
}
