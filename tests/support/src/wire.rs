//! Sends and receives bytes and descriptors, with bounded waits.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sockbroker_sys::{socket, stream};

use crate::watch::HANG;

const READ: usize = 64 << 10;

/// The transport of a connection.
#[derive(Debug)]
enum End {
    Socket(UnixStream),
    Pipes { input: File, output: Option<File> },
}

/// A connection to a broker, with a buffer of received bytes.
#[derive(Debug)]
pub struct Wire {
    end: End,
    input: BytesMut,
    /// Received descriptors, in order.
    pub descriptors: VecDeque<OwnedFd>,
}

impl Wire {
    pub fn socket(stream: UnixStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self::new(End::Socket(stream))
    }

    /// A connection through the standard output (`input`) and standard input (`output`) of a broker.
    pub fn pipes(input: OwnedFd, output: OwnedFd) -> Self {
        for pipe in [&input, &output] {
            socket::set_nonblocking(pipe.as_fd(), true).unwrap();
        }
        Self::new(End::Pipes { input: input.into(), output: Some(output.into()) })
    }

    fn new(end: End) -> Self {
        let input = BytesMut::new();
        Self { end, input, descriptors: VecDeque::new() }
    }

    /// Sends all bytes, with the descriptors attached to the first byte.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let deadline = Instant::now() + HANG;
        let (mut rest, mut parts) = (bytes, descriptors);
        while !rest.is_empty() {
            match self.try_send(rest, parts) {
                Ok(sent) => (rest, parts) = (&rest[sent..], &[]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait(self.output()?, PollFlags::POLLOUT, deadline)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends as many bytes as the transport accepts without waiting.
    pub fn try_send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        match &self.end {
            End::Socket(end) => {
                stream::send_stream(end.as_fd(), &[IoSlice::new(bytes)], descriptors)
            }
            End::Pipes { output, .. } => {
                assert!(descriptors.is_empty(), "pipes carry no descriptors");
                output.as_ref().ok_or(ErrorKind::BrokenPipe)?.write(bytes)
            }
        }
    }

    /// Waits for more bytes; returns `false` at the end of the connection.
    pub fn receive(&mut self) -> io::Result<bool> {
        let deadline = Instant::now() + HANG;
        loop {
            match self.try_receive() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait(self.input(), PollFlags::POLLIN, deadline)?;
                }
                result => return Ok(result? > 0),
            }
        }
    }

    fn try_receive(&mut self) -> io::Result<usize> {
        match &mut self.end {
            End::Socket(end) => {
                let (input, descriptors) = (&mut self.input, &mut self.descriptors);
                let received = stream::receive_stream(end.as_fd(), input, READ, descriptors)?;
                assert!(
                    !received.lost_descriptors,
                    "the descriptor limit of the test process is too low"
                );
                Ok(received.bytes)
            }
            End::Pipes { input, .. } => {
                let mut buffer = vec![0; READ];
                let n = input.read(&mut buffer)?;
                self.input.extend_from_slice(&buffer[..n]);
                Ok(n)
            }
        }
    }

    /// Waits for `count` bytes and removes them from the buffer; returns `None` if the connection ends first.
    pub fn take(&mut self, count: usize) -> Option<Bytes> {
        while self.input.len() < count {
            if !self.receive_or_fail() {
                return None;
            }
        }
        Some(self.input.split_to(count).freeze())
    }

    /// Waits for a delimiter and removes all bytes up to its end; returns `None` if the connection ends first.
    pub fn take_through(&mut self, mark: &[u8]) -> Option<Bytes> {
        loop {
            let found = self.input.windows(mark.len()).position(|part| part == mark);
            if let Some(at) = found {
                return Some(self.input.split_to(at + mark.len()).freeze());
            }
            if !self.receive_or_fail() {
                return None;
            }
        }
    }

    /// Receives more bytes. A connection reset by the broker counts as an end.
    fn receive_or_fail(&mut self) -> bool {
        match self.receive() {
            Ok(more) => more,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("cannot receive an answer: {error}"),
        }
    }

    /// Whether bytes arrive within a time. Bytes in the buffer count.
    pub fn receives_within(&mut self, time: Duration) -> bool {
        if !self.input.is_empty() {
            return true;
        }
        wait(self.input(), PollFlags::POLLIN, Instant::now() + time).is_ok()
    }

    /// Whether the broker closes the connection. Drops bytes that arrive before the end.
    pub fn ends(&mut self) -> bool {
        loop {
            match self.receive() {
                Ok(true) => self.input.clear(),
                Ok(false) => return true,
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }

    /// Waits until the other end has closed, without reading.
    pub fn wait_for_the_other_end_to_close(&self) {
        wait(self.input(), PollFlags::empty(), Instant::now() + HANG).unwrap();
    }

    /// Closes only the writing side.
    pub fn close_writing(&mut self) {
        match &mut self.end {
            End::Socket(end) => end.shutdown(Shutdown::Write).unwrap(),
            End::Pipes { output, .. } => *output = None,
        }
    }

    /// Returns the number of bytes in the receive queue of the kernel.
    pub fn arrived(&self) -> usize {
        let request = sockbroker_sys::ioctl::IntRequest::Fionread;
        let bytes = sockbroker_sys::ioctl::get_int(self.input(), request).unwrap();
        bytes.try_into().unwrap()
    }

    fn input(&self) -> BorrowedFd<'_> {
        match &self.end {
            End::Socket(end) => end.as_fd(),
            End::Pipes { input, .. } => input.as_fd(),
        }
    }

    fn output(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.end {
            End::Socket(end) => Ok(end.as_fd()),
            End::Pipes { output, .. } => Ok(output.as_ref().ok_or(ErrorKind::BrokenPipe)?.as_fd()),
        }
    }
}

/// Waits for events on a descriptor, until the deadline.
pub fn wait(fd: BorrowedFd<'_>, events: PollFlags, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap();
        match poll(&mut [PollFd::new(fd, events)], timeout) {
            Ok(0) => return Err(ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
