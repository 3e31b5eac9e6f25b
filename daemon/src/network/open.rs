//! Creating, adopting, duplicating and passing sockets.

use sockbroker_policy::socket_spec::JudgedSocket as _;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use sockbroker_sys::socket;

use crate::error::{During, OpError, OpResult};
use crate::network::caller_identity::CallerIdentity;
use crate::network::{Network, rcvall};
use crate::quota::Reservation;
use crate::table::entry::Entry;
use crate::table::timeout::Timeout;
use sockbroker_policy::Permit;
use sockbroker_policy::action::{Adopt, Create, Handover, Inspect};
use sockbroker_policy::socket_spec::SOCK_PACKET;
use sockbroker_policy::target::SocketName;
use sockbroker_proto::socket_spec::SocketSpec;

impl Network {
    /// `socket(2)`. `AF_INET, SOCK_RAW, IPPROTO_IP` gives the emulation of `SIO_RCVALL` instead.
    pub fn create(
        &self,
        permit: Permit<Create>,
        timeout: Timeout,
        handle: Reservation,
    ) -> OpResult<Entry> {
        let Create { socket: spec } = permit.into_request();
        refuse_family("socket", spec)?;
        if rcvall::serves(spec) {
            let (descriptor, rcvall) = self.run(rcvall::open)?;
            let entry = Entry::new(descriptor, spec, timeout, handle).during("fcntl")?;
            return Ok(entry.with_rcvall(rcvall));
        }
        let make = || socket::create(spec.domain, spec.ty, spec.protocol);
        let descriptor = self.run(make).during("socket")?;
        Entry::new(descriptor, spec, timeout, handle).during("fcntl")
    }

    /// `socketpair(2)`, as the caller: the kernel shows each end the ids of the thread that made it.
    pub async fn pair(
        &self,
        permit: Permit<Create>,
        timeout: Timeout,
        handles: (Reservation, Reservation),
        caller: &CallerIdentity,
    ) -> OpResult<(Entry, Entry)> {
        let Create { socket: spec } = permit.into_request();
        let network = self.clone();
        let make = move || network.run(|| socket::pair(spec.domain, spec.ty, spec.protocol));
        let (first, second) = match caller.client(spec, "socketpair")? {
            None => make().during("socketpair")?,
            Some(client) => client.call("socketpair", make).await?,
        };
        let first = Entry::new(first, spec, timeout, handles.0).during("fcntl")?;
        let second = Entry::new(second, spec, timeout, handles.1).during("fcntl")?;
        Ok((first, second))
    }
}

/// `AF_PPPOX` addresses name a descriptor by its number, which would be one of the broker's; the
/// kernel takes them whatever family they claim (`linux/if_pppol2tp.h`). `SOCK_PACKET`, which packet(7)
/// replaced, has the name of an interface where its address claims to be one of the internet.
fn refuse_family(call: &'static str, spec: SocketSpec) -> OpResult<()> {
    if spec.domain == libc::AF_PPPOX || spec.ty == SOCK_PACKET {
        return Err(OpError::Os { call, errno: libc::EACCES });
    }
    Ok(())
}

/// What an accepted socket needs, reserved before the kernel gives it: afterwards a failure would lose the
/// connection.
#[derive(Debug)]
pub struct Room {
    /// The place of its handle.
    pub handle: Reservation,
    /// A descriptor that becomes the client's, where the client wants one.
    pub spare: Option<OwnedFd>,
}

/// A descriptor that [`hand_over_in_place`] replaces.
pub fn spare(entry: &Entry) -> OpResult<OwnedFd> {
    socket::duplicate(entry.fd()).during("dup")
}

/// The same as [`hand_over`], in the place of a descriptor that was kept for it.
pub fn hand_over_in_place(
    permit: Permit<Handover>,
    entry: &Entry,
    spare: OwnedFd,
) -> OpResult<OwnedFd> {
    let Handover { .. } = permit.into_request();
    socket::duplicate_onto(entry.fd(), spare).during("dup")
}

/// What a descriptor is; `ENOTSOCK` for one that is no socket.
pub fn examine(descriptor: &OwnedFd) -> OpResult<SocketSpec> {
    let kind = socket::kind_of(descriptor.as_fd()).during("getsockopt")?;
    Ok(SocketSpec { domain: kind.domain, ty: kind.ty, protocol: kind.protocol })
}

/// Takes over a descriptor of the client (`fromfd`, `socket(fileno=...)`). As in CPython the
/// description's `O_NONBLOCK` stays unless there is a default timeout.
/// `facts` is what the caller says of it, as `fromfd` lets it; the policy goes on judging what it is.
pub fn adopt(
    permit: Permit<Adopt>,
    descriptor: OwnedFd,
    facts: SocketSpec,
    timeout: Timeout,
    handle: Reservation,
) -> OpResult<Entry> {
    let Adopt { socket: kind } = permit.into_request();
    refuse_family("fromfd", kind)?;
    refuse_family("fromfd", facts)?;
    let entry = if timeout.sets_nonblocking() {
        Entry::new(descriptor, facts, timeout, handle).during("fcntl")?
    } else {
        Entry::adopted(descriptor, facts, timeout, handle)
    };
    let entry = entry.of_kind(kind);
    // Its connection may be over, with data left in it that came from nobody knows where.
    if kind.has_connections() && socket::peer_address(entry.fd()).is_err() {
        entry.ends.note_peer(SocketName::Unknown);
    }
    Ok(entry)
}

/// `dup`, with the same timeout.
pub fn duplicate(
    permit: Permit<Inspect>,
    entry: &Entry,
    handle: Reservation,
) -> OpResult<Arc<Entry>> {
    let Inspect { .. } = permit.into_request();
    Ok(Arc::new(entry.duplicate(handle).during("dup")?))
}

/// A descriptor for the client (`fileno`, `detach`, `want_fd`).
pub fn hand_over(permit: Permit<Handover>, entry: &Entry) -> OpResult<OwnedFd> {
    let Handover { .. } = permit.into_request();
    if let Some(member) = &mut entry.ends.known().fanout {
        member.keep();
    }
    socket::duplicate(entry.fd()).during("dup")
}
