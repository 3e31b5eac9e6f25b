//! Requests of workers as requests to the policy. Every fact about a socket comes from the kernel.
//!
//! The list is closed: what no capability makes possible, a worker does itself.

use sockbroker_policy::action::{
    Bind, Connect, Create, OpenCapture, OptionValue, ScopedCapture, SetHostname, SetOption,
};
use sockbroker_policy::membership::{device, hops, membership, source};
use sockbroker_policy::need::creation_needs_privilege;
use sockbroker_policy::option::OptionClass;
use sockbroker_policy::rights::Rights;
use sockbroker_policy::target::{SocketName, Target};
use sockbroker_policy::within::RightsIn;
use sockbroker_policy::{Denial, Permit};
use sockbroker_proto::address::Address;
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::option;

use crate::capture::Order;
use crate::request::{Unreachable, Value};
use crate::socket_facts::{self, KernelSocket};

const AF_MCTP: i32 = 45;
const AF_QIPCRTR: i32 = 42;

/// Why a request gets no permit.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The network namespace cannot be used.
    Unreachable(Unreachable),
    /// The policy refuses it.
    Denied(Box<Denial>),
    /// It is not for the opener.
    NotServed,
    /// It cannot succeed; an error number.
    Failed(i32),
    /// No worker would send it.
    Nonsense(&'static str),
}

impl From<Box<Denial>> for Refusal {
    fn from(denial: Box<Denial>) -> Self {
        Self::Denied(denial)
    }
}

impl From<Unreachable> for Refusal {
    fn from(unreachable: Unreachable) -> Self {
        Self::Unreachable(unreachable)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.raw_os_error().unwrap_or(libc::EINVAL))
    }
}

/// `SOCK_TYPE_MASK` of the kernel: the bits of a type, without flags.
const TYPE_MASK: i32 = 0xf;

/// Refuses a type with flags. Rules name types without them, so that a flag would hide a type from the rules that deny
/// it.
fn check_type(socket: SocketSpec) -> Result<(), Refusal> {
    if socket.ty & !TYPE_MASK == 0 { Ok(()) } else { Err(Refusal::Failed(libc::EINVAL)) }
}

pub(super) fn create(rights: &Rights, socket: SocketSpec) -> Result<Permit<Create>, Refusal> {
    check_type(socket)?;
    // Worth a privilege, or a socket on which the opener sends.
    if !creation_needs_privilege(socket) && socket.domain != libc::AF_NETLINK {
        return Err(Refusal::NotServed);
    }
    Ok(rights.authorize(Create { socket })?)
}

/// A socket in another network namespace than the broker's own. Any of them takes a capability.
pub(super) fn create_in(
    rights: RightsIn<'_>,
    socket: SocketSpec,
) -> Result<Permit<Create>, Refusal> {
    check_type(socket)?;
    // The kernel shows the ids of its maker to the peer of the first, and the second has descriptors in its addresses.
    if [libc::AF_UNIX, libc::AF_PPPOX].contains(&socket.domain) {
        return Err(Refusal::NotServed);
    }
    Ok(rights.authorize(Create { socket })?)
}

pub(super) fn set_hostname(rights: &Rights, name: String) -> Result<Permit<SetHostname>, Refusal> {
    Ok(rights.authorize(SetHostname { name })?)
}

pub(super) fn capture(
    rights: RightsIn<'_>,
    order: &Order,
) -> Result<Permit<ScopedCapture>, Refusal> {
    let Order { interfaces, snaplen, promiscuous, .. } = order;
    let (interfaces, snaplen) = (interfaces.clone(), *snaplen);
    Ok(rights.authorize_capture(OpenCapture { interfaces, snaplen, promiscuous: *promiscuous })?)
}

/// An address of a worker, for a socket of this kind.
pub(super) fn address(socket: SocketSpec, bytes: &[u8]) -> Result<Address, Refusal> {
    let raw = RawAddress::from_bytes(bytes).ok_or(Refusal::Nonsense("it sent a long address"))?;
    let address = raw.decode(socket.protocol).ok_or(Refusal::Failed(libc::EINVAL))?;
    if i32::from(address.family()) != socket.domain {
        return Err(Refusal::Failed(libc::EAFNOSUPPORT));
    }
    Ok(address)
}

pub(super) fn bind(
    rights: RightsIn<'_>,
    fd: impl KernelSocket,
    bytes: &[u8],
) -> Result<Permit<Bind>, Refusal> {
    const SERVED: [i32; 7] = [
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
        libc::AF_VSOCK,
        libc::AF_BLUETOOTH,
        AF_MCTP,
        AF_QIPCRTR,
    ];
    let socket = fd.spec()?;
    if !SERVED.contains(&socket.domain) {
        return Err(Refusal::NotServed);
    }
    let address = address(socket, bytes)?;
    let index = socket_facts::interface_index(&address);
    let interface = socket_facts::interface_name(fd, index.unwrap_or(0))?;
    let target = Target::Address(address);
    Ok(rights.authorize(Bind { socket, target, interface, captures: false })?)
}

pub(super) fn connect(
    rights: RightsIn<'_>,
    fd: impl KernelSocket,
    bytes: &[u8],
) -> Result<Permit<Connect>, Refusal> {
    let socket = fd.spec()?;
    if socket.domain != libc::AF_NETLINK {
        return Err(Refusal::NotServed);
    }
    let target = Target::Address(address(socket, bytes)?);
    let local = socket_name(fd.local_address().ok(), socket);
    let interfaces = Vec::new();
    let connect = Connect { socket, target, local, interfaces, looked_up: None };
    Ok(rights.authorize(connect)?)
}

pub(super) fn socket_name(raw: Option<RawAddress>, socket: SocketSpec) -> Option<SocketName> {
    raw.and_then(|raw| raw.decode(socket.protocol)).map(SocketName::Address)
}

/// Whether a capability can make an option of this class possible (`privilege.rs` of the policy).
fn option_is_served(class: OptionClass, domain: i32) -> bool {
    match class {
        OptionClass::BuffersForce
        | OptionClass::Scheduling
        | OptionClass::Mark
        | OptionClass::BindToDevice
        | OptionClass::Routing
        | OptionClass::Ipsec
        | OptionClass::Modules
        | OptionClass::TcpRepair
        | OptionClass::Transparent
        | OptionClass::Netlink
        | OptionClass::Unknown => true,
        OptionClass::Ordinary => domain == libc::AF_CAN,
        OptionClass::Memory
        | OptionClass::Multicast
        | OptionClass::Filter
        | OptionClass::Spoof
        | OptionClass::Packet => false,
    }
}

pub(super) fn set_option(
    rights: RightsIn<'_>,
    fd: impl KernelSocket,
    (level, name): (i32, i32),
    value: Value,
) -> Result<Permit<SetOption>, Refusal> {
    let socket = fd.spec()?;
    if option::carries_pointer_or_descriptor(level, name) {
        return Err(Refusal::Nonsense("it sent an option with a pointer"));
    }
    let value = match value {
        Value::Bytes(bytes) => OptionValue::Bytes(bytes),
        Value::Null(length) => OptionValue::Null(length),
    };
    let bytes = value.bytes(socket.domain);
    let mut request = SetOption::new(socket, level, name, value);
    if !option_is_served(request.class(), socket.domain) {
        return Err(Refusal::NotServed);
    }
    let group = membership(level, name, &bytes);
    let device = group.as_ref().map(|(_, device)| device.clone());
    if let Some(device) = device.or_else(|| self::device(level, name, &bytes)) {
        request.interfaces = socket_facts::devices(fd, &device)?;
    }
    request.group = group.map(|(group, _)| SocketName::Address(group));
    request.source = source(level, name, &bytes).map(SocketName::Address);
    request.hops = hops(level, name, &bytes).into_iter().map(SocketName::Address).collect();
    Ok(rights.authorize(request)?)
}
