//! `bind`, `listen`, `accept`, `connect`, `shutdown`, `getsockname` and `getpeername`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sockbroker_proto::address::Address;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::socket;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::error::{During, OpError, OpResult};
use crate::network::caller_identity::{CallerIdentity, Client};
use crate::network::caller_process::Descriptors;
use crate::ops::outgoing::Destination;
use crate::ops::rcvall;
use crate::ops::wait::{Direction, RETRY_PAUSE, WaitPolicy, until_done};
use crate::quota::Reservation;
use crate::table::call_queue::Ticket;
use crate::table::ends::Bound;
use crate::table::entry::Entry;
use crate::table::permitted::{Accepted, Permitted, Socket};
use crate::table::timeout::Timeout;
use sockbroker_monitor::caller::message::{UnixAnswer, UnixCall};
use sockbroker_monitor::request::Request;
use sockbroker_policy::action::{Accept, Bind, Connect, Inspect, Listen, Shutdown};
use sockbroker_policy::target::{CarriedDescriptor, FileTarget, SocketName, Target};

/// The error numbers with which the kernel refuses a call for lack of a capability.
const REFUSED: &[i32] = &[libc::EACCES, libc::EPERM];

/// `bind(2)`. The file of a path is created with the identity of the caller.
pub async fn bind(permitted: &Permitted<Bind>, caller: &CallerIdentity) -> OpResult<()> {
    let socket = permitted.socket();
    let address = match &permitted.request().target {
        Target::File(file) => return bind_file(socket, caller, file).await,
        Target::Address(address) => address,
    };
    if let Some(state) = &socket.rcvall {
        return rcvall::bind(socket.fd(), state, address);
    }
    let raw = RawAddress::encode(address);
    match caller.client(socket.actual(), "bind")? {
        None => {
            let bind = || socket::bind(socket.fd(), &raw);
            let ask = || Request::Bind { address: raw.as_bytes().to_vec() };
            caller.privileged().or_ask_opener(bind, REFUSED, socket, ask).during("bind")
        }
        Some(client) => {
            let call = UnixCall::Bind { address: raw.as_bytes().to_vec() };
            client.call("bind", call, vec![Arc::new(socket.shared())]).await.map(drop)
        }
    }
}

/// Creates the file of a socket in the directory that was judged, with the identity of the caller.
async fn bind_file(socket: &Socket, caller: &CallerIdentity, file: &FileTarget) -> OpResult<()> {
    let FileTarget { descriptor, name, written, facts } = file.clone();
    let name = name.ok_or(OpError::Os { call: "bind", errno: libc::EINVAL })?;
    let call = UnixCall::BindFile { name, written: written.clone() };
    let descriptors: Descriptors = vec![Arc::new(socket.shared()), descriptor];
    let result = caller.call_on_files("bind", socket.actual(), call, descriptors).await;
    let mut known = socket.ends.known();
    match result {
        Ok((UnixAnswer::Bound(stored), _)) => {
            known.bound = Some(Bound::File { facts, shown: written.map(|path| (stored, path)) });
            Ok(())
        }
        Ok(_) => Err(OpError::Plain("bind: the answer is of another call".to_owned())),
        Err(error) => {
            if let OpError::Os { errno: libc::ESTALE, .. } = &error {
                known.bound = Some(Bound::Elsewhere);
            }
            Err(error)
        }
    }
}

/// `listen(2)`, with the identity of the caller: a peer that connects gets the ids of the listening process.
pub async fn listen(permitted: &Permitted<Listen>, caller: &CallerIdentity) -> OpResult<()> {
    let (socket, backlog) = (permitted.socket(), permitted.request().backlog);
    let result = match caller.client_by_ids(socket.actual(), "listen")? {
        None => socket::listen(socket.fd(), backlog).during("listen"),
        Some(client) => {
            let call = UnixCall::Listen { backlog };
            client.call("listen", call, vec![Arc::new(socket.shared())]).await.map(drop)
        }
    };
    socket.channels.note_change();
    result
}

/// `accept(2)`. Returns the new socket with this timeout, and the address of the peer. `room` reserves its handle and what
/// else it needs right before a connection is accepted. If it fails, the connection stays in the queue, as with `EMFILE`.
pub async fn accept<T>(
    permitted: &Permitted<Accept>,
    ticket: Ticket<'_>,
    timeout: Timeout,
    room: impl Fn() -> OpResult<(Reservation, T)>,
) -> OpResult<(Accepted, Option<Address>, T)> {
    let socket = permitted.socket();
    let declared = socket.declared();
    let call =
        if declared.domain == libc::AF_ALG { socket::accept_without_name } else { socket::accept };
    ticket.acquire().await;
    let wait_policy = || WaitPolicy::of(socket, Direction::Receive, 0);
    let mut refused = None;
    let accepted = until_done(socket, Direction::Receive, "accept", wait_policy, || match room() {
        Ok(room) => Ok((socket.without_blocking(call)?, room)),
        Err(error) => {
            refused = Some(error);
            Err(io::Error::other("no reservation"))
        }
    })
    .await;
    if let Some(error) = refused {
        return Err(error);
    }
    let ((descriptor, peer), (handle, reserved)) = accepted?;
    let accepted = Entry::new(descriptor, declared, timeout, handle).during("fcntl")?;
    let peer = peer.decode(declared.protocol);
    if let Some(address) = &peer {
        accepted.ends.note_peer(SocketName::Address(address.clone()));
    }
    let bound = socket.ends.known().bound.clone();
    accepted.ends.known().bound = bound;
    Ok((Accepted::new(permitted, accepted), peer, reserved))
}

/// `connect(2)`, until the connection is established or has failed. A connection to a path has the identity of the caller.
pub async fn connect(
    permitted: &Permitted<Connect>,
    ticket: Ticket<'_>,
    caller: &CallerIdentity,
) -> OpResult<()> {
    let (socket, target) = (permitted.socket(), &permitted.request().target);
    ticket.acquire().await;
    // The peer is noted before the call, because data may arrive before the call returns.
    let before = socket.ends.known().peer.replace(target.name());
    let result = connect_to(socket, caller, Destination::of(target)).await;
    socket.channels.note_change();
    if result.is_err() && !is_under_way(&result) {
        socket.ends.known().peer = before;
    }
    result
}

/// Whether the connection may still be established. `EALREADY` concerns an earlier attempt.
fn is_under_way(result: &OpResult<()>) -> bool {
    matches!(result, Err(OpError::Timeout | OpError::Os { errno: libc::EINPROGRESS, .. }))
}

async fn connect_to(
    socket: &Socket,
    caller: &CallerIdentity,
    destination: Destination,
) -> OpResult<()> {
    if let Some(client) = caller.client(socket.actual(), "connect")? {
        return connect_as(client, socket, destination).await;
    }
    let address = destination.raw();
    let connect = || begin(socket, &address);
    let ask = || Request::Connect { address: address.as_bytes().to_vec() };
    // Of all protocols only those of netlink can refuse a destination for lack of a capability.
    let refused = if socket.actual().domain == libc::AF_NETLINK { REFUSED } else { &[] };
    match caller.privileged().or_ask_opener(connect, refused, socket, ask) {
        Ok(()) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINPROGRESS) if socket.timeout() != Timeout::NonBlocking => {
                finish(socket, &address).await
            }
            Some(libc::EAGAIN) if waits_for_backlog(socket) => retry(socket, &address).await,
            _ => Err(error).during("connect"),
        },
    }
}

/// Connects to a path with the identity of the client. Only a blocking socket waits for space in the backlog.
async fn connect_as(client: &Client, socket: &Socket, destination: Destination) -> OpResult<()> {
    let begin = || {
        let loan: Arc<dyn CarriedDescriptor> = Arc::new(socket.shared().lend()?);
        Ok(match &destination {
            Destination::Address(raw) => {
                (UnixCall::Connect { address: raw.as_bytes().to_vec() }, vec![loan])
            }
            Destination::File(file) => (UnixCall::ConnectFile, vec![loan, file.clone()]),
        })
    };
    match socket.timeout() {
        Timeout::After(wait_policy) => {
            let (call, descriptors) = begin().during("connect")?;
            let connecting = timeout(wait_policy, client.call("connect", call, descriptors));
            connecting.await.unwrap_or(Err(OpError::Timeout)).map(drop)
        }
        Timeout::Blocking | Timeout::NonBlocking => {
            let wait_policy = WaitPolicy::of(socket, Direction::Send, 0);
            client.until_done("connect", wait_policy, begin).await.map(drop)
        }
    }
}

fn begin(socket: &Socket, address: &RawAddress) -> io::Result<()> {
    socket.without_blocking(|fd| socket::connect(fd, address))
}

/// Waits until the connection is established or has failed.
async fn finish(socket: &Socket, address: &RawAddress) -> OpResult<()> {
    let wait_policy = || match WaitPolicy::of(socket, Direction::Send, 0) {
        // SO_SNDTIMEO bounds a blocking connect with EINPROGRESS (socket(7)).
        WaitPolicy::None => WaitPolicy::Endless,
        other => other,
    };
    let timed_by_kernel = matches!(wait_policy(), WaitPolicy::KernelUntil(_));
    let result = until_done(socket, Direction::Send, "connect", wait_policy, || {
        let events = [(socket.fd(), libc::POLLOUT)];
        match sockbroker_sys::poll::poll_now(&events)?.first() {
            Some(0) | None => Err(io::ErrorKind::WouldBlock.into()),
            Some(_) => conclude(socket, address),
        }
    })
    .await;
    match result {
        Err(OpError::Os { errno: libc::EAGAIN, .. }) if timed_by_kernel => {
            Err(OpError::Os { call: "connect", errno: libc::EINPROGRESS })
        }
        other => other,
    }
}

/// The outcome of a connection. With a timeout it is in `SO_ERROR`, as in CPython's `internal_connect`. A blocking
/// connect is one system call in CPython. Here a second call returns the outcome, and leaves the kernel in the
/// same state (`__inet_stream_connect`).
fn conclude(socket: &Socket, address: &RawAddress) -> io::Result<()> {
    let internet = matches!(socket.declared().domain, libc::AF_INET | libc::AF_INET6);
    if internet && socket.timeout() == Timeout::Blocking {
        return match begin(socket, address) {
            Err(error) if error.raw_os_error() == Some(libc::EISCONN) => Ok(()),
            other => other,
        };
    }
    match socket::take_error(socket.fd())? {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Whether `connect` waits for space in the backlog: on a blocking `AF_UNIX` socket. No event reports that space,
/// so the attempt is repeated. A thread that blocks in the call could not be cancelled.
fn waits_for_backlog(socket: &Socket) -> bool {
    socket.declared().domain == libc::AF_UNIX && socket.timeout() == Timeout::Blocking
}

async fn retry(socket: &Socket, address: &RawAddress) -> OpResult<()> {
    let deadline = match WaitPolicy::of(socket, Direction::Send, 0) {
        WaitPolicy::None => {
            return Err(OpError::Os { call: "connect", errno: libc::EAGAIN });
        }
        WaitPolicy::Endless => None,
        WaitPolicy::Until(deadline) | WaitPolicy::KernelUntil(deadline) => Some(deadline),
    };
    let attempts = async {
        let (mut pause, longest) = RETRY_PAUSE;
        loop {
            sleep(pause).await;
            pause = (pause * 2).min(longest);
            match begin(socket, address) {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                result => return result.during("connect"),
            }
        }
    };
    let far = Instant::now() + Duration::from_hours(24 * 365);
    match timeout_at(deadline.unwrap_or(far), attempts).await {
        Ok(result) => result,
        Err(_) => Err(OpError::Os { call: "connect", errno: libc::EAGAIN }),
    }
}

/// `shutdown(2)`, after all data that the same connection sent before it.
pub async fn shutdown(permitted: &Permitted<Shutdown>, ticket: Ticket<'_>) -> OpResult<()> {
    ticket.acquire().await;
    let how = permitted.request().how;
    socket::shutdown(permitted.socket().fd(), how).during("shutdown")
}

/// `getsockname(2)`; `None` if the socket has no address.
pub fn local_address(permitted: &Permitted<Inspect>) -> OpResult<Option<Address>> {
    let socket = permitted.socket();
    let declared = socket.declared();
    if let Some(state) = &socket.rcvall {
        return Ok(Some(state.address()));
    }
    let address = socket::local_address(socket.fd()).during("getsockname")?;
    let address = address.decode(declared.protocol);
    if let (Some(Address::UnixPath(path)), Some(Bound::File { shown: Some((stored, written)), .. })) =
        (&address, &socket.ends.known().bound)
        && path == stored
    {
        return Ok(Some(Address::UnixPath(written.clone())));
    }
    Ok(address)
}

/// `getpeername(2)`.
pub fn peer_address(permitted: &Permitted<Inspect>) -> OpResult<Option<Address>> {
    let socket = permitted.socket();
    let address = socket::peer_address(socket.fd()).during("getpeername")?;
    Ok(address.decode(socket.declared().protocol))
}
