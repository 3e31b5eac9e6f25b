//! What calls of this broker made of a socket's two ends, where the kernel cannot be asked for it.
//!
//! The kernel names the peer of a connection no longer once it is over, though data may still be read; it
//! names a file of `AF_UNIX` as its server wrote it; and it does not show every choice of source and
//! interface. Duplicates of a socket share this.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::table::fanout::Membership;
use sockbroker_policy::target::{FileFacts, SocketName};

/// Both ends of a socket, as calls left them.
#[derive(Debug, Clone, Default)]
pub struct Ends(Arc<Mutex<Known>>);

/// What is remembered.
#[derive(Debug, Default)]
pub struct Known {
    /// The last peer that was known.
    pub peer: Option<SocketName>,
    /// What `bind` made in the file system.
    pub bound: Option<Bound>,
    /// What options chose for later messages.
    pub choices: Choices,
    /// Its place in a fan-out group.
    pub fanout: Option<Membership>,
}

/// The file of a bound `AF_UNIX` socket.
#[derive(Debug, Clone)]
pub enum Bound {
    /// One that `bind` made in a folder that was judged.
    File {
        /// What rules judge.
        facts: Arc<FileFacts>,
        /// What the kernel has as its name, and the path as the program wrote it.
        shown: Option<(Vec<u8>, Vec<u8>)>,
    },
    /// One in a place that nobody judged: its path changed during the call.
    Elsewhere,
}

/// Sources and interfaces that options chose; 0 and `None` where none did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choices {
    /// The interface index of `IPV6_PKTINFO`.
    pub packet_interface: u32,
    /// The interface index of `IP_MULTICAST_IF`, which the kernel does not show.
    pub multicast_interface: u32,
    /// The source address of `IP_MULTICAST_IF`.
    pub multicast_source: Option<Ipv4Addr>,
    /// The source address of `IPV6_PKTINFO`.
    pub packet_source: Option<Ipv6Addr>,
}

impl Ends {
    /// The same number for all duplicates of one socket, and another for every other socket that is open.
    pub fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// What is remembered, locked.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        // Each field is set in one statement: a panic elsewhere does not spoil them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the peer.
    pub fn note_peer(&self, peer: SocketName) {
        self.known().peer = Some(peer);
    }
}
