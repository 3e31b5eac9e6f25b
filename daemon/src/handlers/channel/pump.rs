//! Moves the data of one channel, in both directions at once, from its beginning to its end.

use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::BytesMut;
use sockbroker_proto::handle::Handle;
use tokio::time::{sleep, timeout};

use crate::handlers::channel::failure::{Failure, Failures};
use crate::handlers::channel::link::{Ended, Link};
use crate::handlers::channel::socket_end::SocketEnd;
use crate::handlers::channel::socket_to_client::failed;
use crate::ops::channel::Output;
use crate::session::channel_place::ChannelPlace;
use crate::table::Resource;
use crate::table::channel::{ChannelEnd, ReleasedClaim};
use crate::table::entry::Entry;

/// How often a half-closed client is checked: a full close after a half-close wakes no task.
const HANG_UP_CHECK: Duration = Duration::from_millis(100);

/// How often the acknowledgements of a peer are checked after the end of a channel: none of them wakes a task.
const ACKNOWLEDGEMENT_CHECK: Duration = Duration::from_millis(100);

/// A channel and what it holds.
#[derive(Debug)]
pub(super) struct Pump {
    pub(super) link: Link,
    pub(super) handle: Handle,
    pub(super) place: ChannelPlace,
    /// Whether the handle is closed when the client has closed its end.
    pub(super) close: bool,
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
        let by_client = !matches!(ended, Ended::Failed(_));
        if let Ended::Failed(failure) = ended {
            self.report(&failure, &mut output).await;
        }
        let longest = self.longest(ChannelEnd::Closed);
        let Self { link, handle, place, .. } = self;
        let Link { socket, client, claim, .. } = link;
        let session = socket.call().session().clone();
        if closes {
            let removed = socket.call().session().remove(handle);
            // A handle that was closed meanwhile needs nothing.
            if let Ok(Resource::Socket(entry)) = removed {
                drop(timeout(longest, socket.acknowledged()).await);
                drop((socket, claim));
                Entry::close(entry).await;
            }
        } else {
            let is_stopping = claim.end() == Some(ChannelEnd::Stopping);
            let released = claim.release();
            if !is_stopping {
                // Without room, the next process reports an end that the client knows.
                drop(session.save(handle));
            }
            if by_client && !socket.is_acknowledged() {
                let waiting = until_acknowledged(socket, released, place, longest);
                session.run("channel", waiting);
            }
        }
        drop(client);
    }

    /// Moves data in both directions until the channel ends.
    async fn both(&self, input: BytesMut, output: &mut Output) -> Ended {
        let link = &self.link;
        let connected = tokio::select! {
            biased;
            reason = link.claim.ended() => return Ended::Failed(reason.into()),
            connected = link.socket.connected(&link.claim) => connected,
        };
        if let Err(error) = connected {
            return Ended::Failed(Failure::of(error));
        }
        let failures = Failures::default();
        let mut sending = pin!(link.client_to_socket(input, &failures));
        let mut receiving = pin!(link.socket_to_client(output, &failures));
        let (mut sends, mut receives) = (true, true);
        loop {
            let ended = tokio::select! {
                biased;
                reason = link.claim.ended() => {
                    if reason != ChannelEnd::Revoked {
                        let sending = sends.then_some(sending);
                        self.drain(sending, receives.then_some(receiving), reason).await;
                    }
                    return Ended::Failed(reason.into());
                }
                ended = &mut sending, if sends => {
                    sends = false;
                    // A channel that only sends has nothing more to do then.
                    if !link.receives() {
                        return ended;
                    }
                    ended
                }
                ended = &mut receiving, if receives => {
                    receives = false;
                    ended
                }
                () = self.hung_up(), if !sends => Ended::ClosedByClient,
            };
            match ended {
                Ended::Complete => {}
                last => return last,
            }
        }
    }

    /// Sends what the client has sent before the end, for as long as the limit for this end allows. Then the rest is lost,
    /// and the peer of a TCP connection gets a reset.
    ///
    /// The socket is read meanwhile: a peer may read only after its answers were read.
    async fn drain(
        &self,
        sending: Option<Pin<&mut impl Future<Output = Ended>>>,
        receiving: Option<Pin<&mut impl Future<Output = Ended>>>,
        reason: ChannelEnd,
    ) {
        let socket = &self.link.socket;
        let mut sent = sending.is_none();
        let draining = async {
            if let Some(sending) = sending {
                let received = async {
                    if let Some(receiving) = receiving
                        && !matches!(receiving.await, Ended::Complete)
                    {
                        return;
                    }
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    biased;
                    _ = sending => {}
                    () = received => {}
                }
            }
            sent = true;
            socket.acknowledged().await;
        };
        let in_time = timeout(self.longest(reason), draining).await.is_ok();
        if !in_time && !sent {
            socket.reset_on_close();
        }
    }

    /// How long a channel goes on sending after this end.
    fn longest(&self, reason: ChannelEnd) -> Duration {
        let limits = &self.link.socket.call().broker().limits;
        Duration::from_secs(match reason {
            ChannelEnd::Stopping => limits.drain_seconds,
            ChannelEnd::Closed | ChannelEnd::Session | ChannelEnd::Revoked => {
                limits.channel_drain_seconds
            }
        })
    }

    /// Waits until the client has closed the channel.
    async fn hung_up(&self) {
        while !self.link.client.is_hung_up() {
            sleep(HANG_UP_CHECK).await;
        }
    }

    /// Writes what is left of the output, and the failure, if the client reads.
    async fn report(&self, failure: &Failure, output: &mut Output) {
        let client = &self.link.client;
        // Nobody takes what the client sends from now on.
        client.end_input();
        let longest = Duration::from_secs(self.link.socket.call().broker().limits.drain_seconds);
        let writing = async {
            client.flush(output).await?;
            if self.link.has_frames() {
                *output = failed(failure);
                client.flush(output).await?;
                // Data that is not read would make an error of the end.
                client.drop_input();
            }
            Ok::<_, std::io::Error>(())
        };
        // A client that does not read learns nothing.
        drop(timeout(longest, writing).await);
    }
}

/// After the end of a channel whose handle stays open: if the handle or the session closes before the peer has acknowledged
/// what the client has sent, the socket stays open until then, within the limit.
async fn until_acknowledged(
    socket: SocketEnd,
    claim: ReleasedClaim,
    place: ChannelPlace,
    longest: Duration,
) {
    let acknowledged = async {
        while !socket.is_acknowledged() {
            sleep(ACKNOWLEDGEMENT_CHECK).await;
        }
    };
    let waiting = async {
        tokio::select! {
            biased;
            reason = claim.ended() => {
                if reason != ChannelEnd::Revoked && !socket.call().session().is_left() {
                    socket.acknowledged().await;
                }
            }
            () = acknowledged => {}
        }
    };
    drop(timeout(longest, waiting).await);
    drop(place);
}
