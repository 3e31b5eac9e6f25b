//! Words that say how much of a verb a rule means.

/// How far a descriptor may be handed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handover {
    /// Sockets with which the holder can do no more than an ordinary process.
    #[default]
    Ordinary,
    /// Raw, packet and netlink sockets too, which nobody can take back.
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

/// Whose view of the file system a path as text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Paths {
    /// The broker's own.
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

/// `lookup = "required"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lookup {
    /// Destinations must come from a look-up of the same session.
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
