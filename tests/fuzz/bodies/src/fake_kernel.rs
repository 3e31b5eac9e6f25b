//! Sockets, connections and calls in place of those of the kernel: the input describes them, and calls are recorded.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use sockbroker_monitor::capture::{Opened, Order};
use sockbroker_monitor::opener::fuzzing::{Found, OutgoingMessage, SystemCalls};
use sockbroker_monitor::request::{
    Control, InterfaceList, InterfaceQuery, Request, SelectedNamespace, Unreachable, Value,
};
use sockbroker_monitor::socket_facts::KernelSocket;
use sockbroker_monitor::subject::Connection;
use sockbroker_policy::capture_scope::CaptureScope;
use sockbroker_policy::subject::Subject;
use sockbroker_proto::address::Address;
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::control::OutgoingControl;

/// The interfaces, by index and name, and their addresses.
pub const INTERFACES: [(u32, &str, Ipv4Addr); 3] = [
    (1, "lo", Ipv4Addr::LOCALHOST),
    (2, "eth0", Ipv4Addr::new(10, 0, 0, 1)),
    (3, "eth1", Ipv4Addr::new(192, 168, 0, 1)),
];

pub(crate) const SOCK_PACKET: i32 = 10;
pub(crate) const SOCK_TYPE_MASK: i32 = 0xf;

/// The cookies of network namespaces: of the broker, and of those with names. `gone` has no file, and `own` is the broker's.
pub const OWN_NETWORK: u64 = 1;
pub const NETWORKS: [(&str, u64); 3] = [("lab1", 11), ("lab2", 12), ("own", OWN_NETWORK)];

/// A socket that a worker sends.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Socket {
    /// Domain, type and protocol.
    pub spec: (i32, i32, i32),
    /// The cookie of its network namespace; `None` if it cannot be read.
    pub network: Option<u64>,
    /// The user who owns this namespace.
    pub owner: Option<u32>,
    pub local: Option<Vec<u8>>,
    pub peer: Option<Vec<u8>>,
    /// Options that can be read: level, name, value.
    pub options: Vec<(i32, i32, Vec<u8>)>,
}

/// A descriptor that a worker names as the connection of a client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Named {
    /// `None` for a file.
    pub cookie: Option<u64>,
    pub is_hung_up: bool,
    /// The user at the other end; `None` if there is none.
    pub uid: Option<u32>,
    /// The cookie of its network namespace; `None` if it cannot be read.
    pub network: Option<u64>,
}

/// What comes from outside of the opener.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scene {
    /// The user of the worker's principal.
    pub uid: u32,
    /// The connections that the monitor has passed to the worker, and those of them that have ended.
    pub accepted: Vec<u64>,
    pub closed: Vec<u64>,
    pub connection: Named,
    pub network: SelectedNamespace,
    pub request: Request,
    pub socket: Option<Socket>,
    /// The error number of the call.
    pub fails: Option<i32>,
}

/// A call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Create(SocketSpec),
    /// In the network namespace with this cookie.
    CreateIn(u64, SocketSpec),
    Bind(Vec<u8>),
    Connect(Vec<u8>),
    SetOption((i32, i32), Value),
    Send(Sent),
    SetHostname(String),
    /// Of the network namespace with this cookie.
    Interfaces(u64, InterfaceQuery),
    /// In the network namespace with this cookie, or in the broker's own.
    Capture(Option<u64>, Box<Order>),
}

/// The operands of a message that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub destination: Option<Vec<u8>>,
    pub flags: i32,
    pub control: Vec<Control>,
    /// Whether ancillary data had descriptors.
    pub passes_descriptors: bool,
    pub data: Vec<u8>,
}

/// Records calls. Each succeeds, or fails with this error number.
#[derive(Debug)]
pub struct Recorder {
    fails: Option<i32>,
    calls: RefCell<Vec<Call>>,
}

impl Socket {
    /// As the kernel reports it, which makes a packet socket of `SOCK_PACKET` (`__sock_create`).
    pub fn spec_of(&self) -> SocketSpec {
        let (domain, ty, protocol) = self.spec;
        let domain = if (domain, ty & SOCK_TYPE_MASK) == (libc::AF_INET, SOCK_PACKET) {
            libc::AF_PACKET
        } else {
            domain
        };
        SocketSpec { domain, ty, protocol }
    }
}

impl Socket {
    /// Whether the kernel can report this: a socket of the internet has names of its family, whole, and a peer with a
    /// host.
    pub(crate) fn is_possible(&self) -> bool {
        let domain = self.spec_of().domain;
        let is_name = |bytes: &Vec<u8>| {
            let decoded = RawAddress::from_bytes(bytes).and_then(|raw| raw.decode(0));
            match (domain, decoded) {
                (libc::AF_INET, Some(Address::Inet { host, .. })) => {
                    (bytes.len() == 16).then_some(!host.is_unspecified())
                }
                (libc::AF_INET6, Some(Address::Inet6 { host, .. })) => {
                    (bytes.len() == 28).then_some(!host.is_unspecified())
                }
                (libc::AF_INET | libc::AF_INET6, _) => None,
                _ => Some(true),
            }
        };
        self.local.as_ref().is_none_or(|local| is_name(local).is_some())
            && self.peer.as_ref().is_none_or(|peer| is_name(peer) == Some(true))
    }
}

impl KernelSocket for &Socket {
    fn spec(self) -> io::Result<SocketSpec> {
        Ok(self.spec_of())
    }

    fn network(self) -> io::Result<u64> {
        self.network.ok_or_else(missing)
    }

    fn network_owner(self) -> io::Result<Option<u32>> {
        Ok(self.owner)
    }

    fn local_address(self) -> io::Result<RawAddress> {
        address(self.local.as_deref())
    }

    fn peer_address(self) -> io::Result<RawAddress> {
        address(self.peer.as_deref())
    }

    fn int_option(self, level: i32, name: i32) -> io::Result<i32> {
        let value = self.bytes_option(level, name, 4)?;
        value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or_else(missing)
    }

    fn bytes_option(self, level: i32, name: i32, longest: u32) -> io::Result<Vec<u8>> {
        let mut options = self.options.iter();
        let found = options.find(|option| (option.0, option.1) == (level, name));
        let (_, _, value) = found.ok_or_else(missing)?;
        let longest = usize::try_from(longest).unwrap_or(usize::MAX);
        Ok(value.iter().copied().take(longest).collect())
    }

    fn interfaces(self) -> io::Result<Vec<(u32, String)>> {
        Ok(INTERFACES.iter().map(|(index, name, _)| (*index, (*name).to_owned())).collect())
    }

    fn interface_name(self, index: u32) -> io::Result<String> {
        let found = INTERFACES.iter().find(|interface| interface.0 == index);
        found.map(|(_, name, _)| (*name).to_owned()).ok_or_else(missing)
    }

    fn interface_index(self, name: &str) -> io::Result<u32> {
        let found = INTERFACES.iter().find(|interface| interface.1 == name);
        found.map(|(index, ..)| *index).ok_or_else(missing)
    }

    fn interfaces_of(self, host: Ipv4Addr) -> io::Result<Vec<u32>> {
        let found = INTERFACES.iter().filter(|(.., own)| *own == host);
        Ok(found.map(|(index, ..)| *index).collect())
    }
}

fn address(bytes: Option<&[u8]>) -> io::Result<RawAddress> {
    bytes.and_then(RawAddress::from_bytes).ok_or_else(missing)
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Connection for &Named {
    fn cookie(self) -> io::Result<u64> {
        self.cookie.ok_or_else(missing)
    }

    fn is_hung_up(self) -> io::Result<bool> {
        Ok(self.is_hung_up)
    }

    fn network(self) -> io::Result<u64> {
        self.network.ok_or_else(missing)
    }

    fn subject(self, _with_control_group: bool) -> io::Result<Subject> {
        self.uid.map(|uid| Subject::new(uid, uid)).ok_or_else(missing)
    }
}

impl Recorder {
    pub fn new(fails: Option<i32>) -> Self {
        Self { fails, calls: RefCell::default() }
    }

    /// The calls since the last time.
    pub fn take(&self) -> Vec<Call> {
        self.calls.take()
    }

    fn record(&self, call: Call) -> io::Result<()> {
        self.calls.borrow_mut().push(call);
        self.fails.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }
}

impl SystemCalls<&Socket, &Named> for Recorder {
    type Namespace = ();

    fn own_network(&self) -> Option<u64> {
        Some(OWN_NETWORK)
    }

    fn network_of(&self, connection: &Named) -> Result<Found<()>, Unreachable> {
        let cookie = connection.network.ok_or(Unreachable::Failed(libc::EPERM))?;
        Ok(Found { namespace: (), cookie, owner: None })
    }

    fn named_network(&self, name: &str) -> Result<Found<()>, Unreachable> {
        let found = NETWORKS.iter().find(|(known, _)| *known == name);
        let (_, cookie) = found.ok_or(Unreachable::NoFile)?;
        Ok(Found { namespace: (), cookie: *cookie, owner: None })
    }

    fn passed_network(&self, passed: &Socket) -> Result<Found<()>, Unreachable> {
        let cookie = passed.network.ok_or(Unreachable::Failed(libc::EINVAL))?;
        Ok(Found { namespace: (), cookie, owner: passed.owner })
    }

    fn interfaces_in(
        &self,
        network: &Found<()>,
        query: &InterfaceQuery,
    ) -> Result<io::Result<InterfaceList>, Unreachable> {
        let listed = self.record(Call::Interfaces(network.cookie, query.clone()));
        Ok(listed.map(|()| vec![(1, "lo".to_owned())]))
    }

    fn create_in(
        &self,
        network: &Found<()>,
        spec: SocketSpec,
    ) -> Result<io::Result<OwnedFd>, Unreachable> {
        let made = self.record(Call::CreateIn(network.cookie, spec));
        Ok(made.and_then(|()| File::open("/dev/null").map(OwnedFd::from)))
    }

    fn create(&self, spec: SocketSpec) -> io::Result<OwnedFd> {
        self.record(Call::Create(spec))?;
        File::open("/dev/null").map(OwnedFd::from)
    }

    fn bind(&self, _: &Socket, address: &RawAddress) -> io::Result<()> {
        self.record(Call::Bind(address.as_bytes().to_vec()))
    }

    fn connect(&self, _: &Socket, address: &RawAddress) -> io::Result<()> {
        self.record(Call::Connect(address.as_bytes().to_vec()))
    }

    fn set_option(&self, _: &Socket, option: (i32, i32), value: &Value) -> io::Result<()> {
        self.record(Call::SetOption(option, value.clone()))
    }

    fn send(&self, _: &Socket, message: &OutgoingMessage<'_>) -> io::Result<usize> {
        let mut passes_descriptors = false;
        let mut control = Vec::new();
        for item in &message.control {
            match *item {
                OutgoingControl::Data { level, kind, data } => {
                    control.push(Control { level, kind, data: data.to_vec() });
                }
                OutgoingControl::Descriptors { .. } => passes_descriptors = true,
            }
        }
        let destination = message.destination.as_ref().map(|raw| raw.as_bytes().to_vec());
        let data = message.buffers.concat();
        let length = data.len();
        let flags = message.flags;
        self.record(Call::Send(Sent { destination, flags, control, passes_descriptors, data }))?;
        Ok(length)
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        self.record(Call::SetHostname(name.to_owned()))
    }

    fn capture(
        &self,
        network: Option<&Found<()>>,
        order: Order,
        _scopes: &[CaptureScope],
    ) -> Result<io::Result<(OwnedFd, Opened)>, Unreachable> {
        let cookie = network.map(|network| network.cookie);
        let opened = self.record(Call::Capture(cookie, Box::new(order.clone()))).and_then(|()| {
            let (indexes, hardware, longest, bind_began, started) =
                (Vec::new(), Vec::new(), 0, 0, 0);
            let opened = Opened { order, indexes, hardware, longest, bind_began, started };
            Ok((File::open("/dev/null")?.into(), opened))
        });
        Ok(opened)
    }
}
