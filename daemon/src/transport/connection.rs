//! The loop of one stream connection, which is the same for every framing.
//!
//! One task reads, starts calls in the order of arrival, sends answers and waits. It stops reading while the
//! peer does not read its answers, and never because calls wait, so that a `close` or a cancellation after
//! them is always read.

use std::future::poll_fn;
use std::panic::resume_unwind;
use std::task::{Context, Poll};
use std::time::Duration;

use super::codec::Codec;
use super::codec::decoded::{CodecError, Decoded};
use super::deadline::Deadline;
use super::end::End;
use super::in_flight::InFlight;
use super::outgoing::Outgoing;
use super::part_share::PartShare;
use super::shutdown::{Shutdown, ShutdownSignal};
use super::stream::Stream;
use crate::config::limits::size;
use crate::descriptor::Descriptor;
use crate::quota::Share;
use crate::rpc::answer::ending;
use crate::rpc::core::{Answer, Core, Message};
use bytes::BytesMut;
use sockbroker_proto::descriptors::DescriptorQueue;
use sockbroker_proto::frame::FrameError;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// How often a half-closed connection is checked: a full close after a half-close wakes no task.
const HANG_UP_CHECK: Duration = Duration::from_secs(1);
/// A larger buffer is released when it is empty.
const BUFFER_KEPT: usize = 256 << 10;
/// A larger message is decoded on another thread. Then the input that follows it moves to a new buffer, because a buffer
/// lives as long as any part of it.
const MESSAGE_SMALL: usize = 64 << 10;
/// After this number of answers they are sent before further messages are taken, so that the peer can go on.
const ANSWERS_TOGETHER: usize = 32;
/// How often the broker checks whether the peer has received the descriptors of an answer that is kept.
const TAKEN_CHECK: Duration = Duration::from_millis(10);
/// How often the broker checks whether the peer has received the descriptors of other answers.
const IN_FLIGHT_CHECK: Duration = Duration::from_millis(50);
/// How often the broker checks whether enough descriptors of a user are closed.
const CLOSED_CHECK: Duration = Duration::from_millis(10);

/// Serves a stream connection until it ends. `input` contains what was read before.
pub(super) async fn serve(
    shutdown: ShutdownSignal,
    stream: Stream,
    codec: Codec,
    core: Core,
    input: BytesMut,
) {
    Driver::new(stream, codec, core, input).run(shutdown.follow()).await;
}

/// Starts the calls of a message.
pub(super) async fn receive(mut core: Core, message: Message) -> (Core, Option<Answer>) {
    let large = message.json.len() > MESSAGE_SMALL;
    let receive = move || {
        let answer = core.receive(message);
        (core, answer)
    };
    if large { aside(receive).await } else { receive() }
}

/// Runs what takes long on another thread. Meanwhile this one runs the other tasks.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => resume_unwind(Box::new(error.to_string())),
    }
}

/// Ends both directions, and waits until the peer has received the descriptors that were sent or has closed. Until then
/// they count for its user.
async fn wait_for_in_flight(
    stream: &Stream,
    mut in_flight: InFlight,
    mut share: PartShare,
    shutdown: Shutdown,
) {
    stream.shut_down();
    loop {
        in_flight.received(stream.unread());
        if in_flight.is_empty() || shutdown.has_begun() {
            return;
        }
        share.keep_descriptors(in_flight.descriptors());
        // The kernel wakes nobody when the last byte is read.
        sleep(IN_FLIGHT_CHECK).await;
    }
}

/// A stream with its calls.
#[derive(Debug)]
struct Driver {
    stream: Stream,
    codec: Codec,
    core: Core,
    input: BytesMut,
    descriptors: DescriptorQueue<Descriptor>,
    out: Outgoing,
    wanted: usize,
    /// Whether something large was taken from the input, which therefore moves to a new buffer.
    took_large: bool,
    reading: Reading,
    /// The time in which the peer has to read something.
    stall: Deadline,
    /// The time in which an incomplete message has to continue; after a half-close, the next check of the peer.
    pause: Deadline,
    /// The next check whether the peer has received descriptors.
    taken: Deadline,
    /// The next check whether descriptors are still in flight.
    in_flight: Deadline,
    /// The next check whether descriptors are closed.
    closed: Deadline,
    high_water: usize,
    descriptors_max: usize,
    /// What input and unread answers take of their user's limits.
    share: PartShare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// The peer may send more.
    Open,
    /// The peer has closed its writing end; answers are still wanted.
    HalfClosed,
    /// Nothing more is read, because the broker shuts down.
    Done,
}

impl Driver {
    fn new(stream: Stream, codec: Codec, core: Core, input: BytesMut) -> Self {
        let limits = &core.connection().broker().limits;
        let pause = Deadline::new(Duration::from_secs(limits.partial_seconds));
        Self {
            stall: Deadline::new(Duration::from_secs(limits.stall_seconds)),
            high_water: size(limits.output_bytes),
            // Descriptors of the present frame, and of the next one that was read together with it.
            descriptors_max: 2 * size(limits.descriptors),
            stream,
            codec,
            core,
            input,
            descriptors: DescriptorQueue::default(),
            out: Outgoing::default(),
            wanted: 0,
            took_large: false,
            reading: Reading::Open,
            pause,
            taken: Deadline::new(TAKEN_CHECK),
            in_flight: Deadline::new(IN_FLIGHT_CHECK),
            closed: Deadline::new(CLOSED_CHECK),
            share: PartShare::default(),
        }
    }

    /// Serves the connection until it ends, and cancels the calls that wait then.
    async fn run(mut self, mut shutdown: Shutdown) {
        let end = loop {
            match self.take_messages() {
                Err(end) => break end,
                Ok(Some(large)) => {
                    let take = move || {
                        self.take(large);
                        self
                    };
                    self = aside(take).await;
                    // The descriptors of an answer are counted before it is sent.
                    if let Err(end) = self.check_rest().and_then(|()| self.flush_now()) {
                        break end;
                    }
                    continue;
                }
                Ok(None) => {}
            }
            let step = poll_fn(|context| self.poll_step(context, &mut shutdown)).await;
            if let Err(end) = step {
                break end;
            }
        };
        let (connection, calls) = (self.core.connection().number(), self.core.connection().calls());
        tracing::debug!(connection, calls, %end, "connection ended");
        if matches!(end, End::Shutdown) {
            // At a shutdown every waiting call gets an answer.
            self.core.cancel_all();
            while self.poll_answers(&mut Context::from_waker(std::task::Waker::noop())) {}
        }
        if let End::Framing(CodecError::Frame(error @ FrameError::Authorization)) = &end {
            self.codec.encode(ending(error.to_string()), &mut self.out);
        }
        // A last try, for instance to send the close frame of a WebSocket.
        if self.out.descriptors() == 0 {
            drop(self.flush_now());
        }
        let Self { stream, core, out, share, .. } = self;
        core.end();
        wait_for_in_flight(&stream, out.in_flight, share, shutdown).await;
    }

    /// The descriptors that the peer has perhaps not received.
    fn count_in_flight(&mut self) -> usize {
        if !self.out.in_flight.is_empty() {
            self.out.in_flight.received(self.stream.unread());
        }
        self.out.in_flight.descriptors()
    }

    /// Takes every complete message of the input, while the peer reads its answers. Returns the first large one, whose calls
    /// are not started.
    fn take_messages(&mut self) -> Result<Option<Message>, End> {
        let received = self.input.len();
        let large = self.take_small_messages()?;
        // Blank lines can be large too.
        self.took_large |= large.is_some() || received - self.input.len() > BUFFER_KEPT;
        let is_done = large.is_none() && self.took_large;
        if is_done || (self.input.is_empty() && self.input.capacity() > BUFFER_KEPT) {
            self.input = BytesMut::from(&self.input[..]);
            self.took_large = false;
        }
        self.check_rest()?;
        Ok(large)
    }

    /// Starts the calls of the messages before a large one, which it returns.
    fn take_small_messages(&mut self) -> Result<Option<Message>, End> {
        let mut answers = 0;
        while self.out.bytes() < self.high_water {
            let Some(message) = self.next_message()? else { break };
            // What the peer has received meanwhile leaves room for more.
            if !self.out.in_flight.is_empty() {
                self.check_rest()?;
            }
            if message.json.len() > MESSAGE_SMALL {
                return Ok(Some(message));
            }
            answers += usize::from(self.take(message));
            // Before any of them is sent.
            if self.out.descriptors() > 0 {
                self.check_rest()?;
            }
            if answers == ANSWERS_TOGETHER {
                answers = 0;
                self.flush_now()?;
            }
        }
        Ok(None)
    }

    /// Removes the next complete message from the input.
    fn next_message(&mut self) -> Result<Option<Message>, End> {
        match self.codec.decode(&mut self.input, &mut self.descriptors, &mut self.out)? {
            Decoded::Message(message) => Ok(Some(message)),
            Decoded::Incomplete(missing) => {
                self.wanted = missing;
                // The end of the input also ends its last message.
                if self.reading != Reading::HalfClosed {
                    return Ok(None);
                }
                Ok(self.codec.decode_end(&mut self.input, &mut self.descriptors)?)
            }
            // The peer will not read further answers: its calls are cancelled.
            Decoded::Close => Err(End::Closed),
        }
    }

    /// Sends what can be sent without waiting; `poll_step` waits.
    fn flush_now(&mut self) -> Result<(), End> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        self.poll_flush(&mut context).map(|_room| ())
    }

    /// Starts a call. `true` if it was answered at once.
    fn take(&mut self, message: Message) -> bool {
        let answer = self.core.receive(message);
        answer.map(|answer| self.encode(answer)).is_some()
    }

    /// Puts an answer into the output.
    fn encode(&mut self, mut answer: Answer) {
        let receipt = answer.response_parts.receipt.take();
        self.codec.encode(answer, &mut self.out);
        if let Some(receipt) = receipt {
            self.out.confirm_when_sent(receipt);
        }
    }

    /// Counts incomplete input, unread answers, and the descriptors of both for the user.
    fn check_rest(&mut self) -> Result<(), End> {
        let bytes = self.input.len() + self.codec.held() + self.out.bytes();
        let unread = self.out.descriptors() + self.count_in_flight();
        let held = (bytes, self.descriptors.len() + unread);
        self.share.hold(self.core.connection(), held).map_err(End::LimitExceeded)?;
        if self.descriptors.len() > self.descriptors_max {
            return Err(
                CodecError::Descriptors("more descriptors came than frames announce").into()
            );
        }
        Ok(())
    }

    /// Waits for the next event and handles it. When it is ready, the input may contain messages.
    fn poll_step(
        &mut self,
        context: &mut Context<'_>,
        shutdown: &mut Shutdown,
    ) -> Poll<Result<(), End>> {
        loop {
            if self.poll_flush(context)? {
                return Poll::Ready(Ok(()));
            }
            if !self.poll_answers(context) {
                break;
            }
            self.check_rest()?;
        }
        if let Poll::Ready(reason) = shutdown.poll_ended(context) {
            self.codec.encode(ending(reason.clone()), &mut self.out);
            return Poll::Ready(Err(End::Ended(reason)));
        }
        // Before reading, because no messages are taken after a shutdown has begun.
        if shutdown.has_begun() {
            self.reading = Reading::Done;
        }
        let reads = self.reading == Reading::Open && self.out.bytes() < self.high_water;
        if reads && self.may_read(context) {
            let into = (&mut self.input, &mut self.descriptors);
            match self.stream.poll_fill(context, self.wanted, into.0, into.1)? {
                Poll::Ready(0) => {
                    self.reading = Reading::HalfClosed;
                    self.pause = Deadline::new(HANG_UP_CHECK);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(_) => {
                    self.pause.clear();
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {}
            }
        }
        if self.reading != Reading::Open && self.out.is_empty() && self.core.is_idle() {
            return Poll::Ready(Err(End::Closed));
        }
        if self.reading != Reading::Done {
            // The next step sees it too. Here the task registers to be woken.
            if shutdown.poll_begun(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
        } else if shutdown.poll_over(context).is_ready() {
            return Poll::Ready(Err(End::Shutdown));
        }
        self.poll_taken(context);
        self.poll_in_flight(context)?;
        self.poll_deadlines(context)
    }

    /// Whether the user has not too many descriptors that are being closed. A frame could bring more.
    fn may_read(&mut self, context: &mut Context<'_>) -> bool {
        loop {
            if !self.core.connection().user().exceeds(Share::Descriptors) {
                self.closed.clear();
                return true;
            }
            if self.closed.poll(context).is_pending() {
                return false;
            }
            self.closed.clear();
        }
    }

    /// Drops the descriptors of a kept answer, which keep their sockets open, when the peer has received its
    /// copies.
    fn poll_taken(&mut self, context: &mut Context<'_>) {
        while self.core.keeps_descriptors() && self.out.is_empty() {
            // A peer that closes discards what it did not read, and hangs up before that.
            if self.stream.unread() == 0 && !self.stream.is_hung_up() {
                self.core.forget_last();
            } else if self.taken.poll(context).is_pending() {
                return;
            } else {
                self.taken.clear();
            }
        }
    }

    /// Counts the descriptors in flight again, now and then, while there are any.
    fn poll_in_flight(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        while !self.out.in_flight.is_empty() && self.in_flight.poll(context).is_ready() {
            self.in_flight.clear();
            self.check_rest()?;
        }
        Ok(())
    }

    /// Sends; progress resets the stall timer. `true` if there is again room for answers to messages that were
    /// read already.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let mut sent = 0;
        let was_full = self.out.bytes() >= self.high_water;
        let flushed = self.stream.poll_flush(context, &mut self.out, &mut sent);
        if sent > 0 || self.out.is_empty() {
            self.stall.clear();
        }
        if let Poll::Ready(Err(error)) = flushed {
            return Err(error.into());
        }
        if std::mem::take(&mut self.out.refused_by_peer) {
            self.core.connection().refuse_descriptors();
        }
        Ok(was_full && self.out.bytes() < self.high_water)
    }

    /// Takes the answers of calls that ended, while the peer reads. `true` if there were any.
    fn poll_answers(&mut self, context: &mut Context<'_>) -> bool {
        let mut any = false;
        while self.out.bytes() < self.high_water {
            let Poll::Ready(Some(answer)) = self.core.poll_ended(context) else {
                break;
            };
            self.encode(answer);
            any = true;
            // The limit on descriptors applies to the next answer.
            if self.out.descriptors() > 0 {
                break;
            }
        }
        any
    }

    /// Ends the connection if the peer exceeds a time limit.
    fn poll_deadlines(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        if !self.out.is_empty() && self.stall.poll(context).is_ready() {
            return Poll::Ready(Err(End::Stalled));
        }
        match self.reading {
            Reading::Open if self.input.is_empty() && self.codec.is_between() => {
                self.pause.clear();
            }
            // Nothing is read while answers are unread: only the stall counts.
            Reading::Open if self.out.bytes() >= self.high_water => self.pause.clear(),
            Reading::Open => {
                if self.pause.poll(context).is_ready() {
                    return Poll::Ready(Err(End::Partial));
                }
            }
            Reading::HalfClosed => loop {
                if self.stream.is_hung_up() {
                    return Poll::Ready(Err(End::Closed));
                }
                if self.pause.poll(context).is_pending() {
                    break;
                }
                self.pause.clear();
            },
            Reading::Done => {}
        }
        Poll::Pending
    }
}
