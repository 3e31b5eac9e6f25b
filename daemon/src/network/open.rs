//! Creating, adopting, duplicating and passing sockets.

use sockbroker_policy::socket_spec::JudgedSocket as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use sockbroker_sys::socket;

use crate::descriptor::Descriptor;
use crate::error::netns::Reason;
use crate::error::{During, OpError, OpResult};
use crate::network::caller_identity::CallerIdentity;
use crate::network::opener::Done;
use crate::network::other_namespace::{self, Selection};
use crate::quota::Reservation;
use crate::table::entry::Entry;
use crate::table::rcvall::Rcvall;
use crate::table::timeout::Timeout;
use sockbroker_monitor::caller::message::UnixCall;
use sockbroker_monitor::opener::{open_rcvall, serves_rcvall};
use sockbroker_monitor::request::Request;
use sockbroker_policy::Permit;
use sockbroker_policy::action::{Adopt, Create};
use sockbroker_policy::namespace::Namespace;
use sockbroker_policy::need::creation_needs_privilege;
use sockbroker_policy::socket_spec::SOCK_PACKET;
use sockbroker_policy::target::SocketName;
use sockbroker_proto::socket_spec::SocketSpec;

/// `socket(2)`, in the namespace that was judged. `AF_INET, SOCK_RAW, IPPROTO_IP` gives the emulation of `SIO_RCVALL` instead.
pub fn create(
    permit: Permit<Create>,
    selection: &Selection,
    timeout: Timeout,
    handle: Reservation,
    caller: &CallerIdentity,
) -> OpResult<Entry> {
    let Create { socket: spec } = *permit.request();
    refuse_family("socket", spec)?;
    if *permit.namespace() != Namespace::Broker {
        let (descriptor, namespace) =
            other_namespace::create(permit, selection, caller.privileged())?;
        return new_entry(descriptor, spec, timeout, handle)
            .map(|entry| entry.of_namespace(namespace));
    }
    let descriptor = match ask_for_socket(spec, caller) {
        Some(asked) => asked,
        None if serves_rcvall(spec) => open_rcvall(),
        None => socket::create(spec.domain, spec.ty, spec.protocol),
    };
    new_entry(descriptor.during("socket")?, spec, timeout, handle)
}

/// `socketpair(2)`, as the caller: the kernel shows each end the ids of the thread that made it.
pub async fn pair(
    permit: Permit<Create>,
    timeout: Timeout,
    handles: (Reservation, Reservation),
    caller: &CallerIdentity,
) -> OpResult<(Entry, Entry)> {
    if *permit.namespace() != Namespace::Broker {
        return Err(other_namespace::error("socketpair", permit.namespace(), Reason::Family));
    }
    let Create { socket: spec } = permit.into_request();
    let SocketSpec { domain, ty, protocol } = spec;
    let (first, second) = match caller.client_by_ids(spec, "socketpair")? {
        None => socket::pair(domain, ty, protocol).during("socketpair")?,
        Some(client) => {
            let call = UnixCall::Pair { domain, ty, protocol };
            let (_, ends) = client.call("socketpair", call, Vec::new()).await?;
            let [first, second] = <[OwnedFd; 2]>::try_from(ends)
                .map_err(|_others| OpError::Plain("socketpair: an end is missing".to_owned()))?;
            (first, second)
        }
    };
    let first = Entry::new(first, spec, timeout, handles.0).during("fcntl")?;
    let second = Entry::new(second, spec, timeout, handles.1).during("fcntl")?;
    Ok((first, second))
}

/// Whether `socket()` emulates `SIO_RCVALL` for this spec, which the kernel refuses.
pub fn is_emulated(spec: SocketSpec) -> bool {
    serves_rcvall(spec)
}

/// The entry of a socket that was made for this spec.
fn new_entry(
    descriptor: OwnedFd,
    spec: SocketSpec,
    timeout: Timeout,
    handle: Reservation,
) -> OpResult<Entry> {
    let entry = Entry::new(descriptor, spec, timeout, handle).during("fcntl")?;
    Ok(if serves_rcvall(spec) { entry.with_rcvall(Rcvall::default()) } else { entry })
}

/// Asks the opener for a socket that needs a capability, or on which a send can need one: the kernel checks netlink
/// messages by the process that made the socket as well. `None` if this process makes the socket itself.
fn ask_for_socket(spec: SocketSpec, caller: &CallerIdentity) -> Option<io::Result<OwnedFd>> {
    let privileged = caller.privileged();
    let needs = creation_needs_privilege(spec) || spec.domain == libc::AF_NETLINK;
    if privileged.is_direct() || !needs {
        return None;
    }
    let SocketSpec { domain, ty, protocol } = spec;
    match privileged.ask(Request::Create { domain, ty, protocol }, None)? {
        Ok(Done::Socket(made)) => Some(Ok(made)),
        Ok(Done::Nothing | Done::Sent(_)) => Some(Err(io::ErrorKind::InvalidData.into())),
        Err(error) => Some(Err(error)),
    }
}

/// `AF_PPPOX` addresses contain the number of a descriptor, which would be one of the broker's; the
/// kernel accepts them with any family (`linux/if_pppol2tp.h`). An address of `SOCK_PACKET`, which
/// packet(7) replaced, contains the name of an interface but has the family of an internet address.
fn refuse_family(call: &'static str, spec: SocketSpec) -> OpResult<()> {
    if spec.domain == libc::AF_PPPOX || spec.ty == SOCK_PACKET {
        return Err(OpError::Os { call, errno: libc::EACCES });
    }
    Ok(())
}

/// The request to take over a descriptor, with what it is; `ENOTSOCK` if it is not a socket.
pub fn examine(descriptor: Descriptor) -> OpResult<Adopt<Descriptor>> {
    let socket = socket::spec_of(descriptor.as_fd()).during("getsockopt")?;
    Ok(Adopt { socket, descriptor })
}

/// Adopts a descriptor of the client (`fromfd`, `socket(fileno=...)`). As in CPython `O_NONBLOCK` stays as it
/// is unless there is a default timeout. `declared` is what the caller says about the socket, as `fromfd`
/// allows; the policy judges what it is.
pub fn adopt(
    permit: Permit<Adopt<Descriptor>>,
    declared: SocketSpec,
    timeout: Timeout,
    handle: Reservation,
) -> OpResult<Entry> {
    let namespace = permit.namespace().clone();
    let request = permit.into_request();
    refuse_family("fromfd", declared)?;
    if timeout.sets_nonblocking() {
        socket::set_nonblocking(request.descriptor.as_fd(), true).during("fcntl")?;
    }
    borrow(request, &namespace, declared, timeout, handle)
}

/// A descriptor of the client as a socket, for calls that the policy judges one by one. Nothing on it changes. `namespace`
/// is that of [`other_namespace::of_passed`].
pub fn borrow(
    passed: Adopt<Descriptor>,
    namespace: &Namespace,
    declared: SocketSpec,
    timeout: Timeout,
    handle: Reservation,
) -> OpResult<Entry> {
    let Adopt { socket: actual, descriptor } = passed;
    refuse_family("fromfd", actual)?;
    // Its connection may be over, with queued data from an unknown peer.
    let lost_peer = actual.has_connections() && socket::peer_address(descriptor.as_fd()).is_err();
    let entry = Entry::adopted(descriptor.with_handle(handle), declared, timeout);
    let entry = entry.of_kind(actual).of_namespace(namespace.clone());
    if lost_peer {
        entry.ends.note_peer(SocketName::Unknown);
    }
    Ok(entry)
}
