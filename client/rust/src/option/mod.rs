//! Socket options as typed constants: each has a level, a number and the type of its value.

mod value;

use std::fmt;
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::error::{Error, Result};

pub use value::{Membership4, Membership6, OptionType, RawValue};

/// A socket option whose value is a `T`.
///
/// [`SocketOption::new`] makes options that [`crate::option`] does not list.
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

    /// The level.
    pub const fn level(&self) -> i32 {
        self.level
    }

    /// The number.
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

/// Converts the value that the kernel returned for an option.
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
    /// Allows to bind an address whose earlier connections are in `TIME_WAIT`.
    SO_REUSEADDR: bool = (SOL_SOCKET, 2);
    /// The pending error of the socket, which reading clears: 0 or an error number. Read-only.
    SO_ERROR: i32 = (SOL_SOCKET, 4);
    /// Sends only to hosts of directly connected networks.
    SO_DONTROUTE: bool = (SOL_SOCKET, 5);
    /// Allows to send to broadcast addresses.
    SO_BROADCAST: bool = (SOL_SOCKET, 6);
    /// The size of the send buffer in bytes. The kernel doubles the value that is set.
    SO_SNDBUF: i32 = (SOL_SOCKET, 7);
    /// The size of the receive buffer in bytes. The kernel doubles the value that is set.
    SO_RCVBUF: i32 = (SOL_SOCKET, 8);
    /// Sends keep-alive probes on an idle connection.
    SO_KEEPALIVE: bool = (SOL_SOCKET, 9);
    /// Receives out-of-band data in line.
    SO_OOBINLINE: bool = (SOL_SOCKET, 10);
    /// The priority of sent packets: 0 to 6 without privileges.
    SO_PRIORITY: i32 = (SOL_SOCKET, 12);
    /// Waits on closing until sent data are acknowledged.
    SO_LINGER: Option<Duration> = (SOL_SOCKET, 13);
    /// Allows several sockets to bind one address; the kernel distributes connections and datagrams.
    SO_REUSEPORT: bool = (SOL_SOCKET, 15);
    /// Receives the sender's credentials with each message of `AF_UNIX`, as ancillary data.
    SO_PASSCRED: bool = (SOL_SOCKET, 16);
    /// The only interface to use; empty for any.
    SO_BINDTODEVICE: String = (SOL_SOCKET, 25);
    /// Receives a timestamp with each message, as ancillary data.
    SO_TIMESTAMP: bool = (SOL_SOCKET, 29);
    /// Whether the socket listens. Read-only.
    SO_ACCEPTCONN: bool = (SOL_SOCKET, 30);
    /// The mark of sent packets, for routing and filters.
    SO_MARK: i32 = (SOL_SOCKET, 36);
    /// The type of service of sent packets.
    IP_TOS: i32 = (IPPROTO_IP, 1);
    /// The time to live of sent packets: 1 to 255 hops.
    IP_TTL: i32 = (IPPROTO_IP, 2);
    /// The caller supplies the IP header, on a raw socket.
    IP_HDRINCL: bool = (IPPROTO_IP, 3);
    /// Receives the incoming interface and address with each packet, as ancillary data.
    IP_PKTINFO: bool = (IPPROTO_IP, 8);
    /// Queues network errors, for [`Flags::ERRQUEUE`](crate::Flags::ERRQUEUE).
    IP_RECVERR: bool = (IPPROTO_IP, 11);
    /// Receives the remaining hops with each packet, as ancillary data.
    IP_RECVTTL: bool = (IPPROTO_IP, 12);
    /// Allows to bind and send with addresses that are not the host's.
    IP_TRANSPARENT: bool = (IPPROTO_IP, 19);
    /// The interface for sent multicast packets, by its address.
    IP_MULTICAST_IF: Ipv4Addr = (IPPROTO_IP, 32);
    /// The time to live of sent multicast packets, in hops.
    IP_MULTICAST_TTL: i32 = (IPPROTO_IP, 33);
    /// Whether sent multicast packets are looped back to this host.
    IP_MULTICAST_LOOP: bool = (IPPROTO_IP, 34);
    /// Joins a multicast group.
    IP_ADD_MEMBERSHIP: Membership4 = (IPPROTO_IP, 35);
    /// Leaves a multicast group.
    IP_DROP_MEMBERSHIP: Membership4 = (IPPROTO_IP, 36);
    /// The hop limit of sent packets: 0 to 255, or -1 for the default.
    IPV6_UNICAST_HOPS: i32 = (IPPROTO_IPV6, 16);
    /// The interface for sent multicast packets, by its index.
    IPV6_MULTICAST_IF: i32 = (IPPROTO_IPV6, 17);
    /// The time to live of sent multicast packets, in hops.
    IPV6_MULTICAST_HOPS: i32 = (IPPROTO_IPV6, 18);
    /// Whether sent multicast packets are looped back to this host.
    IPV6_MULTICAST_LOOP: bool = (IPPROTO_IPV6, 19);
    /// Joins a multicast group.
    IPV6_JOIN_GROUP: Membership6 = (IPPROTO_IPV6, 20);
    /// Leaves a multicast group.
    IPV6_LEAVE_GROUP: Membership6 = (IPPROTO_IPV6, 21);
    /// Restricts the socket to IPv6.
    IPV6_V6ONLY: bool = (IPPROTO_IPV6, 26);
    /// Receives the incoming interface and address with each packet, as ancillary data.
    IPV6_RECVPKTINFO: bool = (IPPROTO_IPV6, 49);
    /// Receives the remaining hops with each packet, as ancillary data.
    IPV6_RECVHOPLIMIT: bool = (IPPROTO_IPV6, 51);
    /// The traffic class of sent packets.
    IPV6_TCLASS: i32 = (IPPROTO_IPV6, 67);
    /// Sends small segments at once, without Nagle's algorithm.
    TCP_NODELAY: bool = (IPPROTO_TCP, 1);
    /// The maximum segment size in bytes.
    TCP_MAXSEG: i32 = (IPPROTO_TCP, 2);
    /// Holds partial segments back.
    TCP_CORK: bool = (IPPROTO_TCP, 3);
    /// Seconds without traffic before the first keep-alive probe.
    TCP_KEEPIDLE: i32 = (IPPROTO_TCP, 4);
    /// Seconds between keep-alive probes.
    TCP_KEEPINTVL: i32 = (IPPROTO_TCP, 5);
    /// How many unanswered keep-alive probes end the connection.
    TCP_KEEPCNT: i32 = (IPPROTO_TCP, 6);
    /// State and counters of a connection, `struct tcp_info`. Read-only.
    TCP_INFO: Vec<u8> = (IPPROTO_TCP, 11);
    /// Acknowledges at once.
    TCP_QUICKACK: bool = (IPPROTO_TCP, 12);
    /// The name of the congestion control algorithm.
    TCP_CONGESTION: String = (IPPROTO_TCP, 13);
    /// The time in milliseconds after which unacknowledged data end the connection.
    TCP_USER_TIMEOUT: i32 = (IPPROTO_TCP, 18);
    /// The most pending TCP Fast Open requests of a listener.
    TCP_FASTOPEN: i32 = (IPPROTO_TCP, 23);
    /// Packets received and dropped since the last read, `struct tpacket_stats`. Read-only.
    PACKET_STATISTICS: Vec<u8> = (SOL_PACKET, 6);
}

#[cfg(test)]
mod tests {
    use super::*;
    use sockbroker_proto::constant::number;

    #[test]
    fn numbers_match_the_contract() {
        let mut known = 0;
        for (name, ours) in LISTED {
            if let Some(found) = number(name) {
                assert_eq!(found, i64::from(*ours), "{name}");
                known += 1;
            }
        }
        assert!(known > LISTED.len() / 2, "only {known} of {} are in the contract", LISTED.len());
    }
}
