//! What to do about a reported call. Pure: no system call is made here.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::refusal::constant_name;

/// An architecture of system calls: its `AUDIT_ARCH_*` value and the numbers of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Architecture {
    pub(crate) audit: u32,
    pub(crate) socket: u32,
    pub(crate) bind: u32,
    pub(crate) setsockopt: u32,
    /// One call for all of sockets, whose arguments are in memory.
    pub(crate) socketcall: Option<u32>,
}

/// x86-64, i386 and aarch64. Programs of other architectures run without delegation.
pub(crate) const ARCHITECTURES: [Architecture; 3] = [
    Architecture { audit: 0xc000_003e, socket: 41, bind: 49, setsockopt: 54, socketcall: None },
    Architecture {
        audit: 0x4000_0003,
        socket: 359,
        bind: 361,
        setsockopt: 366,
        socketcall: Some(102),
    },
    Architecture { audit: 0xc000_00b7, socket: 198, bind: 200, setsockopt: 208, socketcall: None },
];

/// The calls that the filter reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reported {
    Socket,
    Bind,
    SetOption,
}

impl Reported {
    /// The number in `socketcall(2)`.
    pub(crate) fn sub_call(self) -> u32 {
        match self {
            Self::Socket => 1,
            Self::Bind => 2,
            Self::SetOption => 14,
        }
    }
}

/// An option that needs a privilege, or that libpcap must not set on a socket whose filter is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PrivilegedOption {
    pub(crate) level: i32,
    pub(crate) name: i32,
    /// Its name for people.
    pub(crate) text: &'static str,
    pub(crate) kind: OptionKind,
}

/// How an option is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionKind {
    /// A C `int`.
    Int,
    /// Bytes, such as the name of an interface.
    Bytes,
    /// `SO_ATTACH_FILTER`: if the filter is locked, the program has to filter itself.
    AttachFilter,
    /// `SO_DETACH_FILTER`: if the filter is locked, there is nothing to remove.
    DetachFilter,
}

const fn option(level: i32, name: i32, text: &'static str, kind: OptionKind) -> PrivilegedOption {
    PrivilegedOption { level, name, text, kind }
}

/// The options that the filter reports.
pub(crate) const OPTIONS: [PrivilegedOption; 12] = [
    option(libc::SOL_SOCKET, libc::SO_DEBUG, "SO_DEBUG", OptionKind::Int),
    option(libc::SOL_SOCKET, libc::SO_PRIORITY, "SO_PRIORITY", OptionKind::Int),
    option(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, "SO_BINDTODEVICE", OptionKind::Bytes),
    option(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, "SO_ATTACH_FILTER", OptionKind::AttachFilter),
    option(libc::SOL_SOCKET, libc::SO_DETACH_FILTER, "SO_DETACH_FILTER", OptionKind::DetachFilter),
    option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, "SO_SNDBUFFORCE", OptionKind::Int),
    option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, "SO_RCVBUFFORCE", OptionKind::Int),
    option(libc::SOL_SOCKET, libc::SO_MARK, "SO_MARK", OptionKind::Int),
    option(libc::IPPROTO_IP, 17, "IP_XFRM_POLICY", OptionKind::Bytes),
    option(libc::IPPROTO_IP, libc::IP_TRANSPARENT, "IP_TRANSPARENT", OptionKind::Int),
    option(libc::IPPROTO_IPV6, 35, "IPV6_XFRM_POLICY", OptionKind::Bytes),
    option(libc::IPPROTO_IPV6, 75, "IPV6_TRANSPARENT", OptionKind::Int),
];

/// A call as the kernel reports it (`struct seccomp_data`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RawCall {
    pub(crate) arch: u32,
    pub(crate) number: i32,
    pub(crate) args: [u64; 6],
}

/// A call whose arguments are known. Pointers are addresses in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Socket(NewSocket),
    Bind {
        fd: i32,
        address: u64,
        length: u32,
    },
    SetOption {
        fd: i32,
        option: PrivilegedOption,
        value: u64,
        length: u32,
    },
    /// `socketcall(2)`, whose arguments are 32-bit words at this address.
    Multiplexed {
        call: Reported,
        arguments: u64,
    },
    /// A call that the filter does not report.
    Other,
}

/// The arguments of `socket(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewSocket {
    pub(crate) family: i32,
    /// Without flags.
    pub(crate) kind: i32,
    pub(crate) protocol: i32,
    pub(crate) nonblocking: bool,
    pub(crate) close_on_exec: bool,
}

/// The words that `socketcall(2)` reads, by call.
pub(crate) const MULTIPLEXED_BYTES: usize = 20;

/// An argument that is a C `int`: the low half of the register.
fn int(argument: u64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "the kernel ignores the high half too")]
    let low = argument as u32;
    low.cast_signed()
}

/// Reads the registers of a call.
pub(crate) fn decode(raw: &RawCall) -> Call {
    let number = raw.number.cast_unsigned();
    let Some(arch) = ARCHITECTURES.iter().find(|arch| arch.audit == raw.arch) else {
        return Call::Other;
    };
    if Some(number) == arch.socketcall {
        let called = int(raw.args[0]).cast_unsigned();
        let calls = [Reported::Socket, Reported::Bind, Reported::SetOption];
        let call = calls.into_iter().find(|call| call.sub_call() == called);
        return call.map_or(Call::Other, |call| Call::Multiplexed { call, arguments: raw.args[1] });
    }
    let call = match number {
        number if number == arch.socket => Reported::Socket,
        number if number == arch.bind => Reported::Bind,
        number if number == arch.setsockopt => Reported::SetOption,
        _ => return Call::Other,
    };
    of_arguments(call, &raw.args)
}

/// Reads the arguments of `socketcall(2)`.
pub(crate) fn decode_multiplexed(call: Reported, words: &[u8; MULTIPLEXED_BYTES]) -> Call {
    let mut arguments = [0; 6];
    for (argument, word) in arguments.iter_mut().zip(words.as_chunks::<4>().0) {
        *argument = u64::from(u32::from_ne_bytes(*word));
    }
    of_arguments(call, &arguments)
}

fn of_arguments(call: Reported, args: &[u64; 6]) -> Call {
    match call {
        Reported::Socket => {
            let ty = int(args[1]);
            Call::Socket(NewSocket {
                family: int(args[0]),
                kind: ty & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC),
                protocol: int(args[2]),
                nonblocking: ty & libc::SOCK_NONBLOCK != 0,
                close_on_exec: ty & libc::SOCK_CLOEXEC != 0,
            })
        }
        Reported::Bind => {
            Call::Bind { fd: int(args[0]), address: args[1], length: int(args[2]).cast_unsigned() }
        }
        Reported::SetOption => {
            let (level, name) = (int(args[1]), int(args[2]));
            let known = OPTIONS.iter().find(|option| (option.level, option.name) == (level, name));
            known.map_or(Call::Other, |option| Call::SetOption {
                fd: int(args[0]),
                option: *option,
                value: args[3],
                length: int(args[4]).cast_unsigned(),
            })
        }
    }
}

/// The most bytes of an address: `sizeof(struct sockaddr_storage)`.
pub(crate) const ADDRESS_BYTES: usize = 128;
/// The most bytes of an option. The longest is `struct xfrm_userpolicy_info`.
pub(crate) const OPTION_BYTES: usize = 256;

/// The internet address that these bytes are, if binding it can need a privilege: a port from 1 to below
/// `first_unprivileged`. `None` leaves the call to the kernel, which also reports what is wrong with an address.
pub(crate) fn privileged_address(bytes: &[u8], first_unprivileged: u16) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    if port == 0 || port >= first_unprivileged {
        return None;
    }
    match family {
        libc::AF_INET => {
            let host: [u8; 4] = *bytes.get(4..16)?.first_chunk()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(host), port).into())
        }
        libc::AF_INET6 => {
            let flow = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
            let host: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
            // An address without a zone has 24 bytes (`SIN6_LEN_RFC2133`).
            let zone = bytes.get(24..).and_then(|rest| rest.first_chunk());
            let zone = zone.map_or(0, |zone| u32::from_ne_bytes(*zone));
            Some(SocketAddrV6::new(Ipv6Addr::from(host), port, flow, zone).into())
        }
        _ => None,
    }
}

/// Whether the kernel refused a call for lack of a privilege.
pub(crate) fn is_refusal(errno: i32) -> bool {
    errno == libc::EPERM || errno == libc::EACCES
}

/// The error of a call that nobody serves; `None` if the kernel makes it. A socket that the kernel made would be in the
/// wrong network namespace if `in_named_namespace` is set: those of the program are in a named one.
pub(crate) fn unserved(raw: &RawCall, in_named_namespace: bool) -> Option<i32> {
    let makes_socket = match decode(raw) {
        Call::Socket(_) | Call::Multiplexed { call: Reported::Socket, .. } => true,
        Call::Bind { .. }
        | Call::SetOption { .. }
        | Call::Multiplexed { call: Reported::Bind | Reported::SetOption, .. }
        | Call::Other => false,
    };
    (in_named_namespace && makes_socket).then_some(libc::ENETDOWN)
}

impl NewSocket {
    /// The call as people write it.
    pub(crate) fn describe(&self) -> String {
        let family = constant_name("AF_", self.family);
        let kind = constant_name("SOCK_", self.kind);
        let protocol = match (self.family, self.protocol) {
            (libc::AF_INET | libc::AF_INET6, 1..) => {
                format!(", {}", constant_name("IPPROTO_", self.protocol))
            }
            (libc::AF_NETLINK, protocol) => {
                format!(", {}", constant_name("NETLINK_", protocol))
            }
            _ => String::new(),
        };
        format!("socket({family}, {kind}{protocol})")
    }
}

#[cfg(test)]
mod tests;
