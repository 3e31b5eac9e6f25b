//! The opener as the monitor knows it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sockbroker_sys::credentials::Credentials;
use sockbroker_sys::events::Events;
use sockbroker_sys::{record, sealed};

use super::policies::FIRST_GENERATION;
use crate::channel::{Channel, ChannelError};
use crate::message::{Build, Description, FromOpener, ToOpener, WorkerPeer};
use crate::role::{self, Role};

/// How long the opener may take to start.
const START: Duration = Duration::from_secs(10);
/// How long the opener may leave its channel full.
pub(super) const LATE: Duration = Duration::from_secs(5);
/// How long the opener may take to answer. A worker that waits for the opener in vain ends, and its end is reported to
/// the opener: so an opener that hangs is noticed.
pub(super) const RESPOND: Duration = Duration::from_secs(10);
/// When to send again to a channel that is full.
pub(super) const AGAIN: Duration = Duration::from_millis(5);

/// The opener, and the channel to it.
#[derive(Debug)]
pub struct OpenerLink {
    child: Child,
    pub(super) channel: Channel<ToOpener, FromOpener>,
    pub(super) description: Description,
    /// The generation of its policy.
    pub(super) in_force: u64,
    /// Messages for which the channel has no room yet.
    outgoing: VecDeque<(ToOpener, Vec<OwnedFd>)>,
    /// Since when there are such messages.
    pub(super) behind_since: Option<Instant>,
    /// When the ends of workers were reported that the opener has not answered.
    unanswered: VecDeque<Instant>,
}

/// Starts the opener, and waits until it is confined. To be called while this process has the capabilities that the
/// opener needs.
pub fn start_opener(
    configuration: BorrowedFd<'_>,
    policy: BorrowedFd<'_>,
) -> Result<OpenerLink, String> {
    let fail = |error: &dyn std::fmt::Display| format!("cannot start the opener: {error}");
    let (channel, other) = Channel::<ToOpener, FromOpener>::pair().map_err(|error| fail(&error))?;
    let generation = FIRST_GENERATION;
    // Before the start, so that the process finds them at once.
    let sent = channel
        .send(&ToOpener::Hello(Build::OWN), &[])
        .and_then(|()| channel.send(&ToOpener::Begin { generation }, &[configuration, policy]));
    sent.map_err(|error| fail(&error))?;
    let name = "sockbrokerd: opener";
    let child = role::start(Role::Opener, name, &[], other, Stdio::null());
    let mut child = child.map_err(|error| fail(&error))?;
    match description(&channel) {
        Ok(description) => Ok(OpenerLink {
            child,
            channel,
            description,
            in_force: generation,
            outgoing: VecDeque::new(),
            behind_since: None,
            unanswered: VecDeque::new(),
        }),
        Err(reason) => {
            // It may have ended already.
            drop(child.kill());
            drop(child.wait());
            Err(fail(&reason))
        }
    }
}

/// Waits for the description of an opener that has started.
fn description(channel: &Channel<ToOpener, FromOpener>) -> Result<Description, String> {
    let text = |error: io::Error| error.to_string();
    let mut events = Events::new().map_err(text)?;
    events.add(channel.as_fd(), 0).map_err(text)?;
    let deadline = Instant::now() + START;
    let mut greeted = false;
    loop {
        match channel.receive() {
            Ok((FromOpener::Hello(build), _)) if build == Build::OWN => greeted = true,
            Ok((FromOpener::Ready(description), _)) if greeted => return Ok(description),
            Ok(_) => return Err("it is of another build".to_owned()),
            Err(ChannelError::NotReady) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err("it took too long".to_owned());
                }
                events.wait(Some(left)).map_err(text)?;
            }
            // Its own line is in the log.
            Err(ChannelError::Closed) => return Err("it ended".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

impl OpenerLink {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes the channels for a worker that starts, and sends the other ends to the opener: for prompt requests, and for
    /// slow ones.
    pub(super) fn add_worker(
        &mut self,
        worker: u64,
        peer: &Credentials,
        account: u32,
    ) -> io::Result<[OwnedFd; 2]> {
        let ((prompt, of_prompt), (slow, of_slow)) = (record::pair()?, record::pair()?);
        let Credentials { uid, gid, groups, network } = peer.clone();
        let peer = WorkerPeer { uid, account, gid, groups, network };
        let peer = postcard::to_stdvec(&peer).map_err(io::Error::other)?;
        let peer = sealed::create("peer", &peer)?;
        self.send(ToOpener::Worker { worker }, vec![of_prompt, of_slow, peer]);
        Ok([prompt, slow])
    }

    /// Reports the end of a worker.
    pub(super) fn end_worker(&mut self, worker: u64) {
        self.unanswered.push_back(Instant::now());
        self.send(ToOpener::Ended { worker }, Vec::new());
    }

    /// Notes the answer to the end of a worker.
    pub(super) fn answered(&mut self) {
        self.unanswered.pop_front();
    }

    /// When the opener has to have answered what was reported first.
    pub(super) fn respond_by(&self) -> Option<Instant> {
        self.unanswered.front().map(|since| *since + RESPOND)
    }

    /// Sends a message, now or once the channel has room.
    pub(super) fn send(&mut self, message: ToOpener, descriptors: Vec<OwnedFd>) {
        self.outgoing.push_back((message, descriptors));
        // An error shows again when the channel is read.
        drop(self.flush());
    }

    /// Sends what the channel has room for.
    pub(super) fn flush(&mut self) -> Result<(), ChannelError> {
        while let Some((message, descriptors)) = self.outgoing.front() {
            let borrowed: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
            match self.channel.send(message, &borrowed) {
                Ok(()) => drop(self.outgoing.pop_front()),
                Err(error) if can_be_sent_later(&error) => {
                    self.behind_since.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.behind_since = None;
        Ok(())
    }

    /// Waits for the process if it has ended.
    pub(super) fn collect(&mut self) {
        // Its channel shows the end.
        drop(self.child.try_wait());
    }
}

/// Whether the channel has no room, or too many descriptors of the broker's user are in flight.
fn can_be_sent_later(error: &ChannelError) -> bool {
    match error {
        ChannelError::NotReady => true,
        ChannelError::System(error) => error.raw_os_error() == Some(libc::ETOOMANYREFS),
        _ => false,
    }
}
