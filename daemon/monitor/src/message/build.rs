//! The build of a process. Processes of different builds do not understand each other's messages.

use serde::{Deserialize, Serialize};

/// Identifies the build. Both sides of a channel send theirs first; there is no compatibility between builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build(u64);

/// The files with messages: a change of one changes the build.
const MESSAGES: u64 = {
    let mut all = 0xcbf2_9ce4_8422_2325;
    all = hash(include_bytes!("../message.rs"), all);
    all = hash(include_bytes!("opener.rs"), all);
    all = hash(include_bytes!("limits.rs"), all);
    all = hash(include_bytes!("gateway.rs"), all);
    all = hash(include_bytes!("users.rs"), all);
    all = hash(include_bytes!("kept.rs"), all);
    all = hash(include_bytes!("../claim.rs"), all);
    all = hash(include_bytes!("helpers.rs"), all);
    all = hash(include_bytes!("../request.rs"), all);
    all = hash(include_bytes!("../caller/message.rs"), all);
    all = hash(include_bytes!("../reader/message.rs"), all);
    hash(include_bytes!("../capture/order.rs"), all)
};

/// FNV-1a.
const fn hash(text: &[u8], mut hash: u64) -> u64 {
    let mut at = 0;
    while at < text.len() {
        hash = (hash ^ text[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

impl Build {
    /// The build of this process.
    pub const OWN: Self = Self(MESSAGES);
}
