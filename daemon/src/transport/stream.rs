//! The streams of connections: a Unix socket, or two pipes or sockets. They do not block.

use std::collections::VecDeque;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use sockbroker_proto::descriptors::{DescriptorQueue, Received};
use sockbroker_sys::poll::poll_now;
use sockbroker_sys::{process, socket, stream};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::control_socket::ControlSocket;
use super::outgoing::Outgoing;
use crate::descriptor::Descriptor;
use crate::quota::User;
use crate::rpc::answer::PassingError;
use crate::table::readiness::register;

/// The smallest size of a read.
const READ_MIN: usize = 16 << 10;
/// The largest size of a read.
const READ_MAX: usize = 1 << 20;
#[derive(Debug)]
pub(super) enum Stream {
    /// A connected Unix stream socket, which also carries descriptors.
    Socket(ControlSocket),
    /// Standard input and output that are not the same socket. They carry no descriptors.
    Two { input: AsyncFd<File>, output: AsyncFd<File> },
}

impl Stream {
    /// A connected Unix stream socket.
    pub(super) fn socket(descriptor: Descriptor) -> io::Result<Self> {
        Ok(Self::Socket(ControlSocket::new(descriptor)?))
    }

    /// The socket, without keeping it open.
    pub(super) fn connection(&self) -> Option<Weak<Descriptor>> {
        match self {
            Self::Socket(end) => Some(Arc::downgrade(end.descriptor())),
            Self::Two { .. } => None,
        }
    }

    /// Standard input and output: one socket, or two files, each a pipe or a socket, because the event
    /// loop can wait for nothing else.
    pub(super) fn standard(user: &Arc<User>) -> io::Result<Self> {
        let input = process::inherited_descriptor(0)?;
        let output = process::inherited_descriptor(1)?;
        let same = process::is_same_file(input.as_fd(), output.as_fd())?;
        if same && process::is_socket(input.as_fd()) {
            return Self::socket(Descriptor::of_client(input, user));
        }
        for (name, end) in [("standard input", &input), ("standard output", &output)] {
            if !process::is_pipe(end.as_fd()) && !process::is_socket(end.as_fd()) {
                let text =
                    format!("{name} must be a pipe or a socket: start the broker by a client");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            socket::set_nonblocking(end.as_fd(), true)?;
        }
        Ok(Self::Two {
            input: register(input.into(), Interest::READABLE)?,
            output: register(output.into(), Interest::WRITABLE)?,
        })
    }

    /// Waits for the first byte; `None` at the end. A socket keeps the byte and its descriptors in its queue;
    /// otherwise the byte goes to `buffer`.
    pub(super) async fn first_byte(&self, buffer: &mut BytesMut) -> io::Result<Option<u8>> {
        match self {
            Self::Socket(end) => loop {
                let mut guard = end.io()?.readable().await?;
                match stream::peek_byte(end.as_fd()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                    result => return result,
                }
            },
            Self::Two { .. } => {
                let mut none = DescriptorQueue::default();
                poll_fn(|context| self.poll_fill(context, 1, buffer, &mut none)).await?;
                Ok(buffer.first().copied())
            }
        }
    }

    /// Appends what has arrived to `buffer`. 0 at the end.
    pub(super) fn poll_fill(
        &self,
        context: &mut Context<'_>,
        wanted: usize,
        buffer: &mut BytesMut,
        descriptors: &mut DescriptorQueue<Descriptor>,
    ) -> Poll<io::Result<usize>> {
        let size = wanted.clamp(READ_MIN, READ_MAX);
        match self {
            Self::Socket(end) => loop {
                let mut guard = ready!(end.io()?.poll_read_ready(context))?;
                let before = descriptors.len();
                let read =
                    descriptors.receive(|queue| receive(end.descriptor(), buffer, size, queue));
                match read {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                    Ok(n) => {
                        // A short read without descriptors has emptied the queue, which saves the next try.
                        // One with descriptors ends early, with more data after it (unix(7)).
                        if n > 0 && n < size && descriptors.len() == before {
                            guard.clear_ready();
                        }
                        return Poll::Ready(Ok(n));
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            },
            Self::Two { input, .. } => loop {
                let mut guard = ready!(input.poll_read_ready(context))?;
                let before = buffer.len();
                buffer.resize(before + size, 0);
                let read = input.get_ref().read(buffer.get_mut(before..).unwrap_or_default());
                buffer.truncate(before + read.as_ref().map_or(0, |n| *n));
                match read {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                    result => return Poll::Ready(result),
                }
            },
        }
    }

    /// Sends from the queue until it is empty. MUST be called before [`Self::poll_fill`] whenever the task is woken.
    pub(super) fn poll_flush(
        &mut self,
        context: &mut Context<'_>,
        out: &mut Outgoing,
        sent: &mut usize,
    ) -> Poll<io::Result<()>> {
        while !out.is_empty() {
            let result = match self {
                Self::Socket(end) => ready!(end.poll_send(context, &mut |socket| {
                    out.send(|slices, descriptors| {
                        let borrowed: Vec<_> = descriptors.iter().map(|one| one.as_fd()).collect();
                        stream::send_stream(socket, slices, &borrowed)
                    })
                })),
                Self::Two { output, .. } => {
                    let mut guard = ready!(output.poll_write_ready(context))?;
                    let result = out.send(|slices, _| output.get_ref().write_vectored(slices));
                    if would_block(&result) {
                        guard.clear_ready();
                    }
                    result
                }
            };
            match result {
                Ok(n) => *sent += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    let reason = error.raw_os_error().and_then(PassingError::of);
                    if !reason.is_some_and(|reason| out.refuse_descriptors(reason)) {
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
        Poll::Ready(match self {
            Self::Socket(end) => end.sent_all(),
            Self::Two { .. } => Ok(()),
        })
    }

    /// The memory of what the peer has not read (`SIOCOUTQ`): 0 if it has read everything that was sent.
    pub(super) fn unread(&self) -> usize {
        match self {
            Self::Socket(end) => stream::unread_by_peer(end.as_fd()).unwrap_or(usize::MAX),
            Self::Two { .. } => 0,
        }
    }

    /// Ends both directions. The peer can still read what was sent.
    pub(super) fn shut_down(&self) {
        if let Self::Socket(end) = self {
            // A peer that has closed needs none.
            socket::shutdown(end.as_fd(), libc::SHUT_RDWR).ok();
        }
    }

    /// Whether the peer has closed both directions.
    pub(super) fn is_hung_up(&self) -> bool {
        let end = match self {
            Self::Socket(end) => end.as_fd(),
            Self::Two { output, .. } => output.get_ref().as_fd(),
        };
        let gone = libc::POLLHUP | libc::POLLERR;
        let found = poll_now(&[(end, 0)]).unwrap_or_default();
        found.first().is_none_or(|events| events & gone != 0)
    }
}

/// Appends what has arrived to `buffer`, and the descriptors that came with it to `descriptors`.
pub(super) fn receive(
    end: &Descriptor,
    buffer: &mut BytesMut,
    size: usize,
    descriptors: &mut VecDeque<Descriptor>,
) -> io::Result<Received> {
    let mut arrived = VecDeque::new();
    let received = stream::receive_stream(end.as_fd(), buffer, size, &mut arrived);
    for fd in arrived {
        descriptors.push_back(Descriptor::of_client(fd, end.user()));
    }
    received
}

fn would_block(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
