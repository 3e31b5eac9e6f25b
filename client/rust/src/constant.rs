//! Typed constants: address families, socket types, protocols, flags, events.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use serde::{Deserialize, Serialize};

/// Defines a type of named numbers. `From<i32>` makes a value of any other number.
macro_rules! constants {
    ($(#[$doc:meta])* $type:ident { $($(#[$item:meta])* $name:ident = $number:expr;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(i32);

        impl $type {
            $($(#[$item])* pub const $name: Self = Self($number);)*

            /// The number in the kernel's interface.
            pub const fn number(self) -> i32 {
                self.0
            }
        }

        impl From<i32> for $type {
            fn from(number: i32) -> Self {
                Self(number)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let name = match *self {
                    $(Self::$name => stringify!($name),)*
                    Self(number) => return number.fmt(f),
                };
                f.write_str(name)
            }
        }
    };
}

constants! {
    /// The address family of a socket, `AF_*` of `socket(2)`.
    Domain {
        /// `AF_UNIX`. See [`Address`](crate::Address) for whose files a path names.
        UNIX = 1;
        /// `AF_INET`.
        IPV4 = 2;
        /// `AF_INET6`.
        IPV6 = 10;
        /// `AF_NETLINK`.
        NETLINK = 16;
        /// `AF_PACKET`.
        PACKET = 17;
        /// `AF_CAN`.
        CAN = 29;
        /// `AF_TIPC`.
        TIPC = 30;
        /// `AF_BLUETOOTH`.
        BLUETOOTH = 31;
        /// `AF_ALG`.
        ALG = 38;
        /// `AF_VSOCK`.
        VSOCK = 40;
        /// `AF_QIPCRTR`.
        QIPCRTR = 42;
    }
}

constants! {
    /// The type of a socket, `SOCK_*` of `socket(2)`.
    Type {
        /// `SOCK_STREAM`.
        STREAM = 1;
        /// `SOCK_DGRAM`.
        DGRAM = 2;
        /// `SOCK_RAW`.
        RAW = 3;
        /// `SOCK_SEQPACKET`.
        SEQPACKET = 5;
    }
}

constants! {
    /// The protocol of a socket, `IPPROTO_*` for the internet families.
    Protocol {
        /// The kernel's default for the family and type.
        DEFAULT = 0;
        /// `IPPROTO_ICMP`.
        ICMPV4 = 1;
        /// `IPPROTO_TCP`.
        TCP = 6;
        /// `IPPROTO_UDP`.
        UDP = 17;
        /// `IPPROTO_ICMPV6`.
        ICMPV6 = 58;
        /// `IPPROTO_SCTP`.
        SCTP = 132;
        /// `IPPROTO_UDPLITE`.
        UDPLITE = 136;
        /// `IPPROTO_RAW`: the sender writes the IP header.
        RAW = 255;
        /// `IPPROTO_MPTCP`.
        MPTCP = 262;
    }
}

impl Protocol {
    /// The protocol of a packet socket: an Ethernet type in host byte order, such as `0x0800`, or 3
    /// (`ETH_P_ALL`) for all. The result is in network byte order, as `packet(7)` requires.
    pub const fn ethernet(number: u16) -> Self {
        Self(number.to_be() as i32)
    }
}

impl Default for Protocol {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// Flags of a transfer, `MSG_*` of `send(2)` and `recv(2)`, combined with `|`.
    Flags {
        /// No flag.
        NONE = 0;
        /// `MSG_OOB`: out-of-band data.
        OOB = 1;
        /// `MSG_PEEK`: keep the received data in the queue.
        PEEK = 2;
        /// `MSG_DONTROUTE`: send only to hosts of directly connected networks.
        DONTROUTE = 4;
        /// `MSG_CTRUNC`, in received messages: ancillary data did not fit.
        CTRUNC = 8;
        /// `MSG_TRUNC`: return the true length of a datagram. In received messages: the datagram did not fit.
        TRUNC = 0x20;
        /// `MSG_DONTWAIT`: fail with `WouldBlock` instead of waiting.
        DONTWAIT = 0x40;
        /// `MSG_EOR`: the end of a record.
        EOR = 0x80;
        /// `MSG_WAITALL`: wait until the buffer is full.
        WAITALL = 0x100;
        /// `MSG_ERRQUEUE`: receive from the error queue.
        ERRQUEUE = 0x2000;
        /// `MSG_MORE`: more data follow.
        MORE = 0x8000;
    }
}

impl Flags {
    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl Default for Flags {
    fn default() -> Self {
        Self::NONE
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

constants! {
    /// Events of `poll(2)`, combined with `|`.
    Events {
        /// No event. `ERR`, `HUP` and `NVAL` are always reported.
        NONE = 0;
        /// `POLLIN`: data to receive, or a connection to accept.
        IN = 1;
        /// `POLLPRI`: out-of-band data to receive.
        PRI = 2;
        /// `POLLOUT`: space in the send buffer.
        OUT = 4;
        /// `POLLERR`: a pending error. Always reported.
        ERR = 8;
        /// `POLLHUP`: both directions have ended. Always reported.
        HUP = 0x10;
        /// `POLLNVAL`: no such handle. Always reported.
        NVAL = 0x20;
        /// `POLLRDHUP`: the peer has ended its direction.
        RDHUP = 0x2000;
    }
}

impl Events {
    /// Whether all of `events` are set.
    pub const fn contains(self, events: Self) -> bool {
        self.0 & events.0 == events.0
    }
}

impl BitOr for Events {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sockbroker_proto::constant::number;

    #[test]
    fn numbers_match_the_contract() {
        for (name, ours) in [
            ("AF_UNIX", Domain::UNIX.0),
            ("AF_INET6", Domain::IPV6.0),
            ("AF_PACKET", Domain::PACKET.0),
            ("AF_VSOCK", Domain::VSOCK.0),
            ("SOCK_SEQPACKET", Type::SEQPACKET.0),
            ("IPPROTO_ICMPV6", Protocol::ICMPV6.0),
            ("IPPROTO_MPTCP", Protocol::MPTCP.0),
            ("MSG_WAITALL", Flags::WAITALL.0),
            ("MSG_ERRQUEUE", Flags::ERRQUEUE.0),
            ("MSG_MORE", Flags::MORE.0),
            ("POLLRDHUP", Events::RDHUP.0),
            ("POLLNVAL", Events::NVAL.0),
        ] {
            assert_eq!(number(name), Some(ours.into()), "{name}");
        }
    }

    #[test]
    fn display_shows_the_name_if_there_is_one() {
        assert_eq!(Domain::IPV6.to_string(), "IPV6");
        assert_eq!(Domain::from(99).to_string(), "99");
        assert!((Flags::PEEK | Flags::DONTWAIT).contains(Flags::PEEK));
    }
}
