//! Creates sockets: what `socket.py` does in Python around `socket(2)`.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use sockbroker_proto::address::{Address, AddressValue};
use sockbroker_proto::api::values::{Created, Netns};
use sockbroker_proto::constant::Constant;
use sockbroker_sys::resolver::AddressInfo;

use crate::descriptor::Descriptor;
use crate::error::{OpError, OpResult};
use crate::handlers::parameters::{host_and_port, int_or};
use crate::network::open;
use crate::network::other_namespace::{self, Selection};
use crate::network::resolve::AddressQuery;
use crate::ops::connect;
use crate::ops::descriptor;
use crate::ops::option;
use crate::ops::port;
use crate::rpc::call::Call;
use crate::table::entry::Entry;
use crate::table::permitted::{Accepted, Permitted};
use crate::table::timeout::Timeout;
use sockbroker_policy::action::{Bind, Create, Handover, OptionValue};
use sockbroker_policy::netns;
use sockbroker_policy::target::Target;
use sockbroker_policy::verb::Verb;
use sockbroker_proto::socket_spec::SocketSpec;

/// The backlog of `listen()` without an argument: `min(SOMAXCONN, 128)`.
pub(super) const DEFAULT_BACKLOG: i32 = 128;
/// Flags that the type argument of `socket(2)` can contain.
const TYPE_FLAGS: i32 = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;

/// What `socket()` creates without arguments.
pub(super) const DEFAULT_SOCKET: SocketSpec =
    SocketSpec { domain: libc::AF_INET, ty: libc::SOCK_STREAM, protocol: 0 };

/// Family, type and protocol as the caller passed them.
#[derive(Debug, Clone, Copy)]
pub(super) struct GivenSpec {
    pub(super) family: Option<Constant>,
    pub(super) socktype: Option<Constant>,
    pub(super) proto: Option<Constant>,
}

impl GivenSpec {
    /// The spec with defaults for absent values and without the flags of the type, and whether the flags make
    /// the socket non-blocking.
    pub(super) fn resolve(self, default: SocketSpec) -> OpResult<(SocketSpec, bool)> {
        let ty = int_or(self.socktype, default.ty)?;
        let spec = SocketSpec {
            domain: int_or(self.family, default.domain)?,
            ty: ty & !TYPE_FLAGS,
            protocol: int_or(self.proto, default.protocol)?,
        };
        Ok((spec, ty & libc::SOCK_NONBLOCK != 0))
    }

    /// Removes values of -1, which `socket.socket()` treats as absent; `socketpair()` does not.
    pub(super) fn without_minus_one(self) -> Self {
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
    given: GivenSpec,
    timeout: Timeout,
    netns: Option<&Netns>,
    want_fd: bool,
) -> OpResult<Created> {
    if want_fd {
        call.check_carries_descriptors()?;
    }
    let selection = call.selection(netns)?;
    let (spec, nonblocking) = given.without_minus_one().resolve(DEFAULT_SOCKET)?;
    let timeout = if nonblocking { Timeout::NonBlocking } else { timeout };
    let entry = create_entry(call, spec, &selection, timeout)?;
    admit(call, entry, want_fd)
}

/// `socket.socketpair()`.
pub(super) async fn pair(
    call: &Call,
    given: GivenSpec,
    timeout: Timeout,
    netns: Option<&Netns>,
    want_fd: bool,
) -> OpResult<(Created, Created)> {
    if want_fd {
        call.check_carries_descriptors()?;
    }
    let selection = call.selection(netns)?;
    let default = SocketSpec { domain: libc::AF_UNIX, ty: libc::SOCK_STREAM, protocol: 0 };
    let (spec, nonblocking) = given.resolve(default)?;
    let timeout = if nonblocking { Timeout::NonBlocking } else { timeout };
    let permit = call.permit_within(&selection.namespace, Create { socket: spec })?;
    let handles = (call.reserve_handle()?, call.reserve_handle()?);
    let (first, second) = open::pair(permit, timeout, handles, call.caller()).await?;
    let first = admit(call, Arc::new(first), want_fd)?;
    match admit(call, Arc::new(second), want_fd) {
        Ok(second) => Ok((first, second)),
        Err(error) => {
            // The caller cannot use one socket of a pair alone.
            drop(call.session().remove(first.handle));
            Err(error)
        }
    }
}

/// `socket.fromfd()` and `socket.socket(fileno=...)`.
pub(super) fn adopt(
    call: &Call,
    index: u32,
    given: GivenSpec,
    timeout: Timeout,
) -> OpResult<Created> {
    let request = open::examine(call.take_descriptor(index)?)?;
    let actual = request.socket;
    let (declared, nonblocking) = given.without_minus_one().resolve(actual)?;
    let timeout = if nonblocking { Timeout::NonBlocking } else { timeout };
    let known = &call.session().networks;
    let namespace =
        other_namespace::of_passed(request.descriptor.as_fd(), call.caller().privileged(), known);
    let permit = call.permit_within(&namespace, request)?;
    let entry = open::adopt(permit, declared, timeout, call.reserve_handle()?)?;
    admit(call, Arc::new(entry), false)
}

/// Assigns a handle to a socket, and attaches its descriptor to the answer if `want_fd` is set.
pub(super) fn admit(call: &Call, entry: Arc<Entry>, want_fd: bool) -> OpResult<Created> {
    let SocketSpec { domain: family, ty, protocol: proto } = entry.declared();
    let timeout = entry.timeout().seconds();
    let descriptor =
        if want_fd { Some(pass_new(call, &call.permit_handover(&entry)?)) } else { None };
    if let Some(maker) = call.maker() {
        // A new entry has none.
        drop(entry.maker.set(maker));
    }
    let handle = call.session().insert(entry)?;
    if let Some(descriptor) = descriptor {
        call.attach_descriptor(descriptor);
    }
    Ok(Created { handle, family, r#type: ty, proto, timeout, channel: None })
}

/// The descriptor of a new socket. With `exactly_once`, the client uses it to wait, and not to receive.
fn pass_new(call: &Call, permitted: &Permitted<Handover>) -> Arc<Descriptor> {
    match call.exactly_once() {
        Some(_) => descriptor::pass_unread(permitted),
        None => descriptor::pass(permitted),
    }
}

/// Assigns a handle to an accepted socket, and attaches its descriptor to the answer if the policy lets it be passed.
pub(super) fn admit_accepted(
    call: &Call,
    accepted: Accepted,
    handover: Option<Permitted<Handover>>,
) -> OpResult<Created> {
    let Some(permitted) = handover else {
        return admit(call, accepted.into_entry(), false);
    };
    let permitted = permitted.of_accepted(&accepted);
    let descriptor = pass_new(call, &permitted);
    let created = admit(call, accepted.into_entry(), false)?;
    call.attach_descriptor(descriptor);
    Ok(created)
}

/// The arguments of `create_connection`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Destination<'a> {
    pub(super) address: &'a AddressValue,
    pub(super) source: Option<&'a AddressValue>,
    pub(super) all_errors: bool,
    pub(super) netns: Option<&'a Netns>,
}

/// `socket.create_connection()`.
pub(super) async fn connection(
    call: &Call,
    wanted: Destination<'_>,
    timeout: Timeout,
) -> OpResult<Created> {
    let (host, port) = host_and_port(wanted.address)?;
    let selection = call.selection(wanted.netns)?;
    let query =
        AddressQuery { host, service: port, kind: libc::SOCK_STREAM, ..AddressQuery::default() };
    let found = call.look_up(&selection.namespace, query).await?;
    let mut failures: Vec<OpError> = Vec::new();
    for info in found {
        match connect_one(call, &info, (&selection, wanted.source), timeout).await {
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
    (selection, source): (&Selection, Option<&AddressValue>),
    timeout: Timeout,
) -> OpResult<Arc<Entry>> {
    let spec = SocketSpec { domain: info.family, ty: info.kind, protocol: info.proto };
    let entry = create_entry(call, spec, selection, timeout)?;
    if let Some(source) = source {
        let target = call.target(&entry, source, ("bind", Verb::Bind)).await?;
        bind(call, &call.permit_bind(&entry, target)?).await?;
    }
    let address = info.address.decode(spec.protocol).unwrap_or(Address::Unspecified);
    let permit = call.permit_connect(&entry, Target::Address(address))?;
    let ticket = entry.sending.join(call.connection().number());
    connect::connect(&permit, ticket, call.caller()).await?;
    Ok(entry)
}

/// Binds a socket, after claiming its port if it is bound with `SO_REUSEPORT`. `EADDRINUSE` if another principal has
/// the port.
pub(super) async fn bind(call: &Call, permitted: &Permitted<Bind>) -> OpResult<()> {
    let claimed = match port::claim(permitted) {
        Some(claim) => Some(call.claim(claim, "bind").await?),
        None => None,
    };
    connect::bind(permitted, call.caller()).await?;
    match claimed {
        Some(claimed) => port::note(permitted, claimed),
        None => {
            if let Some(claim) = port::chosen(permitted) {
                port::note(permitted, call.claim(claim, "bind").await?);
            }
        }
    }
    Ok(())
}

/// The arguments of `create_server`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server<'a> {
    pub(super) address: &'a AddressValue,
    pub(super) family: i32,
    pub(super) backlog: Option<i32>,
    pub(super) reuse_port: bool,
    pub(super) dualstack: bool,
    pub(super) netns: Option<&'a Netns>,
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
    let spec = SocketSpec { domain: family, ty: libc::SOCK_STREAM, protocol: 0 };
    let timeout = call.session().default_timeout.get();
    let entry = create_entry(call, spec, &call.selection(wanted.netns)?, timeout)?;
    set_int(call, &entry, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if wanted.reuse_port {
        set_int(call, &entry, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    if family == libc::AF_INET6 {
        let only = i64::from(!wanted.dualstack);
        set_int(call, &entry, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only)?;
    }
    // create_server raises an error of the resolver as a plain OSError.
    let target = call.target(&entry, wanted.address, ("bind", Verb::Bind)).await;
    let target = target.map_err(|error| match error {
        OpError::Gai(errno) => OpError::Os { call: "bind", errno },
        other => other,
    })?;
    bind(call, &call.permit_bind(&entry, target)?).await?;
    let backlog = wanted.backlog.unwrap_or(DEFAULT_BACKLOG);
    connect::listen(&call.permit_listen(&entry, backlog)?, call.caller()).await?;
    admit(call, entry, false)
}

/// `socket.has_dualstack_ipv6()`: tries it on a new socket, as Python does.
pub(super) fn has_dualstack(call: &Call) -> OpResult<bool> {
    let spec = SocketSpec { domain: libc::AF_INET6, ty: libc::SOCK_STREAM, protocol: 0 };
    let (permit, handle) = (call.permit(Create { socket: spec })?, call.reserve_handle()?);
    let here = Selection::default();
    let made = open::create(permit, &here, Timeout::Blocking, handle, call.caller());
    let Ok(entry) = made else { return Ok(false) };
    let set = set_int(call, &Arc::new(entry), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0);
    Ok(set.is_ok())
}

fn set_int(call: &Call, entry: &Arc<Entry>, level: i32, name: i32, value: i64) -> OpResult<()> {
    let permitted = call.permit_set_option(entry, level, name, OptionValue::Int(value))?;
    // The socket is not bound, so that there is nothing to claim.
    option::set(&permitted, None, call.caller())
}

impl Call {
    /// The network namespace that a client selects.
    pub(super) fn selection(&self, netns: Option<&Netns>) -> OpResult<Selection> {
        let netns = match netns {
            None => return Ok(Selection::default()),
            Some(Netns::Passed(passed)) => {
                let descriptor = self.take_descriptor(passed.descriptor)?;
                let uid = self.session().principal().subject().uid;
                return other_namespace::examine(self.method(), descriptor, uid);
            }
            Some(Netns::Named(name)) => netns::Netns::of_client(name).map_err(OpError::value)?,
        };
        let is_remote = self.connection().principal().is_remote();
        if is_remote && matches!(netns, netns::Netns::Caller) {
            let text = "netns: a remote principal has no network namespace on this machine: name one that it has";
            return Err(OpError::Remote(text.to_owned()));
        }
        let namespace =
            other_namespace::selected(self.method(), &netns, self.caller().privileged())?;
        Ok(Selection { namespace, passed: None })
    }
}

pub(super) fn create_entry(
    call: &Call,
    spec: SocketSpec,
    selection: &Selection,
    timeout: Timeout,
) -> OpResult<Arc<Entry>> {
    let permit = call.permit_within(&selection.namespace, Create { socket: spec })?;
    let handle = call.reserve_handle()?;
    open::create(permit, selection, timeout, handle, call.caller()).map(Arc::new)
}
