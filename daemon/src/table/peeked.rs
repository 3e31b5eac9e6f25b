//! Received bytes that stay in the queue of their TCP socket until their response is sent.
//!
//! If the process ends before that, the next one has them. In sessions that ask for it (`exactly_once` of
//! `session.open`) a receive copies the bytes (`MSG_PEEK`), and takes them out of the queue when the response is written
//! to its connection. If the process ends in between, the client has the bytes and the queue too: `socket.resume` drops
//! them there.
//!
//! It works for the only reader of a socket: another one would get the bytes twice. So nothing is peeked after a client
//! got the descriptor, and any other receive of the broker takes the bytes out of the queue first.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::message;

use crate::descriptor::Descriptor;

/// What one socket has in its queue for a response that is not sent. Its duplicates share it.
#[derive(Debug, Default)]
pub struct Peeked(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Whether no client has, had or gave a descriptor of it.
    is_sole: bool,
    /// Whether an earlier process may have sent bytes that are still in the queue.
    awaits_resume: bool,
    /// The bytes of the response, and its number.
    pending: Option<(u64, usize)>,
    next: u64,
}

/// The right to receive from the socket: no other call of the broker does so meanwhile.
#[derive(Debug)]
pub struct Turn<'a>(MutexGuard<'a, State>);

/// Bytes that a response carries. They leave the queue of the socket when it is sent, or dropped because it is kept for
/// `call.resolve`.
#[derive(Debug)]
pub struct Receipt {
    peeked: Arc<Peeked>,
    descriptor: Arc<Descriptor>,
    number: u64,
    /// Whether the process is about to end: the next one has the bytes of responses that were not sent.
    stopping: Arc<AtomicBool>,
}

impl Peeked {
    /// Of a socket that the broker has created or accepted, so that no client has a descriptor.
    pub fn sole() -> Self {
        Self(Mutex::new(State { is_sole: true, ..State::default() }))
    }

    /// Of a socket that an earlier process had.
    pub fn recovered(is_sole: bool) -> Self {
        Self(Mutex::new(State { is_sole, awaits_resume: true, ..State::default() }))
    }

    /// Whether no client has, had or gave a descriptor of it.
    pub fn is_sole(&self) -> bool {
        self.lock().is_sole
    }

    /// Notes that others can receive from the socket, or change what a receive finds. They do not get what a response
    /// carries.
    pub fn share(&self, fd: BorrowedFd<'_>) {
        self.turn(fd).0.is_sole = false;
    }

    /// Waits for its turn, and takes out of the queue what a response carries: it may be the response to the same client,
    /// or one that its client does not read.
    pub fn turn(&self, fd: BorrowedFd<'_>) -> Turn<'_> {
        let mut state = self.lock();
        if let Some((_, length)) = state.pending.take() {
            discard(fd, length);
        }
        Turn(state)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each field is set in one statement, so a panic of another call does not spoil them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Whether a receive leaves its bytes in the queue until the response is sent.
    pub fn peeks(&self, actual: SocketSpec) -> bool {
        let SocketSpec { domain, ty, protocol } = actual;
        self.0.is_sole
            && matches!(domain, libc::AF_INET | libc::AF_INET6)
            && ty == libc::SOCK_STREAM
            && protocol == libc::IPPROTO_TCP
    }

    /// Notes that a response carries the first `length` bytes of the queue.
    pub(super) fn note(&mut self, length: usize) -> u64 {
        let number = self.0.next;
        self.0.next += 1;
        self.0.pending = Some((number, length));
        number
    }

    /// Whether an earlier process may have sent bytes that are still in the queue. Once.
    pub fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.0.awaits_resume)
    }

    /// Keeps the doubt: the call that was to end it has failed.
    pub fn doubt(&mut self) {
        self.0.awaits_resume = true;
    }
}

impl Receipt {
    pub(super) fn new(
        (peeked, number): (&Arc<Peeked>, u64),
        descriptor: &Arc<Descriptor>,
        stopping: &Arc<AtomicBool>,
    ) -> Self {
        let (peeked, stopping) = (peeked.clone(), stopping.clone());
        Self { peeked, descriptor: descriptor.clone(), number, stopping }
    }

    /// The receipt of a response that carries the first `length` bytes of a queue.
    #[cfg(test)]
    pub(crate) fn for_test(
        peeked: &Arc<Peeked>,
        descriptor: &Arc<Descriptor>,
        length: usize,
    ) -> Self {
        let number = peeked.turn(descriptor.as_fd()).note(length);
        Self::new((peeked, number), descriptor, &Arc::default())
    }

    /// The response is written to its connection.
    pub fn sent(self) {
        self.take();
    }

    fn take(&self) {
        let mut state = self.peeked.lock();
        let own = state.pending.take_if(|(number, _)| *number == self.number);
        if let Some((_, length)) = own {
            discard(self.descriptor.as_fd(), length);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.stopping.load(Ordering::Acquire) {
            self.take();
        }
    }
}

/// Takes bytes out of the queue. They are there: nobody else receives.
pub fn discard(fd: BorrowedFd<'_>, length: usize) {
    let mut left = length;
    while left > 0 {
        let taken = message::discard(fd, left).or_else(|error| {
            // For instance with TLS in the kernel.
            if error.kind() == io::ErrorKind::WouldBlock {
                return Err(error);
            }
            message::receive(fd, left, libc::MSG_DONTWAIT).map(|received| received.n)
        });
        match taken {
            Ok(0) | Err(_) => return,
            Ok(taken) => left -= taken.min(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::quota::tests::user;

    fn pair() -> (TcpStream, Arc<Descriptor>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (own, _) = listener.accept().unwrap();
        peer.write_all(b"0123456789").unwrap();
        while own.peek(&mut [0; 10]).unwrap() < 10 {}
        let descriptor = Descriptor::of_client(own.try_clone().unwrap().into(), &user(1));
        (peer, Arc::new(descriptor), own)
    }

    fn next(own: &mut TcpStream) -> u8 {
        let mut byte = [0];
        own.read_exact(&mut byte).unwrap();
        byte[0]
    }

    #[test]
    fn bytes_leave_the_queue_when_the_response_is_sent_or_dropped() {
        let (_peer, descriptor, mut own) = pair();
        let peeked = Arc::new(Peeked::sole());
        Receipt::for_test(&peeked, &descriptor, 3).sent();
        assert_eq!(next(&mut own), b'3');
        drop(Receipt::for_test(&peeked, &descriptor, 2));
        assert_eq!(next(&mut own), b'6');
    }

    #[test]
    fn another_receive_takes_them_first_and_the_response_takes_nothing_then() {
        let (_peer, descriptor, mut own) = pair();
        let peeked = Arc::new(Peeked::sole());
        let first = Receipt::for_test(&peeked, &descriptor, 3);
        let second = Receipt::for_test(&peeked, &descriptor, 4);
        first.sent();
        assert_eq!(next(&mut own), b'3');
        drop(peeked.turn(descriptor.as_fd()));
        second.sent();
        assert_eq!(next(&mut own), b'8');
    }

    #[test]
    fn responses_that_a_stopping_process_does_not_send_leave_their_bytes() {
        let (_peer, descriptor, mut own) = pair();
        let peeked = Arc::new(Peeked::sole());
        let number = peeked.turn(descriptor.as_fd()).note(3);
        drop(Receipt::new((&peeked, number), &descriptor, &Arc::new(AtomicBool::new(true))));
        assert_eq!(next(&mut own), b'0');
    }

    #[test]
    fn only_a_tcp_socket_of_one_reader_is_peeked() {
        let (_peer, descriptor, _own) = pair();
        let tcp = SocketSpec {
            domain: libc::AF_INET6,
            ty: libc::SOCK_STREAM,
            protocol: libc::IPPROTO_TCP,
        };
        let peeked = Peeked::sole();
        let peeks = |spec| peeked.turn(descriptor.as_fd()).peeks(spec);
        assert!(peeks(tcp));
        assert!(!peeks(SocketSpec { domain: libc::AF_UNIX, ..tcp }));
        assert!(!peeks(SocketSpec { protocol: libc::IPPROTO_SCTP, ..tcp }));
        peeked.share(descriptor.as_fd());
        assert!(!peeked.turn(descriptor.as_fd()).peeks(tcp) && !peeked.is_sole());
        assert!(!Peeked::recovered(false).turn(descriptor.as_fd()).peeks(tcp));
    }
}
