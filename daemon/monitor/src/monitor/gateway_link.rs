//! The gateway as the monitor knows it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::ended::Ending;
use super::worker_ids::WorkerId;
use crate::channel::{Channel, ChannelError};
use crate::message::Build;
use crate::message::gateway::{GatewayChannel, ToGateway};
use crate::role::{self, Role};

/// When a gateway is started again that has ended.
const AGAIN: Duration = Duration::from_secs(1);
/// The messages that wait for room in the channel. A gateway that reads none of them is of no use.
const OUTGOING: usize = 4096;

/// What the gateway serves.
#[derive(Debug)]
pub struct RemoteSettings {
    /// The sockets that listen.
    pub listeners: Vec<OwnedFd>,
    /// Connections of remote principals in all.
    pub connections: u64,
    /// Workers of remote principals in all.
    pub workers: u64,
    /// Sessions of remote principals in all.
    pub sessions: u64,
}

impl RemoteSettings {
    /// The ids of processes that serve remote principals: one that is ending still has its id.
    pub fn ids(&self) -> u64 {
        self.workers.saturating_add(1).saturating_mul(2)
    }
}

/// The gateway, if the broker has one.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) settings: RemoteSettings,
    pub(super) link: Option<GatewayLink>,
    /// When it is started again.
    pub(super) start_at: Option<Instant>,
}

/// A gateway that runs.
#[derive(Debug)]
pub(super) struct GatewayLink {
    child: Child,
    id: Option<WorkerId>,
    pub(super) channel: GatewayChannel,
    pub(super) greeted: bool,
    /// The generation of its credentials.
    pub(super) in_force: u64,
    outgoing: VecDeque<(ToGateway, Option<OwnedFd>)>,
}

impl Gateway {
    pub(super) fn new(settings: RemoteSettings) -> Self {
        Self { settings, link: None, start_at: Some(Instant::now()) }
    }

    /// Takes the gateway that has ended, or is to end. Another one starts after a while.
    pub(super) fn take(&mut self) -> Option<(Ending, OwnedFd)> {
        let mut link = self.link.take()?;
        self.start_at = Some(Instant::now() + AGAIN);
        // Without its channel it serves nobody.
        drop(link.child.kill());
        let ending = Ending { child: link.child, unexpected: None, id: link.id };
        Some((ending, link.channel.into_socket()))
    }
}

impl GatewayLink {
    /// Starts the gateway, and sends what it begins with.
    pub(super) fn start(
        listeners: &[OwnedFd],
        id: Option<WorkerId>,
        generation: u64,
        [configuration, credentials]: [BorrowedFd<'_>; 2],
    ) -> io::Result<Self> {
        let (channel, other) = Channel::pair()?;
        // Before the start, so that the process finds them at once.
        channel.send(&ToGateway::Hello(Build::OWN), &[]).map_err(io::Error::other)?;
        for listener in listeners {
            channel.send(&ToGateway::Listener, &[listener.as_fd()]).map_err(io::Error::other)?;
        }
        let begin = ToGateway::Begin { id: id.as_ref().map(WorkerId::number), generation };
        channel.send(&begin, &[configuration, credentials]).map_err(io::Error::other)?;
        let name = "sockbrokerd: gateway";
        let child = role::start(Role::Gateway, name, &[], other, Stdio::null())?;
        let outgoing = VecDeque::new();
        Ok(Self { child, id, channel, greeted: false, in_force: 0, outgoing })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a message, now or once the channel has room.
    pub(super) fn send(
        &mut self,
        message: ToGateway,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), ChannelError> {
        self.outgoing.push_back((message, descriptor));
        self.flush()
    }

    /// Whether messages wait for room.
    pub(super) fn is_behind(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Sends what the channel has room for.
    pub(super) fn flush(&mut self) -> Result<(), ChannelError> {
        while let Some((message, descriptor)) = self.outgoing.front() {
            let borrowed: Vec<_> = descriptor.iter().map(OwnedFd::as_fd).collect();
            match self.channel.send(message, &borrowed) {
                Ok(()) => drop(self.outgoing.pop_front()),
                Err(ChannelError::NotReady) if self.outgoing.len() <= OUTGOING => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
