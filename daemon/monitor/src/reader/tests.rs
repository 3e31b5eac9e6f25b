//! The process, served over channels of the test.

use std::os::fd::{AsFd as _, OwnedFd};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sockbroker_sys::lot::Lot;
use sockbroker_sys::{record, socket};

use super::message::{
    OrderChannel, ReaderAnswer, ReaderChannel, ReaderOrder, ReaderReport, ToReader,
};
use super::{RunError, serve};
use crate::capture::{Failure, Opened, Order, Reason, tests::order};
use crate::channel::{ChannelError, Message};
use crate::message::Build;

/// A reader in a thread, and the other ends of its channels.
struct Served {
    worker: ReaderChannel,
    opener: OrderChannel,
    thread: JoinHandle<Result<(), RunError>>,
}

impl Served {
    fn start() -> Self {
        let (worker, of_worker) = ReaderChannel::pair().unwrap();
        let (opener, of_opener) = OrderChannel::pair().unwrap();
        let thread = thread::spawn(move || serve(of_worker, of_opener, Lot::create().unwrap()));
        let served = Self { worker, opener, thread };
        assert_eq!(served.answer().0, ReaderAnswer::Hello(Build::OWN));
        assert_eq!(served.answer().0, ReaderAnswer::Ready);
        served
    }

    fn answer(&self) -> (ReaderAnswer, Vec<OwnedFd>) {
        loop {
            match self.worker.receive() {
                Err(ChannelError::NotReady) => thread::park_timeout(Duration::from_millis(1)),
                received => return received.unwrap(),
            }
        }
    }

    /// How it ends after something was sent.
    fn ends(self) -> Option<RunError> {
        let Self { worker, opener, thread } = self;
        let ended = thread.join().unwrap();
        drop((worker, opener));
        ended.err()
    }
}

fn opened() -> Opened {
    let order = Order { program: Vec::new(), ..order() };
    Opened {
        order,
        indexes: vec![1],
        hardware: vec![772],
        longest: 1518,
        bind_began: 1,
        started: 2,
    }
}

#[test]
fn every_message_has_its_number_of_descriptors() {
    let (capture, request) = (1, 2);
    assert_eq!(ToReader::Begin { id: None }.descriptors(), 4);
    assert_eq!(ToReader::Counts { request, capture }.descriptors(), 0);
    assert_eq!(ReaderOrder::Open { capture, opened: opened() }.descriptors(), 1);
    assert_eq!(ReaderReport::Ended { capture }.descriptors(), 0);
    let failure = Failure(1);
    assert_eq!(ReaderAnswer::NotLive { capture, failure }.descriptors(), 0);
}

#[test]
fn it_ends_when_the_worker_or_the_opener_ends() {
    let Served { worker, opener, thread } = Served::start();
    drop(worker);
    thread.join().unwrap().unwrap();
    drop(opener);
    let Served { worker, opener, thread } = Served::start();
    drop(opener);
    thread.join().unwrap().unwrap();
    drop(worker);
}

#[test]
fn a_socket_that_captures_nothing_is_reported_to_both() {
    let served = Served::start();
    let (other, _end) = record::pair().unwrap();
    let order = ReaderOrder::Open { capture: 7, opened: opened() };
    served.opener.send(&order, &[other.as_fd()]).unwrap();
    let (answer, _) = served.answer();
    assert!(matches!(answer, ReaderAnswer::NotLive { capture: 7, .. }), "{answer:?}");
    let (report, _) = served.opener.receive().unwrap();
    assert_eq!(report, ReaderReport::Ended { capture: 7 }, "before the worker learns it");
}

#[test]
fn commands_to_captures_that_do_not_exist_are_answered() {
    let served = Served::start();
    served.worker.send(&ToReader::Counts { request: 3, capture: 9 }, &[]).unwrap();
    assert_eq!(served.answer().0, ReaderAnswer::Counts { request: 3, counts: None });
    let order = ReaderOrder::SetFilter { request: 4, capture: 9, program: Vec::new() };
    served.opener.send(&order, &[]).unwrap();
    assert_eq!(served.answer().0, ReaderAnswer::Filter { request: 4, result: None });
    served.worker.send(&ToReader::Close { capture: 9, reason: Reason::Policy }, &[]).unwrap();
    served.worker.send(&ToReader::Stop { capture: 9, linger: 1 }, &[]).unwrap();
    served.worker.send(&ToReader::Counts { request: 5, capture: 9 }, &[]).unwrap();
    assert_eq!(served.answer().0, ReaderAnswer::Counts { request: 5, counts: None });
}

#[test]
fn nonsense_ends_it() {
    for to_worker in [true, false] {
        let served = Served::start();
        let channel = if to_worker { served.worker.as_fd() } else { served.opener.as_fd() };
        record::send(channel, &[200], &[]).unwrap();
        assert!(matches!(served.ends(), Some(RunError::Nonsense { .. })));
    }
    // A worker cannot begin it again, and so not give it another opener.
    let served = Served::start();
    let (one, other) = record::pair().unwrap();
    let again = ToReader::Begin { id: None };
    let four = [one.as_fd(), other.as_fd(), one.as_fd(), other.as_fd()];
    served.worker.send(&again, &four).unwrap();
    assert!(matches!(served.ends(), Some(RunError::Nonsense { from: "the worker", .. })));
    let served = Served::start();
    socket::shutdown(served.worker.as_fd(), libc::SHUT_RDWR).unwrap();
    assert!(served.ends().is_none());
}
