//! `recv`, `recvfrom`, `recvmsg`, `recvmmsg`.

use std::io;

use sockbroker_sys::address::RawAddress;
use sockbroker_sys::message::{self, ReceivedMessage};
use sockbroker_sys::poll::poll_now;

use crate::error::{During, OpError, OpResult};
use crate::ops::channel::ClientEnd;
use crate::ops::incoming::{ended, plain, wait_policy_of};
use crate::ops::kept::{self, ExactlyOnce, Kept};
use crate::ops::wait::{Direction, WaitPolicy, keep_pace, until_done};
use crate::ops::wait_all::{has_unread, receive_all, take_unread, waits_for_all};
use crate::table::call_queue::Ticket;
use crate::table::permitted::{Permitted, Socket};
use crate::table::timeout::Timeout;
use sockbroker_policy::action::Receive;

/// Whether the policy admits a datagram of this sender.
pub type SenderCheck = dyn Fn(&RawAddress) -> bool + Send + Sync;

/// The system calls whose datagrams are dropped before other calls have their turn, so that a flood of refused
/// datagrams does not block them.
const DROPPED_AT_ONCE: usize = 16;

/// `recv(2)` and `recvfrom(2)`: one buffer and no ancillary data.
pub async fn receive(
    permitted: &Permitted<Receive>,
    ticket: Ticket<'_>,
    sender_check: Option<&SenderCheck>,
    exactly_once: ExactlyOnce<'_>,
) -> OpResult<Kept> {
    let (socket, request) = (permitted.socket(), permitted.request());
    let wait_policy = match begin(socket, request, &ticket, exactly_once).await? {
        Begun::Complete(received) => return Ok(*received),
        Begun::Remaining(wait_policy) => {
            move || wait_policy.unwrap_or_else(|| wait_policy_of(socket, request))
        }
    };
    let received = receive_once(socket, request, sender_check, exactly_once, wait_policy).await?;
    Ok(charge_rate(socket, received))
}

/// `recv(2)` and `recvfrom(2)` for a channel, whatever the timeout of the socket is: waits without end, or fails with
/// `EAGAIN` if `waits` is false.
pub async fn receive_for_channel(
    permitted: &Permitted<Receive>,
    sender_check: Option<&SenderCheck>,
    waits: bool,
) -> OpResult<ReceivedMessage> {
    let (socket, request) = (permitted.socket(), permitted.request());
    let wait_policy = || if waits { WaitPolicy::Endless } else { WaitPolicy::None };
    keep_pace(socket, wait_policy, "recv").await?;
    if let Some(data) = take_unread(socket, request) {
        return Ok(plain(data));
    }
    let received = receive_once(socket, request, sender_check, None, wait_policy).await?;
    let (received, _taken_already) = charge_rate(socket, received);
    Ok(received)
}

/// What [`splice_for_channel`] did.
#[derive(Debug)]
pub enum Spliced {
    /// It moved data, and the client does not take the rest now.
    Moved { rest: Vec<u8> },
    /// There is nothing yet, or the rate of the user allows nothing yet.
    Later,
    /// The data has to be received by `recv(2)`: some was received before, others have the socket, the stream has ended, or
    /// an error has to be reported.
    Impossible,
}

/// Moves received bytes to the client of a channel without a copy in this process.
pub fn splice_for_channel(permitted: &Permitted<Receive>, client: &ClientEnd) -> Spliced {
    let (socket, request) = (permitted.socket(), permitted.request());
    if socket.is_shared() || has_unread(socket) {
        return Spliced::Impossible;
    }
    if socket.user().delay().is_some() {
        return Spliced::Later;
    }
    match socket.without_blocking(|fd| client.splice_from(fd, request.length)) {
        Ok((count, rest)) if count > 0 => {
            socket.user().received(1, count);
            Spliced::Moved { rest }
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Spliced::Later,
        Ok(_) | Err(_) => Spliced::Impossible,
    }
}

/// Waits until a stream has data or has ended, and the rate of the user allows to receive.
pub async fn readable_for_channel(permitted: &Permitted<Receive>) -> OpResult<()> {
    let socket = permitted.socket();
    keep_pace(socket, || WaitPolicy::Endless, "recv").await?;
    until_done(
        socket,
        Direction::Receive,
        "recv",
        || WaitPolicy::Endless,
        || {
            let events = poll_now(&[(socket.fd(), libc::POLLIN)])?;
            let is_ready = events.first().is_some_and(|events| *events != 0);
            if is_ready { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        },
    )
    .await
}

/// What a stream with out-of-band data gives next.
#[derive(Debug)]
pub enum FromStream {
    /// The byte of out-of-band data, which is not in the data.
    Urgent(u8),
    /// Data, or the end.
    Data(Vec<u8>),
}

/// The same for a stream with out-of-band data (`tcp(7)`): no byte of it is lost, and each comes before the data that
/// follows it.
///
/// The kernel drops the byte when it receives data while the byte is the next one (`tcp_recvmsg_locked()` in
/// `net/ipv4/tcp.c`). So data is received only after `poll(2)` has reported data and no out-of-band data: the next byte
/// is a byte of data then, and the kernel stops before an out-of-band byte that comes later.
pub async fn receive_urgent_for_channel(
    permitted: &Permitted<Receive>,
    waits: bool,
) -> OpResult<FromStream> {
    let (socket, request) = (permitted.socket(), permitted.request());
    let wait_policy = || if waits { WaitPolicy::Endless } else { WaitPolicy::None };
    keep_pace(socket, wait_policy, "recv").await?;
    if let Some(data) = take_unread(socket, request) {
        return Ok(FromStream::Data(data));
    }
    let flags = libc::MSG_DONTWAIT;
    let received = until_done(socket, Direction::ReceiveUrgent, "recv", wait_policy, || {
        let _turn = socket.turn();
        let events = poll_now(&[(socket.fd(), libc::POLLIN | libc::POLLPRI)])?;
        let events = events.first().copied().unwrap_or_default();
        if events & libc::POLLPRI != 0 {
            // There is none if the data has it (`SO_OOBINLINE`), or if another call has received it.
            let urgent = message::receive(socket.fd(), 1, libc::MSG_OOB | flags);
            if let Some(byte) = urgent.ok().and_then(|urgent| urgent.data.first().copied()) {
                return Ok(FromStream::Urgent(byte));
            }
        }
        if events & !libc::POLLPRI == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let received = message::receive(socket.fd(), request.length, request.flags | flags)?;
        Ok(FromStream::Data(received.data))
    });
    let received = received.await?;
    let bytes = match &received {
        FromStream::Urgent(_) => 1,
        FromStream::Data(data) => data.len(),
    };
    socket.user().received(1, bytes);
    Ok(received)
}

async fn receive_once(
    socket: &Socket,
    request: &Receive,
    sender_check: Option<&SenderCheck>,
    exactly_once: ExactlyOnce<'_>,
    wait_policy: impl FnOnce() -> WaitPolicy,
) -> OpResult<Kept> {
    let flags = request.flags | libc::MSG_DONTWAIT;
    until_done(socket, Direction::Receive, "recv", wait_policy, || {
        kept::receive(socket, flags, exactly_once, |flags| {
            let received = admitted(socket, flags, sender_check, || {
                let received = message::receive_from(socket.fd(), request.length, flags)?;
                Ok(ReceivedMessage {
                    data: received.data,
                    n: received.n,
                    control: Vec::new(),
                    flags: 0,
                    address: received.address,
                })
            });
            end_of_datagrams(socket, received)
        })
    })
    .await
}

/// `recvmsg(2)`.
pub async fn receive_message(
    permitted: &Permitted<Receive>,
    ticket: Ticket<'_>,
    sender_check: Option<&SenderCheck>,
    exactly_once: ExactlyOnce<'_>,
) -> OpResult<Kept> {
    let (socket, request) = (permitted.socket(), permitted.request());
    let wait_policy = match begin(socket, request, &ticket, exactly_once).await? {
        Begun::Complete(received) => return Ok(*received),
        Begun::Remaining(wait_policy) => {
            move || wait_policy.unwrap_or_else(|| wait_policy_of(socket, request))
        }
    };
    let flags = request.flags | libc::MSG_DONTWAIT | close_on_exec(socket);
    let received = until_done(socket, Direction::Receive, "recvmsg", wait_policy, || {
        kept::receive(socket, flags, exactly_once, |flags| {
            let received = admitted(socket, flags, sender_check, || {
                message::receive_message(socket.fd(), request.length, request.ancillary, flags)
            });
            // The kernel returns this flag to callers that passed it.
            let passed = request.flags & libc::MSG_CMSG_CLOEXEC;
            let received = received
                .map(|message| ReceivedMessage { flags: message.flags | passed, ..message });
            end_of_datagrams(socket, received)
        })
    })
    .await?;
    Ok(charge_rate(socket, received))
}

/// A receiving call after it has waited for earlier calls.
enum Begun {
    /// The call is complete.
    Complete(Box<Kept>),
    /// The system call remains. The wait policy is set if it was read already.
    Remaining(Option<WaitPolicy>),
}

/// Waits for earlier calls. Calls with `MSG_WAITALL`, and those that find bytes of a cancelled call, are completed
/// here. The others need one system call.
async fn begin(
    socket: &Socket,
    request: &Receive,
    ticket: &Ticket<'_>,
    exactly_once: ExactlyOnce<'_>,
) -> OpResult<Begun> {
    ticket.acquire().await;
    let wait_policy = keep_pace(socket, || wait_policy_of(socket, request), "recv").await?;
    if waits_for_all(socket, request) {
        let received = match kept::receive_all(
            socket,
            request,
            exactly_once.filter(|_| !has_unread(socket)),
        ) {
            Some(whole) => whole,
            _ => (receive_all(socket, request).await?, None),
        };
        return Ok(Begun::Complete(Box::new(charge_rate(socket, received))));
    }
    let unread = take_unread(socket, request);
    Ok(unread.map_or(Begun::Remaining(wait_policy), |data| {
        Begun::Complete(Box::new((plain(data), None)))
    }))
}

/// Charges a message to the rate of its user.
fn charge_rate(socket: &Socket, (message, receipt): Kept) -> Kept {
    socket.user().received(1, message.data.len());
    (message, receipt)
}

/// `recvmmsg(2)`: waits for one message, and returns it with others that are queued, up to `count`.
pub async fn receive_batch(
    permitted: &Permitted<Receive>,
    ticket: Ticket<'_>,
    count: usize,
    sender_check: Option<&SenderCheck>,
) -> OpResult<Vec<ReceivedMessage>> {
    let (socket, request) = (permitted.socket(), permitted.request());
    ticket.acquire().await;
    let wait_policy = keep_pace(socket, || wait_policy_of(socket, request), "recvmmsg").await?;
    if let Some(data) = take_unread(socket, request) {
        return Ok(vec![plain(data)]);
    }
    let flags = request.flags | libc::MSG_DONTWAIT | close_on_exec(socket);
    let wait_policy = || wait_policy.unwrap_or_else(|| wait_policy_of(socket, request));
    let batch = until_done(socket, Direction::Receive, "recvmmsg", wait_policy, || {
        let _turn = socket.turn();
        for _ in 0..DROPPED_AT_ONCE {
            let fd = socket.fd();
            let mut batch =
                message::receive_batch(fd, count, request.length, request.ancillary, flags)?;
            let total = batch.len();
            batch.retain(|message| sender_check.is_none_or(|admit| admit(&message.address)));
            if !batch.is_empty() || total == 0 {
                return Ok(batch);
            }
            if flags & libc::MSG_PEEK != 0 {
                drop_next(socket)?;
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    })
    .await?;
    socket.user().received(batch.len(), batch.iter().map(|message| message.data.len()).sum());
    Ok(batch)
}

/// Receives the next datagram whose sender is admitted. Others are dropped; after [`DROPPED_AT_ONCE`] the error is
/// `EINTR`.
fn admitted(
    socket: &Socket,
    flags: i32,
    sender_check: Option<&SenderCheck>,
    receive: impl Fn() -> io::Result<ReceivedMessage>,
) -> io::Result<ReceivedMessage> {
    for _ in 0..DROPPED_AT_ONCE {
        let received = receive()?;
        if sender_check.is_none_or(|admit| admit(&received.address)) {
            return Ok(received);
        }
        if flags & libc::MSG_PEEK != 0 {
            drop_next(socket)?;
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

/// Removes a datagram from the queue that was read with `MSG_PEEK`.
fn drop_next(socket: &Socket) -> io::Result<()> {
    message::receive(socket.fd(), 0, libc::MSG_DONTWAIT | libc::MSG_TRUNC).map(drop)
}

/// Whether a result of `n` bytes is the end of a stream, or of a connection of records. An empty datagram is not
/// the end.
pub fn is_end(permitted: &Permitted<Receive>, n: usize) -> bool {
    let socket = permitted.socket();
    if n > 0 || permitted.request().length == 0 {
        return false;
    }
    if socket.declared().ty == libc::SOCK_STREAM {
        return true;
    }
    let events = [(socket.fd(), libc::POLLRDHUP)];
    let ready = poll_now(&events).unwrap_or_default();
    ready.first().is_some_and(|events| events & libc::POLLRDHUP != 0)
}

/// `MSG_CMSG_CLOEXEC` for `AF_UNIX`, which carries descriptors. `AF_PACKET` refuses the flag with `EINVAL`.
fn close_on_exec(socket: &Socket) -> i32 {
    if socket.declared().domain == libc::AF_UNIX { libc::MSG_CMSG_CLOEXEC } else { 0 }
}

/// Turns `EAGAIN` into an empty result on a blocking datagram socket whose reading end is shut down, as the kernel
/// does without `MSG_DONTWAIT` (`__skb_wait_for_more_packets`).
fn end_of_datagrams(
    socket: &Socket,
    received: io::Result<ReceivedMessage>,
) -> io::Result<ReceivedMessage> {
    match received {
        Err(error)
            if error.kind() == io::ErrorKind::WouldBlock
                && socket.declared().ty == libc::SOCK_DGRAM
                && socket.timeout() == Timeout::Blocking
                && ended(socket) =>
        {
            Ok(plain(Vec::new()))
        }
        other => other,
    }
}

/// Checks the size of a receive. `negative` is the message for a negative size.
pub fn length(asked: i64, negative: &str, limit: u64) -> OpResult<usize> {
    let length = usize::try_from(asked).map_err(|_error| OpError::value(negative))?;
    OpError::within("receive_bytes", length as u64, limit)?;
    Ok(length)
}

/// Drops all queued packets.
pub(super) fn drain(socket: &Socket) -> OpResult<()> {
    loop {
        match message::receive(socket.fd(), 0, libc::MSG_DONTWAIT | libc::MSG_TRUNC) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).during("recv"),
        }
    }
}
