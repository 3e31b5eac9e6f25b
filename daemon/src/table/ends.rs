//! The two ends of a socket, as far as the kernel does not report them.
//!
//! The kernel stops naming the peer when a connection is over, though data may still be read; it names a
//! file of `AF_UNIX` as its server wrote it; and it does not show every choice of source and interface.
//! Duplicates of a socket share this.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::table::claims::Claimed;
use crate::table::peeked::Peeked;
use sockbroker_policy::target::{FileFacts, SocketName};

/// What calls changed at both ends of a socket.
#[derive(Debug, Clone, Default)]
pub struct Ends(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: Mutex<Known>,
    peeked: Arc<Peeked>,
}

/// The parts of [`Ends`].
#[derive(Debug, Default)]
pub struct Known {
    /// The last peer that was known.
    pub peer: Option<SocketName>,
    /// The file that `bind` created.
    pub bound: Option<Bound>,
    /// The sources and interfaces that options chose for later messages.
    pub choices: Choices,
    /// Its claim to a fan-out group.
    pub fanout: Option<Claimed>,
    /// Its claim to a port.
    pub port: Option<Claimed>,
}

/// The file of a bound `AF_UNIX` socket.
#[derive(Debug, Clone)]
pub enum Bound {
    /// A file that `bind` created in a folder that was judged.
    File {
        facts: Arc<FileFacts>,
        /// The kernel's name of it, and the path as the program wrote it.
        shown: Option<(Vec<u8>, Vec<u8>)>,
    },
    /// A file that no rule can judge: its path changed during the call, or the broker was restarted.
    Elsewhere,
}

/// Sources and interfaces that options chose; 0 and `None` stand for no choice.
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
    /// Of a socket whose queue has this state.
    pub fn with(peeked: Peeked) -> Self {
        Self(Arc::new(Inner { known: Mutex::default(), peeked: Arc::new(peeked) }))
    }

    /// What its queue has for a response that is not sent.
    pub fn peeked(&self) -> &Arc<Peeked> {
        &self.0.peeked
    }

    /// The same number for all duplicates of one socket, and another for every other socket that is open.
    pub fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Whether another entry shares it.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Locks the parts.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        // Each field is set in one statement, so a panic of another call does not spoil them.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the last known peer.
    pub fn note_peer(&self, peer: SocketName) {
        self.known().peer = Some(peer);
    }
}
