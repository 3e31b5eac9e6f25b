//! The messages between the monitor and the reaper.

use serde::{Deserialize, Serialize};

use crate::channel::Message;

/// From the monitor to the reaper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToReaper {
    /// A descriptor whose last close may wait.
    Hold,
    /// The monitor has no copy of what the reaper holds: the reaper closes it.
    Close,
}

/// From the reaper to the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromReaper {
    /// Many closes wait: the monitor is to start another reaper, and to close this one's channel.
    Full,
}

impl Message for ToReaper {
    fn descriptors(&self) -> usize {
        match self {
            Self::Hold => 1,
            Self::Close => 0,
        }
    }
}

impl Message for FromReaper {
    fn descriptors(&self) -> usize {
        match self {
            Self::Full => 0,
        }
    }
}
