//! What the monitor is given: settings, limits, and the program around it.

use std::io::{self, PipeReader};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use sockbroker_policy::subject::RemoteIdentity;
use sockbroker_sys::service_manager::ServiceManager;

use super::gateway_link::RemoteSettings;
use super::opener_link::OpenerLink;
use super::policies::{PolicyFiles, ReadPolicy};

/// What the monitor serves.
#[derive(Debug)]
pub struct Settings {
    pub listener: OwnedFd,
    pub limits: Limits,
    /// The text of the configuration, for the workers (sealed memory).
    pub configuration: OwnedFd,
    /// The policy in force at the start.
    pub policy: ReadPolicy,
    /// The opener, if the policy needs one.
    pub opener: Option<OpenerLink>,
    /// What the gateway serves; `None` without one.
    pub remote: Option<RemoteSettings>,
    /// Whether the broker has no more capabilities than its policy needed at the start.
    pub warns_of_lost_capabilities: bool,
    /// The user ids of workers; `None` if they have that of the monitor.
    pub worker_ids: Option<RangeInclusive<u32>>,
    /// Where the policy is read again.
    pub files: PolicyFiles,
    /// Whether the service manager made the socket.
    pub activated: bool,
    /// What an earlier broker stored with the service manager, by name.
    pub stored: Vec<(String, OwnedFd)>,
    /// The service manager, and the number of descriptors that it states to keep, if it states one.
    pub service_manager: (Option<ServiceManager>, Option<u64>),
    /// Descriptors to close, which may wait.
    pub discarded: Vec<OwnedFd>,
}

/// The limits that the monitor applies.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub connections: u64,
    /// Connections of root and the broker's own user in addition.
    pub connections_reserved: u64,
    pub connections_per_user: u64,
    /// How long a connection may take to send its first byte.
    pub detect: Duration,
    pub sessions: u64,
    /// Sessions of root and the broker's own user in addition.
    pub sessions_reserved: u64,
    pub sessions_per_user: u64,
    /// Kernel memory of the options of all sockets, in bytes.
    pub kernel_bytes: u64,
    pub kernel_bytes_per_user: u64,
    pub persistent_sessions: u64,
    pub persistent_sessions_per_user: u64,
    pub persistent_handles: u64,
    pub persistent_handles_per_user: u64,
    /// What is kept of the sessions of one user, in bytes.
    pub persistent_bytes_per_user: u64,
    /// The restrictions of one session.
    pub restrictions: u64,
    /// How long kept sessions wait for a connection.
    pub reattach: Duration,
    /// The longest time for which a session can ask.
    pub linger: Duration,
    pub workers: u64,
    pub workers_per_user: u64,
    /// Starts of workers a second for one user.
    pub starts_per_second: u64,
    /// How long calls in flight may take to end after `SIGTERM`.
    pub drain: Duration,
}

/// What the monitor needs of the program around it: service manager, audit, and the log of refusals.
pub trait Host {
    /// The broker serves.
    fn serving(&mut self);
    /// The policy is read again.
    fn reloading(&mut self);
    /// The policy has been read again: its generation, or why the old one stays in force.
    fn reloaded(&mut self, result: &Result<u64, String>);
    /// The broker ends.
    fn stopping(&mut self);
    /// How often [`Host::alive`] is called.
    fn watchdog(&self) -> Option<Duration>;
    /// The loop makes progress.
    fn alive(&mut self);
    /// A worker of this user, or of this remote principal, has started; it writes its audit records to this pipe.
    fn audit(&mut self, uid: u32, remote: Option<String>, pipe: PipeReader);
    /// A connection of a user, or of this remote principal, was refused because of a limit, or could not be identified.
    fn refused(&mut self, refusal: Refusal, remote: Option<RemoteIdentity>);
    /// Reports what is due. Returns when to do so again, if there is anything to report.
    fn sweep(&mut self, now: Instant) -> Option<Instant>;
}

impl Refusal {
    /// The user, or the number of the remote principal.
    pub(super) fn uid(&self) -> Option<u32> {
        match self {
            Self::Limit { uid, .. } | Self::NoFiles { uid } | Self::NotStarted { uid, .. } => {
                Some(*uid)
            }
            Self::UnknownPeer(_) | Self::NotAccepted(_) => None,
        }
    }
}

/// A connection that was closed.
#[derive(Debug)]
pub enum Refusal {
    /// A limit of this name is reached.
    Limit { uid: u32, limit: &'static str },
    /// The kernel does not report the peer.
    UnknownPeer(io::Error),
    /// No further connection can be accepted.
    NotAccepted(io::Error),
    /// The worker of a user cannot open more files.
    NoFiles { uid: u32 },
    /// No worker can be started.
    NotStarted { uid: u32, error: io::Error },
}
