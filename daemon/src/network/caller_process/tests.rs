//! The channels, with a process that a thread plays.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::thread;

use sockbroker_monitor::caller::message::{
    DATA_MAX, Destination, FromCaller, Outgoing, SHARED_MAX, ToCaller, UnixAnswer, UnixCall,
};
use sockbroker_monitor::caller::serve;
use sockbroker_monitor::channel::{Channel, ChannelError};
use sockbroker_monitor::message::Build;
use sockbroker_sys::{message, record, socket};

use super::*;

type ProcessEnd = Channel<FromCaller, ToCaller>;

const PAIR: UnixCall = UnixCall::Pair { domain: libc::AF_UNIX, ty: libc::SOCK_STREAM, protocol: 0 };

/// A caller process that this function plays, with its ends of the channels for calls and for sends.
fn played(play: impl Fn(OwnedFd, OwnedFd) + Send + Sync + 'static) -> CallerProcess {
    let play = Arc::new(play);
    CallerProcess::new(Box::new(move || {
        let (sender, started) = oneshot::channel();
        let (calls, calls_of_process) = record::pair().unwrap();
        let (sends, sends_of_process) = record::pair().unwrap();
        let play = play.clone();
        thread::spawn(move || play(calls_of_process, sends_of_process));
        sender.send(Ok((calls, sends))).unwrap();
        started
    }))
}

/// One that greets, waits for a message, and answers it with this.
fn answering(
    on_sends: bool,
    answer: impl Fn(&ProcessEnd) + Send + Sync + 'static,
) -> CallerProcess {
    played(move |calls, sends| {
        let (calls, sends) = (ProcessEnd::over(calls), ProcessEnd::over(sends));
        calls.send(&FromCaller::Hello(Build::OWN), &[]).unwrap();
        calls.send(&FromCaller::Ready, &[]).unwrap();
        let channel = if on_sends { &sends } else { &calls };
        while matches!(channel.receive(), Err(ChannelError::NotReady)) {
            thread::park_timeout(Duration::from_millis(1));
        }
        answer(channel);
        // Until the other end is closed.
        while !matches!(channel.receive(), Err(ChannelError::Closed)) {
            thread::park_timeout(Duration::from_millis(1));
        }
    })
}

fn raw(channel: &ProcessEnd, bytes: &[u8]) {
    record::send(channel.as_fd(), bytes, &[]).unwrap();
}

fn send(link: &Link, data: &[u8], fd: BorrowedFd<'_>) -> Result<UnixAnswer, Failure> {
    let (destination, control) = (Destination::Peer, Vec::new());
    let outgoing = Outgoing { destination, flags: 0, control, attached: false };
    link.send_now(outgoing, data, &[fd])
}

#[tokio::test]
async fn calls_and_sends_are_made_by_the_process() {
    let process = played(|calls, sends| serve(calls, sends, 4).unwrap());
    let link = process.link().await.unwrap();
    let (answer, ends) = link.call(PAIR, Vec::new(), Arc::new(())).await.unwrap();
    assert_eq!((&answer, ends.len()), (&UnixAnswer::Pair, 2));
    // In a record, in shared memory, which is made once, and in memory of its own.
    for length in [1, DATA_MAX, DATA_MAX + 1, SHARED_MAX, DATA_MAX + 2, SHARED_MAX + 1] {
        let data: Vec<u8> = (0..=250).cycle().take(length).collect();
        let sent = match send(&link, &data, ends[0].as_fd()).unwrap() {
            UnixAnswer::Sent(sent) => usize::try_from(sent).unwrap(),
            other => panic!("{other:?}"),
        };
        assert!(sent >= length.min(DATA_MAX), "the socket is empty");
        let mut received = Vec::new();
        while received.len() < sent {
            received.extend(message::receive(ends[1].as_fd(), sent, 0).unwrap().data);
        }
        assert!(received == data[..sent], "{length}");
    }
    assert!(Arc::ptr_eq(&link, &process.link().await.unwrap()));
    process.end_idle(Duration::ZERO);
    assert!(Arc::ptr_eq(&link, &process.link().await.unwrap()), "it is in use");
    drop(link);
    process.end_idle(Duration::ZERO);
    assert!(process.link.lock().await.is_none());
}

#[tokio::test]
async fn nonsense_from_the_process_fails_the_call_and_the_next_starts_another() {
    type Answer = fn(&ProcessEnd);
    let answers: [Answer; 7] = [
        |channel| raw(channel, &[200]),
        |channel| channel.send(&FromCaller::Ready, &[]).unwrap(),
        |channel| {
            let answer = FromCaller::Answer { number: 9, answer: UnixAnswer::Done };
            channel.send(&answer, &[]).unwrap();
        },
        // An answer without its descriptors, and one whose memory is a socket.
        |channel| {
            let answer = FromCaller::Answer { number: 0, answer: UnixAnswer::Pair };
            channel.send(&answer, &[]).unwrap();
        },
        |channel| {
            channel.send(&FromCaller::Large { number: 0 }, &[channel.as_fd()]).unwrap();
        },
        // Descriptors of another call, and fewer than the answer has.
        |channel| {
            let made = FromCaller::Made { number: 9, count: 1 };
            channel.send(&made, &[channel.as_fd()]).unwrap();
        },
        |channel| {
            let made = FromCaller::Made { number: 0, count: 1 };
            channel.send(&made, &[channel.as_fd()]).unwrap();
            let answer = FromCaller::Answer { number: 0, answer: UnixAnswer::Pair };
            channel.send(&answer, &[]).unwrap();
        },
    ];
    for on_sends in [false, true] {
        for answer in answers {
            let process = answering(on_sends, answer);
            let link = process.link().await.unwrap();
            let failure = if on_sends {
                let (fd, _other) = record::pair().unwrap();
                send(&link, &[1], fd.as_fd()).unwrap_err()
            } else {
                link.call(PAIR, Vec::new(), Arc::new(())).await.unwrap_err()
            };
            assert_eq!(failure, Failure::Ended);
            assert!(link.is_lost());
            assert!(!Arc::ptr_eq(&link, &process.link().await.unwrap()));
        }
    }
}

#[tokio::test]
async fn a_process_that_ends_fails_the_calls_in_progress() {
    let process = answering(false, |channel| {
        socket::shutdown(channel.as_fd(), libc::SHUT_RDWR).unwrap();
    });
    let link = process.link().await.unwrap();
    let held = Arc::new(());
    let failure = link.call(PAIR, Vec::new(), held.clone()).await.unwrap_err();
    assert_eq!(failure, Failure::Ended);
    while Arc::strong_count(&held) > 1 {
        tokio::task::yield_now().await;
    }
    let failure = link.call(PAIR, Vec::new(), held).await.unwrap_err();
    assert_eq!(failure, Failure::NotSent);
}

#[tokio::test]
async fn a_refusal_is_returned() {
    let process = CallerProcess::new(Box::new(|| {
        let (sender, started) = oneshot::channel();
        sender.send(Err(CallerRefusal::Unable)).unwrap();
        started
    }));
    let refused = process.link().await.unwrap_err();
    assert_eq!(refused, Failure::Refused(CallerRefusal::Unable));
}
