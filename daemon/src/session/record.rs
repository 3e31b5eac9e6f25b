//! The state of a session as one value, which can be kept over a restart together with its descriptors.
//!
//! Not part of it: calls in flight, answers kept for `call.resolve`, look-ups, bytes that a cancelled
//! `MSG_WAITALL` had taken, counters, and channels. Options, queues and addresses stay with the kernel.
//! Whether answers carry attachments is a property of a connection, which asks for it when it attaches.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sockbroker_proto::api::admin::Maker;
use sockbroker_sys::{sealed, socket};

use crate::descriptor::Descriptor;
use crate::principal::Principal;
use crate::quota::kernel_memory::{KernelMemory, Slot};
use crate::quota::{Share, User};
use crate::session::restriction::RestrictionText;
use crate::session::token::TokenHash;
use crate::table::Numbers;
use crate::table::claims::{Claim, Claimed, Claims};
use crate::table::ends::{Bound, Choices, Ends};
use crate::table::entry::Entry;
use crate::table::peeked::Peeked;
use crate::table::rcvall::{Rcvall, State as RcvallState};
use crate::table::timeout::Timeout;
use sockbroker_policy::namespace::{Namespace, Other};
use sockbroker_policy::socket_spec::JudgedSocket as _;
use sockbroker_policy::subject::{RemoteIdentity, Subject};
use sockbroker_policy::target::SocketName;
use sockbroker_proto::socket_spec::SocketSpec;

/// The version of the format that is written, and the newest that is read.
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionRecord {
    pub session: u64,
    pub owner: OwnerRecord,
    /// Known if the session was opened.
    pub token: Option<TokenHash>,
    /// What it gave up, oldest first.
    pub restrictions: Vec<RestrictionText>,
    /// `setdefaulttimeout`.
    pub default_timeout: Timeout,
    /// How long handles outlive the last connection.
    pub linger: Duration,
    /// The handles that it gave out.
    pub numbers: Numbers,
    /// Its sockets, by handle.
    pub sockets: BTreeMap<u64, SocketRecord>,
}

/// The principal of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OwnerRecord {
    /// A local process. Its number is not kept: another process may have it later.
    Local {
        uid: u32,
        gid: u32,
        groups: Vec<u32>,
        /// The path of its control group.
        cgroup: Option<String>,
        unit: Option<String>,
    },
    /// A client on another machine. The number by which the monitor counts for it is not kept: another principal may have
    /// it later.
    Remote(RemoteIdentity),
}

/// A socket, without its descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own in the format")]
pub struct SocketRecord {
    /// What the client calls it.
    pub declared: SpecRecord,
    /// What the kernel calls it.
    pub actual: SpecRecord,
    /// Its network namespace, unless it is the broker's own.
    #[serde(default)]
    pub network: Option<NetworkRecord>,
    /// `settimeout`.
    pub timeout: Timeout,
    /// `set_inheritable`.
    pub inheritable: bool,
    /// A lower handle of the same socket (`dup`), with which it shares everything below.
    pub duplicate_of: Option<u64>,
    /// Sources and interfaces that options chose and the kernel does not show.
    pub choices: Choices,
    /// Whether it is bound to a file, which no rule can judge any more.
    pub bound_to_file: bool,
    pub fanout: Option<FanoutRecord>,
    /// Its claim to a port that is bound with `SO_REUSEPORT`.
    #[serde(default)]
    pub port: Option<PortRecord>,
    /// The state of the emulation of `SIO_RCVALL`.
    pub rcvall: Option<RcvallState>,
    /// Kernel memory that its options take, in bytes.
    pub kernel_memory: BTreeMap<Slot, u64>,
    /// The request that made the handle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maker: Option<Maker>,
    /// Whether no client has, had or gave a descriptor of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_sole: bool,
    /// Whether a channel moves its data, or one has ended with an earlier process and none has begun since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_channel: bool,
}

/// A stream, in the lots. Its descriptor is sealed memory with what the stage of its kind has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamRecord {
    /// What kind of stream it is, such as `capture`.
    pub stream: String,
}

/// What the lots have of a session in addition to its sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionState {
    /// The first generation that no handle has. It is ahead of the handles that were given out, so that it changes
    /// rarely.
    pub generation: u64,
    /// `setdefaulttimeout`.
    pub default_timeout: Timeout,
    /// Whether received bytes stay in their sockets until the response is sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exactly_once: bool,
}

/// What the monitor keeps of a session, and the worker cannot change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionFacts {
    pub token: TokenHash,
    /// What it gave up, oldest first.
    pub restrictions: Vec<RestrictionText>,
    /// The path of the control group of its principal.
    pub cgroup: Option<String>,
    pub unit: Option<String>,
}

/// The most bytes that describe a stream.
const STREAM: usize = 1 << 20;

/// Memory that describes a stream.
pub(super) fn to_memory(state: &[u8]) -> io::Result<OwnedFd> {
    sealed::create("stream", state)
}

/// What [`to_memory`] has written.
pub(super) fn read_memory(memory: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    sealed::read(memory, STREAM)
}

/// JSON of a part of a record.
pub(super) fn encode<T: Serialize>(part: &T) -> Result<Vec<u8>, RecordError> {
    Ok(serde_json::to_vec(&Versioned { version: VERSION, session: part })?)
}

/// Reads a part of a record. One of a newer broker is refused by its version.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    let Version { version } = serde_json::from_slice(bytes)?;
    if version > VERSION {
        return Err(RecordError::Newer { found: version });
    }
    let read: Versioned<T> = serde_json::from_slice(bytes)?;
    Ok(read.session)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecRecord {
    /// `AF_*`.
    pub domain: i32,
    /// `SOCK_*`.
    pub ty: i32,
    /// `IPPROTO_*`, or what the domain has in its place.
    pub protocol: i32,
}

/// A network namespace other than the broker's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRecord {
    /// Whether it is that of the session's principal.
    pub is_callers: bool,
    /// Whether the client passed it, and owns it.
    #[serde(default)]
    pub is_owned: bool,
    /// The name by which the socket was made in it.
    pub name: Option<String>,
}

impl NetworkRecord {
    fn of(namespace: &Namespace) -> Option<Self> {
        match namespace {
            Namespace::Broker => None,
            Namespace::Other(Other { is_callers, is_owned, name }) => Some(Self {
                is_callers: *is_callers,
                is_owned: *is_owned,
                name: name.as_deref().map(str::to_owned),
            }),
        }
    }
}

impl From<NetworkRecord> for Namespace {
    fn from(NetworkRecord { is_callers, is_owned, name }: NetworkRecord) -> Self {
        Self::Other(Other { is_callers, is_owned, name: name.map(Arc::from) })
    }
}

/// The membership of a packet socket in a fan-out group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FanoutRecord {
    /// The number of the group.
    pub group: u16,
    /// Whether the group stays its owner's when the socket is closed.
    pub kept: bool,
}

/// The claim of a socket to a port that the kernel would share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRecord {
    pub claim: Claim,
    /// Whether the port stays its owner's when the socket is closed.
    pub kept: bool,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A newer broker wrote it.
    #[error(
        "the session record has version {found}, and this broker reads up to version {VERSION}"
    )]
    Newer {
        /// The version of the record.
        found: u32,
    },
    /// It is not a record.
    #[error("the session record cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A handle that the session cannot have given out, or two sockets of one handle.
    #[error("the session record has a handle that it did not give out: {0}")]
    Handle(u64),
    /// A restriction that the rule language no longer reads.
    #[error("a restriction of the session record cannot be read: {0}")]
    Restriction(String),
}

/// A record with its version.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Versioned<T> {
    version: u32,
    session: T,
}

/// The only part of a record that every version has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl SessionRecord {
    pub fn to_bytes(&self) -> Result<Vec<u8>, RecordError> {
        encode(self)
    }

    /// Reads the bytes of a record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        decode(bytes)
    }
}

impl From<&Principal> for OwnerRecord {
    fn from(principal: &Principal) -> Self {
        let Subject { uid, gid, groups, pid: _, cgroup, unit, remote } = principal.subject();
        match remote {
            None => Self::Local {
                uid: *uid,
                gid: *gid,
                groups: groups.to_vec(),
                cgroup: cgroup.as_deref().map(str::to_owned),
                unit: unit.as_deref().map(str::to_owned),
            },
            Some(remote) => Self::Remote((**remote).clone()),
        }
    }
}

impl From<OwnerRecord> for Principal {
    fn from(owner: OwnerRecord) -> Self {
        match owner {
            OwnerRecord::Local { uid, gid, groups, cgroup, unit } => Self::Local(Subject {
                uid,
                gid,
                groups: groups.into(),
                pid: None,
                cgroup: cgroup.map(Arc::from),
                unit: unit.map(Arc::from),
                remote: None,
            }),
            OwnerRecord::Remote(identity) => Self::from(Subject::remote(u32::MAX, identity)),
        }
    }
}

impl From<SocketSpec> for SpecRecord {
    fn from(SocketSpec { domain, ty, protocol }: SocketSpec) -> Self {
        Self { domain, ty, protocol }
    }
}

impl From<SpecRecord> for SocketSpec {
    fn from(SpecRecord { domain, ty, protocol }: SpecRecord) -> Self {
        Self { domain, ty, protocol }
    }
}

impl FanoutRecord {
    fn of(claimed: &Claimed) -> Option<Self> {
        match claimed.claim() {
            Claim::Fanout { group } => Some(Self { group, kept: claimed.is_kept() }),
            Claim::Port { .. } => None,
        }
    }
}

impl PortRecord {
    fn of(claimed: &Claimed) -> Self {
        Self { claim: claimed.claim(), kept: claimed.is_kept() }
    }
}

impl SocketRecord {
    pub(super) fn of(entry: &Entry, duplicate_of: Option<u64>) -> Self {
        let known = entry.ends.known();
        let fanout = known.fanout.as_ref();
        Self {
            declared: entry.declared().into(),
            actual: entry.actual().into(),
            network: NetworkRecord::of(entry.namespace()),
            timeout: entry.timeout(),
            inheritable: entry.inheritable(),
            duplicate_of,
            choices: known.choices,
            bound_to_file: known.bound.is_some(),
            fanout: fanout.and_then(FanoutRecord::of),
            port: known.port.as_ref().map(PortRecord::of),
            rcvall: entry.rcvall.as_ref().map(|rcvall| rcvall.state().clone()),
            kernel_memory: entry.kernel_memory().amounts(),
            maker: entry.maker.get().cloned(),
            is_sole: entry.ends.peeked().is_sole(),
            has_channel: entry.channels.is_running() || entry.channels.is_interrupted(),
        }
    }

    /// Rebuilds the socket. `original` is the one that it is a duplicate of.
    pub(super) fn restore(
        self,
        descriptor: OwnedFd,
        original: Option<&Entry>,
        user: &Arc<User>,
        claims: &Claims,
    ) -> Entry {
        let actual = SocketSpec::from(self.actual);
        let handle = user.take_back(Share::Handles, 1);
        // The kernel names no peer of a connection that is over; data of it may still be queued.
        let lost_peer =
            actual.has_connections() && socket::peer_address(descriptor.as_fd()).is_err();
        // A client may have its descriptor.
        let descriptor = Descriptor::of_client(descriptor, user).with_handle(handle);
        let entry = Entry::adopted(descriptor, self.declared.into(), self.timeout);
        let namespace = self.network.map_or(Namespace::Broker, Namespace::from);
        let mut entry = entry.of_kind(actual).of_namespace(namespace);
        entry.set_inheritable(self.inheritable);
        if let Some(maker) = self.maker {
            // A new entry has none.
            drop(entry.maker.set(maker));
        }
        if self.has_channel {
            entry.channels.note_interrupted();
        }
        if let Some(original) = original {
            entry.share_with(original);
            return entry;
        }
        entry.rcvall = self.rcvall.map(Rcvall::from);
        entry.set_kernel_memory(KernelMemory::restore(user, &self.kernel_memory));
        let ends = Ends::with(Peeked::recovered(self.is_sole));
        {
            let mut known = ends.known();
            known.choices = self.choices;
            known.bound = self.bound_to_file.then_some(Bound::Elsewhere);
            known.peer = lost_peer.then_some(SocketName::Unknown);
            let take = |claim, kept| {
                let mut claimed = claims.take(claim, user.key())?;
                if kept {
                    claimed.keep();
                }
                Some(claimed)
            };
            let fanout = self.fanout;
            known.fanout =
                fanout.and_then(|FanoutRecord { group, kept }| take(Claim::Fanout { group }, kept));
            known.port = self.port.and_then(|PortRecord { claim, kept }| take(claim, kept));
        }
        entry.ends = ends;
        entry
    }
}
