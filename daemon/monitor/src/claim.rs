//! What one principal claims for itself, although the kernel would share it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Claim {
    /// A fan-out group of packet sockets.
    Fanout { group: u16 },
    /// A port that is bound with `SO_REUSEPORT`.
    Port {
        /// `IPPROTO_TCP`, `IPPROTO_UDP` or another protocol with ports.
        protocol: i32,
        /// `None` for every address.
        address: Option<IpAddr>,
        port: u16,
    },
}

impl Claim {
    /// The number of the port or group. Claims with different numbers do not conflict.
    pub fn number(self) -> u16 {
        match self {
            Self::Fanout { group } => group,
            Self::Port { port, .. } => port,
        }
    }

    /// Whether two principals cannot have both.
    pub fn conflicts_with(self, other: Self) -> bool {
        match (self, other) {
            (Self::Fanout { group }, Self::Fanout { group: other }) => group == other,
            (
                Self::Port { protocol, address, port },
                Self::Port { protocol: other_protocol, address: other_address, port: other_port },
            ) => {
                let overlap = match (address, other_address) {
                    (Some(one), Some(other)) => one == other,
                    (None, _) | (_, None) => true,
                };
                (protocol, port) == (other_protocol, other_port) && overlap
            }
            (Self::Fanout { .. }, Self::Port { .. }) | (Self::Port { .. }, Self::Fanout { .. }) => {
                false
            }
        }
    }
}
