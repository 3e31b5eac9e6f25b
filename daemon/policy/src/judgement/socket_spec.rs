//! A socket's domain, type and protocol as rules judge them.

use sockbroker_proto::socket_spec::SocketSpec;

use crate::judgement::membership::is_extension;

/// `SOCK_PACKET`: with `AF_INET` the kernel makes an `AF_PACKET` socket (`__sock_create`).
pub const SOCK_PACKET: i32 = 10;

/// The socket of a capture that is a stream of packets, for rules.
pub(super) const CAPTURE_SOCKET: SocketSpec =
    SocketSpec { domain: libc::AF_PACKET, ty: libc::SOCK_RAW, protocol: 0 };

/// What the policy derives from a [`SocketSpec`].
pub trait JudgedSocket: Copy {
    /// As rules judge it: the family that the kernel makes of it, and the protocol that 0 selects.
    #[must_use]
    fn judged(self) -> Self;

    /// Whether what is sent begins with an extension header of IPv6.
    fn sends_extensions(self) -> bool;

    /// Whether the holder of its descriptor can do what only its creation was checked for.
    fn is_unrevocable(self) -> bool;

    /// Whether data goes to the peer even if a call names another address.
    fn has_connections(self) -> bool;

    /// Whether it is a packet socket.
    fn is_packet(self) -> bool;
}

impl JudgedSocket for SocketSpec {
    fn judged(self) -> Self {
        let Self { domain: family, ty: kind, protocol: proto } = self;
        match (family, kind, proto) {
            (libc::AF_INET, SOCK_PACKET, _) => Self { domain: libc::AF_PACKET, ..self },
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, 0) => {
                Self { protocol: libc::IPPROTO_TCP, ..self }
            }
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM, 0) => {
                Self { protocol: libc::IPPROTO_UDP, ..self }
            }
            // The kernel does the same (unix_create).
            (libc::AF_UNIX, libc::SOCK_RAW, _) => Self { ty: libc::SOCK_DGRAM, ..self },
            _ => self,
        }
    }

    fn sends_extensions(self) -> bool {
        self.domain == libc::AF_INET6 && self.ty == libc::SOCK_RAW && is_extension(self.protocol)
    }

    fn is_unrevocable(self) -> bool {
        let families = [libc::AF_PACKET, libc::AF_NETLINK, libc::AF_KEY, libc::AF_XDP];
        self.judged().ty == libc::SOCK_RAW || families.contains(&self.judged().domain)
    }

    fn has_connections(self) -> bool {
        // One-to-many SCTP has many peers, named by each message.
        let many = self.ty == libc::SOCK_SEQPACKET && self.protocol == libc::IPPROTO_SCTP;
        [libc::SOCK_STREAM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP].contains(&self.ty) && !many
    }

    fn is_packet(self) -> bool {
        self.judged().domain == libc::AF_PACKET
    }
}
