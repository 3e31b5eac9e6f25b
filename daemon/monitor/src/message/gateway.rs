//! The messages between the monitor and the gateway.

use serde::{Deserialize, Serialize};
use sockbroker_policy::subject::RemoteIdentity;

use super::Build;
use crate::channel::{Channel, Message};

/// The names of a certificate that are used.
pub const NAMES_MAX: usize = 16;
/// The longest name of a certificate or a token in bytes.
pub const NAME_MAX: usize = 255;
/// The longest reason in bytes.
pub const REASON_MAX: usize = 4096;
/// The rules that a token can name.
pub const RULES_MAX: usize = 64;

/// From the monitor to the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGateway {
    Hello(Build),
    /// A socket that listens. Descriptor: the socket. These come before `Begin`.
    Listener,
    /// What the gateway begins with: the user and the group that it becomes; `None` if it stays the broker's. Descriptors:
    /// the text of the configuration, and the credentials (sealed memory). The gateway answers `InForce`.
    Begin {
        id: Option<u32>,
        generation: u64,
    },
    /// New credentials. Descriptor: the credentials (sealed memory). The gateway answers `InForce`.
    Credentials {
        generation: u64,
    },
    /// The answer to `Connection`: a worker gets the connection, which the monitor calls so.
    Passed {
        request: u64,
        connection: u64,
    },
    /// The answer to `Connection`: why it is closed.
    Refused {
        request: u64,
        reason: String,
    },
    /// Accepts no further connections. The gateway ends with the last one, or with the monitor.
    Stop,
}

/// From the gateway to the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGateway {
    Hello(Build),
    /// The gateway serves with the credentials of this generation.
    InForce {
        generation: u64,
    },
    /// The credentials of this generation cannot be used: those before stay in force.
    Unusable {
        generation: u64,
        reason: String,
    },
    /// A client has authenticated itself. Descriptor: the connection to it. The monitor answers `Passed` or `Refused`.
    Connection {
        request: u64,
        identity: RemoteIdentity,
    },
    /// A connection that the monitor passed has to end, and the client is to learn why.
    End {
        connection: u64,
        reason: String,
    },
    /// New credentials do not admit a client of an earlier `Connection`.
    NotAdmitted {
        identity: RemoteIdentity,
    },
}

impl FromGateway {
    /// Whether a message contains nothing that could not come from an authenticated client.
    pub fn is_plausible(&self) -> bool {
        match self {
            Self::Connection { identity, .. } | Self::NotAdmitted { identity } => {
                is_plausible_identity(identity)
            }
            Self::Unusable { reason, .. } | Self::End { reason, .. } => reason.len() <= REASON_MAX,
            Self::Hello(_) | Self::InForce { .. } => true,
        }
    }
}

fn is_plausible_identity(identity: &RemoteIdentity) -> bool {
    let is_name =
        |name: &String| !name.is_empty() && name.len() <= NAME_MAX && name.chars().all(is_plain);
    match identity {
        RemoteIdentity::Certificate { names } => {
            (1..=NAMES_MAX).contains(&names.len()) && names.iter().all(is_name)
        }
        RemoteIdentity::Token { name, rules } => {
            let are_names = |rules: &Vec<String>| {
                rules.len() <= RULES_MAX && rules.iter().all(|rule| is_rule(rule))
            };
            is_name(name) && rules.as_ref().is_none_or(are_names)
        }
    }
}

/// Whether a text can be the name of a rule.
pub fn is_rule(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX && !name.chars().any(char::is_control)
}

/// Whether a character can be in a name: a blank separates names in messages.
pub fn is_plain(character: char) -> bool {
    !character.is_control() && !character.is_whitespace()
}

impl Message for ToGateway {
    fn descriptors(&self) -> usize {
        match self {
            Self::Begin { .. } => 2,
            Self::Listener | Self::Credentials { .. } => 1,
            Self::Hello(_) | Self::Passed { .. } | Self::Refused { .. } | Self::Stop => 0,
        }
    }
}

impl Message for FromGateway {
    fn descriptors(&self) -> usize {
        match self {
            Self::Connection { .. } => 1,
            Self::Hello(_)
            | Self::InForce { .. }
            | Self::Unusable { .. }
            | Self::End { .. }
            | Self::NotAdmitted { .. } => 0,
        }
    }
}

/// The monitor's end of the channel to the gateway.
pub type GatewayChannel = Channel<ToGateway, FromGateway>;
/// The gateway's end.
pub type ChannelOfGateway = Channel<FromGateway, ToGateway>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_client_can_have_are_nonsense() {
        let message = |identity| FromGateway::Connection { request: 1, identity };
        let certificate = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            message(RemoteIdentity::Certificate { names })
        };
        assert!(certificate(&["uri:a", "dns:b"]).is_plausible());
        let long = "x".repeat(NAME_MAX + 1);
        for names in [&[][..], &[""], &["a b"], &["a\n"], &[&long], &["a"; NAMES_MAX + 1]] {
            assert!(!certificate(names).is_plausible(), "{names:?}");
        }
        let token = |rules: usize| {
            let rules = Some(vec!["r".to_owned(); rules]);
            message(RemoteIdentity::Token { name: "ci".to_owned(), rules })
        };
        assert!(token(RULES_MAX).is_plausible() && !token(RULES_MAX + 1).is_plausible());
    }
}
