//! The channel for calls that may wait: many at a time, each with a number.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use sockbroker_monitor::caller::message::{
    CallChannel, FromCaller, ToCaller, UnixAnswer, UnixCall,
};
use sockbroker_monitor::caller::{pack_call, unpack_answer};
use sockbroker_monitor::channel::{ChannelError, Message as _};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::call::{Descriptors, Failure, Reply};

/// A call on its way to the process.
pub(super) struct Queued {
    pub(super) number: u64,
    pub(super) call: UnixCall,
    pub(super) descriptors: Descriptors,
    pub(super) reply: oneshot::Sender<Result<Reply, Failure>>,
    /// What is released when the call has ended, or the process.
    pub(super) held: Arc<dyn Send + Sync>,
}

/// A call that the process makes.
struct Pending {
    /// What came before the answer, or the error number if this process cannot open more files.
    made: Result<Vec<OwnedFd>, i32>,
    reply: oneshot::Sender<Result<Reply, Failure>>,
    descriptors: Descriptors,
    _held: Arc<dyn Send + Sync>,
}

/// Sends calls, and receives their answers.
pub(super) struct Follower {
    channel: CallChannel,
    /// A copy of the socket of the channel, for the event loop.
    ready: AsyncFd<OwnedFd>,
    queued: mpsc::UnboundedReceiver<Queued>,
    outgoing: VecDeque<Queued>,
    pending: HashMap<u64, Pending>,
}

impl Follower {
    /// Over the channel, and a copy of its socket.
    pub(super) fn new(
        channel: CallChannel,
        ready: AsyncFd<OwnedFd>,
        queued: mpsc::UnboundedReceiver<Queued>,
    ) -> Self {
        Self { channel, ready, queued, outgoing: VecDeque::new(), pending: HashMap::new() }
    }

    /// Follows the process until it ends, or nobody uses it.
    pub(super) async fn follow(&mut self) -> Result<(), ChannelError<FromCaller>> {
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
    pub(super) fn fail_unsent(&mut self) {
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
