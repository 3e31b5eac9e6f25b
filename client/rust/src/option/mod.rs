//! Socket options as typed constants: level, number and the type of the value in one.

mod value;

use std::fmt;
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::error::{Error, Result};

pub use value::{Membership4, Membership6, OptionType, RawValue};

/// A socket option whose value is a `T`.
///
/// An option that is not listed in [`crate::option`] can be made by [`SocketOption::new`].
pub struct SocketOption<T> {
    level: i32,
    number: i32,
    value: PhantomData<fn() -> T>,
}

impl<T> SocketOption<T> {
    /// The option with this level (`SOL_*`, `IPPROTO_*`) and number.
    pub const fn new(level: i32, number: i32) -> Self {
        Self { level, number, value: PhantomData }
    }

    /// Its level.
    pub const fn level(&self) -> i32 {
        self.level
    }

    /// Its number.
    pub const fn number(&self) -> i32 {
        self.number
    }
}

impl<T> Clone for SocketOption<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SocketOption<T> {}

impl<T> fmt::Debug for SocketOption<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SocketOption({}, {})", self.level, self.number)
    }
}

/// Reads what the kernel gave for an option.
pub(crate) fn read<T: OptionType>(option: SocketOption<T>, raw: RawValue) -> Result<T> {
    T::from_raw(raw).ok_or_else(|| Error::Argument {
        exception: "TypeError".to_owned(),
        call: "getsockopt".to_owned(),
        message: format!("{option:?} has a value of another type"),
    })
}

const SOL_SOCKET: i32 = 1;
const IPPROTO_IP: i32 = 0;
const IPPROTO_TCP: i32 = 6;
const IPPROTO_IPV6: i32 = 41;
const SOL_PACKET: i32 = 263;

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $type:ty = ($level:ident, $number:expr);)*) => {
        $($(#[$doc])* pub const $name: SocketOption<$type> = SocketOption::new($level, $number);)*

        #[cfg(test)]
        const LISTED: &[(&str, i32)] = &[$((stringify!($name), $number)),*];
    };
}

options! {
    /// Bind although connections of an earlier listener are still in their last state.
    SO_REUSEADDR: bool = (SOL_SOCKET, 2);
    /// Takes the pending error of the socket: 0 or an error number. It can only be read.
    SO_ERROR: i32 = (SOL_SOCKET, 4);
    /// Send to hosts of directly connected networks only.
    SO_DONTROUTE: bool = (SOL_SOCKET, 5);
    /// Send to broadcast addresses.
    SO_BROADCAST: bool = (SOL_SOCKET, 6);
    /// The size of the send buffer in bytes. The kernel doubles what is set.
    SO_SNDBUF: i32 = (SOL_SOCKET, 7);
    /// The size of the receive buffer in bytes. The kernel doubles what is set.
    SO_RCVBUF: i32 = (SOL_SOCKET, 8);
    /// Ask an idle peer from time to time whether it is there.
    SO_KEEPALIVE: bool = (SOL_SOCKET, 9);
    /// Leave out-of-band data in line.
    SO_OOBINLINE: bool = (SOL_SOCKET, 10);
    /// The priority of what is sent, 0 to 6 without privileges.
    SO_PRIORITY: i32 = (SOL_SOCKET, 12);
    /// Wait on closing until what was sent has arrived.
    SO_LINGER: Option<Duration> = (SOL_SOCKET, 13);
    /// Let several sockets bind the same address, and share what comes.
    SO_REUSEPORT: bool = (SOL_SOCKET, 15);
    /// Tell who sent with each message of `AF_UNIX`.
    SO_PASSCRED: bool = (SOL_SOCKET, 16);
    /// Use this interface only; empty for any.
    SO_BINDTODEVICE: String = (SOL_SOCKET, 25);
    /// Tell when each message came, as ancillary data.
    SO_TIMESTAMP: bool = (SOL_SOCKET, 29);
    /// Whether it listens. It can only be read.
    SO_ACCEPTCONN: bool = (SOL_SOCKET, 30);
    /// The mark of what is sent, for routing and filters.
    SO_MARK: i32 = (SOL_SOCKET, 36);
    /// The type of service of what is sent.
    IP_TOS: i32 = (IPPROTO_IP, 1);
    /// How many hops a packet may take: 1 to 255.
    IP_TTL: i32 = (IPPROTO_IP, 2);
    /// The sender writes the IP header itself, on a raw socket.
    IP_HDRINCL: bool = (IPPROTO_IP, 3);
    /// Tell where each packet came in, as ancillary data.
    IP_PKTINFO: bool = (IPPROTO_IP, 8);
    /// Keep errors of the network in a queue.
    IP_RECVERR: bool = (IPPROTO_IP, 11);
    /// Tell the hops left of each packet, as ancillary data.
    IP_RECVTTL: bool = (IPPROTO_IP, 12);
    /// Bind and send with addresses that are not the host's.
    IP_TRANSPARENT: bool = (IPPROTO_IP, 19);
    /// The interface for multicast, by its address.
    IP_MULTICAST_IF: Ipv4Addr = (IPPROTO_IP, 32);
    /// How many hops a multicast packet may take.
    IP_MULTICAST_TTL: i32 = (IPPROTO_IP, 33);
    /// Whether own multicast packets come back.
    IP_MULTICAST_LOOP: bool = (IPPROTO_IP, 34);
    /// Joins a multicast group.
    IP_ADD_MEMBERSHIP: Membership4 = (IPPROTO_IP, 35);
    /// Leaves a multicast group.
    IP_DROP_MEMBERSHIP: Membership4 = (IPPROTO_IP, 36);
    /// How many hops a packet may take: 0 to 255, -1 for the default.
    IPV6_UNICAST_HOPS: i32 = (IPPROTO_IPV6, 16);
    /// The interface for multicast, by its index.
    IPV6_MULTICAST_IF: i32 = (IPPROTO_IPV6, 17);
    /// How many hops a multicast packet may take.
    IPV6_MULTICAST_HOPS: i32 = (IPPROTO_IPV6, 18);
    /// Whether own multicast packets come back.
    IPV6_MULTICAST_LOOP: bool = (IPPROTO_IPV6, 19);
    /// Joins a multicast group.
    IPV6_JOIN_GROUP: Membership6 = (IPPROTO_IPV6, 20);
    /// Leaves a multicast group.
    IPV6_LEAVE_GROUP: Membership6 = (IPPROTO_IPV6, 21);
    /// Serve IPv6 only.
    IPV6_V6ONLY: bool = (IPPROTO_IPV6, 26);
    /// Tell where each packet came in, as ancillary data.
    IPV6_RECVPKTINFO: bool = (IPPROTO_IPV6, 49);
    /// Tell the hops left of each packet, as ancillary data.
    IPV6_RECVHOPLIMIT: bool = (IPPROTO_IPV6, 51);
    /// The traffic class of what is sent.
    IPV6_TCLASS: i32 = (IPPROTO_IPV6, 67);
    /// Send small segments at once.
    TCP_NODELAY: bool = (IPPROTO_TCP, 1);
    /// The largest segment in bytes.
    TCP_MAXSEG: i32 = (IPPROTO_TCP, 2);
    /// Send no partial segments.
    TCP_CORK: bool = (IPPROTO_TCP, 3);
    /// Seconds without traffic before the first question of `SO_KEEPALIVE`.
    TCP_KEEPIDLE: i32 = (IPPROTO_TCP, 4);
    /// Seconds between questions.
    TCP_KEEPINTVL: i32 = (IPPROTO_TCP, 5);
    /// How many questions are left unanswered before the connection ends.
    TCP_KEEPCNT: i32 = (IPPROTO_TCP, 6);
    /// State and counters of a connection, `struct tcp_info`. It can only be read.
    TCP_INFO: Vec<u8> = (IPPROTO_TCP, 11);
    /// Acknowledge at once.
    TCP_QUICKACK: bool = (IPPROTO_TCP, 12);
    /// The name of the congestion control.
    TCP_CONGESTION: String = (IPPROTO_TCP, 13);
    /// Milliseconds that data may stay unacknowledged before the connection ends.
    TCP_USER_TIMEOUT: i32 = (IPPROTO_TCP, 18);
    /// How many connections may wait that began with data.
    TCP_FASTOPEN: i32 = (IPPROTO_TCP, 23);
    /// Packets seen and dropped since the last look, `struct tpacket_stats`. It can only be read.
    PACKET_STATISTICS: Vec<u8> = (SOL_PACKET, 6);
}

#[cfg(test)]
mod tests {
    use super::*;
    use sockbroker_proto::constant::number;

    #[test]
    fn the_numbers_are_those_of_the_contract() {
        let mut known = 0;
        for (name, own) in LISTED {
            if let Some(found) = number(name) {
                assert_eq!(found, i64::from(*own), "{name}");
                known += 1;
            }
        }
        assert!(known > LISTED.len() / 2, "only {known} of {} are in the contract", LISTED.len());
    }
}
