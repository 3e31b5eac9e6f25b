//! Sockets in other network namespaces than the broker's own: the opener makes them, or a thread of this process.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use sockbroker_monitor::opener::{Namespaces, open_elsewhere};
use sockbroker_monitor::request::{Answer, Network, Question, Request};
use sockbroker_policy::Permit;
use sockbroker_policy::action::Create;
use sockbroker_policy::netns::Netns;
use sockbroker_policy::place::{Other, Place};
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::capability::{self, Capability};
use sockbroker_sys::namespace;

use crate::error::netns::Reason;
use crate::error::{During, OpError, OpResult};
use crate::network::opener::{Privileged, as_network};

/// The error of a call for a network namespace.
pub fn error(call: &'static str, place: &Place, reason: Reason) -> OpError {
    let namespace = place.netns().map_or_else(|| "unknown".to_owned(), |netns| netns.to_string());
    OpError::Netns { call, namespace, reason }
}

/// The namespace that a client selects, as far as rules can judge it before it is entered.
pub fn selected(netns: &Netns, privileged: &Privileged) -> OpResult<Place> {
    let place = Place::from(netns);
    match netns {
        Netns::Named(_) => Ok(place),
        Netns::Caller => match (privileged.own_network(), privileged.clients_network()) {
            // Rules without netns are about it.
            (Some(own), Some(clients)) if own == clients => Ok(Place::Broker),
            (Some(_), Some(_)) => Ok(place),
            (None, _) | (_, None) => Err(error("socket", &place, Reason::UnknownClient)),
        },
    }
}

/// The namespace of a socket that a client passes.
pub fn of_passed(descriptor: BorrowedFd<'_>, privileged: &Privileged) -> Place {
    let Some(own) = privileged.own_network() else { return Place::Broker };
    match namespace::cookie(descriptor) {
        Ok(cookie) if cookie == own => Place::Broker,
        Ok(cookie) if privileged.clients_network() == Some(cookie) => Place::from(&Netns::Caller),
        Ok(_) | Err(_) => Place::unknown(),
    }
}

/// A socket in the namespace that was judged, and all that rules judge of it.
pub fn create(permit: Permit<Create>, privileged: &Privileged) -> OpResult<(OwnedFd, Place)> {
    let place = &permit.place().clone();
    let Create { socket: spec } = permit.into_request();
    let fail = |reason| error("socket", place, reason);
    if [libc::AF_UNIX, libc::AF_PPPOX].contains(&spec.domain) {
        return Err(fail(Reason::Family));
    }
    let network = as_network(place);
    let made = if privileged.is_direct() {
        by_thread(spec, &network, privileged).map_err(fail)?.during("socket")?
    } else {
        let SocketSpec { domain, ty, protocol } = spec;
        let request = Request::Create { domain, ty, protocol };
        let asked = privileged.ask_plainly(&Question { network, request });
        let (answer, made) = asked.ok_or_else(|| fail(Reason::HungUp))?.during("socket")?;
        match (answer, made) {
            (Answer::Socket, Some(made)) => made,
            (Answer::Failed(errno), _) => return Err(OpError::Os { call: "socket", errno }),
            (Answer::Refused(errno), _) => return Err(fail(Reason::Refused(errno))),
            (Answer::Unreachable(why), _) => return Err(fail(Reason::Unreachable(why))),
            (Answer::HungUp, _) => return Err(fail(Reason::HungUp)),
            (Answer::NotServed | Answer::Done | Answer::Sent(_) | Answer::Socket, _) => {
                return Err(fail(Reason::Family));
            }
        }
    };
    let is_callers = privileged.clients_network();
    let is_callers = is_callers.is_some() && namespace::cookie(made.as_fd()).ok() == is_callers;
    let name = match place {
        Place::Other(Other { name, .. }) => name.clone(),
        Place::Broker => None,
    };
    Ok((made, Place::Other(Other { is_callers, name })))
}

/// Makes a socket in a thread of this process, which ends afterwards.
fn by_thread(
    spec: SocketSpec,
    network: &Network,
    privileged: &Privileged,
) -> Result<std::io::Result<OwnedFd>, Reason> {
    let has = |capability| capability::has(capability).unwrap_or(false);
    if ![Capability::SysAdmin, Capability::NetAdmin].into_iter().all(has) {
        return Err(Reason::Incapable);
    }
    let connection = privileged.connection();
    let namespaces: Arc<Namespaces> = privileged.namespaces().ok_or(Reason::Incapable)?;
    let make = || {
        let connection = connection.as_deref().map(|connection| connection.as_fd());
        open_elsewhere(&namespaces, network, connection, spec)
    };
    let made = thread::scope(|scope| scope.spawn(make).join());
    match made {
        Ok(made) => made.map_err(Reason::Unreachable),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
