//! The kernel as the judge of classic BPF programs. It takes no privilege.

use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};

use sockbroker_bpf::Program;
use sockbroker_sys::{filter, message, socket};

/// A pair of datagram sockets of `AF_UNIX`. The kernel runs the filter of the receiver on the bytes of each datagram.
#[derive(Debug)]
pub struct KernelFilter {
    sender: OwnedFd,
    receiver: OwnedFd,
}

impl KernelFilter {
    #[expect(clippy::new_without_default, reason = "it opens sockets")]
    pub fn new() -> Self {
        let (sender, receiver) =
            socket::pair(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, 0).unwrap();
        Self { sender, receiver }
    }

    /// Replaces the program. `false` if the kernel refuses it.
    pub fn attach(&self, program: &Program) -> bool {
        match filter::attach(self.receiver.as_fd(), &program.encode()) {
            Ok(()) => true,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => false,
            // What this function refuses itself: no instruction, or too many.
            Err(error) if error.kind() == ErrorKind::InvalidInput => false,
            Err(error) => panic!("SO_ATTACH_FILTER: {error}"),
        }
    }

    /// The bytes that the program keeps of a packet, at most all.
    pub fn kept(&self, packet: &[u8]) -> usize {
        message::send(self.sender.as_fd(), packet, 0).unwrap();
        match message::receive(self.receiver.as_fd(), packet.len(), 0) {
            Ok(received) => received.data.len(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("recv: {error}"),
        }
    }
}
