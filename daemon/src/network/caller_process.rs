//! The process that makes calls with the ids of this worker's caller (`sockbroker_monitor::caller`).
//!
//! The monitor starts it at the first call. Its user can stop and kill it: a call in progress then fails, and the next
//! call starts another one.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sockbroker_monitor::caller::message::{
    Bytes, CallChannel, DATA_MAX, Data, FromCaller, Outgoing, SHARED_MAX, SendChannel, ToCaller,
    UnixAnswer, UnixCall,
};
use sockbroker_monitor::caller::{Packed, SharedWriter, pack_call, unpack_answer};
use sockbroker_monitor::channel::{AskError, ChannelError, Message as _};
use sockbroker_monitor::message::{Build, CallerRefusal};
use sockbroker_policy::target::CarriedDescriptor;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use crate::table::readiness::register;

/// How long the process may take to start.
const START: Duration = Duration::from_secs(10);
/// How long a send that does not wait may take. Meanwhile this worker serves nothing else.
const LONGEST: Duration = Duration::from_secs(2);

/// The worker's ends of the channels for calls and for sends, or why there is no process.
pub type Started = Result<(OwnedFd, OwnedFd), CallerRefusal>;
/// Asks the monitor to start the process.
pub type Starter = Box<dyn Fn() -> oneshot::Receiver<Started> + Send + Sync>;
/// The descriptors of a call, which stay open until its answer.
pub(crate) type Descriptors = Vec<Arc<dyn CarriedDescriptor>>;
/// What a call returned.
pub(crate) type Reply = (UnixAnswer, Vec<OwnedFd>);

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Refused(CallerRefusal),
    /// The process did not get the call.
    NotSent,
    /// The process has ended, or sent nonsense. Whether it made the call is unknown.
    Ended,
    /// The call cannot be sent, with this error number.
    Failed(i32),
}

/// The process, started when it is needed.
pub struct CallerProcess {
    start: Starter,
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
}

impl fmt::Debug for CallerProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerProcess")
    }
}

impl CallerProcess {
    pub fn new(start: Starter) -> Self {
        Self { start, link: tokio::sync::Mutex::new(None) }
    }

    /// The process, which is started if it does not run.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, Failure> {
        let mut running = self.link.lock().await;
        if let Some(link) = running.as_ref().filter(|link| !link.is_lost()) {
            link.note_use();
            return Ok(link.clone());
        }
        *running = None;
        let started = (self.start)().await.map_err(|_ended| Failure::Ended)?;
        let (calls, sends) = started.map_err(Failure::Refused)?;
        let link = Link::begin(calls, sends).await.map_err(|error| {
            tracing::error!(error, "the process that acts as the caller did not start");
            Failure::Ended
        })?;
        Ok(running.insert(Arc::new(link)).clone())
    }

    /// Whether the process runs, or is about to.
    pub(crate) fn is_running(&self) -> bool {
        self.link.try_lock().map_or(true, |running| running.is_some())
    }

    /// Ends the process if it had nothing to do for this time.
    pub(crate) fn end_idle(&self, longest: Duration) {
        // A call that holds the lock uses the process.
        if let Ok(mut running) = self.link.try_lock()
            && running.as_ref().is_some_and(|link| link.is_idle(longest))
        {
            *running = None;
        }
    }
}

/// A call on its way to the process.
struct Queued {
    number: u64,
    call: UnixCall,
    descriptors: Descriptors,
    reply: oneshot::Sender<Result<Reply, Failure>>,
    /// What is released when the call has ended, or the process.
    held: Arc<dyn Send + Sync>,
}

/// A call that the process makes.
struct Pending {
    /// What came before the answer, or the error number if this process cannot open more files.
    made: Result<Vec<OwnedFd>, i32>,
    reply: oneshot::Sender<Result<Reply, Failure>>,
    descriptors: Descriptors,
    _held: Arc<dyn Send + Sync>,
}

/// The channel for sends that do not wait.
#[derive(Debug)]
struct Sends {
    channel: SendChannel,
    /// Where data lies that is too large for a record.
    memory: Option<SharedWriter>,
}

impl Sends {
    /// Puts data where the process finds it.
    fn place(&mut self, data: &[u8]) -> Result<Data, AskError<FromCaller>> {
        let length = match u32::try_from(data.len()) {
            Ok(length) if data.len() > DATA_MAX && data.len() <= SHARED_MAX => length,
            _ => return Ok(Data::Inside(Bytes(data.to_vec()))),
        };
        let failed = |error| AskError::NotSent(ChannelError::System(error));
        if self.memory.is_none() {
            let memory = SharedWriter::new().map_err(failed)?;
            self.channel.send(&ToCaller::Memory, &[memory.as_fd()])?;
            self.memory = Some(memory);
        }
        self.memory.as_ref().map_or(Ok(()), |memory| memory.write(data)).map_err(failed)?;
        Ok(Data::Shared { length })
    }

    /// Makes a send, and waits for its answer.
    fn ask(
        &self,
        number: u64,
        call: UnixCall,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<UnixAnswer, AskError<FromCaller>> {
        let (own, attached) =
            descriptors.split_at_checked(call.descriptors()).unwrap_or((descriptors, &[]));
        let failed = |error| AskError::NotSent(ChannelError::System(error));
        let Packed { message, memory } = pack_call(number, call).map_err(failed)?;
        let own: Vec<_> = memory.iter().map(OwnedFd::as_fd).chain(own.iter().copied()).collect();
        match u8::try_from(attached.len()) {
            Ok(0) => {}
            Ok(count) => self.channel.send(&ToCaller::Attach { number, count }, attached)?,
            Err(_) => return Err(AskError::Late),
        }
        match self.channel.ask(&message, &own)? {
            (FromCaller::Answer { number: answered, answer }, _)
                if answered == number && answer.made() == 0 =>
            {
                Ok(answer)
            }
            (_, descriptors) => {
                let reason = "it answered another call";
                Err(AskError::NotAnswered(ChannelError::Nonsense { reason, descriptors }))
            }
        }
    }
}

/// The channels to a running process.
#[derive(Debug)]
pub(crate) struct Link {
    sends: Mutex<Sends>,
    calls: mpsc::UnboundedSender<Queued>,
    lost: AtomicBool,
    numbers: AtomicU64,
    used: Mutex<Instant>,
}

impl Link {
    /// Waits until the process has the ids of the caller.
    async fn begin(calls: OwnedFd, sends: OwnedFd) -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let copy = calls.as_fd().try_clone_to_owned().map_err(text)?;
        let ready = register(copy, Interest::READABLE | Interest::WRITABLE).map_err(text)?;
        let channel = CallChannel::over(calls);
        let greeted = tokio::time::timeout(START, greet(&channel, &ready)).await;
        greeted.unwrap_or_else(|_late| Err("it took too long".to_owned()))?;
        let channel_of_sends = SendChannel::over(sends, LONGEST).map_err(text)?;
        let sends = Mutex::new(Sends { channel: channel_of_sends, memory: None });
        #[expect(clippy::disallowed_methods, reason = "bounded by the limits on jobs")]
        let (queue, queued) = mpsc::unbounded_channel();
        let (pending, outgoing) = (HashMap::new(), VecDeque::new());
        let mut follower = Follower { channel, ready, queued, outgoing, pending };
        #[expect(
            clippy::disallowed_methods,
            reason = "it belongs to no session, and ends with the link"
        )]
        tokio::spawn(async move {
            match follower.follow().await {
                Err(ChannelError::Closed) | Ok(()) => {}
                Err(error) => tracing::error!(%error, "ending the process that acts as the caller"),
            }
            follower.fail_unsent();
        });
        let (lost, numbers) = (AtomicBool::new(false), AtomicU64::new(0));
        Ok(Self { sends, calls: queue, lost, numbers, used: Mutex::new(Instant::now()) })
    }

    /// Whether the process can get no further call.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed) || self.calls.is_closed()
    }

    fn note_use(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_idle(self: &Arc<Self>, longest: Duration) -> bool {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::strong_count(self) == 1 && used.elapsed() >= longest
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a call that may wait. If the future is dropped, the process makes the call all the same, and `held` lives
    /// until then.
    pub(crate) async fn call(
        &self,
        call: UnixCall,
        descriptors: Descriptors,
        held: Arc<dyn Send + Sync>,
    ) -> Result<Reply, Failure> {
        let (reply, result) = oneshot::channel();
        let queued = Queued { number: self.number(), call, descriptors, reply, held };
        self.calls.send(queued).map_err(|_closed| Failure::NotSent)?;
        result.await.map_err(|_ended| Failure::Ended)?
    }

    /// Sends a message to the peer of a socket at once, within one poll: cancelling cannot separate its effect from its
    /// result. `outgoing` is the message without its data.
    pub(crate) fn send_now(
        &self,
        outgoing: Outgoing,
        data: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<UnixAnswer, Failure> {
        self.note_use();
        let mut sends = self.sends.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_lost() {
            return Err(Failure::NotSent);
        }
        let attached = outgoing.attached;
        let asked = sends.place(data).and_then(|data| {
            let call = UnixCall::Send(Outgoing { data, ..outgoing });
            sends.ask(self.number(), call, descriptors)
        });
        match asked {
            Ok(answer) => return Ok(answer),
            // Too many descriptors of this process are on their way.
            Err(AskError::NotSent(ChannelError::System(error))) if !attached => {
                return Err(Failure::Failed(error.raw_os_error().unwrap_or(libc::ENOMEM)));
            }
            Err(AskError::NotSent(_)) => {
                self.lost.store(true, Ordering::Relaxed);
                return Err(Failure::NotSent);
            }
            Err(AskError::NotAnswered(ChannelError::Closed)) => {}
            Err(error) => {
                tracing::error!(%error, "the process that acts as the caller does not answer");
            }
        }
        self.lost.store(true, Ordering::Relaxed);
        Err(Failure::Ended)
    }
}

async fn greet(channel: &CallChannel, ready: &AsyncFd<OwnedFd>) -> Result<(), String> {
    let mut greeted = false;
    loop {
        match channel.receive() {
            Ok((FromCaller::Hello(build), _)) if build == Build::OWN => greeted = true,
            Ok((FromCaller::Ready, _)) if greeted => return Ok(()),
            Ok(_) => return Err("it is of another build".to_owned()),
            Err(ChannelError::NotReady) => {
                ready.readable().await.map_err(|error| error.to_string())?.clear_ready();
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Sends calls, and receives their answers.
struct Follower {
    channel: CallChannel,
    /// A copy of the socket of the channel, for the event loop.
    ready: AsyncFd<OwnedFd>,
    queued: mpsc::UnboundedReceiver<Queued>,
    outgoing: VecDeque<Queued>,
    pending: HashMap<u64, Pending>,
}

impl Follower {
    /// Follows the process until it ends, or nobody uses it.
    async fn follow(&mut self) -> Result<(), ChannelError<FromCaller>> {
        loop {
            tokio::select! {
                ready = self.ready.readable() => {
                    ready.map_err(ChannelError::System)?.clear_ready();
                    self.receive()?;
                }
                ready = self.ready.writable(), if !self.outgoing.is_empty() => {
                    ready.map_err(ChannelError::System)?.clear_ready();
                    self.flush()?;
                }
                queued = self.queued.recv() => match queued {
                    Some(queued) => {
                        self.outgoing.push_back(queued);
                        self.flush()?;
                    }
                    None => return Ok(()),
                }
            }
        }
    }

    fn receive(&mut self) -> Result<(), ChannelError<FromCaller>> {
        let nonsense = |reason| Err(ChannelError::Nonsense { reason, descriptors: Vec::new() });
        loop {
            let (message, mut descriptors) = match self.channel.receive() {
                Ok(received) => received,
                Err(ChannelError::NotReady) => return Ok(()),
                Err(ChannelError::LostDescriptors {
                    message: FromCaller::Made { number, .. },
                    ..
                }) => {
                    self.note_made(number, Err(libc::EMFILE))?;
                    continue;
                }
                Err(ChannelError::LostDescriptors {
                    message: FromCaller::Large { number },
                    ..
                }) => {
                    self.note_made(number, Err(libc::EMFILE))?;
                    self.reply(number, UnixAnswer::Failed(libc::EMFILE))?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match message {
                FromCaller::Made { number, .. } => self.note_made(number, Ok(descriptors))?,
                FromCaller::Answer { number, answer } => self.reply(number, answer)?,
                FromCaller::Large { number } => match unpack_answer(&mut descriptors) {
                    Ok(answer) => self.reply(number, answer)?,
                    Err(reason) => return nonsense(reason),
                },
                FromCaller::Hello(_) | FromCaller::Ready => return nonsense("it began twice"),
            }
        }
    }

    /// Keeps what a call has made until its answer.
    fn note_made(
        &mut self,
        number: u64,
        made: Result<Vec<OwnedFd>, i32>,
    ) -> Result<(), ChannelError<FromCaller>> {
        let Some(pending) = self.pending.get_mut(&number) else {
            let reason = "it sent descriptors for a call that it does not have";
            return Err(ChannelError::Nonsense { reason, descriptors: made.unwrap_or_default() });
        };
        pending.made = made;
        Ok(())
    }

    /// Passes an answer to the call, with what came before it.
    fn reply(&mut self, number: u64, answer: UnixAnswer) -> Result<(), ChannelError<FromCaller>> {
        let nonsense = |reason, descriptors| Err(ChannelError::Nonsense { reason, descriptors });
        let Some(Pending { made, reply, descriptors, .. }) = self.pending.remove(&number) else {
            return nonsense("it answered a call that it does not have", Vec::new());
        };
        let returned = match made {
            Ok(made) if made.len() == answer.made() => (answer, made),
            Ok(made) => return nonsense("an answer has the wrong number of descriptors", made),
            Err(errno) => (UnixAnswer::Failed(errno), Vec::new()),
        };
        drop(descriptors);
        // The call may have been cancelled.
        drop(reply.send(Ok(returned)));
        Ok(())
    }

    /// Sends what the channel has room for.
    fn flush(&mut self) -> Result<(), ChannelError<FromCaller>> {
        while let Some(queued) = self.outgoing.front() {
            match send(&self.channel, queued) {
                Ok(()) => {}
                Err(ChannelError::NotReady) => return Ok(()),
                Err(ChannelError::Closed) => return Err(ChannelError::Closed),
                Err(ChannelError::System(error)) => {
                    let errno = error.raw_os_error().unwrap_or(libc::ENOMEM);
                    if let Some(queued) = self.outgoing.pop_front() {
                        drop(queued.reply.send(Err(Failure::Failed(errno))));
                    }
                    continue;
                }
                Err(error) => return Err(ChannelError::System(io::Error::other(error))),
            }
            if let Some(Queued { number, descriptors, reply, held, .. }) = self.outgoing.pop_front()
            {
                let made = Ok(Vec::new());
                let pending = Pending { made, reply, descriptors, _held: held };
                self.pending.insert(number, pending);
            }
        }
        Ok(())
    }

    /// Fails the calls that the process did not get.
    fn fail_unsent(&mut self) {
        self.queued.close();
        while let Ok(queued) = self.queued.try_recv() {
            self.outgoing.push_back(queued);
        }
        for queued in self.outgoing.drain(..) {
            drop(queued.reply.send(Err(Failure::NotSent)));
        }
    }
}

fn send(channel: &CallChannel, queued: &Queued) -> Result<(), ChannelError> {
    let Queued { number, call, descriptors, .. } = queued;
    let borrowed: Vec<_> = descriptors.iter().map(|one| one.as_fd()).collect();
    let own = call.descriptors();
    let (own, attached) = (borrowed.get(..own), borrowed.get(own..));
    let attached = attached.unwrap_or_default();
    let packed = pack_call(*number, call.clone()).map_err(ChannelError::System)?;
    if let Some(count) = u8::try_from(attached.len()).ok().filter(|count| *count > 0) {
        channel.send(&ToCaller::Attach { number: *number, count }, attached)?;
    }
    let own =
        packed.memory.iter().map(OwnedFd::as_fd).chain(own.unwrap_or_default().iter().copied());
    let own: Vec<_> = own.collect();
    channel.send(&packed.message, &own)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use sockbroker_monitor::caller::message::Destination;
    use sockbroker_monitor::caller::serve;
    use sockbroker_monitor::channel::Channel;
    use sockbroker_sys::{message, record, socket};

    use super::*;

    type ProcessEnd = Channel<FromCaller, ToCaller>;

    const PAIR: UnixCall =
        UnixCall::Pair { domain: libc::AF_UNIX, ty: libc::SOCK_STREAM, protocol: 0 };

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
        let (destination, control, empty) = (Destination::Peer, Vec::new(), Data::default());
        let outgoing = Outgoing { destination, flags: 0, control, attached: false, data: empty };
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
}
