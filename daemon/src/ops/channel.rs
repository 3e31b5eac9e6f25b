//! The client's end of a channel, and what a channel does on its socket apart from receiving and sending.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, PipeReader, PipeWriter, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use sockbroker_policy::action::Inspect;
use sockbroker_sys::poll::poll_now;
use sockbroker_sys::{message, option, socket, stream};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::descriptor::Descriptor;
use crate::error::{During, OpError, OpResult};
use crate::ops::wait::RETRY_PAUSE;
use crate::quota::User;
use crate::table::channel::ChannelClaim;
use crate::table::permitted::{Permitted, Socket};
use crate::table::readiness::register;

/// `SO_MEMINFO`, the length of its value, and the place of the count of dropped datagrams (`SK_MEMINFO_DROPS` in
/// `linux/sock_diag.h`).
const SO_MEMINFO: i32 = 55;
const MEMINFO_BYTES: u32 = 36;
const MEMINFO_DROPS: usize = 32;

thread_local! {
    /// What a piece of data is moved through. It is empty before and after.
    static PIPE: RefCell<Option<(PipeReader, PipeWriter)>> = const { RefCell::new(None) };
}

/// The size of a read of data that is dropped.
const DROPPED_PIECE: usize = 64 << 10;

/// The stream socket to which a channel moves data, and from which it takes data.
#[derive(Debug)]
pub struct ClientEnd {
    io: AsyncFd<Arc<Descriptor>>,
    /// Whether the channel has ended what the client reads.
    output_ended: AtomicBool,
}

/// What is about to be written: a head and data, and how much of both is written.
#[derive(Debug, Default)]
pub struct Output {
    pub head: Vec<u8>,
    pub data: Vec<u8>,
    written: usize,
}

impl Output {
    pub fn new(head: Vec<u8>, data: Vec<u8>) -> Self {
        Self { head, data, written: 0 }
    }

    fn is_empty(&self) -> bool {
        self.written >= self.head.len() + self.data.len()
    }
}

impl ClientEnd {
    /// A connected stream socket that does not block.
    pub fn new(io: AsyncFd<Arc<Descriptor>>) -> Self {
        Self { io, output_ended: AtomicBool::new(false) }
    }

    /// A pair of connected sockets: the broker's end, and the client's, which blocks.
    pub fn pair(user: &Arc<User>) -> OpResult<(Self, Arc<Descriptor>)> {
        let pair = socket::pair(libc::AF_UNIX, libc::SOCK_STREAM, 0).during("socketpair")?;
        let (own, clients) = pair;
        socket::set_nonblocking(own.as_fd(), true).during("fcntl")?;
        let own = Arc::new(Descriptor::of_client(own, user));
        let both = Interest::READABLE | Interest::WRITABLE;
        let own = Self::new(register(own, both).during("epoll_ctl")?);
        Ok((own, Arc::new(Descriptor::of_client(clients, user))))
    }

    /// Appends at most `most` bytes without waiting; 0 at the end. Descriptors of the client are closed.
    pub fn try_read(&self, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
        let (end, mut descriptors) = (self.io.get_ref(), VecDeque::new());
        let received = stream::receive_stream(end.as_fd(), buffer, most, &mut descriptors);
        for descriptor in descriptors {
            drop(Descriptor::of_client(descriptor, end.user()));
        }
        received.map(|received| received.bytes)
    }

    /// The same; waits until there is something. Dropping it loses nothing.
    pub async fn read(&self, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
        loop {
            match self.try_read(buffer, most) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            let mut ready = self.io.readable().await?;
            match self.try_read(buffer, most) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                result => return result,
            }
        }
    }

    /// Writes the output. Dropping it loses nothing: the next call continues.
    pub async fn flush(&self, output: &mut Output) -> io::Result<()> {
        while !output.is_empty() {
            let Some(count) = unless_full(self.write(output))? else {
                let mut ready = self.io.writable().await?;
                match unless_full(self.write(output))? {
                    Some(count) => output.written += count,
                    None => ready.clear_ready(),
                }
                continue;
            };
            output.written += count;
        }
        *output = Output::default();
        Ok(())
    }

    fn write(&self, output: &Output) -> io::Result<usize> {
        let head = output.head.get(output.written..).unwrap_or_default();
        let skipped = output.written.saturating_sub(output.head.len());
        let data = output.data.get(skipped..).unwrap_or_default();
        let slices = [IoSlice::new(head), IoSlice::new(data)];
        stream::send_stream(self.io.get_ref().as_fd(), &slices, &[])
    }

    /// Waits until the client takes more.
    pub async fn ready_for_output(&self) -> io::Result<()> {
        let takes_more = || {
            let events = poll_now(&[(self.io.get_ref().as_fd(), libc::POLLOUT)])?;
            Ok::<_, io::Error>(events.first().is_some_and(|events| *events != 0))
        };
        while !takes_more()? {
            let mut ready = self.io.writable().await?;
            if takes_more()? {
                break;
            }
            ready.clear_ready();
        }
        Ok(())
    }

    /// Moves at most `most` bytes from a stream to the client without a copy. Returns their number, and those of them that
    /// the client does not take now.
    pub(super) fn splice_from(
        &self,
        stream: BorrowedFd<'_>,
        most: usize,
    ) -> io::Result<(usize, Vec<u8>)> {
        PIPE.with_borrow_mut(|pipe| {
            // One that holds bytes after an error is not used again.
            let (mut output, input) = pipe.take().map_or_else(io::pipe, Ok)?;
            let count = match stream::splice(stream, input.as_fd(), most) {
                Ok(count) => count,
                Err(error) => {
                    *pipe = Some((output, input));
                    return Err(error);
                }
            };
            let mut moved = 0;
            while moved < count {
                let to = self.io.get_ref().as_fd();
                match stream::splice(output.as_fd(), to, count - moved) {
                    Ok(some) if some > 0 => moved += some,
                    // An error shows when the rest is written.
                    _ => break,
                }
            }
            let mut rest = vec![0; count - moved];
            output.read_exact(&mut rest)?;
            *pipe = Some((output, input));
            Ok((count, rest))
        })
    }

    /// Ends what the client reads.
    pub fn end_output(&self) {
        self.output_ended.store(true, Ordering::Relaxed);
        // A client that has closed needs no end.
        socket::shutdown(self.io.get_ref().as_fd(), libc::SHUT_WR).ok();
    }

    /// Ends what the client writes: from now on it gets `EPIPE`. What it has written can still be read.
    pub fn end_input(&self) {
        // A client that has closed needs no end.
        socket::shutdown(self.io.get_ref().as_fd(), libc::SHUT_RD).ok();
    }

    /// Drops what the client has written.
    pub fn drop_input(&self) {
        let mut dropped = BytesMut::new();
        while self.try_read(&mut dropped, DROPPED_PIECE).is_ok_and(|count| count > 0) {
            dropped.clear();
        }
    }

    /// Whether both directions have ended.
    pub fn is_hung_up(&self) -> bool {
        stream::is_hung_up(self.io.get_ref().as_fd()).unwrap_or(true)
    }

    /// Whether the client is known to have closed its end, and not only the direction in which it writes. After the end of
    /// the other direction, the kernel does not show the difference.
    pub fn is_closed(&self) -> bool {
        !self.output_ended.load(Ordering::Relaxed) && self.is_hung_up()
    }
}

/// The result of a call that does not wait; `None` if it would have to.
fn unless_full(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        other => other.map(Some),
    }
}

/// Fails if the socket listens: it has no data.
pub fn check_not_listening(permitted: &Permitted<Inspect>) -> OpResult<()> {
    let listens = socket::is_listening(permitted.socket().fd()).unwrap_or(false);
    if listens { Err(OpError::Listens { call: "channel.open" }) } else { Ok(()) }
}

/// Waits until a socket is connected. Fails if it listens.
///
/// It does not wait for events of a socket that is not connected: the event loop would report such a socket as closed
/// from then on.
pub async fn connected(permitted: &Permitted<Inspect>, claim: &ChannelClaim) -> OpResult<()> {
    let socket = permitted.socket();
    let mut pause = RETRY_PAUSE.0;
    loop {
        let mut changing = std::pin::pin!(claim.next_change());
        changing.as_mut().enable();
        if socket::peer_address(socket.fd()).is_ok() {
            return Ok(());
        }
        check_not_listening(permitted)?;
        // A socket whose connection is being made is not hung up.
        let found = poll_now(&[(socket.fd(), 0)]).unwrap_or_default();
        if found.first().is_none_or(|events| events & libc::POLLHUP != 0) {
            changing.await;
            pause = RETRY_PAUSE.0;
        } else {
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE.1);
        }
    }
}

/// Waits until the peer of a TCP connection has acknowledged everything that was sent, and drops what arrives.
///
/// The kernel resets a connection that is closed with unread data, or to which data arrives after the close, and drops what
/// is not sent yet (`__tcp_close()` and `tcp_rcv_state_process()` in `net/ipv4/`). If others have the socket, it is
/// not closed, and nothing is done.
pub async fn acknowledged(permitted: &Permitted<Inspect>) {
    let socket = permitted.socket();
    let (mut pause, longest) = RETRY_PAUSE;
    let drop_piece = || {
        let received = message::receive(socket.fd(), DROPPED_PIECE, libc::MSG_DONTWAIT);
        received.is_ok_and(|received| received.n > 0)
    };
    if socket.is_shared() {
        return;
    }
    while !is_acknowledged(permitted) {
        if drop_piece() {
            yield_now().await;
        } else {
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }
    // What has arrived meanwhile: usually the connection then ends without a reset.
    drop_piece();
}

/// Whether the peer of a TCP connection has acknowledged everything that was sent, or others have the socket.
pub fn is_acknowledged(permitted: &Permitted<Inspect>) -> bool {
    let socket = permitted.socket();
    let is_unsent = || stream::unread_by_peer(socket.fd()).is_ok_and(|bytes| bytes > 0);
    socket.is_shared() || socket::peer_address(socket.fd()).is_err() || !is_unsent()
}

/// Makes the close of a connection a reset, unless others have the socket.
pub fn reset_on_close(permitted: &Permitted<Inspect>) {
    let socket = permitted.socket();
    if !socket.is_shared() {
        // A protocol without this option closes as usual.
        socket::reset_on_close(socket.fd()).ok();
    }
}

/// How many datagrams the kernel has dropped because the queue of the socket was full.
pub fn dropped(socket: &Socket) -> u32 {
    let value = option::get_bytes(socket.fd(), libc::SOL_SOCKET, SO_MEMINFO, MEMINFO_BYTES);
    let value = value.unwrap_or_default();
    let count = value.get(MEMINFO_DROPS..).and_then(<[u8]>::first_chunk);
    count.map_or(0, |count| u32::from_ne_bytes(*count))
}
