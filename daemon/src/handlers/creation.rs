//! Making sockets: what `socket.py` does in Python around `socket(2)`.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use sockbroker_proto::address::{Address, AddressItem, AddressValue};
use sockbroker_proto::api::values::Created;
use sockbroker_proto::constant::Constant;
use sockbroker_sys::resolver::AddressInfo;

use crate::error::{OpError, OpResult};
use crate::handlers::number::int_or;
use crate::network::open;
use crate::network::resolve::Question;
use crate::ops::connect;
use crate::ops::descriptor;
use crate::ops::option;
use crate::rpc::call::Call;
use crate::table::entry::Entry;
use crate::table::permitted::{Accepted, Permitted};
use crate::table::timeout::Timeout;
use sockbroker_policy::action::{Create, Handover, OptionValue};
use sockbroker_policy::target::Target;
use sockbroker_policy::verb::Verb;
use sockbroker_proto::socket_spec::SocketSpec;

/// `listen()` without a number: `min(SOMAXCONN, 128)`.
pub(super) const DEFAULT_BACKLOG: i32 = 128;
/// `SOCK_NONBLOCK` and `SOCK_CLOEXEC` ride in the type.
const TYPE_FLAGS: i32 = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;

/// Family, type and protocol as a caller gave them.
#[derive(Debug, Clone, Copy)]
pub(super) struct GivenSpec {
    pub(super) family: Option<Constant>,
    pub(super) socktype: Option<Constant>,
    pub(super) proto: Option<Constant>,
}

impl GivenSpec {
    /// With defaults for what is absent, the type without its flags, and whether they make the socket
    /// non-blocking.
    fn facts(self, default: SocketSpec) -> OpResult<(SocketSpec, bool)> {
        let kind = int_or(self.socktype, default.ty)?;
        let facts = SocketSpec {
            domain: int_or(self.family, default.domain)?,
            ty: kind & !TYPE_FLAGS,
            protocol: int_or(self.proto, default.protocol)?,
        };
        Ok((facts, kind & libc::SOCK_NONBLOCK != 0))
    }

    /// `socket.socket()` takes -1 for what is absent; `socketpair()` does not.
    fn without_minus_one(self) -> Self {
        let given = |value: &Constant| *value != Constant(-1);
        Self {
            family: self.family.filter(given),
            socktype: self.socktype.filter(given),
            proto: self.proto.filter(given),
        }
    }
}

/// `socket.socket()`.
pub(super) fn create(
    call: &Call,
    kind: GivenSpec,
    timeout: Timeout,
    want_fd: bool,
) -> OpResult<Created> {
    if want_fd {
        call.check_carries_descriptors()?;
    }
    let default = SocketSpec { domain: libc::AF_INET, ty: libc::SOCK_STREAM, protocol: 0 };
    let (facts, nonblocking) = kind.without_minus_one().facts(default)?;
    let timeout = if nonblocking { Timeout::NonBlocking } else { timeout };
    let entry = create_entry(call, facts, timeout)?;
    admit(call, entry, want_fd)
}

/// `socket.socketpair()`.
pub(super) async fn pair(
    call: &Call,
    kind: GivenSpec,
    timeout: Timeout,
    want_fd: bool,
) -> OpResult<(Created, Created)> {
    if want_fd {
        call.check_carries_descriptors()?;
    }
    let default = SocketSpec { domain: libc::AF_UNIX, ty: libc::SOCK_STREAM, protocol: 0 };
    let (facts, nonblocking) = kind.facts(default)?;
    let timeout = if nonblocking { Timeout::NonBlocking } else { timeout };
    let permit = call.permit(Create { socket: facts })?;
    let handles = (call.room()?, call.room()?);
    let (first, second) =
        call.broker().network.pair(permit, timeout, handles, call.caller()).await?;
    let first = admit(call, Arc::new(first), want_fd)?;
    match admit(call, Arc::new(second), want_fd) {
        Ok(second) => Ok((first, second)),
        Err(error) => {
            // Half a pair is of no use to anybody.
            drop(call.session().remove(first.handle));
            Err(error)
        }
    }
}

/// `socket.fromfd()` and `socket.socket(fileno=...)`.
pub(super) fn adopt(
    call: &Call,
    place: u32,
    kind: GivenSpec,
    timeout: Timeout,
) -> OpResult<Created> {
    let request = open::examine(call.take_descriptor(place)?)?;
    let known = request.socket;
    let (facts, nonblocking) = kind.without_minus_one().facts(known)?;
    let timeout = if nonblocking { Timeout::NonBlocking } else { timeout };
    let permit = call.permit(request)?;
    let entry = open::adopt(permit, facts, timeout, call.room()?)?;
    admit(call, Arc::new(entry), false)
}

/// Names a socket, and puts a descriptor beside the answer if asked.
pub(super) fn admit(call: &Call, entry: Arc<Entry>, want_fd: bool) -> OpResult<Created> {
    let facts = entry.declared();
    let timeout = entry.timeout().seconds();
    let descriptor =
        if want_fd { Some(descriptor::pass(&call.permit_handover(&entry)?)?) } else { None };
    let handle = call.session().insert(entry)?;
    if let Some(descriptor) = descriptor {
        call.give_descriptor(descriptor);
    }
    let SocketSpec { domain: family, ty: kind, protocol: proto } = facts;
    Ok(Created { handle, family, r#type: kind, proto, timeout })
}

/// Names an accepted socket, and puts its descriptor in the answer if one was kept for it.
pub(super) fn admit_accepted(
    call: &Call,
    accepted: Accepted,
    kept: Option<(Permitted<Handover>, OwnedFd)>,
) -> OpResult<Created> {
    let Some((permitted, spare)) = kept else {
        return admit(call, accepted.into_entry(), false);
    };
    let permitted = permitted.of_accepted(&accepted);
    let descriptor = descriptor::pass_in_place(&permitted, spare)?;
    let created = admit(call, accepted.into_entry(), false)?;
    call.give_descriptor(descriptor);
    Ok(created)
}

/// What `create_connection` is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Destination<'a> {
    pub(super) address: &'a AddressValue,
    pub(super) source: Option<&'a AddressValue>,
    pub(super) all_errors: bool,
}

/// `socket.create_connection()`.
pub(super) async fn connection(
    call: &Call,
    wanted: Destination<'_>,
    timeout: Timeout,
) -> OpResult<Created> {
    let (host, port) = host_and_port(wanted.address)?;
    let question = Question { host, service: port, kind: libc::SOCK_STREAM, ..Question::default() };
    let found = call.look_up(question).await?;
    let mut failures: Vec<OpError> = Vec::new();
    for info in found {
        match connect_one(call, &info, wanted.source, timeout).await {
            Ok(entry) => return admit(call, entry, false),
            Err(error) => failures.push(error),
        }
    }
    if wanted.all_errors && !failures.is_empty() {
        return Err(OpError::Group(failures));
    }
    let none = || OpError::Plain("getaddrinfo returns an empty list".to_owned());
    Err(failures.pop().unwrap_or_else(none))
}

async fn connect_one(
    call: &Call,
    info: &AddressInfo,
    source: Option<&AddressValue>,
    timeout: Timeout,
) -> OpResult<Arc<Entry>> {
    let facts = SocketSpec { domain: info.family, ty: info.kind, protocol: info.proto };
    let entry = create_entry(call, facts, timeout)?;
    if let Some(source) = source {
        let target = call.target(&entry, source, ("bind", Verb::Bind)).await?;
        connect::bind(&call.permit_bind(&entry, target)?, call.caller()).await?;
    }
    let address = info.address.decode(facts.protocol).unwrap_or(Address::Unspecified);
    let permit = call.permit_connect(&entry, Target::Address(address))?;
    let ticket = entry.sending.join(call.connection().number());
    connect::connect(&permit, ticket, call.caller()).await?;
    Ok(entry)
}

/// `(host, port)`, where the port may be a service name.
fn host_and_port(address: &AddressValue) -> OpResult<(Option<String>, Option<String>)> {
    let wrong = || OpError::type_error("the address must be [host, port]");
    let AddressValue::Tuple(items) = address else {
        return Err(wrong());
    };
    let [host, port] = items.as_slice() else {
        return Err(OpError::value("the address must be [host, port]"));
    };
    let host = match host {
        AddressItem::Text(host) => Some(host.clone()),
        AddressItem::None(()) => None,
        AddressItem::Number(_) | AddressItem::Bytes(_) | AddressItem::Other(_) => {
            return Err(wrong());
        }
    };
    Ok((host, service(Some(port))?))
}

/// A port of `getaddrinfo`: a number, a name, or none.
pub(super) fn service(port: Option<&AddressItem>) -> OpResult<Option<String>> {
    match port {
        None | Some(AddressItem::None(())) => Ok(None),
        Some(AddressItem::Number(number)) => Ok(Some(number.to_string())),
        Some(AddressItem::Text(text)) => Ok(Some(text.clone())),
        Some(item @ (AddressItem::Bytes(_) | AddressItem::Other(_))) => Err(match item.integer() {
            Some(_) => OpError::overflow("Python int too large to convert to C long"),
            None => OpError::Plain("Int or String expected".to_owned()),
        }),
    }
}

/// What `create_server` is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server<'a> {
    pub(super) address: &'a AddressValue,
    pub(super) family: i32,
    pub(super) backlog: Option<i32>,
    pub(super) reuse_port: bool,
    pub(super) dualstack: bool,
}

/// `socket.create_server()`.
pub(super) async fn server(call: &Call, wanted: Server<'_>) -> OpResult<Created> {
    let family = wanted.family;
    if wanted.dualstack {
        if !has_dualstack(call)? {
            return Err(OpError::value("dualstack_ipv6 not supported on this platform"));
        }
        if family != libc::AF_INET6 {
            return Err(OpError::value("dualstack_ipv6 requires AF_INET6 family"));
        }
    }
    let facts = SocketSpec { domain: family, ty: libc::SOCK_STREAM, protocol: 0 };
    let timeout = call.session().default_timeout.get();
    let entry = create_entry(call, facts, timeout)?;
    set_int(call, &entry, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if wanted.reuse_port {
        set_int(call, &entry, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    if family == libc::AF_INET6 {
        let only = i64::from(!wanted.dualstack);
        set_int(call, &entry, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only)?;
    }
    // create_server raises what the resolver said as a plain OSError.
    let target = call.target(&entry, wanted.address, ("bind", Verb::Bind)).await;
    let target = target.map_err(|error| match error {
        OpError::Gai(errno) => OpError::Os { call: "bind", errno },
        other => other,
    })?;
    connect::bind(&call.permit_bind(&entry, target)?, call.caller()).await?;
    let backlog = wanted.backlog.unwrap_or(DEFAULT_BACKLOG);
    connect::listen(&call.permit_listen(&entry, backlog)?, call.caller()).await?;
    admit(call, entry, false)
}

/// `socket.has_dualstack_ipv6()`: tried, as in Python.
pub(super) fn has_dualstack(call: &Call) -> OpResult<bool> {
    let facts = SocketSpec { domain: libc::AF_INET6, ty: libc::SOCK_STREAM, protocol: 0 };
    let (permit, handle) = (call.permit(Create { socket: facts })?, call.room()?);
    let Ok(entry) = call.broker().network.create(permit, Timeout::Blocking, handle) else {
        return Ok(false);
    };
    let set = set_int(call, &Arc::new(entry), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0);
    Ok(set.is_ok())
}

fn set_int(call: &Call, entry: &Arc<Entry>, level: i32, name: i32, value: i64) -> OpResult<()> {
    option::set(&call.permit_set_option(entry, level, name, OptionValue::Int(value))?)
}

fn create_entry(call: &Call, spec: SocketSpec, timeout: Timeout) -> OpResult<Arc<Entry>> {
    let permit = call.permit(Create { socket: spec })?;
    Ok(Arc::new(call.broker().network.create(permit, timeout, call.room()?)?))
}
