//! `getsockopt`, `setsockopt`, timeouts, filters and `ioctl`.

use std::net::Ipv4Addr;
use std::slice;

use sockbroker_proto::address::Address;
use sockbroker_sys::ioctl::{self, IntRequest, InterfaceRequest, InterfaceValue};
use sockbroker_sys::{filter, option};

use crate::error::{During, OpError, OpResult};
use crate::network::caller_identity::CallerIdentity;
use crate::ops::port;
use crate::ops::rcvall;
use crate::quota::kernel_memory::Demand;
use crate::table::claims::{Claim, Claimed};
use crate::table::permitted::{Permitted, Socket};
use crate::table::timeout::Timeout;
use sockbroker_monitor::request::{Request, Value};
use sockbroker_policy::action::{
    GetOption, Inspect, InterfaceIoctl, Ioctl, OptionValue, SetFilter, SetOption,
};
use sockbroker_policy::membership::{Device, device, source};
use sockbroker_policy::option::OptionClass;

/// `getsockopt(2)`. As in Python, `length` 0 requests an integer. The integers of `AF_VSOCK` have 64 bits.
pub fn get(permitted: &Permitted<GetOption>) -> OpResult<OptionValue> {
    let (socket, GetOption { level, name, length, .. }) =
        (permitted.socket(), *permitted.request());
    refuse_pointers("getsockopt", level, name)?;
    if let Some(value) = socket.rcvall.as_ref().and_then(|state| rcvall::option(state, level, name))
    {
        return Ok(OptionValue::Int(value.into()));
    }
    if length > 0 && socket.declared().domain == libc::AF_VSOCK {
        return Err(OpError::Plain("getsockopt string buffer not allowed".to_owned()));
    }
    if length > 0 {
        let bytes = option::get_bytes(socket.fd(), level, name, length).during("getsockopt")?;
        return Ok(OptionValue::Bytes(bytes));
    }
    if socket.declared().domain == libc::AF_VSOCK {
        let bytes = option::get_bytes(socket.fd(), level, name, 8).during("getsockopt")?;
        let mut wide = [0; 8];
        wide.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
        return Ok(OptionValue::Int(i64::from_ne_bytes(wide)));
    }
    let value = option::get_int(socket.fd(), level, name).during("getsockopt")?;
    Ok(OptionValue::Int(value.into()))
}

/// `setsockopt(2)`, for a principal that has claimed what [`claim`] returns.
pub fn set(
    permitted: &Permitted<SetOption>,
    claimed: Option<Claimed>,
    caller: &CallerIdentity,
) -> OpResult<()> {
    let (socket, request) = (permitted.socket(), permitted.request());
    set_one(socket, request, caller)
        .map_err(|error| error.naming_interfaces(bound_interface(socket, request).as_slice()))?;
    if (request.level, request.name) == (libc::SOL_SOCKET, libc::SO_PEEK_OFF) {
        // The broker would peek where the client says.
        socket.note_other_readers();
    }
    match claimed.as_ref().map(Claimed::claim) {
        Some(Claim::Fanout { .. }) => socket.ends.known().fanout = claimed,
        Some(Claim::Port { .. }) => socket.ends.known().port = claimed,
        None => {}
    }
    Ok(())
}

/// The interface that an option names.
fn bound_interface(socket: &Socket, request: &SetOption) -> Option<String> {
    if (request.level, request.name) != (libc::SOL_SOCKET, libc::SO_BINDTODEVICE) {
        return None;
    }
    let bytes = request.value.bytes(socket.declared().domain);
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(name).into_owned())
}

/// What a principal has to claim before it sets an option: the group of `PACKET_FANOUT`, the port of a bound
/// socket that gets `SO_REUSEPORT`.
pub fn claim(permitted: &Permitted<SetOption>) -> Option<Claim> {
    let (socket, request) = (permitted.socket(), permitted.request());
    match (socket.actual().domain, request.level, request.name) {
        (libc::AF_PACKET, libc::SOL_PACKET, libc::PACKET_FANOUT) => {
            let number = first_word(&request.value.bytes(socket.declared().domain));
            (number & UNIQUE == 0).then(|| Claim::Fanout { group: group_of(number) })
        }
        (libc::AF_INET | libc::AF_INET6, libc::SOL_SOCKET, libc::SO_REUSEPORT)
            if first_word(&request.value.bytes(socket.declared().domain)) != 0 =>
        {
            port::bound(socket)
        }
        _ => None,
    }
}

/// The group that the kernel chose for `PACKET_FANOUT`, which the principal has to claim afterwards.
pub fn chosen_group(permitted: &Permitted<SetOption>) -> OpResult<Option<Claim>> {
    let (socket, request) = (permitted.socket(), permitted.request());
    let option = (socket.actual().domain, request.level, request.name);
    if option != (libc::AF_PACKET, libc::SOL_PACKET, libc::PACKET_FANOUT)
        || first_word(&request.value.bytes(socket.declared().domain)) & UNIQUE == 0
    {
        return Ok(None);
    }
    let chosen = option::get_int(socket.fd(), libc::SOL_PACKET, libc::PACKET_FANOUT);
    let number = chosen.during("getsockopt")?.cast_unsigned();
    Ok(Some(Claim::Fanout { group: group_of(number) }))
}

/// Notes the claim to the group that the kernel chose.
pub fn note_group(permitted: &Permitted<SetOption>, claimed: Claimed) {
    permitted.socket().ends.known().fanout = Some(claimed);
}

/// `PACKET_FANOUT_FLAG_UNIQUEID` in the upper half of the value: the kernel chooses the group.
const UNIQUE: u32 = 0x2000 << 16;

/// The first word of an option's value in host order; of `struct fanout_args` the group, and the type with flags.
fn first_word(value: &[u8]) -> u32 {
    value.first_chunk().map(|word| u32::from_ne_bytes(*word)).unwrap_or_default()
}

/// The bytes of kernel memory that setting an option takes in addition to what the socket has.
pub fn memory_growth(permitted: &Permitted<SetOption>) -> u64 {
    let (socket, request) = (permitted.socket(), permitted.request());
    demand(socket, request).map_or(0, |demand| socket.kernel_memory().growth(demand))
}

fn demand(socket: &Socket, SetOption { level, name, value, .. }: &SetOption) -> Option<Demand> {
    let value = value.bytes(socket.declared().domain);
    Demand::of(socket.actual().domain, *level, *name, &value)
}

fn set_one(socket: &Socket, request: &SetOption, caller: &CallerIdentity) -> OpResult<()> {
    let SetOption { level, name, ref value, .. } = *request;
    refuse_pointers("setsockopt", level, name)?;
    if let (Some(state), OptionValue::Int(value)) = (&socket.rcvall, value)
        && rcvall::set_option(state, level, name, *value != 0)
    {
        return Ok(());
    }
    let set = || write(socket, request, caller);
    match demand(socket, request) {
        Some(demand) => socket.kernel_memory().change(socket.user(), demand, set),
        None => set(),
    }
}

fn write(socket: &Socket, request: &SetOption, caller: &CallerIdentity) -> OpResult<()> {
    let SetOption { level, name, ref value, .. } = *request;
    let fd = socket.fd();
    let bytes = value.bytes(socket.declared().domain);
    if matches!(value, OptionValue::Int(_)) && bytes.is_empty() {
        return Err(OpError::type_error("the value is neither a C int nor bytes"));
    }
    // Other protocols above TCP have a close of their own.
    if matches!((level, name), (libc::SOL_SOCKET, libc::SO_LINGER) | (libc::SOL_TCP, libc::TCP_ULP))
    {
        socket.note_lingering();
    }
    let set = || match value {
        OptionValue::Null(length) => option::set_null(fd, level, name, *length),
        OptionValue::Int(_) | OptionValue::Bytes(_) => option::set_bytes(fd, level, name, &bytes),
    };
    let ask = || {
        let value = match value {
            OptionValue::Null(length) => Value::Null(*length),
            OptionValue::Int(_) | OptionValue::Bytes(_) => Value::Bytes(bytes.clone()),
        };
        Request::SetOption { level, name, value }
    };
    caller.privileged().or_ask_opener(set, refusals(request), socket, ask).during("setsockopt")?;
    note_choice(socket, level, name, &bytes);
    Ok(())
}

/// The error numbers with which the kernel refuses an option for lack of a capability.
fn refusals(request: &SetOption) -> &'static [i32] {
    match (request.level, request.name) {
        // Unknown options of IP (`__ip_options_compile`).
        (libc::IPPROTO_IP, libc::IP_OPTIONS) => &[libc::EPERM, libc::EINVAL],
        // The module of a congestion control is not loaded.
        _ if request.class() == OptionClass::Modules => &[libc::EPERM, libc::ENOENT],
        _ => &[libc::EPERM, libc::EACCES],
    }
}

fn group_of(number: u32) -> u16 {
    let [low, high, ..] = number.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Remembers a choice of source or interface that the kernel does not report, to judge later messages.
fn note_choice(socket: &Socket, level: i32, name: i32, value: &[u8]) {
    let index = |device: Option<Device>| match device {
        Some(Device::Index(index)) => index,
        Some(Device::Address(_) | Device::Name(_)) | None => 0,
    };
    let mut known = socket.ends.known();
    match (level, name) {
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            known.choices.packet_interface = index(device(level, name, value));
            known.choices.packet_source = match source(level, name, value) {
                Some(Address::Inet6 { host, .. }) => Some(host),
                _ => None,
            };
        }
        (libc::IPPROTO_IP, libc::IP_MULTICAST_IF) => {
            known.choices.multicast_interface = index(device(level, name, value));
            known.choices.multicast_source = match source(level, name, value) {
                Some(Address::Inet { host, .. }) => Some(host),
                _ => None,
            };
        }
        _ => {}
    }
}

/// Refuses values with a pointer or a descriptor number, which would refer to the broker's memory or descriptors.
fn refuse_pointers(call: &'static str, level: i32, name: i32) -> OpResult<()> {
    if option::carries_pointer_or_descriptor(level, name) {
        return Err(OpError::Os { call, errno: libc::EACCES });
    }
    Ok(())
}

/// `settimeout`: sets the timeout of later calls, and `O_NONBLOCK` for other holders of the descriptor.
pub fn set_timeout(permitted: &Permitted<Inspect>, timeout: Timeout) -> OpResult<()> {
    let socket = permitted.socket();
    socket.set_timeout(timeout).during("fcntl")
}

/// `SO_ATTACH_FILTER` and `SO_DETACH_FILTER`.
pub fn set_filter(permitted: &Permitted<SetFilter>) -> OpResult<()> {
    let fd = permitted.socket().fd();
    let Some(program) = &permitted.request().program else {
        return filter::detach(fd).during("setsockopt");
    };
    filter::attach(fd, program).map_err(|error| match error.raw_os_error() {
        Some(_) => OpError::os("setsockopt", error),
        None => OpError::value("a filter has 1 to 4096 instructions of 8 bytes"),
    })
}

/// `ioctl(2)` on the socket, with an integer result. `ENOTTY` for a request that the broker does not serve.
pub fn ioctl(permitted: &Permitted<Ioctl>) -> OpResult<i32> {
    let request = int_request(permitted.request().request).ok_or(NOT_SERVED)?;
    ioctl::get_int(permitted.socket().fd(), request).during("ioctl")
}

/// `ioctl(2)` on an interface; see `netdevice(7)`.
pub fn ioctl_interface(permitted: &Permitted<InterfaceIoctl>) -> OpResult<OptionValue> {
    let InterfaceIoctl { request, name } = permitted.request();
    let request = interface_request(*request).ok_or(NOT_SERVED)?;
    let answer = ioctl::interface(permitted.socket().fd(), name, request).during("ioctl");
    let answer = answer.map_err(|error| error.naming_interfaces(slice::from_ref(name)))?;
    Ok(match answer {
        InterfaceValue::Int(value) => OptionValue::Int(value.into()),
        InterfaceValue::Address(address) => OptionValue::Bytes(Ipv4Addr::octets(&address).to_vec()),
        InterfaceValue::Hardware { address, .. } => OptionValue::Bytes(address.to_vec()),
    })
}

const NOT_SERVED: OpError = OpError::Os { call: "ioctl", errno: libc::ENOTTY };

/// From `linux/sockios.h`: `libc` does not have it.
const SIOCATMARK: libc::Ioctl = 0x8905;

/// The request on the socket with this number; `None` if it is not one. `SIOCINQ` is `FIONREAD`.
pub fn int_request(request: u64) -> Option<IntRequest> {
    let table = [
        (libc::FIONREAD, IntRequest::Fionread),
        (libc::TIOCOUTQ, IntRequest::Siocoutq),
        (SIOCATMARK, IntRequest::Siocatmark),
    ];
    table.into_iter().find(|(number, _)| *number == request).map(|(_, request)| request)
}

/// The request on an interface with this number; `None` if it is not one.
pub fn interface_request(request: u64) -> Option<InterfaceRequest> {
    let table = [
        (libc::SIOCGIFINDEX, InterfaceRequest::Index),
        (libc::SIOCGIFFLAGS, InterfaceRequest::Flags),
        (libc::SIOCGIFMTU, InterfaceRequest::Mtu),
        (libc::SIOCGIFADDR, InterfaceRequest::Address),
        (libc::SIOCGIFNETMASK, InterfaceRequest::Netmask),
        (libc::SIOCGIFBRDADDR, InterfaceRequest::Broadcast),
        (libc::SIOCGIFHWADDR, InterfaceRequest::Hardware),
    ];
    table.into_iter().find(|(number, _)| *number == request).map(|(_, request)| request)
}
