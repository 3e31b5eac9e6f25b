//! Words that limit how much of a verb a rule grants.

/// Which descriptors a rule passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handover {
    /// Of sockets with which the holder can do no more than an ordinary process.
    #[default]
    Ordinary,
    /// Of raw, packet and netlink sockets too. The broker cannot revoke these.
    Unrevocable,
}

impl Handover {
    /// The word of the rule language.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary",
            Self::Unrevocable => "unrevocable",
        }
    }
}

/// In whose view of the file system a path as text is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Paths {
    /// The broker's.
    Broker,
}

impl Paths {
    /// The word of the rule language.
    pub fn word(self) -> &'static str {
        match self {
            Self::Broker => "broker",
        }
    }
}

/// Whether a destination must come from a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lookup {
    /// It must come from a look-up of the same session.
    Required,
}

impl Lookup {
    /// The word of the rule language.
    pub fn word(self) -> &'static str {
        match self {
            Self::Required => "required",
        }
    }
}
