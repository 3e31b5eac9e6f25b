//! `send`, `sendall`, `sendto`, `sendmsg`, `sendmmsg`, `sendfile`.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use sockbroker_sys::address::RawAddress;
use sockbroker_sys::control::OutgoingControl;
use sockbroker_sys::message::{self, OutgoingMessage};

use super::error::{OpError, OpResult};
use super::wait::{Direction, Patience, until_done};
use crate::policy::Permit;
use crate::policy::action::Send;
use crate::table::entry::Entry;
use crate::table::lane::Place;
use crate::table::timeout::Timeout;

/// The most buffers of one message: `UIO_MAXIOV`.
pub const MAX_BUFFERS: usize = 1024;
/// Bytes that have left, readable while the call goes on: a call that ends early tells them.
pub type Progress = AtomicU64;

/// An item of ancillary data to be sent.
#[derive(Debug)]
pub enum Control {
    /// Raw bytes of any level and type but `SCM_RIGHTS`.
    Data {
        /// `cmsg_level`.
        level: i32,
        /// `cmsg_type`.
        kind: i32,
        /// `cmsg_data`.
        data: Vec<u8>,
    },
    /// `SCM_RIGHTS`.
    Descriptors {
        /// What to pass on; the broker's copies close when the call ends.
        descriptors: Vec<OwnedFd>,
        /// Odd trailing bytes, as the client gave them.
        rest: Vec<u8>,
    },
}

/// One message with everything that goes with it.
#[derive(Debug)]
pub struct Outgoing {
    /// The data, gathered.
    pub buffers: Vec<bytes::Bytes>,
    /// Ancillary data.
    pub control: Vec<Control>,
    /// `MSG_*`.
    pub flags: i32,
}

/// `send(2)`: one attempt that succeeds, except that a blocking stream takes everything, as the
/// kernel does for a blocking caller.
pub async fn send(
    permit: Permit<Send>,
    entry: &Entry,
    place: Place<'_>,
    data: &[u8],
    flags: i32,
    progress: &Progress,
) -> OpResult<usize> {
    let address = destination(permit);
    place.turn().await;
    let whole = sends_whole(entry, flags);
    let patience = || Patience::of(entry, Direction::Send, flags);
    let mut sent = 0;
    loop {
        let rest = data.get(sent..).unwrap_or_default();
        let result = attempt(entry, rest, flags, address.as_ref(), &patience).await;
        match result {
            Ok(n) => sent += n,
            // As in the kernel: what left before the error is the result.
            Err(_) if sent > 0 => return Ok(sent),
            Err(error) => return Err(error),
        }
        progress.store(sent as u64, Ordering::Relaxed);
        if !whole || sent >= data.len() {
            return Ok(sent);
        }
    }
}

/// `sendall`: everything, with one deadline for the whole (`sock_sendall`).
pub async fn send_all(
    permit: Permit<Send>,
    entry: &Entry,
    place: Place<'_>,
    data: &[u8],
    flags: i32,
    progress: &Progress,
) -> OpResult<()> {
    let address = destination(permit);
    place.turn().await;
    let patience = Patience::of(entry, Direction::Send, flags);
    let mut sent = 0;
    loop {
        let rest = data.get(sent..).unwrap_or_default();
        sent += attempt(entry, rest, flags, address.as_ref(), &|| patience)
            .await
            .map_err(|error| error.after(sent as u64))?;
        progress.store(sent as u64, Ordering::Relaxed);
        if sent >= data.len() {
            return Ok(());
        }
    }
}

async fn attempt(
    entry: &Entry,
    data: &[u8],
    flags: i32,
    address: Option<&RawAddress>,
    patience: &(dyn Fn() -> Patience + Sync),
) -> OpResult<usize> {
    let flags = flags | libc::MSG_DONTWAIT;
    match address {
        None => {
            until_done(entry, Direction::Send, "send", patience, || {
                message::send(entry.fd(), data, flags)
            })
            .await
        }
        Some(address) => {
            until_done(entry, Direction::Send, "sendto", patience, || {
                message::send_to(entry.fd(), data, flags, address)
            })
            .await
        }
    }
}

/// `sendmsg(2)`. Ancillary data goes with the first part of a blocking stream.
pub async fn send_message(
    permit: Permit<Send>,
    entry: &Entry,
    place: Place<'_>,
    outgoing: Outgoing,
    progress: &Progress,
) -> OpResult<usize> {
    let address = destination(permit);
    place.turn().await;
    let total: usize = outgoing.buffers.iter().map(bytes::Bytes::len).sum();
    let slices = outgoing.buffers.iter().map(|buffer| IoSlice::new(buffer)).collect::<Vec<_>>();
    let borrowed = borrow(&outgoing.control);
    let control = as_control(&outgoing.control, &borrowed);
    let flags = outgoing.flags | libc::MSG_DONTWAIT;
    let patience = || Patience::of(entry, Direction::Send, outgoing.flags);
    let mut sent = until_done(entry, Direction::Send, "sendmsg", patience, || {
        message::send_message(entry.fd(), &slices, &control, flags, address.as_ref())
    })
    .await?;
    progress.store(sent as u64, Ordering::Relaxed);
    if sent >= total || !sends_whole(entry, outgoing.flags) {
        return Ok(sent);
    }
    let data = outgoing.buffers.concat();
    while let Some(rest) = data.get(sent..).filter(|rest| !rest.is_empty()) {
        match attempt(entry, rest, outgoing.flags, None, &patience).await {
            Ok(n) => sent += n,
            Err(_) => break,
        }
        progress.store(sent as u64, Ordering::Relaxed);
    }
    Ok(sent)
}

/// `sendmmsg(2)`: the bytes sent of each message that left, and why the next did not. Every message
/// has a permit of its own. Waits for room where the socket's timeout lets it.
pub async fn send_batch(
    messages: Vec<(Permit<Send>, Outgoing)>,
    entry: &Entry,
    place: Place<'_>,
    flags: i32,
    progress: &Progress,
) -> OpResult<(Vec<usize>, Option<OpError>)> {
    place.turn().await;
    let mut prepared = Vec::with_capacity(messages.len());
    for (permit, outgoing) in messages {
        prepared.push((destination(permit), outgoing));
    }
    let patience = Patience::of(entry, Direction::Send, flags);
    let mut sent: Vec<usize> = Vec::new();
    while let Some(rest) = prepared.get(sent.len()..).filter(|rest| !rest.is_empty()) {
        let flags = flags | libc::MSG_DONTWAIT;
        let result = until_done(
            entry,
            Direction::Send,
            "sendmmsg",
            || patience,
            || submit(entry.fd(), rest, flags),
        )
        .await;
        match result {
            Ok(counts) => sent.extend(counts),
            Err(error) if sent.is_empty() => return Err(error),
            Err(error) => return Ok((sent, Some(error))),
        }
        progress.store(sent.iter().sum::<usize>() as u64, Ordering::Relaxed);
    }
    Ok((sent, None))
}

fn submit(
    fd: BorrowedFd<'_>,
    messages: &[(Option<RawAddress>, Outgoing)],
    flags: i32,
) -> std::io::Result<Vec<usize>> {
    let slices: Vec<Vec<IoSlice<'_>>> = messages
        .iter()
        .map(|(_, outgoing)| outgoing.buffers.iter().map(|buffer| IoSlice::new(buffer)).collect())
        .collect();
    let borrowed: Vec<_> = messages.iter().map(|(_, outgoing)| borrow(&outgoing.control)).collect();
    let control: Vec<_> = messages
        .iter()
        .zip(&borrowed)
        .map(|((_, outgoing), borrowed)| as_control(&outgoing.control, borrowed))
        .collect();
    let batch: Vec<_> = messages
        .iter()
        .zip(slices.iter().zip(&control))
        .map(|((address, _), (buffers, control))| OutgoingMessage {
            buffers,
            control,
            address: address.as_ref(),
        })
        .collect();
    message::send_batch(fd, &batch, flags)
}

fn destination(permit: Permit<Send>) -> Option<RawAddress> {
    permit.into_request().destination.as_ref().map(RawAddress::encode)
}

/// A blocking send on a stream returns when everything is queued (`tcp_sendmsg`,
/// `unix_stream_sendmsg`); with `MSG_DONTWAIT`, which the broker adds, it would return early.
fn sends_whole(entry: &Entry, flags: i32) -> bool {
    entry.timeout() == Timeout::Blocking
        && flags & libc::MSG_DONTWAIT == 0
        && entry.facts().kind == libc::SOCK_STREAM
}

fn borrow(control: &[Control]) -> Vec<Vec<BorrowedFd<'_>>> {
    control
        .iter()
        .map(|item| match item {
            Control::Data { .. } => Vec::new(),
            Control::Descriptors { descriptors, .. } => {
                descriptors.iter().map(AsFd::as_fd).collect()
            }
        })
        .collect()
}

fn as_control<'a>(
    control: &'a [Control],
    borrowed: &'a [Vec<BorrowedFd<'a>>],
) -> Vec<OutgoingControl<'a>> {
    control
        .iter()
        .zip(borrowed)
        .map(|(item, borrowed)| match item {
            Control::Data { level, kind, data } => {
                OutgoingControl::Data { level: *level, kind: *kind, data }
            }
            Control::Descriptors { rest, .. } => {
                OutgoingControl::Descriptors { descriptors: borrowed, rest }
            }
        })
        .collect()
}
