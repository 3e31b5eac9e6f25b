//! The messages, and the process served over channels in this process.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use proptest::prelude::*;
use sockbroker_sys::events::Events;
use sockbroker_sys::{message as sys_message, record, sealed, socket, stream};
use sockbroker_test_support::namespace;

use super::message::*;
use super::*;
use crate::channel::{Channel, ChannelError, Message};
use crate::message::Build;

fn outgoing(destination: Destination, control: Vec<ControlItem>, attached: bool) -> UnixCall {
    let data = Data::Inside(Bytes(vec![1, 2, 3]));
    UnixCall::Send(Outgoing { destination, flags: 0, control, attached }, data)
}

fn rights(count: u8) -> ControlItem {
    ControlItem::Descriptors { count, rest: Vec::new() }
}

fn examined() -> Examined {
    let (names, possible) = (vec![b"/a".to_vec()], vec!["/b".to_owned()]);
    Examined { file: (1, 2), names, possible, visible: true }
}

/// Every variant, and the number of its descriptors.
fn to_caller() -> Vec<(ToCaller, usize)> {
    let call = |call| ToCaller::Call { number: 7, call };
    vec![
        (ToCaller::Hello(Build::OWN), 0),
        (ToCaller::Begin { overrides_files: true }, 3),
        (ToCaller::Memory, 1),
        (ToCaller::Attach { number: 7, count: 5 }, 5),
        (ToCaller::Large { number: 7, descriptors: 2 }, 3),
        (call(UnixCall::Pair { domain: 1, ty: 2, protocol: 3 }), 0),
        (call(UnixCall::Bind { address: vec![1, 0] }), 1),
        (call(UnixCall::BindFile { name: vec![1], written: Some(vec![2]) }), 2),
        (call(UnixCall::Connect { address: vec![1, 0] }), 1),
        (call(UnixCall::ConnectFile), 2),
        (call(UnixCall::Listen { backlog: -1 }), 1),
        (call(outgoing(Destination::Peer, vec![rights(2)], false)), 3),
        (call(outgoing(Destination::File, vec![rights(2), rights(3)], false)), 7),
        (call(outgoing(Destination::File, vec![rights(253)], true)), 2),
        (call(outgoing(Destination::Address(vec![1, 0]), Vec::new(), false)), 1),
        (call(UnixCall::Examine { name: None, paths: vec!["/a".to_owned()] }), 1),
        (call(UnixCall::LookUp { path: vec![1], creates: true, paths: Vec::new() }), 0),
        (call(UnixCall::Identify { path: vec![1] }), 0),
    ]
}

fn from_caller() -> Vec<(FromCaller, usize)> {
    let answer = |answer| FromCaller::Answer { number: 7, answer };
    vec![
        (FromCaller::Hello(Build::OWN), 0),
        (FromCaller::Ready, 0),
        (FromCaller::Large { number: 7 }, 1),
        (FromCaller::Made { number: 7, count: 2 }, 2),
        (answer(UnixAnswer::Done), 0),
        (answer(UnixAnswer::Pair), 0),
        (answer(UnixAnswer::Bound(vec![1])), 0),
        (answer(UnixAnswer::Sent(9)), 0),
        (answer(UnixAnswer::Examined(examined())), 0),
        (answer(UnixAnswer::LookedUp(examined())), 0),
        (answer(UnixAnswer::Identified(Some((1, 2)))), 0),
        (answer(UnixAnswer::Failed(5)), 0),
        (answer(UnixAnswer::NoThread(5)), 0),
    ]
}

fn assert_round_trip<M: Message + PartialEq + std::fmt::Debug>(messages: Vec<(M, usize)>) {
    let (own, other) = Channel::<M, M>::pair().unwrap();
    let other = Channel::<M, M>::over(other);
    for (message, count) in messages {
        assert_eq!(message.descriptors(), count, "{message:?}");
        own.send(&message, &vec![own.as_fd(); count]).unwrap();
        let (received, descriptors) = other.receive().unwrap();
        assert_eq!((received, descriptors.len()), (message, count));
    }
}

#[test]
fn messages_arrive_with_their_descriptors() {
    assert_round_trip(to_caller());
    assert_round_trip(from_caller());
}

/// The worker's ends of the channels, and the thread that serves the other ends.
struct Served {
    calls: CallChannel,
    sends: SendChannel,
    ended: JoinHandle<Result<(), RunError>>,
}

fn served(jobs: usize) -> Served {
    let (calls, calls_of_process) = record::pair().unwrap();
    let (sends, sends_of_process) = record::pair().unwrap();
    let ended = thread::spawn(move || serve(calls_of_process, sends_of_process, jobs));
    let calls = CallChannel::over(calls);
    assert_eq!(receive(&calls).0, FromCaller::Hello(Build::OWN));
    assert_eq!(receive(&calls).0, FromCaller::Ready);
    Served { calls, sends: SendChannel::over(sends, Duration::from_mins(1)).unwrap(), ended }
}

fn receive(calls: &CallChannel) -> (FromCaller, Vec<OwnedFd>) {
    let mut events = Events::new().unwrap();
    events.add(calls.as_fd(), 0).unwrap();
    loop {
        match calls.receive() {
            Err(ChannelError::NotReady) => drop(events.wait(None).unwrap()),
            received => return received.unwrap(),
        }
    }
}

fn call(
    served: &Served,
    number: u64,
    call: UnixCall,
    descriptors: &[BorrowedFd<'_>],
) -> (UnixAnswer, Vec<OwnedFd>) {
    let packed = pack_call(number, call).unwrap();
    let memory = packed.memory.iter().map(OwnedFd::as_fd);
    let all: Vec<_> = memory.chain(descriptors.iter().copied()).collect();
    served.calls.send(&packed.message, &all).unwrap();
    let mut made = Vec::new();
    loop {
        match receive(&served.calls) {
            (FromCaller::Made { number: of, .. }, descriptors) => {
                assert_eq!((of, made.len()), (number, 0));
                made = descriptors;
            }
            (FromCaller::Answer { number: of, answer }, _) => {
                assert_eq!(of, number);
                return (answer, made);
            }
            (FromCaller::Large { number: of }, mut memory) => {
                assert_eq!(of, number);
                return (unpack_answer(&mut memory).unwrap(), made);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn pair(served: &Served) -> (OwnedFd, OwnedFd) {
    let pair = UnixCall::Pair { domain: libc::AF_UNIX, ty: libc::SOCK_DGRAM, protocol: 0 };
    let (answer, ends) = call(served, 1, pair, &[]);
    assert_eq!(answer, UnixAnswer::Pair);
    let [first, second] = <[OwnedFd; 2]>::try_from(ends).unwrap();
    (first, second)
}

#[test]
fn calls_are_made_and_answered_by_their_numbers() {
    let served = served(2);
    let (left, right) = pair(&served);
    let send = ToCaller::Call { number: 2, call: outgoing(Destination::Peer, Vec::new(), false) };
    let (answer, _) = served.sends.ask(&send, &[left.as_fd()]).unwrap();
    assert_eq!(answer, FromCaller::Answer { number: 2, answer: UnixAnswer::Sent(3) });
    assert_eq!(sys_message::receive(right.as_fd(), 8, 0).unwrap().data[..], [1, 2, 3]);
    // Descriptors that come before their call.
    let count = 253;
    let attach = ToCaller::Attach { number: 3, count };
    served.sends.send(&attach, &vec![left.as_fd(); usize::from(count)]).unwrap();
    let call = outgoing(Destination::Peer, vec![rights(count)], true);
    let send = ToCaller::Call { number: 3, call };
    let (answer, _) = served.sends.ask(&send, &[left.as_fd()]).unwrap();
    assert_eq!(answer, FromCaller::Answer { number: 3, answer: UnixAnswer::Sent(3) });
    let failed = self::call(&served, 4, UnixCall::Listen { backlog: 1 }, &[left.as_fd()]).0;
    assert_eq!(failed, UnixAnswer::Failed(libc::EOPNOTSUPP));
    drop(served.calls);
    served.ended.join().unwrap().unwrap();
}

#[test]
fn large_calls_and_answers_are_passed_in_memory() {
    let served = served(2);
    let missing: Vec<_> = (0..5000).map(|number| format!("/no/such/folder/{number}")).collect();
    let path = b"/proc/self/ns".to_vec();
    let look_up = UnixCall::LookUp { path, creates: false, paths: missing.clone() };
    assert!(matches!(pack_call(1, look_up.clone()).unwrap().message, ToCaller::Large { .. }));
    // A folder is not a socket.
    assert_eq!(call(&served, 1, look_up, &[]).0, UnixAnswer::Failed(libc::ECONNREFUSED));
    let (left, right) = pair(&served);
    let data = Data::Inside(Bytes(vec![5; 150_000]));
    let (destination, control) = (Destination::Peer, Vec::new());
    let large = Outgoing { destination, flags: 0, control, attached: false };
    let (answer, _) = call(&served, 2, UnixCall::Send(large, data), &[left.as_fd()]);
    assert_eq!(answer, UnixAnswer::Sent(150_000));
    assert_eq!(sys_message::receive(right.as_fd(), 200_000, 0).unwrap().data.len(), 150_000);
    let names = missing.into_iter().map(String::into_bytes).collect();
    let answer = UnixAnswer::Examined(Examined { names, ..examined() });
    let packed = large::pack_answer(1, answer.clone()).unwrap();
    assert_eq!(unpack_answer(&mut vec![packed.memory.unwrap()]), Ok(answer));
}

/// Whether a write fails because all descriptors of the other end are closed.
fn is_closed(end: &OwnedFd) -> bool {
    let sent = sys_message::send(end.as_fd(), b"to a closed peer", libc::MSG_DONTWAIT);
    sent.is_err_and(|error| error.raw_os_error() == Some(libc::EPIPE))
}

#[test]
fn the_worker_has_the_only_copies_once_a_call_is_answered() {
    // Alone: a process that another test starts has copies of all descriptors until it executes its program.
    let test = "caller::tests::the_worker_has_the_only_copies_once_a_call_is_answered";
    namespace::inside(test, || {
        let served = served(2);
        let make = UnixCall::Pair { domain: libc::AF_UNIX, ty: libc::SOCK_STREAM, protocol: 0 };
        for _ in 0..1000 {
            let (_, ends) = call(&served, 1, make.clone(), &[]);
            let [left, right] = <[OwnedFd; 2]>::try_from(ends).unwrap();
            drop(left);
            assert!(is_closed(&right), "the process has a copy of what it made");
            let (left, right) = socket::pair(libc::AF_UNIX, libc::SOCK_STREAM, 0).unwrap();
            call(&served, 2, UnixCall::Listen { backlog: 1 }, &[left.as_fd()]);
            drop(left);
            assert!(is_closed(&right), "the process has a copy of what it got");
        }
    });
}

/// Sends nonsense.
type Send<'a> = Box<dyn Fn(&Served) + 'a>;

#[test]
fn nonsense_ends_the_process() {
    let number = 1;
    let memory = sealed::create("call", b"\xff\xff").unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let raw = |bytes: &'static [u8]| -> Send<'_> {
        Box::new(move |served| {
            drop(stream::send_stream(served.calls.as_fd(), &[std::io::IoSlice::new(bytes)], &[]));
        })
    };
    let sent = |message: ToCaller, descriptors: Vec<BorrowedFd<'static>>| -> Send<'_> {
        Box::new(move |served| served.calls.send(&message, &descriptors).unwrap())
    };
    let (memory, file): (&'static OwnedFd, &'static std::fs::File) =
        (Box::leak(Box::new(memory)), Box::leak(Box::new(file)));
    let cases: Vec<(Send<'_>, &str)> = vec![
        (raw(&[200]), "a record is not a message"),
        (raw(&[3, 1]), "a record is not a message"),
        (sent(ToCaller::Hello(Build::OWN), vec![]), "it began twice"),
        (
            sent(ToCaller::Begin { overrides_files: true }, vec![memory.as_fd(); 3]),
            "it began twice",
        ),
        (
            sent(ToCaller::Large { number, descriptors: 0 }, vec![memory.as_fd()]),
            "the memory of a large message is not a message",
        ),
        (
            sent(ToCaller::Large { number, descriptors: 0 }, vec![file.as_fd()]),
            "the memory of a large message cannot be read",
        ),
        (
            Box::new(|served| {
                served.calls.send(&ToCaller::Attach { number, count: 1 }, &[file.as_fd()]).unwrap();
                let identify = UnixCall::Identify { path: b"/".to_vec() };
                served.calls.send(&ToCaller::Call { number: 2, call: identify }, &[]).unwrap();
            }),
            "a call has the wrong number of descriptors",
        ),
        (
            Box::new(|served| {
                let call = UnixCall::Identify { path: b"/".to_vec() };
                served.sends.send(&ToCaller::Call { number, call }, &[]).unwrap();
            }),
            "a call that may wait came by the channel for sends",
        ),
        (
            sent(ToCaller::Memory, vec![memory.as_fd()]),
            "memory for sends came by the channel for calls",
        ),
    ];
    for (send, reason) in cases {
        assert_ends(&send, reason);
    }
}

fn assert_ends(send: &dyn Fn(&Served), reason: &str) {
    let served = served(2);
    send(&served);
    let ended = served.ended.join().unwrap().unwrap_err().to_string();
    assert_eq!(ended, format!("the worker sent nonsense: {reason}"));
}

#[test]
fn nonsense_about_shared_memory_ends_the_process() {
    let memory = sealed::create("data", b"\xff\xff").unwrap();
    for (memory, length, reason) in [
        (None, 1, "there is no shared memory"),
        (Some(&memory), SHARED_MAX + 1, "the data in shared memory is too long"),
        (Some(&memory), 3, "the data in shared memory cannot be read"),
    ] {
        let send = |served: &Served| {
            if let Some(memory) = memory {
                served.sends.send(&ToCaller::Memory, &[memory.as_fd()]).unwrap();
            }
            let data = Data::Shared { length: length.try_into().unwrap() };
            let (destination, control) = (Destination::Peer, Vec::new());
            let call = Outgoing { destination, flags: 0, control, attached: false };
            let call = ToCaller::Call { number: 1, call: UnixCall::Send(call, data) };
            served.sends.send(&call, &[served.calls.as_fd()]).unwrap();
        };
        assert_ends(&send, reason);
    }
}

#[test]
fn more_calls_than_agreed_end_the_process() {
    let served = served(0);
    let call = UnixCall::Identify { path: b"/".to_vec() };
    served.calls.send(&ToCaller::Call { number: 1, call }, &[]).unwrap();
    let ended = served.ended.join().unwrap().unwrap_err().to_string();
    assert_eq!(ended, "the worker sent nonsense: too many calls at a time");
}

#[test]
fn the_process_begins_with_what_the_monitor_has_sent() {
    let (own, other) = record::pair().unwrap();
    let (own, other) = (Channel::<ToCaller, FromCaller>::over(own), other);
    assert!(begin(other.as_fd()).is_err(), "nothing was sent");
    let ids = CallerIds { uid: 7, gid: 8, groups: (0..65_536).collect() };
    let memory = sealed::create("ids", &postcard::to_stdvec(&ids).unwrap()).unwrap();
    let configuration = sealed::create("configuration", b"text").unwrap();
    let begins = ToCaller::Begin { overrides_files: false };
    let descriptors = [configuration.as_fd(), memory.as_fd(), own.as_fd()];
    own.send(&begins, &descriptors).unwrap();
    assert!(begin(other.as_fd()).is_err(), "it did not greet");
    own.send(&ToCaller::Hello(Build::OWN), &[]).unwrap();
    own.send(&begins, &descriptors).unwrap();
    let beginning = begin(other.as_fd()).unwrap();
    assert_eq!((beginning.ids, beginning.overrides_files), (ids, false));
    assert_eq!(beginning.configuration, b"text");
    assert!(socket::spec_of(beginning.sends.as_fd()).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_nonsense(bytes in proptest::collection::vec(0u8.., 1..64)) {
        let (own, other) = record::pair().unwrap();
        let other = Channel::<FromCaller, ToCaller>::over(other);
        record::send(own.as_fd(), &bytes, &[]).unwrap();
        let received = other.receive();
        assert!(matches!(received, Ok(_) | Err(ChannelError::Nonsense { .. })), "{received:?}");
    }

    #[test]
    fn any_memory_is_a_call_or_nonsense(bytes in proptest::collection::vec(0u8.., 0..64)) {
        let memory = sealed::create("call", &bytes).unwrap();
        // Neither panics nor allocates what the bytes announce.
        drop(large::unpack_call(&mut vec![memory]));
    }
}
