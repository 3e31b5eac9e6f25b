//! Names and texts that several files use.

/// The name of the program.
pub(crate) const NAME: &str = "sockbroker-extcap";

/// The name that stands for all interfaces.
pub(super) const ALL: &str = "any";

/// How to capture if the policy grants no promiscuous mode.
pub(super) const PROMISCUOUS_HINT: &str =
    "switch the option \"Promiscuous mode\" of the interface off to capture without it";
