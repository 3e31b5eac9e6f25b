//! Other network namespaces than the broker's own: the opener makes sockets and lists interfaces there, or a thread of this
//! process does.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use sockbroker_monitor::capture;
use sockbroker_monitor::opener::{
    Namespaces, Selected, can_enter_networks, interfaces_in, open_in,
};
use sockbroker_monitor::request::{
    Answer, InterfaceQuery, OpenerRequest, Request, SelectedNamespace, Unreachable,
};
use sockbroker_policy::Permit;
use sockbroker_policy::action::{Create, Interfaces, ScopedCapture};
use sockbroker_policy::namespace::{Namespace, Other, owns};
use sockbroker_policy::netns::Netns;
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::namespace::{self, NetworkNamespace};

use crate::descriptor::Descriptor;
use crate::error::netns::Reason;
use crate::error::{During, OpError, OpResult};
use crate::network::known::KnownNetworks;
use crate::network::opener::{Privileged, as_selected};

/// A network namespace that a client selects.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// What rules judge of it, as far as this process knows it.
    pub namespace: Namespace,
    /// Its descriptor, if the client passed one.
    pub passed: Option<Arc<Descriptor>>,
}

impl Selection {
    fn passed(&self) -> Option<BorrowedFd<'_>> {
        self.passed.as_deref().map(|passed| passed.as_fd())
    }
}

/// The error of a call for a network namespace.
pub fn error(call: &'static str, namespace: &Namespace, reason: Reason) -> OpError {
    let namespace = match namespace.netns() {
        None => "unknown".to_owned(),
        Some(Netns::Owned) => "passed".to_owned(),
        Some(netns @ (Netns::Caller | Netns::Named(_))) => netns.to_string(),
    };
    OpError::Netns { call, namespace, reason }
}

/// The namespace that a client selects by a word, as far as rules can judge it before it is entered.
pub fn selected(call: &'static str, netns: &Netns, privileged: &Privileged) -> OpResult<Namespace> {
    let namespace = Namespace::from(netns);
    match netns {
        Netns::Named(_) => Ok(namespace),
        Netns::Owned => Err(OpError::value("netns: pass the descriptor of the network namespace")),
        Netns::Caller => match (privileged.own_network(), privileged.clients_network()) {
            // Rules without netns are about it.
            (Some(own), Some(clients)) if own == clients => Ok(Namespace::Broker),
            (Some(_), Some(_)) => Ok(namespace),
            (None, _) | (_, None) => Err(error(call, &namespace, Reason::UnknownClient)),
        },
    }
}

/// The namespace that a client of this user passes.
pub fn examine(call: &'static str, passed: Descriptor, uid: u32) -> OpResult<Selection> {
    let namespace = Namespace::from(&Netns::Owned);
    let fail = |reason| error(call, &namespace, reason);
    let found = NetworkNamespace::of_descriptor(passed.as_fd());
    let found = found.map_err(|_other| fail(Reason::NotPassed))?;
    let own = NetworkNamespace::own().during("open")?;
    if namespace::is_same(found.as_fd(), own.as_fd()).during("fstat")? {
        return Err(fail(Reason::Unreachable(Unreachable::BrokersOwn)));
    }
    if !owns(uid, found.owner().during("ioctl")?) {
        return Err(fail(Reason::Unreachable(Unreachable::NotOwned)));
    }
    Ok(Selection { namespace, passed: Some(Arc::new(passed)) })
}

/// The namespace of a socket that a client passes. `known` are those in which its session was given sockets.
pub fn of_passed(
    descriptor: BorrowedFd<'_>,
    privileged: &Privileged,
    known: &KnownNetworks,
) -> Namespace {
    let Some(own) = privileged.own_network() else { return Namespace::Broker };
    let cookie = namespace::cookie(descriptor);
    if let Some(namespace) = cookie.as_ref().ok().and_then(|cookie| known.find(*cookie)) {
        return namespace;
    }
    match cookie {
        Ok(cookie) if cookie == own => Namespace::Broker,
        Ok(cookie) if privileged.clients_network() == Some(cookie) => {
            Namespace::from(&Netns::Caller)
        }
        Ok(_) | Err(_) => Namespace::unknown(),
    }
}

/// A socket in the namespace that was judged, and all that rules judge of it.
pub fn create(
    permit: Permit<Create>,
    selection: &Selection,
    privileged: &Privileged,
) -> OpResult<(OwnedFd, Namespace)> {
    let namespace = &permit.namespace().clone();
    let Create { socket: spec } = permit.into_request();
    let fail = |reason| error("socket", namespace, reason);
    if [libc::AF_UNIX, libc::AF_PPPOX].contains(&spec.domain) {
        return Err(fail(Reason::Family));
    }
    let made = if privileged.is_direct() {
        let make =
            |namespaces: &Namespaces, selected: Selected<'_>| open_in(namespaces, selected, spec);
        by_thread(namespace, selection, privileged, make).map_err(fail)?.during("socket")?
    } else {
        let SocketSpec { domain, ty, protocol } = spec;
        let request = Request::Create { domain, ty, protocol };
        match ask("socket", namespace, selection, privileged, request)? {
            (Answer::Socket, Some(made)) => made,
            _ => return Err(fail(Reason::Family)),
        }
    };
    let clients = privileged.clients_network();
    let is_callers = clients.is_some() && namespace::cookie(made.as_fd()).ok() == clients;
    let namespace = match namespace.clone() {
        Namespace::Other(other) => Namespace::Other(Other { is_callers, ..other }),
        Namespace::Broker => Namespace::Broker,
    };
    Ok((made, namespace))
}

/// The socket of a capture in the namespace that was judged, for a broker of one process.
pub fn capture_socket(
    permit: &Permit<ScopedCapture>,
    selection: &Selection,
    privileged: &Privileged,
) -> OpResult<OwnedFd> {
    const CALL: &str = "capture.open";
    let namespace = permit.namespace();
    let make = |namespaces: &Namespaces, selected: Selected<'_>| {
        open_in(namespaces, selected, capture::SOCKET)
    };
    let made = by_thread(namespace, selection, privileged, make);
    made.map_err(|reason| error(CALL, namespace, reason))?.during(CALL)
}

/// Interfaces of the namespace that was judged: index and name.
pub fn interfaces(
    permit: Permit<Interfaces>,
    selection: &Selection,
    call: &'static str,
    query: InterfaceQuery,
    privileged: &Privileged,
) -> OpResult<Vec<(u32, String)>> {
    let namespace = &permit.namespace().clone();
    let Interfaces = permit.into_request();
    let fail = |reason| error(call, namespace, reason);
    if privileged.is_direct() {
        let list = move |namespaces: &Namespaces, selected: Selected<'_>| {
            interfaces_in(namespaces, selected, &query)
        };
        return by_thread(namespace, selection, privileged, list).map_err(fail)?.during(call);
    }
    match ask(call, namespace, selection, privileged, Request::Interfaces { query })? {
        (Answer::Interfaces(found), _) => Ok(found),
        _ => Err(fail(Reason::Unreachable(Unreachable::BrokersOwn))),
    }
}

/// Asks the opener. Its refusals are errors.
fn ask(
    call: &'static str,
    namespace: &Namespace,
    selection: &Selection,
    privileged: &Privileged,
    request: Request,
) -> OpResult<(Answer, Option<OwnedFd>)> {
    let fail = |reason| error(call, namespace, reason);
    let opener_request = OpenerRequest { network: as_selected(namespace), request };
    let asked = privileged.ask_without_socket(&opener_request, selection.passed());
    let (answer, made) = asked.ok_or_else(|| fail(Reason::HungUp))?.during(call)?;
    match answer {
        Answer::Failed(errno) => Err(OpError::Os { call, errno }),
        Answer::Refused(errno) => Err(fail(Reason::Refused(errno))),
        Answer::Unreachable(why) => Err(fail(Reason::Unreachable(why))),
        Answer::HungUp => Err(fail(Reason::HungUp)),
        answer @ (Answer::NotServed
        | Answer::Done
        | Answer::Sent(_)
        | Answer::Limit(_)
        | Answer::Socket
        | Answer::Made
        | Answer::Interfaces(_)) => Ok((answer, made)),
    }
}

/// Makes a call in a thread of this process, which ends afterwards.
fn by_thread<T: Send>(
    namespace: &Namespace,
    selection: &Selection,
    privileged: &Privileged,
    make: impl FnOnce(&Namespaces, Selected<'_>) -> Result<io::Result<T>, Unreachable> + Send,
) -> Result<io::Result<T>, Reason> {
    let namespaces: Option<Arc<Namespaces>> =
        privileged.namespaces().filter(|_| can_enter_networks());
    let namespaces = namespaces.ok_or(Reason::Unreachable(Unreachable::Incapable))?;
    let connection = privileged.connection();
    let network: SelectedNamespace = as_selected(namespace);
    let call = || {
        let connection = connection.as_deref().map(|connection| connection.as_fd());
        let passed = selection.passed();
        make(&namespaces, Selected { network: &network, connection, passed })
    };
    match thread::scope(|scope| scope.spawn(call).join()) {
        Ok(made) => made.map_err(Reason::Unreachable),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
