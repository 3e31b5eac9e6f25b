//! Which network namespace a call is about.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sockbroker_proto::api::values::{Netns as Selector, PassedNetns};

use crate::error::{Error, Result};

/// The word for the network namespace in which this process connected to the broker.
const CALLER: &str = "caller";

/// A network namespace other than that of the broker: with a name, or with a descriptor.
///
/// It is made from a text, as `"lab1".into()`, or from an [`OwnedFd`]. `"caller"` is [`Netns::caller`]; any other text is a
/// name of `ip netns list`. A descriptor, such as one of `/proc/PID/ns/net`, must be that of a namespace in a user
/// namespace of this user.
#[derive(Debug, Clone)]
pub struct Netns(Inner);

#[derive(Debug, Clone)]
enum Inner {
    Named(String),
    Passed(Arc<OwnedFd>),
}

impl Netns {
    /// The network namespace of the socket with which this process connected to the broker.
    pub fn caller() -> Self {
        Self(Inner::Named(CALLER.to_owned()))
    }

    /// The parameter of a call, and the descriptor that the call carries as its only one.
    pub(crate) fn parameter(&self) -> (Selector, Option<Result<OwnedFd>>) {
        match &self.0 {
            Inner::Named(name) => (Selector::Named(name.clone()), None),
            Inner::Passed(descriptor) => {
                let copy = descriptor.try_clone().map_err(|error| Error::native("dup", &error));
                (Selector::Passed(PassedNetns { descriptor: 0 }), Some(copy))
            }
        }
    }
}

impl From<&str> for Netns {
    fn from(name: &str) -> Self {
        Self(Inner::Named(name.to_owned()))
    }
}

impl From<String> for Netns {
    fn from(name: String) -> Self {
        Self(Inner::Named(name))
    }
}

impl From<OwnedFd> for Netns {
    fn from(descriptor: OwnedFd) -> Self {
        Self(Inner::Passed(Arc::new(descriptor)))
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Named(name) => f.write_str(name),
            Inner::Passed(_) => f.write_str("a passed network namespace"),
        }
    }
}
