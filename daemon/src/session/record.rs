//! The state of a session as one value, which can be kept over a restart together with its descriptors.
//!
//! Not part of it: calls in flight, answers kept for `call.resolve`, look-ups, bytes that a cancelled
//! `MSG_WAITALL` had taken, counters, and channels. Options, queues and addresses stay with the kernel.
//! Whether answers carry attachments is a property of a connection, which asks for it when it attaches.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sockbroker_sys::sealed;

use crate::principal::Principal;
use crate::session::restriction::RestrictionText;
use crate::session::socket_record::SocketRecord;
use crate::session::token::TokenHash;
use crate::table::Numbers;
use crate::table::timeout::Timeout;
use sockbroker_policy::subject::{RemoteIdentity, Subject};

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
