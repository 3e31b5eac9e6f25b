//! Bytes and descriptors to and from the broker, every wait bounded.

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

/// Where the bytes go.
#[derive(Debug)]
enum End {
    Socket(UnixStream),
    Pipes { input: File, output: Option<File> },
}

/// One end of a connection, with what was received and not yet taken.
#[derive(Debug)]
pub struct Wire {
    end: End,
    input: BytesMut,
    /// Descriptors that came, in order.
    pub descriptors: VecDeque<OwnedFd>,
}

impl Wire {
    /// A socket.
    pub fn socket(stream: UnixStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self::new(End::Socket(stream))
    }

    /// What the broker's standard output gives, and what its standard input takes.
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

    /// Sends all of it, with descriptors beside the first byte.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let deadline = Instant::now() + HANG;
        let (mut rest, mut beside) = (bytes, descriptors);
        while !rest.is_empty() {
            match self.try_send(rest, beside) {
                Ok(sent) => (rest, beside) = (&rest[sent..], &[]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait(self.output()?, PollFlags::POLLOUT, deadline)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends what there is room for.
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

    /// Receives more, waiting for it; `false` at the end.
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
                assert!(!received.lost_descriptors, "the test has no room for descriptors");
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

    /// Takes so many bytes, waiting for them; `None` if the end comes first.
    pub fn take(&mut self, count: usize) -> Option<Bytes> {
        while self.input.len() < count {
            if !self.receive_or_fail() {
                return None;
            }
        }
        Some(self.input.split_to(count).freeze())
    }

    /// Takes everything up to and with a mark, waiting for it; `None` if the end comes first.
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

    /// A connection that was cut off by the broker is at its end, however it learns of it.
    fn receive_or_fail(&mut self) -> bool {
        match self.receive() {
            Ok(more) => more,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// Whether something comes within a time; what was received and not taken counts.
    pub fn anything_within(&mut self, time: Duration) -> bool {
        if !self.input.is_empty() {
            return true;
        }
        wait(self.input(), PollFlags::POLLIN, Instant::now() + time).is_ok()
    }

    /// Whether the broker ends the connection; what comes before the end is dropped.
    pub fn ends(&mut self) -> bool {
        loop {
            match self.receive() {
                Ok(true) => self.input.clear(),
                Ok(false) => return true,
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }

    /// Waits until the other end has closed, and reads nothing meanwhile.
    pub fn wait_for_the_other_end_to_close(&self) {
        wait(self.input(), PollFlags::empty(), Instant::now() + HANG).unwrap();
    }

    /// Closes the writing end, and only that.
    pub fn close_writing(&mut self) {
        match &mut self.end {
            End::Socket(end) => end.shutdown(Shutdown::Write).unwrap(),
            End::Pipes { output, .. } => *output = None,
        }
    }

    /// Bytes that have arrived and were not received.
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

/// Waits for a descriptor.
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
