//! The policy in force and the next one, which the policy reader reads.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sockbroker_sys::events::Events;
use sockbroker_sys::sealed;

use crate::channel::{Channel, ChannelError};
use crate::message::{FromPolicyReader, ToPolicyReader, UserFacts};
use crate::role::{self, Role};

/// How long reading may take: file systems and name services can be slow.
pub(super) const READ: Duration = Duration::from_secs(30);
/// How long a worker may take to put a policy in force. Then it is killed.
pub(super) const DISTRIBUTE: Duration = Duration::from_secs(1);
/// How long the opener may take in addition. Then the broker ends, because the opener would judge by the old policy.
pub(super) const DISTRIBUTE_OPENER: Duration = Duration::from_secs(5);

/// The generation of the policy at the start.
pub(super) const FIRST_GENERATION: u64 = 1;

/// The bytes of the largest [`UserFacts`].
const USER_FACTS: usize = 16 << 20;

/// Where the policy is read: arguments of the policy reader.
#[derive(Debug, Clone)]
pub struct PolicyFiles(pub Vec<OsString>);

/// A policy that was read.
#[derive(Debug)]
pub struct ReadPolicy {
    /// The policy, for the workers and the opener (sealed memory).
    pub memory: OwnedFd,
    pub(super) users: UserFacts,
    /// The credentials of the gateway, empty without one (sealed memory).
    pub(super) credentials: OwnedFd,
    /// Whether rules of it need a capability that only the opener has.
    pub needs_opener: bool,
    /// Whether rules of it grant something in other network namespaces.
    pub reaches_networks: bool,
}

/// A worker's request to read the policy again: its token, and the number of the request.
pub(super) type Request = (u64, u64);

/// The policy in force, and the next one.
#[derive(Debug)]
pub(super) struct Policies {
    pub(super) files: PolicyFiles,
    pub(super) memory: OwnedFd,
    pub(super) users: UserFacts,
    pub(super) credentials: OwnedFd,
    pub(super) generation: u64,
    pub(super) step: Step,
    /// Requests of the present step.
    pub(super) requests: Vec<Request>,
    /// Requests that came after reading began: the files may have changed since.
    pub(super) later: VecDeque<Option<Request>>,
}

#[derive(Debug)]
pub(super) enum Step {
    Idle,
    Reading {
        reader: Reader,
        deadline: Instant,
    },
    /// Workers put the policy in force.
    Distributing {
        deadline: Instant,
        /// Whether only the opener is waited for.
        for_opener: bool,
    },
}

/// A policy reader that runs.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) child: Child,
    pub(super) channel: Channel<ToPolicyReader, FromPolicyReader>,
    /// The memory that it writes: policy, facts of users, credentials.
    result: [OwnedFd; 3],
}

impl Reader {
    /// Starts a reader.
    pub(super) fn start(files: &PolicyFiles) -> io::Result<Self> {
        let (channel, other) = Channel::pair()?;
        let result =
            [sealed::empty("policy")?, sealed::empty("users")?, sealed::empty("credentials")?];
        channel
            .send(&ToPolicyReader::Result, &result.each_ref().map(OwnedFd::as_fd))
            .map_err(io::Error::other)?;
        let arguments: Vec<_> = files.0.iter().map(OsString::as_os_str).collect();
        let name = "sockbrokerd: policy reader";
        let child = role::start(Role::PolicyReader, name, &arguments, other, Stdio::null())?;
        Ok(Self { child, channel, result })
    }

    /// The result, if it is complete.
    pub(super) fn result(&self) -> Option<Result<ReadPolicy, String>> {
        loop {
            match self.channel.receive() {
                Ok((FromPolicyReader::Warning(text), _)) => tracing::warn!("{text}"),
                Ok((FromPolicyReader::Policy { needs_opener, reaches_networks }, _)) => {
                    return Some(
                        self.policy(needs_opener, reaches_networks)
                            .map_err(|error| format!("the policy reader wrote nonsense: {error}")),
                    );
                }
                Ok((FromPolicyReader::Unusable(reason), _)) => return Some(Err(reason)),
                Err(ChannelError::NotReady) => return None,
                Err(ChannelError::Closed) => {
                    return Some(Err("the policy reader ended without a result".to_owned()));
                }
                Err(_) => return Some(Err("the policy reader sent nonsense".to_owned())),
            }
        }
    }

    fn policy(&self, needs_opener: bool, reaches_networks: bool) -> io::Result<ReadPolicy> {
        let [memory, users, credentials] = &self.result;
        let users = sealed::read(users.as_fd(), USER_FACTS)?;
        let users = postcard::from_bytes(&users).map_err(io::Error::other)?;
        let (memory, credentials) = (memory.try_clone()?, credentials.try_clone()?);
        Ok(ReadPolicy { memory, users, credentials, needs_opener, reaches_networks })
    }
}

/// Reads the policy, and waits for the result. For the start, before anything is served.
pub fn read(files: &PolicyFiles) -> Result<ReadPolicy, String> {
    let fail = |error: io::Error| format!("cannot start the policy reader: {error}");
    let mut reader = Reader::start(files).map_err(fail)?;
    let mut events = Events::new().map_err(fail)?;
    events.add(reader.channel.as_fd(), 0).map_err(fail)?;
    let deadline = Instant::now() + READ;
    let read = loop {
        if let Some(read) = reader.result() {
            break read;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            drop(reader.child.kill());
            break Err("reading the policy took too long".to_owned());
        }
        events.wait(Some(left)).map_err(fail)?;
    };
    reader.child.wait().map_err(fail)?;
    read
}

impl Policies {
    pub(super) fn new(policy: ReadPolicy, files: PolicyFiles) -> Self {
        let ReadPolicy { memory, users, credentials, .. } = policy;
        let (requests, later) = (Vec::new(), VecDeque::new());
        Self {
            files,
            memory,
            users,
            credentials,
            generation: FIRST_GENERATION,
            step: Step::Idle,
            requests,
            later,
        }
    }

    /// The policy in force, and its generation.
    pub(super) fn in_force(&self) -> (&OwnedFd, u64) {
        (&self.memory, self.generation)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.step {
            Step::Idle => None,
            Step::Reading { deadline, .. } | Step::Distributing { deadline, .. } => Some(*deadline),
        }
    }
}
