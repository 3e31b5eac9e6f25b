//! `getsockopt`, `setsockopt`, filters, `ioctl`.

use std::net::Ipv4Addr;

use sockbroker_proto::address::Address;
use sockbroker_sys::ioctl::{self, IntRequest, InterfaceRequest, InterfaceValue};
use sockbroker_sys::{filter, option};

use crate::error::{During, OpError, OpResult};
use crate::ops::rcvall;
use crate::quota::kernel_memory::Demand;
use crate::table::entry::Entry;
use crate::table::fanout::FanoutGroups;
use crate::table::timeout::Timeout;
use sockbroker_policy::Permit;
use sockbroker_policy::action::{Inspect, Interfaces, Ioctl, OptionAccess, SocketOption};
use sockbroker_policy::membership::{Device, device, source};

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An integer.
    Int(i64),
    /// A buffer.
    Bytes(Vec<u8>),
    /// A null pointer with a length: Python's `None` form.
    Null(u32),
}

impl Value {
    /// The bytes that the kernel gets of it on a socket of a family; what does not fit is refused later.
    pub fn bytes(&self, family: i32) -> Vec<u8> {
        match self {
            Self::Int(value) if family == libc::AF_VSOCK => value.to_ne_bytes().to_vec(),
            Self::Int(value) => {
                i32::try_from(*value).map(|value| value.to_ne_bytes().to_vec()).unwrap_or_default()
            }
            Self::Bytes(bytes) => bytes.clone(),
            Self::Null(_) => Vec::new(),
        }
    }
}

/// `getsockopt(2)`. `length` 0 asks for an integer, as in Python; `AF_VSOCK` has 64-bit ones.
pub fn get(permit: Permit<SocketOption>, entry: &Entry, length: u32) -> OpResult<Value> {
    let SocketOption { level, name, .. } = permit.into_request();
    refuse_pointers("getsockopt", level, name)?;
    if let Some(value) = entry.rcvall.as_ref().and_then(|state| rcvall::option(state, level, name))
    {
        return Ok(Value::Int(value.into()));
    }
    if length > 0 && entry.declared().domain == libc::AF_VSOCK {
        return Err(OpError::Plain("getsockopt string buffer not allowed".to_owned()));
    }
    if length > 0 {
        let bytes = option::get_bytes(entry.fd(), level, name, length).during("getsockopt")?;
        return Ok(Value::Bytes(bytes));
    }
    if entry.declared().domain == libc::AF_VSOCK {
        let bytes = option::get_bytes(entry.fd(), level, name, 8).during("getsockopt")?;
        let mut wide = [0; 8];
        wide.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
        return Ok(Value::Int(i64::from_ne_bytes(wide)));
    }
    let value = option::get_int(entry.fd(), level, name).during("getsockopt")?;
    Ok(Value::Int(value.into()))
}

/// `setsockopt(2)`.
pub fn set(permit: Permit<SocketOption>, entry: &Entry, value: &Value) -> OpResult<()> {
    let SocketOption { level, name, access, .. } = permit.into_request();
    debug_assert_eq!(access, OptionAccess::Write, "a permit to read is not one to write");
    refuse_pointers("setsockopt", level, name)?;
    if let (Some(state), Value::Int(value)) = (&entry.rcvall, value)
        && rcvall::set_option(state, level, name, *value != 0)
    {
        return Ok(());
    }
    let demand =
        Demand::of(entry.actual().domain, level, name, &value.bytes(entry.declared().domain));
    let set = || write(entry, level, name, value);
    match demand {
        Some(demand) => entry.kernel_memory.change(entry.user(), demand, set),
        None => set(),
    }
}

fn write(entry: &Entry, level: i32, name: i32, value: &Value) -> OpResult<()> {
    let fd = entry.fd();
    match value {
        Value::Int(value) if entry.declared().domain == libc::AF_VSOCK => {
            option::set_bytes(fd, level, name, &value.to_ne_bytes())
        }
        Value::Int(value) => {
            let value = i32::try_from(*value)
                .map_err(|_error| OpError::type_error("the value is neither a C int nor bytes"))?;
            option::set_int(fd, level, name, value)
        }
        Value::Bytes(bytes) => option::set_bytes(fd, level, name, bytes),
        Value::Null(length) => option::set_null(fd, level, name, *length),
    }
    .during("setsockopt")?;
    note_choice(entry, level, name, &value.bytes(entry.declared().domain));
    Ok(())
}

/// `PACKET_FANOUT`: joins a group that is this user's alone. `EADDRINUSE` if it is another user's.
pub fn join_fanout(
    permit: Permit<SocketOption>,
    entry: &Entry,
    value: &Value,
    groups: &FanoutGroups,
) -> OpResult<()> {
    /// `PACKET_FANOUT_FLAG_UNIQUEID` in the upper half: the kernel chooses the group.
    const UNIQUE: u32 = 0x2000 << 16;
    let principal = entry.user().key();
    // struct fanout_args begins with the group and the type, as an int does in host order.
    let bytes = value.bytes(entry.declared().domain);
    let number = bytes.first_chunk().map(|word| u32::from_ne_bytes(*word)).unwrap_or_default();
    let taken = OpError::Os { call: "setsockopt", errno: libc::EADDRINUSE };
    if number & UNIQUE != 0 {
        set(permit, entry, value)?;
        let chosen = option::get_int(entry.fd(), libc::SOL_PACKET, libc::PACKET_FANOUT);
        let group = group_of(chosen.during("getsockopt")?.cast_unsigned());
        entry.ends.known().fanout = groups.join(group, principal);
        return Ok(());
    }
    let member = groups.join(group_of(number), principal).ok_or(taken)?;
    set(permit, entry, value)?;
    entry.ends.known().fanout = Some(member);
    Ok(())
}

fn group_of(number: u32) -> u16 {
    let [low, high, ..] = number.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Remembers a choice of source or interface that the kernel does not show, for what is sent later.
fn note_choice(entry: &Entry, level: i32, name: i32, value: &[u8]) {
    let index = |device: Option<Device>| match device {
        Some(Device::Index(index)) => index,
        Some(Device::Address(_) | Device::Name(_)) | None => 0,
    };
    let mut known = entry.ends.known();
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

/// A pointer would be read in the broker's memory, a descriptor number in the broker's table.
fn refuse_pointers(call: &'static str, level: i32, name: i32) -> OpResult<()> {
    if option::carries_pointer_or_descriptor(level, name) {
        return Err(OpError::Os { call, errno: libc::EACCES });
    }
    Ok(())
}

/// `settimeout`: for calls that start later, and `O_NONBLOCK` for holders of the descriptor.
pub fn set_timeout(permit: Permit<Inspect>, entry: &Entry, timeout: Timeout) -> OpResult<()> {
    let Inspect { .. } = permit.into_request();
    entry.set_timeout(timeout).during("fcntl")
}

/// `SO_ATTACH_FILTER`.
pub fn attach_filter(permit: Permit<SocketOption>, entry: &Entry, program: &[u8]) -> OpResult<()> {
    let SocketOption { .. } = permit.into_request();
    filter::attach(entry.fd(), program).map_err(|error| match error.raw_os_error() {
        Some(_) => OpError::os("setsockopt", error),
        None => OpError::value("a filter has 1 to 4096 instructions of 8 bytes"),
    })
}

/// `SO_DETACH_FILTER`.
pub fn detach_filter(permit: Permit<SocketOption>, entry: &Entry) -> OpResult<()> {
    let SocketOption { .. } = permit.into_request();
    filter::detach(entry.fd()).during("setsockopt")
}

/// `ioctl(2)` with an integer answer.
pub fn ioctl_int(permit: Permit<Ioctl>, entry: &Entry, request: IntRequest) -> OpResult<i32> {
    let Ioctl { .. } = permit.into_request();
    ioctl::get_int(entry.fd(), request).during("ioctl")
}

/// `ioctl(2)` about an interface; see `netdevice(7)`.
pub fn ioctl_interface(
    permit: Permit<Interfaces>,
    entry: &Entry,
    request: InterfaceRequest,
    name: &str,
) -> OpResult<Value> {
    let Interfaces = permit.into_request();
    let answer = ioctl::interface(entry.fd(), name, request).during("ioctl")?;
    Ok(match answer {
        InterfaceValue::Int(value) => Value::Int(value.into()),
        InterfaceValue::Address(address) => Value::Bytes(Ipv4Addr::octets(&address).to_vec()),
        InterfaceValue::Hardware { address, .. } => Value::Bytes(address.to_vec()),
    })
}
