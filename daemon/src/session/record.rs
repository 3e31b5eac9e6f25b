//! The state of a session as one value, which can be kept over a restart together with its descriptors.
//!
//! Not part of it: calls in flight, answers kept for `call.resolve`, look-ups, bytes that a cancelled
//! `MSG_WAITALL` had taken, counters, and streams. Options, queues and addresses stay with the kernel.
//! Whether answers carry attachments is a property of a connection, which asks for it when it attaches.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sockbroker_proto::handle::Handle;
use sockbroker_sys::socket;

use crate::config::limits::Limits;
use crate::descriptor::Descriptor;
use crate::error::OpError;
use crate::principal::Principal;
use crate::quota::kernel_memory::{KernelMemory, Slot};
use crate::quota::{Share, User};
use crate::session::Session;
use crate::session::restriction::{RestrictionText, SessionRestriction};
use crate::session::token::{KnownToken, TokenHash};
use crate::table::claims::{Claim, Claimed, Claims};
use crate::table::ends::{Bound, Choices, Ends};
use crate::table::entry::Entry;
use crate::table::rcvall::{Rcvall, State as RcvallState};
use crate::table::timeout::Timeout;
use crate::table::{Numbers, Resource, Table, UnknownHandle};
use sockbroker_policy::place::{Other, Place};
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
    /// The state of the emulation of `SIO_RCVALL`.
    pub rcvall: Option<RcvallState>,
    /// Kernel memory that its options take, in bytes.
    pub kernel_memory: BTreeMap<Slot, u64>,
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
    fn of(place: &Place) -> Option<Self> {
        match place {
            Place::Broker => None,
            Place::Other(Other { is_callers, is_owned, name }) => Some(Self {
                is_callers: *is_callers,
                is_owned: *is_owned,
                name: name.as_deref().map(str::to_owned),
            }),
        }
    }
}

impl From<NetworkRecord> for Place {
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
        Ok(serde_json::to_vec(&Versioned { version: VERSION, session: self })?)
    }

    /// Reads the bytes of a record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let Version { version } = serde_json::from_slice(bytes)?;
        if version > VERSION {
            return Err(RecordError::Newer { found: version });
        }
        let read: Versioned<Self> = serde_json::from_slice(bytes)?;
        Ok(read.session)
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

impl SocketRecord {
    fn of(entry: &Entry, duplicate_of: Option<u64>) -> Self {
        let known = entry.ends.known();
        let fanout = known.fanout.as_ref();
        Self {
            declared: entry.declared().into(),
            actual: entry.actual().into(),
            network: NetworkRecord::of(entry.place()),
            timeout: entry.timeout(),
            inheritable: entry.inheritable(),
            duplicate_of,
            choices: known.choices,
            bound_to_file: known.bound.is_some(),
            fanout: fanout.and_then(FanoutRecord::of),
            rcvall: entry.rcvall.as_ref().map(|rcvall| rcvall.state().clone()),
            kernel_memory: entry.kernel_memory().amounts(),
        }
    }

    /// Rebuilds the socket. `original` is the one that it is a duplicate of.
    fn restore(
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
        let place = self.network.map_or(Place::Broker, Place::from);
        let mut entry = entry.of_kind(actual).of_place(place);
        entry.set_inheritable(self.inheritable);
        if let Some(original) = original {
            entry.share_with(original);
            return entry;
        }
        entry.rcvall = self.rcvall.map(Rcvall::from);
        entry.set_kernel_memory(KernelMemory::restore(user, &self.kernel_memory));
        let ends = Ends::default();
        {
            let mut known = ends.known();
            known.choices = self.choices;
            known.bound = self.bound_to_file.then_some(Bound::Elsewhere);
            known.peer = lost_peer.then_some(SocketName::Unknown);
            known.fanout = self.fanout.and_then(|FanoutRecord { group, kept }| {
                let mut member = claims.take(Claim::Fanout { group }, user.key())?;
                if kept {
                    member.keep();
                }
                Some(member)
            });
        }
        entry.ends = ends;
        entry
    }
}

/// What a session needs of the broker that restores it.
#[derive(Debug, Clone, Copy)]
pub struct Restored<'a> {
    /// The limits in force. They apply to what the session opens later.
    pub limits: &'a Limits,
    /// Its principal's use of the limits.
    pub user: &'a Arc<User>,
    /// The fan-out groups of all principals.
    pub claims: &'a Claims,
}

impl Session {
    /// Writes the state of the session.
    pub fn record(&self) -> SessionRecord {
        let mut originals: HashMap<usize, u64> = HashMap::new();
        let sockets = self.entries().into_iter().map(|(handle, entry)| {
            let handle = handle.number();
            let first = *originals.entry(entry.ends.identity()).or_insert(handle);
            (handle, SocketRecord::of(&entry, (first != handle).then_some(first)))
        });
        let sockets = sockets.collect();
        let numbers = self.table().numbers();
        let state = self.state();
        SessionRecord {
            session: self.number,
            owner: OwnerRecord::from(&self.principal),
            token: state.token.as_ref().map(KnownToken::hash),
            restrictions: state.restrictions.iter().map(|one| one.text().clone()).collect(),
            default_timeout: self.default_timeout.get(),
            linger: state.linger,
            numbers,
            sockets,
        }
    }

    /// Rebuilds the session of a record, with the descriptors of its sockets by handle. A socket without its
    /// descriptor is closed: its handle is void.
    pub fn restore(
        record: SessionRecord,
        mut descriptors: HashMap<u64, OwnedFd>,
        broker: Restored<'_>,
    ) -> Result<Self, RecordError> {
        let Restored { limits, user, claims } = broker;
        let session = Self::new(record.session, &record.owner.into(), limits);
        let mut restored: BTreeMap<u64, Arc<Entry>> = BTreeMap::new();
        let mut open = Vec::with_capacity(record.sockets.len());
        for (number, socket) in record.sockets {
            let Some(descriptor) = descriptors.remove(&number) else { continue };
            let handle = Handle::new(number).ok_or(RecordError::Handle(number))?;
            let original = socket.duplicate_of.and_then(|first| restored.get(&first));
            let entry =
                Arc::new(socket.restore(descriptor, original.map(|one| &**one), user, claims));
            restored.insert(number, entry.clone());
            open.push((handle, Resource::Socket(entry)));
        }
        let table = Table::resume(record.numbers, open);
        let table = table.map_err(|UnknownHandle(handle)| RecordError::Handle(handle.number()))?;
        let restrictions = record.restrictions.into_iter().map(|text| {
            let fail = |error: OpError| RecordError::Restriction(format!("{error:?}"));
            SessionRestriction::restore(text, user).map_err(fail)
        });
        session.set_restrictions(restrictions.collect::<Result<_, _>>()?);
        *session.table() = table;
        session.default_timeout.set(record.default_timeout);
        session.opened.store(record.token.is_some(), Ordering::Release);
        {
            let mut state = session.state();
            state.linger = record.linger;
            state.token = record.token.map(KnownToken::Hashed);
        }
        Ok(session)
    }
}

#[cfg(test)]
mod tests;
