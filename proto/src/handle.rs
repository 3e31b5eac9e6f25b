//! The handle of a socket in a session.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// The largest integer that every JSON implementation represents exactly: 2^53 - 1.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// A handle: a number below 2^53, opaque to clients. A stale handle causes an error; it never
/// refers to another socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Handle(u64);

impl Handle {
    /// The handle with this number, or `None` above 2^53 - 1.
    pub fn new(number: u64) -> Option<Self> {
        (number <= MAX_SAFE_INTEGER).then_some(Self(number))
    }

    /// The number, as in JSON.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Handle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || serde::de::Error::custom("a handle is an integer from 0 to 2^53 - 1");
        let number = u64::deserialize(deserializer).map_err(|_other| wrong())?;
        Self::new(number).ok_or_else(wrong)
    }
}

impl schemars::JsonSchema for Handle {
    fn schema_name() -> Cow<'static, str> {
        "Handle".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "The handle of a socket in this session; opaque",
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_SAFE_INTEGER
        })
    }
}
