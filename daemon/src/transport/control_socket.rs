//! The socket of a connection, and what the event loop reports about it.
//!
//! Usually that is only when something has arrived. When the peer reads an answer, the kernel reports that the socket is
//! writable again: with that, each answer would wake the connection once more. So the event loop is asked for it only while
//! an answer does not fit.

use std::future::Future as _;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use sockbroker_sys::{socket, stream};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::coop::consume_budget;

use crate::descriptor::Descriptor;
use crate::table::readiness::register;

/// `SO_SNDBUF` of control sockets in bytes, so that one call sends an answer of 256 KiB. The kernel doubles
/// the value, and limits it to `net.core.wmem_max`, whose default this is.
const SEND_BUFFER: usize = 212_992;

/// The socket of a connection with the event loop. The opener recognizes it as long as it is open.
pub(super) type ConnectionIo = AsyncFd<Arc<Descriptor>>;

/// A connected Unix stream socket, which also carries descriptors. It does not block.
#[derive(Debug)]
pub(super) struct ControlSocket {
    descriptor: Arc<Descriptor>,
    /// `None` only while the registration changes, or after that has failed.
    io: Option<ConnectionIo>,
    /// Whether the event loop reports when it is writable too.
    waits_to_send: bool,
}

impl ControlSocket {
    pub(super) fn new(descriptor: Descriptor) -> io::Result<Self> {
        socket::set_nonblocking(descriptor.as_fd(), true)?;
        stream::set_send_buffer(descriptor.as_fd(), SEND_BUFFER)?;
        let descriptor = Arc::new(descriptor);
        let io = Some(register(descriptor.clone(), Interest::READABLE)?);
        Ok(Self { descriptor, io, waits_to_send: false })
    }

    /// The socket after HTTP ([`Self::into_io`]).
    pub(super) fn over(io: ConnectionIo) -> Self {
        Self { descriptor: io.get_ref().clone(), io: Some(io), waits_to_send: true }
    }

    /// The socket with everything that the event loop can report.
    pub(super) fn into_io(mut self) -> io::Result<ConnectionIo> {
        self.io = None;
        register(self.descriptor, Interest::READABLE | Interest::WRITABLE)
    }

    pub(super) fn descriptor(&self) -> &Arc<Descriptor> {
        &self.descriptor
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// The socket with what the event loop reports now.
    pub(super) fn io(&self) -> io::Result<&ConnectionIo> {
        self.io.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Sends without waiting. If there is no room, the task is woken when there is. A task that waits for something to
    /// read MUST ask for it again after this call.
    pub(super) fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        send: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if !self.waits_to_send {
                // As waiting for room would do it: a peer that never stops sending gets no more than its turn.
                ready!(pin!(consume_budget()).poll(context));
                match send(self.descriptor.as_fd()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.report_room(true)?;
                    }
                    result => return Poll::Ready(result),
                }
            }
            let mut guard = ready!(self.io()?.poll_write_ready(context))?;
            match send(self.descriptor.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                result => return Poll::Ready(result),
            }
        }
    }

    /// Everything is sent: room is of no interest. What [`Self::poll_send`] says about reading applies.
    pub(super) fn sent_all(&mut self) -> io::Result<()> {
        if self.waits_to_send { self.report_room(false) } else { Ok(()) }
    }

    /// Registers again. A task that waits for the earlier registration is not woken.
    fn report_room(&mut self, whether: bool) -> io::Result<()> {
        // Before the new one: a descriptor cannot be registered twice.
        self.io = None;
        let interest =
            if whether { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.io = Some(register(self.descriptor.clone(), interest)?);
        self.waits_to_send = whether;
        Ok(())
    }
}
