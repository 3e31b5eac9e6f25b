//! `send`, `sendall`, `sendto`, `sendmsg`, `sendmmsg`, `sendfile`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sockbroker_sys::{message, socket};

use crate::error::{OpError, OpResult};
use crate::network::caller_identity::{CallerIdentity, Client};
use crate::ops::outgoing::{Addressed, Destination, Outgoing, submit, transmit};
use crate::ops::wait::{Direction, WaitPolicy, keep_pace, until_done};
use crate::table::call_queue::Ticket;
use crate::table::entry::Entry;
use crate::table::timeout::Timeout;
use sockbroker_policy::Permit;
use sockbroker_policy::action::Send;

/// The most buffers of one message: `UIO_MAXIOV`.
pub const MAX_BUFFERS: usize = 1024;
/// Bytes that have left, readable while the call goes on: a call that ends early tells them.
pub type Progress = AtomicU64;

/// From where and as whom is sent.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// The socket.
    pub entry: &'a Entry,
    /// As whom.
    pub caller: &'a CallerIdentity,
    /// Where bytes that have left are counted.
    pub progress: &'a Progress,
}

/// `send(2)`: one attempt that succeeds, except that a blocking stream takes everything, as the
/// kernel does for a blocking caller.
pub async fn send(
    permit: Permit<Send>,
    sender: Sender<'_>,
    ticket: Ticket<'_>,
    data: &bytes::Bytes,
    flags: i32,
) -> OpResult<usize> {
    ticket.acquire().await;
    let address = destination(permit, sender.entry);
    let whole = sends_whole(sender.entry, flags);
    let wait_policy = || WaitPolicy::of(sender.entry, Direction::Send, flags);
    let mut sent = 0;
    loop {
        let result =
            attempt(sender, data.slice(sent..), flags, address.as_ref(), &wait_policy).await;
        match result {
            Ok(n) => sent += n,
            // As in the kernel: what left before the error is the result.
            Err(_) if sent > 0 => return Ok(sent),
            Err(error) => return Err(error),
        }
        sender.progress.store(sent as u64, Ordering::Relaxed);
        if !whole || sent >= data.len() {
            return Ok(sent);
        }
    }
}

/// `sendall`: everything, with one deadline for the whole (`sock_sendall`).
pub async fn send_all(
    permit: Permit<Send>,
    sender: Sender<'_>,
    ticket: Ticket<'_>,
    data: &bytes::Bytes,
    flags: i32,
) -> OpResult<()> {
    ticket.acquire().await;
    let address = destination(permit, sender.entry);
    let wait_policy = WaitPolicy::of(sender.entry, Direction::Send, flags);
    let mut sent = 0;
    loop {
        sent += attempt(sender, data.slice(sent..), flags, address.as_ref(), &|| wait_policy)
            .await
            .map_err(|error| error.after(sent as u64))?;
        sender.progress.store(sent as u64, Ordering::Relaxed);
        if sent >= data.len() {
            return Ok(());
        }
    }
}

/// One message of plain data.
pub(super) async fn attempt(
    sender: Sender<'_>,
    data: bytes::Bytes,
    flags: i32,
    destination: Option<&Destination>,
    wait_policy: &(dyn Fn() -> WaitPolicy + Sync),
) -> OpResult<usize> {
    let Sender { entry, caller, .. } = sender;
    let call = if destination.is_some() { "sendto" } else { "send" };
    if let Some(client) = caller.client(entry.actual(), call)? {
        let outgoing = Outgoing { buffers: vec![data], control: Vec::new(), flags };
        return send_as(client, entry, call, (destination.cloned(), outgoing), wait_policy).await;
    }
    let kept = keep_pace(entry, wait_policy, call).await?;
    let wait_policy = || kept.unwrap_or_else(wait_policy);
    let flags = flags | libc::MSG_DONTWAIT;
    let address = destination.map(Destination::raw);
    let sent = until_done(entry, Direction::Send, call, wait_policy, || match &address {
        None => message::send(entry.fd(), &data, flags),
        Some(address) => message::send_to(entry.fd(), &data, flags, address),
    })
    .await?;
    entry.user().sent(1, sent);
    Ok(sent)
}

/// `sendmsg(2)`. Ancillary data goes with the first part of a blocking stream.
pub async fn send_message(
    permit: Permit<Send>,
    sender: Sender<'_>,
    ticket: Ticket<'_>,
    outgoing: Outgoing,
) -> OpResult<usize> {
    let Sender { entry, caller, progress } = sender;
    ticket.acquire().await;
    let address = destination(permit, entry);
    let flags = outgoing.flags;
    let wait_policy = || WaitPolicy::of(entry, Direction::Send, flags);
    let total: usize = outgoing.buffers.iter().map(bytes::Bytes::len).sum();
    let again = sends_whole(entry, flags).then(|| outgoing.buffers.clone());
    let mut sent = match caller.client(entry.actual(), "sendmsg")? {
        Some(client) => {
            send_as(client, entry, "sendmsg", (address, outgoing), &wait_policy).await?
        }
        None => send_once(entry, "sendmsg", (address, outgoing), &wait_policy).await?,
    };
    progress.store(sent as u64, Ordering::Relaxed);
    let Some(buffers) = again.filter(|_| sent < total) else {
        return Ok(sent);
    };
    let data = bytes::Bytes::from(buffers.concat());
    while sent < data.len() {
        match attempt(sender, data.slice(sent..), flags, None, &wait_policy).await {
            Ok(n) => sent += n,
            Err(_) => break,
        }
        progress.store(sent as u64, Ordering::Relaxed);
    }
    Ok(sent)
}

/// One message as the broker.
async fn send_once(
    entry: &Entry,
    call: &'static str,
    message: Addressed,
    wait_policy: &(dyn Fn() -> WaitPolicy + Sync),
) -> OpResult<usize> {
    let kept = keep_pace(entry, wait_policy, call).await?;
    let wait_policy = || kept.unwrap_or_else(wait_policy);
    let send = || transmit(entry.fd(), &message);
    let sent = until_done(entry, Direction::Send, call, wait_policy, send).await?;
    entry.user().sent(1, sent);
    Ok(sent)
}

/// One message as a client: with its credentials, and to a path by its own rights.
async fn send_as(
    client: &Client,
    entry: &Entry,
    call: &'static str,
    mut message: Addressed,
    wait_policy: &(dyn Fn() -> WaitPolicy + Sync),
) -> OpResult<usize> {
    client.sign(&mut message.1.control);
    if message.0.is_none() {
        return send_once(entry, call, message, wait_policy).await;
    }
    let wait_policy = keep_pace(entry, wait_policy, call).await?.unwrap_or_else(wait_policy);
    let shared = entry.shared();
    let send = move || transmit(shared.fd(), &message);
    let sent = client.until_done(call, wait_policy, send).await?;
    entry.user().sent(1, sent);
    Ok(sent)
}

/// `sendmmsg(2)`: the bytes sent of each message that left, and why the next did not. Every message
/// has a permit of its own. Waits for room where the socket's timeout lets it.
pub async fn send_batch(
    messages: Vec<(Permit<Send>, Outgoing)>,
    sender: Sender<'_>,
    ticket: Ticket<'_>,
    flags: i32,
) -> OpResult<(Vec<usize>, Option<OpError>)> {
    let Sender { entry, caller, progress } = sender;
    ticket.acquire().await;
    let client = caller.client(entry.actual(), "sendmmsg")?;
    let mut prepared = Vec::with_capacity(messages.len());
    for (permit, mut outgoing) in messages {
        if let Some(client) = client {
            client.sign(&mut outgoing.control);
        }
        prepared.push((destination(permit, entry), outgoing));
    }
    let client = client.filter(|_| prepared.iter().any(|(address, _)| address.is_some()));
    let prepared = Arc::new(prepared);
    let wait_policy = WaitPolicy::of(entry, Direction::Send, flags);
    let mut sent: Vec<usize> = Vec::new();
    while sent.len() < prepared.len() {
        match send_rest(entry, client, &prepared, sent.len(), flags, wait_policy).await {
            Ok(counts) => sent.extend(counts),
            Err(error) if sent.is_empty() => return Err(error),
            Err(error) => return Ok((sent, Some(error))),
        }
        progress.store(sent.iter().sum::<usize>() as u64, Ordering::Relaxed);
    }
    Ok((sent, None))
}

/// As many messages of a batch, from one on, as the kernel takes at once.
async fn send_rest(
    entry: &Entry,
    client: Option<&Arc<Client>>,
    messages: &Arc<Vec<Addressed>>,
    first: usize,
    flags: i32,
    wait_policy: WaitPolicy,
) -> OpResult<Vec<usize>> {
    keep_pace(entry, || wait_policy, "sendmmsg").await?;
    let (shared, messages) = (entry.shared(), messages.clone());
    let send = move || {
        let rest = messages.get(first..).unwrap_or_default();
        submit(shared.fd(), rest, flags | libc::MSG_DONTWAIT)
    };
    let counts = match client {
        None => until_done(entry, Direction::Send, "sendmmsg", || wait_policy, send).await?,
        Some(client) => client.until_done("sendmmsg", wait_policy, send).await?,
    };
    entry.user().sent(counts.len(), counts.iter().sum());
    Ok(counts)
}

/// Where a message goes. One that connects is remembered as `connect` is: the kernel names the peer only once
/// the connection stands.
fn destination(permit: Permit<Send>, entry: &Entry) -> Option<Destination> {
    let Send { destination, connects, .. } = permit.into_request();
    let target = destination.as_ref()?;
    if connects && socket::peer_address(entry.fd()).is_err() {
        entry.ends.note_peer(target.name());
    }
    Some(Destination::of(target))
}

/// A blocking send on a stream returns when everything is queued (`tcp_sendmsg`,
/// `unix_stream_sendmsg`); with `MSG_DONTWAIT`, which the broker adds, it would return early.
fn sends_whole(entry: &Entry, flags: i32) -> bool {
    entry.timeout() == Timeout::Blocking
        && flags & libc::MSG_DONTWAIT == 0
        && entry.declared().ty == libc::SOCK_STREAM
}
