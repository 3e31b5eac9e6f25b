//! The system calls. Each takes its operands from the permit.

use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};

use sockbroker_policy::Permit;
use sockbroker_policy::action::{
    AncillaryItem, Bind, Connect, Create, Interfaces, OpenCapture, OptionValue, ScopedCapture,
    Send, SetHostname, SetOption,
};
use sockbroker_policy::capture_scope::CaptureScope;
use sockbroker_policy::target::Target;
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::control::OutgoingControl;
use sockbroker_sys::namespace::NetworkNamespace;
use sockbroker_sys::{host, message, option, socket};

use super::namespaces::{Found, Namespaces, create_here};
use crate::capture::{self, Opened, Order};
use crate::request::{InterfaceList, InterfaceQuery, Unreachable, Value};

/// The calls that the opener makes on sockets `S` for connections `C`. The fuzzer records them in place of the kernel.
pub trait SystemCalls<S, C> {
    /// A network namespace.
    type Namespace;

    fn create(&self, spec: SocketSpec) -> io::Result<OwnedFd>;
    /// The cookie of the broker's own network namespace; `None` if the kernel has none.
    fn own_network(&self) -> Option<u64>;
    /// The network namespace of the client of a connection.
    fn network_of(&self, connection: C) -> Result<Found<Self::Namespace>, Unreachable>;
    /// The network namespace with a name.
    fn named_network(&self, name: &str) -> Result<Found<Self::Namespace>, Unreachable>;
    /// The network namespace with a descriptor.
    fn passed_network(&self, passed: S) -> Result<Found<Self::Namespace>, Unreachable>;
    /// Interfaces of a network namespace.
    fn interfaces_in(
        &self,
        network: &Found<Self::Namespace>,
        query: &InterfaceQuery,
    ) -> Result<io::Result<InterfaceList>, Unreachable>;
    /// `create` in a network namespace.
    fn create_in(
        &self,
        network: &Found<Self::Namespace>,
        spec: SocketSpec,
    ) -> Result<io::Result<OwnedFd>, Unreachable>;
    fn bind(&self, socket: S, address: &RawAddress) -> io::Result<()>;
    fn connect(&self, socket: S, address: &RawAddress) -> io::Result<()>;
    fn set_option(&self, socket: S, option: (i32, i32), value: &Value) -> io::Result<()>;
    fn send(&self, socket: S, message: &OutgoingMessage<'_>) -> io::Result<usize>;
    fn set_hostname(&self, name: &str) -> io::Result<()>;
    /// The socket of a capture, in a network namespace or in the broker's own. The scopes are those of its permit.
    fn capture(
        &self,
        network: Option<&Found<Self::Namespace>>,
        order: Order,
        scopes: &[CaptureScope],
    ) -> Result<io::Result<(OwnedFd, Opened)>, Unreachable>;
}

/// The operands of `sendmsg(2)`.
#[derive(Debug)]
pub struct OutgoingMessage<'a> {
    pub destination: Option<RawAddress>,
    pub flags: i32,
    pub control: Vec<OutgoingControl<'a>>,
    pub buffers: Vec<&'a [u8]>,
}

/// The calls of the kernel.
#[derive(Debug)]
pub(super) struct Kernel(pub(super) Namespaces);

impl<'c> SystemCalls<BorrowedFd<'_>, BorrowedFd<'c>> for Kernel {
    type Namespace = NetworkNamespace;

    fn create(&self, spec: SocketSpec) -> io::Result<OwnedFd> {
        create_here(spec)
    }

    fn own_network(&self) -> Option<u64> {
        self.0.home_cookie()
    }

    fn network_of(
        &self,
        connection: BorrowedFd<'c>,
    ) -> Result<Found<NetworkNamespace>, Unreachable> {
        self.0.of_connection(connection)
    }

    fn named_network(&self, name: &str) -> Result<Found<NetworkNamespace>, Unreachable> {
        self.0.named(name)
    }

    fn passed_network(
        &self,
        passed: BorrowedFd<'_>,
    ) -> Result<Found<NetworkNamespace>, Unreachable> {
        self.0.passed(passed)
    }

    fn interfaces_in(
        &self,
        network: &Found<NetworkNamespace>,
        query: &InterfaceQuery,
    ) -> Result<io::Result<InterfaceList>, Unreachable> {
        self.0.interfaces(network, query)
    }

    fn create_in(
        &self,
        network: &Found<NetworkNamespace>,
        spec: SocketSpec,
    ) -> Result<io::Result<OwnedFd>, Unreachable> {
        self.0.create(network, spec)
    }

    fn bind(&self, socket: BorrowedFd<'_>, address: &RawAddress) -> io::Result<()> {
        socket::bind(socket, address)
    }

    fn connect(&self, socket: BorrowedFd<'_>, address: &RawAddress) -> io::Result<()> {
        socket::connect(socket, address)
    }

    fn set_option(
        &self,
        socket: BorrowedFd<'_>,
        (level, name): (i32, i32),
        value: &Value,
    ) -> io::Result<()> {
        match value {
            Value::Bytes(bytes) => option::set_bytes(socket, level, name, bytes),
            Value::Null(length) => option::set_null(socket, level, name, *length),
        }
    }

    fn send(&self, socket: BorrowedFd<'_>, message: &OutgoingMessage<'_>) -> io::Result<usize> {
        let OutgoingMessage { destination, flags, control, buffers } = message;
        let buffers: Vec<_> = buffers.iter().map(|buffer| IoSlice::new(buffer)).collect();
        message::send_message(socket, &buffers, control, *flags, destination.as_ref())
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        host::set_hostname(name.as_bytes())
    }

    fn capture(
        &self,
        network: Option<&Found<NetworkNamespace>>,
        order: Order,
        scopes: &[CaptureScope],
    ) -> Result<io::Result<(OwnedFd, Opened)>, Unreachable> {
        let socket = match network {
            None => create_here(capture::SOCKET),
            Some(network) => self.0.create(network, capture::SOCKET)?,
        };
        Ok(socket.and_then(|socket| capture::begin(socket, order, scopes)))
    }
}

pub(super) fn create<S, C>(
    calls: &impl SystemCalls<S, C>,
    permit: Permit<Create>,
) -> io::Result<OwnedFd> {
    calls.create(permit.into_request().socket)
}

pub(super) fn create_in<S, C, K: SystemCalls<S, C>>(
    calls: &K,
    permit: Permit<Create>,
    network: &Found<K::Namespace>,
) -> Result<io::Result<OwnedFd>, Unreachable> {
    calls.create_in(network, permit.into_request().socket)
}

pub(super) fn interfaces_in<S, C, K: SystemCalls<S, C>>(
    calls: &K,
    permit: Permit<Interfaces>,
    network: &Found<K::Namespace>,
    query: &InterfaceQuery,
) -> Result<io::Result<InterfaceList>, Unreachable> {
    let Interfaces = permit.into_request();
    calls.interfaces_in(network, query)
}

/// The address, encoded again: bytes that it does not contain do not reach the kernel.
fn encoded(target: &Target) -> io::Result<RawAddress> {
    let address = target.address().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(RawAddress::encode(address))
}

pub(super) fn bind<S, C>(
    calls: &impl SystemCalls<S, C>,
    permit: Permit<Bind>,
    socket: S,
) -> io::Result<()> {
    calls.bind(socket, &encoded(&permit.into_request().target)?)
}

pub(super) fn connect<S, C>(
    calls: &impl SystemCalls<S, C>,
    permit: Permit<Connect>,
    socket: S,
) -> io::Result<()> {
    calls.connect(socket, &encoded(&permit.into_request().target)?)
}

pub(super) fn set_option<S, C>(
    calls: &impl SystemCalls<S, C>,
    permit: Permit<SetOption>,
    socket: S,
) -> io::Result<()> {
    let SetOption { level, name, value, .. } = permit.into_request();
    let value = match value {
        OptionValue::Int(_) => return Err(io::ErrorKind::InvalidInput.into()),
        OptionValue::Bytes(bytes) => Value::Bytes(bytes),
        OptionValue::Null(length) => Value::Null(length),
    };
    calls.set_option(socket, (level, name), &value)
}

pub(super) fn send<S, C>(
    calls: &impl SystemCalls<S, C>,
    permit: Permit<Send>,
    socket: S,
) -> io::Result<usize> {
    let Send { destination, contents, .. } = permit.into_request();
    let item = |item| match item {
        &AncillaryItem::Data { level, kind, ref data } => {
            Some(OutgoingControl::Data { level, kind, data })
        }
        AncillaryItem::Descriptors { .. } => None,
    };
    let message = OutgoingMessage {
        destination: destination.as_ref().map(encoded).transpose()?,
        flags: contents.flags | libc::MSG_DONTWAIT,
        control: contents.ancillary.iter().filter_map(item).collect(),
        buffers: contents.buffers.iter().map(|buffer| &**buffer).collect(),
    };
    calls.send(socket, &message)
}

pub(super) fn set_hostname<S, C>(
    calls: &impl SystemCalls<S, C>,
    permit: Permit<SetHostname>,
) -> io::Result<()> {
    calls.set_hostname(&permit.into_request().name)
}

pub(super) fn capture<S, C, K: SystemCalls<S, C>>(
    calls: &K,
    permit: Permit<ScopedCapture>,
    network: Option<&Found<K::Namespace>>,
    order: Order,
) -> Result<io::Result<(OwnedFd, Opened)>, Unreachable> {
    let (OpenCapture { interfaces, snaplen, promiscuous }, scopes) =
        permit.into_request().into_parts();
    calls.capture(network, Order { interfaces, snaplen, promiscuous, ..order }, &scopes)
}
