//! `recv`, `recvfrom`, `recvmsg`, `recvmmsg`.

use std::io;
use std::sync::PoisonError;

use sockbroker_sys::address::RawAddress;
use sockbroker_sys::message::{self, ReceivedMessage};

use super::error::{During, OpError, OpResult};
use super::wait::{Direction, Patience, keep_pace, until_done};
use crate::policy::Permit;
use crate::policy::action::Receive;
use crate::table::entry::Entry;
use crate::table::lane::Place;
use crate::table::timeout::Timeout;

/// What a receiving call asks for.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// At most this many bytes.
    pub length: usize,
    /// Room for ancillary data in bytes.
    pub control: usize,
    /// `MSG_*`.
    pub flags: i32,
}

/// Whether a datagram of this sender may be received; `None` where no rule looks at senders.
pub type Senders<'a> = Option<&'a (dyn Fn(&RawAddress) -> bool + Sync)>;

/// `recv(2)` and `recvfrom(2)`: one buffer and no ancillary data.
pub async fn receive(
    permit: Permit<Receive>,
    entry: &Entry,
    place: Place<'_>,
    want: Want,
    senders: Senders<'_>,
) -> OpResult<ReceivedMessage> {
    let patience = match begin(permit, entry, &place, want).await? {
        Begun::Over(gathered) => return Ok(gathered),
        Begun::With(patience) => move || patience.unwrap_or_else(|| patience_of(entry, want)),
    };
    let flags = want.flags | libc::MSG_DONTWAIT;
    let received = until_done(entry, Direction::Receive, "recv", patience, || {
        let received = admitted(entry, flags, senders, || {
            let received = message::receive_from(entry.fd(), want.length, flags)?;
            Ok(ReceivedMessage {
                data: received.data,
                n: received.n,
                control: Vec::new(),
                flags: 0,
                address: received.address,
            })
        });
        end_of_datagrams(entry, received)
    })
    .await?;
    Ok(spent(entry, received))
}

/// `recvmsg(2)`.
pub async fn receive_message(
    permit: Permit<Receive>,
    entry: &Entry,
    place: Place<'_>,
    want: Want,
    senders: Senders<'_>,
) -> OpResult<ReceivedMessage> {
    let patience = match begin(permit, entry, &place, want).await? {
        Begun::Over(gathered) => return Ok(gathered),
        Begun::With(patience) => move || patience.unwrap_or_else(|| patience_of(entry, want)),
    };
    let flags = want.flags | libc::MSG_DONTWAIT | close_on_exec(entry);
    let received = until_done(entry, Direction::Receive, "recvmsg", patience, || {
        let received = admitted(entry, flags, senders, || {
            message::receive_message(entry.fd(), want.length, want.control, flags)
        });
        // The kernel tells the flag back to whoever gave it.
        let told = want.flags & libc::MSG_CMSG_CLOEXEC;
        let received =
            received.map(|message| ReceivedMessage { flags: message.flags | told, ..message });
        end_of_datagrams(entry, received)
    })
    .await?;
    Ok(spent(entry, received))
}

/// What a receiving call is when its turn has come.
enum Begun {
    /// Done already.
    Over(ReceivedMessage),
    /// Still to be done, with this patience if it was looked at.
    With(Option<Patience>),
}

/// Waits for the call's turn. What a cancelled call left, and `MSG_WAITALL`, are served here; the rest
/// is one system call.
async fn begin(
    permit: Permit<Receive>,
    entry: &Entry,
    place: &Place<'_>,
    want: Want,
) -> OpResult<Begun> {
    let Receive { .. } = permit.into_request();
    place.turn().await;
    let patience = keep_pace(entry, || patience_of(entry, want), "recv").await?;
    if waits_for_all(entry, want) {
        return Ok(Begun::Over(spent(entry, receive_all(entry, want).await?)));
    }
    let unread = take_unread(entry, want);
    Ok(unread.map_or(Begun::With(patience), |data| Begun::Over(plain(data))))
}

fn patience_of(entry: &Entry, want: Want) -> Patience {
    Patience::of(entry, Direction::Receive, want.flags)
}

/// Counts a message for its user's rate.
fn spent(entry: &Entry, message: ReceivedMessage) -> ReceivedMessage {
    entry.user().received(1, message.data.len());
    message
}

/// `recvmmsg(2)`: waits for one message, then takes what is there.
pub async fn receive_batch(
    permit: Permit<Receive>,
    entry: &Entry,
    place: Place<'_>,
    count: usize,
    want: Want,
    senders: Senders<'_>,
) -> OpResult<Vec<ReceivedMessage>> {
    let Receive { .. } = permit.into_request();
    place.turn().await;
    let patience = keep_pace(entry, || patience_of(entry, want), "recvmmsg").await?;
    if let Some(data) = take_unread(entry, want) {
        return Ok(vec![plain(data)]);
    }
    let flags = want.flags | libc::MSG_DONTWAIT | close_on_exec(entry);
    let patience = || patience.unwrap_or_else(|| patience_of(entry, want));
    let batch = until_done(entry, Direction::Receive, "recvmmsg", patience, || {
        loop {
            let fd = entry.fd();
            let mut batch = message::receive_batch(fd, count, want.length, want.control, flags)?;
            let came = batch.len();
            batch.retain(|message| senders.is_none_or(|admit| admit(&message.address)));
            if !batch.is_empty() || came == 0 {
                return Ok(batch);
            }
            if flags & libc::MSG_PEEK != 0 {
                drop_next(entry)?;
            }
        }
    })
    .await?;
    entry.user().received(batch.len(), batch.iter().map(|message| message.data.len()).sum());
    Ok(batch)
}

/// The next datagram whose sender is admitted; others are dropped, as by a packet filter.
fn admitted(
    entry: &Entry,
    flags: i32,
    senders: Senders<'_>,
    receive: impl Fn() -> io::Result<ReceivedMessage>,
) -> io::Result<ReceivedMessage> {
    loop {
        let received = receive()?;
        if senders.is_none_or(|admit| admit(&received.address)) {
            return Ok(received);
        }
        if flags & libc::MSG_PEEK != 0 {
            drop_next(entry)?;
        }
    }
}

/// Takes a datagram that was only looked at out of the queue.
fn drop_next(entry: &Entry) -> io::Result<()> {
    message::receive(entry.fd(), 0, libc::MSG_DONTWAIT | libc::MSG_TRUNC).map(drop)
}

/// Whether nothing received means that nothing will come: the end of a stream, or of a connection
/// of records. An empty datagram is not the end.
pub fn is_end(entry: &Entry, want: Want, n: usize) -> bool {
    if n > 0 || want.length == 0 {
        return false;
    }
    if entry.facts().kind == libc::SOCK_STREAM {
        return true;
    }
    let events = [(entry.fd(), libc::POLLRDHUP)];
    let ready = sockbroker_sys::poll::poll_now(&events).unwrap_or_default();
    ready.first().is_some_and(|events| events & libc::POLLRDHUP != 0)
}

/// Only `AF_UNIX` carries descriptors, and `AF_PACKET` refuses the flag with `EINVAL`.
fn close_on_exec(entry: &Entry) -> i32 {
    if entry.facts().family == libc::AF_UNIX { libc::MSG_CMSG_CLOEXEC } else { 0 }
}

/// `MSG_WAITALL` counts on blocking streams only: with a timeout CPython's descriptor is
/// non-blocking, and the kernel ignores the flag.
fn waits_for_all(entry: &Entry, want: Want) -> bool {
    let never = libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE | libc::MSG_OOB;
    want.flags & libc::MSG_WAITALL != 0
        && want.control == 0
        && want.flags & never == 0
        && entry.facts().kind == libc::SOCK_STREAM
        && entry.timeout() == Timeout::Blocking
}

/// `MSG_DONTWAIT` would cancel `MSG_WAITALL`, so the parts are gathered here. What was taken when the
/// call is cancelled goes back to the entry.
async fn receive_all(entry: &Entry, want: Want) -> OpResult<ReceivedMessage> {
    let flags = (want.flags & !libc::MSG_WAITALL) | libc::MSG_DONTWAIT;
    let peek = want.flags & libc::MSG_PEEK != 0;
    let unread = if peek { None } else { take_unread(entry, want) };
    let mut taken = Taken { entry, data: unread.unwrap_or_default(), peek };
    if !taken.data.is_empty() && taken.data.len() >= want.length {
        return Ok(plain(taken.keep()));
    }
    loop {
        let patience = || patience_of(entry, want);
        let missing = want.length - taken.data.len();
        let data = &mut taken.data;
        let result = until_done(entry, Direction::Receive, "recv", patience, || {
            if !peek {
                return message::receive_append(entry.fd(), data, missing, flags);
            }
            data.clear();
            let n = message::receive_append(entry.fd(), data, want.length, flags)?;
            // Peeking finds the same bytes again: wait for more of them, unless the end has come.
            if n == 0 || n == want.length || ended(entry) {
                Ok(0)
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            }
        })
        .await;
        match result {
            Ok(0) => return Ok(plain(taken.keep())),
            Ok(_) if taken.data.len() >= want.length => return Ok(plain(taken.keep())),
            Ok(_) => {}
            // As in the kernel: what came before the error is the result; the error comes next time.
            Err(_) if !taken.data.is_empty() => return Ok(plain(taken.keep())),
            Err(error) => return Err(error),
        }
    }
}

/// A blocking receive on a datagram socket whose reading end is shut down returns nothing
/// (`__skb_wait_for_more_packets`), where `MSG_DONTWAIT` says `EAGAIN`.
fn end_of_datagrams(
    entry: &Entry,
    received: io::Result<ReceivedMessage>,
) -> io::Result<ReceivedMessage> {
    match received {
        Err(error)
            if error.kind() == io::ErrorKind::WouldBlock
                && entry.facts().kind == libc::SOCK_DGRAM
                && entry.timeout() == Timeout::Blocking
                && ended(entry) =>
        {
            Ok(plain(Vec::new()))
        }
        other => other,
    }
}

fn ended(entry: &Entry) -> bool {
    let events = [(entry.fd(), libc::POLLRDHUP)];
    let ready = sockbroker_sys::poll::poll_now(&events).unwrap_or_default();
    ready.first().is_some_and(|events| events & (libc::POLLRDHUP | libc::POLLHUP) != 0)
}

/// Bytes taken from the kernel that nobody was given yet.
struct Taken<'a> {
    entry: &'a Entry,
    data: Vec<u8>,
    /// Peeked bytes are still in the kernel.
    peek: bool,
}

impl Taken<'_> {
    fn keep(mut self) -> Vec<u8> {
        std::mem::take(&mut self.data)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.peek && !self.data.is_empty() {
            let mut unread = self.entry.unread.lock().unwrap_or_else(PoisonError::into_inner);
            unread.splice(..0, self.data.drain(..));
        }
    }
}

/// The front of what a cancelled call left, as one receive.
fn take_unread(entry: &Entry, want: Want) -> Option<Vec<u8>> {
    let mut unread = entry.unread.lock().unwrap_or_else(PoisonError::into_inner);
    if unread.is_empty() || want.flags & (libc::MSG_OOB | libc::MSG_ERRQUEUE) != 0 {
        return None;
    }
    let length = want.length.min(unread.len());
    if want.flags & libc::MSG_PEEK != 0 {
        return unread.get(..length).map(<[u8]>::to_vec);
    }
    Some(unread.drain(..length).collect())
}

fn plain(data: Vec<u8>) -> ReceivedMessage {
    ReceivedMessage {
        n: data.len(),
        data,
        control: Vec::new(),
        flags: 0,
        address: RawAddress::default(),
    }
}

/// Checks a size that a client asks to be received.
pub fn length(asked: i64, negative: &str, limit: u64) -> OpResult<usize> {
    let length = usize::try_from(asked).map_err(|_error| OpError::value(negative))?;
    if length as u64 > limit {
        return Err(OpError::Limit { name: "receive_bytes", value: limit });
    }
    Ok(length)
}

/// Throws away what is queued, without waiting.
pub(super) fn drain(entry: &Entry) -> OpResult<()> {
    loop {
        match message::receive(entry.fd(), 0, libc::MSG_DONTWAIT | libc::MSG_TRUNC) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).during("recv"),
        }
    }
}
