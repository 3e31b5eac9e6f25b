//! Moves the data of one channel, in both directions at once.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sockbroker_proto::api::channel::ChannelFraming;
use sockbroker_proto::channel::{
    ChannelFrame, DATA_MAX, HEAD_BYTES, REASON_MAX, read_frame, write_data_head, write_frame,
};
use sockbroker_proto::handle::Handle;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::error::OpError;
use crate::handlers::channel::socket_end::{Received, SocketEnd};
use crate::ops::channel::{ClientEnd, Output};
use crate::rpc::error;
use crate::session::channels::ChannelPlace;
use crate::table::Resource;
use crate::table::channel::{ChannelClaim, ChannelEnd};
use crate::table::entry::Entry;

/// How often a half-closed client is checked: a full close after a half-close wakes no task.
const HANG_UP_CHECK: Duration = Duration::from_millis(100);

/// A channel and what it holds.
#[derive(Debug)]
pub(super) struct Pump {
    pub(super) socket: SocketEnd,
    pub(super) handle: Handle,
    pub(super) claim: ChannelClaim,
    pub(super) place: ChannelPlace,
    /// Whether the handle is closed when the client has closed its end.
    pub(super) close: bool,
    pub(super) client: ClientEnd,
    pub(super) framing: ChannelFraming,
}

/// An error that the client is to learn.
#[derive(Debug, Clone)]
struct Failure {
    errno: u16,
    reason: String,
    /// Whether the policy refused.
    denied: bool,
}

impl Failure {
    fn of(error: OpError) -> Self {
        let denied = matches!(error, OpError::Denied(_));
        let data = error::data(error);
        let errno = if denied { Some(libc::EACCES) } else { data.errno };
        let mut parts = vec![data.kind];
        parts.extend(data.call);
        parts.extend(data.name);
        parts.extend(data.rule.map(|rule| format!("rule {rule}")));
        parts.extend(data.grant.map(|grant| format!("missing grant: {grant}")));
        Self { denied, ..Self::new(errno.unwrap_or(0), &parts.join(", ")) }
    }

    fn new(errno: i32, reason: &str) -> Self {
        let longest = reason.floor_char_boundary(REASON_MAX);
        let reason = reason.get(..longest).unwrap_or_default().to_owned();
        Self { errno: u16::try_from(errno).unwrap_or(0), reason, denied: false }
    }
}

/// Failures of sending, which the other direction reports.
#[derive(Debug, Default)]
struct Failures {
    waiting: Mutex<Vec<Failure>>,
    added: Notify,
}

impl Failures {
    /// On a datagram socket only the latest is kept: the client may not read.
    fn add(&self, failure: Failure) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = vec![failure];
        self.added.notify_one();
    }

    async fn next(&self) -> Failure {
        loop {
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match next {
                Some(failure) => return failure,
                None => self.added.notified().await,
            }
        }
    }
}

/// How one direction has ended.
#[derive(Debug)]
enum Ended {
    /// It is complete.
    Complete,
    /// The client has closed the channel.
    ClosedByClient,
    /// The client asks that the handle is closed.
    CloseHandle,
    /// The channel has failed.
    Failed(Failure),
}

impl Pump {
    /// Moves data until both directions have ended, or the channel has to end.
    pub(super) async fn run(self) {
        self.run_after(&[]).await;
    }

    /// The same; `input` contains what the client has sent already.
    pub(super) async fn run_after(self, input: &[u8]) {
        let mut output = Output::default();
        let ended = self.both(BytesMut::from(input), &mut output).await;
        let closes = match &ended {
            Ended::CloseHandle => true,
            Ended::Complete | Ended::ClosedByClient | Ended::Failed(_) => self.close,
        };
        if let Ended::Failed(failure) = ended {
            self.report(&failure, &mut output).await;
        }
        let Self { socket, handle, claim, place, client, .. } = self;
        if closes {
            let removed = socket.call().session().remove(handle);
            drop((socket, claim));
            // A handle that was closed meanwhile needs nothing.
            if let Ok(Resource::Socket(entry)) = removed {
                Entry::close(entry).await;
            }
        }
        drop((client, place));
    }

    async fn both(&self, input: BytesMut, output: &mut Output) -> Ended {
        let connected = tokio::select! {
            biased;
            reason = self.claim.ended() => return Ended::Failed(Self::end(reason)),
            connected = self.socket.connected(&self.claim) => connected,
        };
        if let Err(error) = connected {
            return Ended::Failed(Failure::of(error));
        }
        let failures = Failures::default();
        let directions = self.claim.directions();
        let mut sending = pin!(self.client_to_socket(input, &failures));
        let mut receiving = pin!(self.socket_to_client(output, &failures));
        let (mut sends, mut receives) = (true, directions.receives);
        while sends || receives {
            let ended = tokio::select! {
                biased;
                reason = self.claim.ended() => {
                    // What the client has sent before the end is still sent.
                    if sends && reason != ChannelEnd::Revoked {
                        let limits = &self.socket.call().broker().limits;
                        let longest = match reason {
                            ChannelEnd::Stopping => limits.drain_seconds,
                            _ => limits.channel_drain_seconds,
                        };
                        drop(timeout(Duration::from_secs(longest), sending).await);
                    }
                    return Ended::Failed(Self::end(reason));
                }
                ended = &mut sending, if sends => {
                    sends = false;
                    ended
                }
                ended = &mut receiving, if receives => {
                    receives = false;
                    ended
                }
                // The peer had ended its direction before: the direction that would report this is complete.
                failure = failures.next(), if directions.receives && !receives => {
                    Ended::Failed(failure)
                }
            };
            match ended {
                Ended::Complete => {}
                last => return last,
            }
        }
        Ended::Complete
    }

    fn end(reason: ChannelEnd) -> Failure {
        let (errno, text) = reason.describe();
        Failure::new(errno, text)
    }

    /// Writes what is left of the output, and the failure, if the client reads.
    async fn report(&self, failure: &Failure, output: &mut Output) {
        let longest = Duration::from_secs(self.socket.call().broker().limits.drain_seconds);
        let writing = async {
            self.client.flush(output).await?;
            if self.framing == ChannelFraming::Frames {
                *output = failed(failure);
                self.client.flush(output).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        // A client that does not read learns nothing.
        drop(timeout(longest, writing).await);
    }

    /// Sends what the client sends.
    async fn client_to_socket(&self, mut input: BytesMut, failures: &Failures) -> Ended {
        let mut draining = false;
        let mut ended = false;
        loop {
            match self.next_part(&mut input) {
                Ok(Some(Part::Close)) => return Ended::CloseHandle,
                Ok(Some(_)) if ended => {
                    return Ended::Failed(Failure::new(libc::EPROTO, "a frame after the end"));
                }
                Ok(Some(part)) => {
                    ended = matches!(part, Part::End);
                    if let Err(error) = self.send(part).await {
                        let last = matches!(error, OpError::Denied(_)) || self.socket.is_stream();
                        let failure = Failure::of(error);
                        if !self.claim.directions().receives {
                            return Ended::Failed(failure);
                        }
                        failures.add(failure);
                        if last {
                            // A client that writes and does not read has to learn it too.
                            self.client.end_input();
                            return self.after_end().await;
                        }
                    }
                    continue;
                }
                Ok(None) => {}
                Err(failure) => return Ended::Failed(failure),
            }
            let most = self.socket.piece();
            let read = if draining {
                self.client.try_read(&mut input, most)
            } else {
                tokio::select! {
                    biased;
                    read = self.client.read(&mut input, most) => read,
                    _ = self.claim.ended() => {
                        draining = true;
                        continue;
                    }
                }
            };
            match read {
                Ok(0) => break,
                Ok(_) => {}
                // Nothing more has arrived.
                Err(_) if draining => return Ended::Complete,
                // The client has closed without reading everything: `ECONNRESET`, after what it has sent.
                Err(_) => return Ended::ClosedByClient,
            }
        }
        match self.framing {
            // Without a frame that ends it.
            ChannelFraming::Frames => Ended::ClosedByClient,
            ChannelFraming::Raw if self.client.is_hung_up() => Ended::ClosedByClient,
            ChannelFraming::Raw if !self.claim.directions().sends => self.after_end().await,
            ChannelFraming::Raw => {
                if let Err(error) = self.send(Part::End).await {
                    failures.add(Failure::of(error));
                }
                self.after_end().await
            }
        }
    }

    /// Waits until the client has closed the channel.
    async fn after_end(&self) -> Ended {
        if !self.claim.directions().receives {
            return Ended::Complete;
        }
        while !self.client.is_hung_up() {
            sleep(HANG_UP_CHECK).await;
        }
        Ended::ClosedByClient
    }

    /// The next complete part of the input.
    fn next_part(&self, input: &mut BytesMut) -> Result<Option<Part>, Failure> {
        let wrong = |reason: &str| Failure::new(libc::EPROTO, reason);
        let receives_only = !self.claim.directions().sends;
        if self.framing == ChannelFraming::Raw {
            let data = (!input.is_empty()).then(|| input.split().freeze());
            return if data.is_some() && receives_only {
                Err(wrong("the channel only receives"))
            } else {
                Ok(data.map(Part::Data))
            };
        }
        let Some((frame, length)) = read_frame(input).map_err(|error| wrong(&error.to_string()))?
        else {
            return Ok(None);
        };
        let fits = match frame {
            ChannelFrame::Data(_) | ChannelFrame::Urgent(_) => self.socket.is_stream(),
            ChannelFrame::Datagram { .. } => !self.socket.is_stream(),
            ChannelFrame::End | ChannelFrame::Close => true,
            ChannelFrame::Reset { .. } | ChannelFrame::Dropped(_) => false,
        };
        if !fits {
            return Err(wrong("a frame of a kind that this socket does not send"));
        }
        if receives_only && frame != ChannelFrame::Close {
            return Err(wrong("the channel only receives"));
        }
        let part = match frame {
            ChannelFrame::Data(_) => None,
            ChannelFrame::Datagram { address, data } => {
                Some(Part::Datagram(address.to_owned(), Bytes::copy_from_slice(data)))
            }
            ChannelFrame::Urgent(byte) => Some(Part::Urgent(byte)),
            ChannelFrame::End => Some(Part::End),
            ChannelFrame::Close | ChannelFrame::Reset { .. } | ChannelFrame::Dropped(_) => {
                Some(Part::Close)
            }
        };
        let mut whole = input.split_to(length);
        Ok(Some(part.unwrap_or_else(|| Part::Data(whole.split_off(HEAD_BYTES).freeze()))))
    }

    async fn send(&self, part: Part) -> Result<(), OpError> {
        match part {
            Part::Data(data) => self.socket.send(data, 0).await,
            Part::Urgent(byte) => {
                self.socket.send(Bytes::copy_from_slice(&[byte]), libc::MSG_OOB).await
            }
            Part::Datagram(address, data) => self.socket.send_datagram(&address, data).await,
            Part::End if self.socket.is_stream() => self.socket.end_sending().await,
            Part::End | Part::Close => Ok(()),
        }
    }

    /// Gives the client what the socket receives.
    async fn socket_to_client(&self, output: &mut Output, failures: &Failures) -> Ended {
        let mut drops = self.socket.dropped_before;
        let mut failed_with: Option<Failure> = None;
        loop {
            if self.client.flush(output).await.is_err() {
                return Ended::ClosedByClient;
            }
            let received = tokio::select! {
                biased;
                failure = failures.next(), if failed_with.is_none() => {
                    if !self.socket.is_stream() && !failure.denied {
                        *output = failed(&failure);
                    } else {
                        // What has arrived before is still given.
                        failed_with = Some(failure);
                    }
                    continue;
                }
                received = self.socket.receive(failed_with.is_none()) => received,
            };
            match received {
                Ok(Received::Data(data)) => {
                    let mut head = Vec::new();
                    if self.has_frames() && write_data_head(&mut head, data.len()).is_err() {
                        return Ended::Failed(Failure::new(0, "more data than a frame carries"));
                    }
                    *output = Output::new(head, data);
                }
                Ok(Received::Urgent(byte)) => *output = written(ChannelFrame::Urgent(byte)),
                Ok(Received::Datagram(address, data)) => {
                    *output = self.datagram(&address, data, &mut drops);
                }
                Ok(Received::End) if self.end_client(output).await.is_err() => {
                    return Ended::ClosedByClient;
                }
                Ok(Received::End) => return failed_with.map_or(Ended::Complete, Ended::Failed),
                Err(error) => {
                    if let Some(failure) = failed_with {
                        return Ended::Failed(failure);
                    }
                    let os = matches!(error, OpError::Os { .. });
                    let failure = Failure::of(error);
                    if self.socket.is_stream() || !os {
                        return Ended::Failed(failure);
                    }
                    *output = failed(&failure);
                }
            }
        }
    }

    /// Ends what the client receives.
    async fn end_client(&self, output: &mut Output) -> std::io::Result<()> {
        if self.has_frames() {
            *output = written(ChannelFrame::End);
            return self.client.flush(output).await;
        }
        self.client.end_output();
        Ok(())
    }

    /// A datagram after the number of those that the socket has dropped since the last one.
    fn datagram(&self, address: &str, mut data: Vec<u8>, drops: &mut u32) -> Output {
        data.truncate(DATA_MAX);
        let now = self.socket.dropped();
        let new = now.wrapping_sub(std::mem::replace(drops, now));
        let mut output = Output::default();
        if new > 0 {
            output = written(ChannelFrame::Dropped(new.into()));
        }
        let datagram = ChannelFrame::Datagram { address, data: &data };
        output.head.extend_from_slice(&written(datagram).head);
        output
    }

    fn has_frames(&self) -> bool {
        self.framing == ChannelFraming::Frames
    }
}

/// What the client sent.
#[derive(Debug)]
enum Part {
    Data(Bytes),
    /// A destination as JSON, or nothing, and the data.
    Datagram(String, Bytes),
    Urgent(u8),
    End,
    Close,
}

fn written(frame: ChannelFrame<'_>) -> Output {
    let mut output = Output::default();
    // Every part is within its limit.
    write_frame(&mut output.head, frame).ok();
    output
}

fn failed(failure: &Failure) -> Output {
    written(ChannelFrame::Reset { errno: failure.errno, reason: &failure.reason })
}
