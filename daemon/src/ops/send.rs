//! `send`, `sendall`, `sendto`, `sendmsg`, `sendmmsg`.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use sockbroker_sys::{message, socket};

use crate::error::{During, OpError, OpResult};
use crate::network::caller_identity::{CallerIdentity, Client};
use crate::ops::outgoing::{
    Addressed, Destination, by_opener, can_be_refused, needs_opener, submit, transmit,
    transmit_privileged,
};
use crate::ops::wait::{Direction, WaitPolicy, keep_pace, until_done};
use crate::table::call_queue::Ticket;
use crate::table::permitted::{Permitted, Socket};
use crate::table::timeout::Timeout;
use sockbroker_policy::action::{MessageContents, Send};

/// The most buffers of one message: `UIO_MAXIOV`.
pub const MAX_BUFFERS: usize = 1024;
/// The number of bytes that a call has sent so far. The error of a call that ends early reports it.
pub type Progress = AtomicU64;

/// The identity and the progress of a sending call.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    pub caller: &'a CallerIdentity,
    pub progress: &'a Progress,
    /// Whether the opener has to send.
    pub needs_opener: bool,
}

impl Sender<'_> {
    fn of(self, request: &Send) -> Self {
        Self { needs_opener: needs_opener(request), ..self }
    }
}

/// `send(2)`. Returns after one successful attempt; on a blocking stream, after all data is sent, as the kernel
/// does for a blocking caller.
pub async fn send(
    permitted: &Permitted<Send>,
    sender: Sender<'_>,
    ticket: Ticket<'_>,
) -> OpResult<usize> {
    ticket.acquire().await;
    let socket = permitted.socket();
    let sender = sender.of(permitted.request());
    let MessageContents { buffers, flags, .. } = &permitted.request().contents;
    let (data, flags) = (joined(buffers), *flags);
    let address = destination(socket, permitted.request());
    let whole = sends_whole(socket, flags);
    let wait_policy = || WaitPolicy::of(socket, Direction::Send, flags);
    let mut sent = 0;
    loop {
        let result =
            attempt(socket, sender, data.slice(sent..), flags, address.as_ref(), &wait_policy)
                .await;
        match result {
            Ok(n) => sent += n,
            // As in the kernel: after an error the result is the number of bytes that were sent.
            Err(_) if sent > 0 => return Ok(sent),
            Err(error) => return Err(error),
        }
        sender.progress.store(sent as u64, Ordering::Relaxed);
        if !whole || sent >= data.len() {
            return Ok(sent);
        }
    }
}

/// `sendall`: sends all data, with one deadline (`sock_sendall`).
pub async fn send_all(
    permitted: &Permitted<Send>,
    sender: Sender<'_>,
    ticket: Ticket<'_>,
) -> OpResult<()> {
    ticket.acquire().await;
    let flags = permitted.request().contents.flags;
    let wait_policy = WaitPolicy::of(permitted.socket(), Direction::Send, flags);
    send_all_within(permitted, sender, wait_policy).await
}

/// What a channel sends: all of it, however long that takes, whatever the timeout of the socket is.
pub async fn send_for_channel(permitted: &Permitted<Send>, sender: Sender<'_>) -> OpResult<()> {
    send_all_within(permitted, sender, WaitPolicy::Endless).await
}

async fn send_all_within(
    permitted: &Permitted<Send>,
    sender: Sender<'_>,
    wait_policy: WaitPolicy,
) -> OpResult<()> {
    let socket = permitted.socket();
    let sender = sender.of(permitted.request());
    let MessageContents { buffers, flags, .. } = &permitted.request().contents;
    let (data, flags) = (joined(buffers), *flags);
    let address = destination(socket, permitted.request());
    let mut sent = 0;
    loop {
        sent +=
            attempt(socket, sender, data.slice(sent..), flags, address.as_ref(), &|| wait_policy)
                .await
                .map_err(|error| error.after(sent as u64))?;
        sender.progress.store(sent as u64, Ordering::Relaxed);
        if sent >= data.len() {
            return Ok(());
        }
    }
}

/// Sends one message without ancillary data.
pub(super) async fn attempt(
    socket: &Socket,
    sender: Sender<'_>,
    data: bytes::Bytes,
    flags: i32,
    destination: Option<&Destination>,
    wait_policy: &(dyn Fn() -> WaitPolicy + Sync),
) -> OpResult<usize> {
    let Sender { caller, .. } = sender;
    let call = if destination.is_some() { "sendto" } else { "send" };
    if let Some(client) = caller.client(socket.actual(), call)? {
        let outgoing = MessageContents { buffers: vec![data], ancillary: Vec::new(), flags };
        let message = (destination.cloned(), outgoing);
        return send_as(client, socket, call, message, wait_policy).await;
    }
    let none = MessageContents::default();
    if sender.needs_opener || can_be_refused(socket.actual(), &none) {
        let outgoing = MessageContents { buffers: vec![data], ancillary: Vec::new(), flags };
        let message = (destination.cloned(), outgoing);
        return send_once(socket, (call, sender), message, wait_policy).await;
    }
    let kept = keep_pace(socket, wait_policy, call).await?;
    let wait_policy = || kept.unwrap_or_else(wait_policy);
    let flags = flags | libc::MSG_DONTWAIT;
    let address = destination.map(Destination::raw);
    let sent = until_done(socket, Direction::Send, call, wait_policy, || match &address {
        None => message::send(socket.fd(), &data, flags),
        Some(address) => message::send_to(socket.fd(), &data, flags, address),
    })
    .await?;
    socket.user().sent(1, sent);
    Ok(sent)
}

/// `sendmsg(2)`. Ancillary data goes with the first part of a blocking stream.
pub async fn send_message(
    permitted: Permitted<Send>,
    sender: Sender<'_>,
    ticket: Ticket<'_>,
) -> OpResult<usize> {
    let sender = sender.of(permitted.request());
    let Sender { caller, progress, .. } = sender;
    ticket.acquire().await;
    let (socket, request) = permitted.into_parts();
    let (socket, address) = (&socket, destination(&socket, &request));
    let contents = request.contents;
    let flags = contents.flags;
    let wait_policy = || WaitPolicy::of(socket, Direction::Send, flags);
    let total: usize = contents.buffers.iter().map(bytes::Bytes::len).sum();
    let again = sends_whole(socket, flags).then(|| contents.buffers.clone());
    let mut sent = match caller.client(socket.actual(), "sendmsg")? {
        Some(client) => {
            send_as(client, socket, "sendmsg", (address, contents), &wait_policy).await?
        }
        None => send_once(socket, ("sendmsg", sender), (address, contents), &wait_policy).await?,
    };
    progress.store(sent as u64, Ordering::Relaxed);
    let Some(buffers) = again.filter(|_| sent < total) else {
        return Ok(sent);
    };
    let data = bytes::Bytes::from(buffers.concat());
    while sent < data.len() {
        match attempt(socket, sender, data.slice(sent..), flags, None, &wait_policy).await {
            Ok(n) => sent += n,
            Err(_) => break,
        }
        progress.store(sent as u64, Ordering::Relaxed);
    }
    Ok(sent)
}

/// Sends one message with the identity of the broker.
async fn send_once(
    socket: &Socket,
    (call, sender): (&'static str, Sender<'_>),
    message: Addressed,
    wait_policy: &(dyn Fn() -> WaitPolicy + Sync),
) -> OpResult<usize> {
    let kept = keep_pace(socket, wait_policy, call).await?;
    let wait_policy = || kept.unwrap_or_else(wait_policy);
    let privileged = sender.caller.privileged();
    let special = sender.needs_opener || can_be_refused(socket.actual(), &message.1);
    let send = || {
        if special {
            transmit_privileged(socket, &message, privileged, sender.needs_opener)
        } else {
            transmit(socket.fd(), &message)
        }
    };
    let sent = match send_slowly(socket, sender, &message).await {
        Some(sent) => sent.during(call)?,
        None => until_done(socket, Direction::Send, call, wait_policy, send).await?,
    };
    socket.user().sent(1, sent);
    Ok(sent)
}

/// Sends a message that only the opener may send: one that changes the network, for which the kernel can take seconds.
/// `None` if it is not such a message, or if the socket has no room for it.
async fn send_slowly(
    socket: &Socket,
    sender: Sender<'_>,
    message: &Addressed,
) -> Option<io::Result<usize>> {
    if !sender.needs_opener || sender.caller.privileged().is_direct() {
        return None;
    }
    let sent = by_opener(socket, message, sender.caller.privileged()).await;
    let has_no_room = sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    (!has_no_room).then_some(sent)
}

/// Sends one message of a client, with its credentials.
async fn send_as(
    client: &Client,
    socket: &Socket,
    call: &'static str,
    message: Addressed,
    wait_policy: &(dyn Fn() -> WaitPolicy + Sync),
) -> OpResult<usize> {
    let kept = keep_pace(socket, wait_policy, call).await?;
    let wait_policy = || kept.unwrap_or_else(wait_policy);
    transmit_as(client, socket, call, message, &wait_policy).await
}

/// The same without regard to the rate. A message to a path is sent with the identity of the client.
async fn transmit_as(
    client: &Client,
    socket: &Socket,
    call: &'static str,
    mut message: Addressed,
    wait_policy: &(dyn Fn() -> WaitPolicy + Sync),
) -> OpResult<usize> {
    let sent = if message.0.is_some() {
        client.send_to(call, socket, &message, wait_policy()).await?
    } else if client.can_sign() {
        client.sign(&mut message.1.ancillary);
        let send = || transmit(socket.fd(), &message);
        until_done(socket, Direction::Send, call, wait_policy, send).await?
    } else {
        client.send_to_peer(call, socket, &message, wait_policy).await?
    };
    socket.user().sent(1, sent);
    Ok(sent)
}

/// `sendmmsg(2)`. Returns the number of bytes of each message that was sent, and the error of the next. Every
/// message has its own permit, for the same socket and flags. The call waits for buffer space as long as the
/// timeout of the socket allows.
///
/// # Panics
///
/// If the permits are for different sockets or flags.
pub async fn send_batch(
    messages: Vec<Permitted<Send>>,
    sender: Sender<'_>,
    ticket: Ticket<'_>,
) -> OpResult<(Vec<usize>, Option<OpError>)> {
    let Sender { caller, progress, .. } = sender;
    ticket.acquire().await;
    let Some(first) = messages.first() else { return Ok((Vec::new(), None)) };
    let socket = &first.socket().clone();
    let flags = first.request().contents.flags;
    let client = caller.client(socket.actual(), "sendmmsg")?;
    let mut prepared = Vec::with_capacity(messages.len());
    for permitted in messages {
        let (own, request) = permitted.into_parts();
        let as_first = own.is(socket) && request.contents.flags == flags;
        assert!(as_first, "the messages of a batch have one socket and the same flags");
        let by_opener = needs_opener(&request);
        let special = by_opener || can_be_refused(own.actual(), &request.contents);
        prepared
            .push((special.then_some(by_opener), (destination(&own, &request), request.contents)));
    }
    let (special, prepared): (Vec<_>, Vec<_>) = prepared.into_iter().unzip();
    let wait_policy = WaitPolicy::of(socket, Direction::Send, flags);
    let mut sent: Vec<usize> = Vec::new();
    if let Some(client) = client {
        keep_pace(socket, || wait_policy, "sendmmsg").await?;
        for message in prepared {
            match transmit_as(client, socket, "sendmmsg", message, &|| wait_policy).await {
                Ok(count) => sent.push(count),
                Err(error) if sent.is_empty() => return Err(error),
                Err(error) => return Ok((sent, Some(error))),
            }
            progress.store(sent.iter().sum::<usize>() as u64, Ordering::Relaxed);
        }
        return Ok((sent, None));
    }
    while sent.len() < prepared.len() {
        let first = sent.len();
        let rest = special.get(first..).unwrap_or_default();
        let sending = if let Some(needs_opener) = rest.first().copied().flatten() {
            // A message that can need a capability is sent by itself.
            let sender = Sender { needs_opener, ..sender };
            send_special(socket, sender, &prepared, first, wait_policy).await
        } else {
            let plain = rest.iter().take_while(|special| special.is_none()).count();
            let range = first..first + plain;
            send_rest(socket, prepared.get(range).unwrap_or_default(), flags, wait_policy).await
        };
        match sending {
            Ok(counts) => sent.extend(counts),
            Err(error) if sent.is_empty() => return Err(error),
            Err(error) => return Ok((sent, Some(error))),
        }
        progress.store(sent.iter().sum::<usize>() as u64, Ordering::Relaxed);
    }
    Ok((sent, None))
}

/// Sends one message of a batch that can need a capability.
async fn send_special(
    socket: &Socket,
    sender: Sender<'_>,
    messages: &[Addressed],
    index: usize,
    wait_policy: WaitPolicy,
) -> OpResult<Vec<usize>> {
    keep_pace(socket, || wait_policy, "sendmmsg").await?;
    let Some(message) = messages.get(index) else { return Ok(Vec::new()) };
    let privileged = sender.caller.privileged();
    let send = || transmit_privileged(socket, message, privileged, sender.needs_opener);
    let sent = match send_slowly(socket, sender, message).await {
        Some(sent) => sent.during("sendmmsg")?,
        None => until_done(socket, Direction::Send, "sendmmsg", || wait_policy, send).await?,
    };
    socket.user().sent(1, sent);
    Ok(vec![sent])
}

/// Sends messages of a batch, as many as the kernel accepts at once.
async fn send_rest(
    socket: &Socket,
    messages: &[Addressed],
    flags: i32,
    wait_policy: WaitPolicy,
) -> OpResult<Vec<usize>> {
    keep_pace(socket, || wait_policy, "sendmmsg").await?;
    let send = || submit(socket.fd(), messages, flags | libc::MSG_DONTWAIT);
    let counts = until_done(socket, Direction::Send, "sendmmsg", || wait_policy, send).await?;
    socket.user().sent(counts.len(), counts.iter().sum());
    Ok(counts)
}

/// Joins the buffers of a message.
fn joined(buffers: &[bytes::Bytes]) -> bytes::Bytes {
    match buffers {
        [data] => data.clone(),
        parts => parts.concat().into(),
    }
}

/// The destination of a message. If the message connects the socket, the destination is noted as the peer, because
/// the kernel reports the peer only after the connection is established.
fn destination(socket: &Socket, request: &Send) -> Option<Destination> {
    let target = request.destination.as_ref()?;
    if request.connects && socket::peer_address(socket.fd()).is_err() {
        socket.ends.note_peer(target.name());
    }
    Some(Destination::of(target))
}

/// Whether a send returns only after all data is queued, as the kernel does for a blocking stream (`tcp_sendmsg`,
/// `unix_stream_sendmsg`). With `MSG_DONTWAIT`, which the broker adds, the kernel returns earlier.
fn sends_whole(socket: &Socket, flags: i32) -> bool {
    socket.timeout() == Timeout::Blocking
        && flags & libc::MSG_DONTWAIT == 0
        && socket.declared().ty == libc::SOCK_STREAM
}
