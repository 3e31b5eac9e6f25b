//! The names of interfaces for Wireshark: those of all brokers, unique, and usable as part of a file name.

use sockbroker_client::Origin;

use super::names::ALL;
use crate::failure::Failure;

/// What the names of all interfaces begin with, and the name of the one that is chosen by options.
const PREFIX: &str = "sockbroker";
/// Labels of brokers that are not hosts.
const USER: &str = "user";
const ENVIRONMENT: &str = "env";
/// The characters of names in addition to letters and digits. Others are encoded.
const PLAIN: &[u8] = b"._-";

/// An interface of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Interface {
    /// An interface, by its name, of a configured broker.
    Configured(Origin, String),
    /// The interface and the broker that options name.
    Chosen,
}

impl Interface {
    /// The name for Wireshark: `sockbroker-IFACE`, and `@` with a label of the broker.
    pub(super) fn value(&self) -> String {
        let Self::Configured(origin, name) = self else { return PREFIX.to_owned() };
        let name = encode(name);
        match origin {
            Origin::System => format!("{PREFIX}-{name}"),
            Origin::User => format!("{PREFIX}-{name}@{USER}"),
            Origin::Environment => format!("{PREFIX}-{name}@{ENVIRONMENT}"),
            Origin::Host(host) => format!("{PREFIX}-{name}@{}", encode_host(host)),
        }
    }

    /// The name for people.
    pub(super) fn display(&self) -> String {
        let Self::Configured(origin, name) = self else {
            return format!("{PREFIX}: the broker and the interface of your choice");
        };
        let name = if name == ALL { "all interfaces" } else { name };
        match origin {
            Origin::User => format!("{PREFIX}: {name} of your own broker"),
            Origin::Environment => format!("{PREFIX}: {name} of the broker of $SOCKBROKER"),
            Origin::Host(host) => format!("{PREFIX}: {name} on {host}"),
            Origin::System => format!("{PREFIX}: {name}"),
        }
    }

    /// Reads a name for Wireshark.
    pub(super) fn parse(value: &str) -> Result<Self, Failure> {
        if value == PREFIX {
            return Ok(Self::Chosen);
        }
        let unknown = || {
            Failure::usage(format!(
                "cannot use the interface {value:?}: its name is none of this program; \
                 `sockbroker-extcap --extcap-interfaces` lists the names"
            ))
        };
        let rest = value.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-'));
        let rest = rest.ok_or_else(unknown)?;
        let (name, label) = match rest.split_once('@') {
            Some((name, label)) => (name, Some(label)),
            None => (rest, None),
        };
        let name = decode(name).filter(|name| !name.is_empty()).ok_or_else(unknown)?;
        let origin = match label {
            None => Origin::System,
            Some(USER) => Origin::User,
            Some(ENVIRONMENT) => Origin::Environment,
            Some(host) => Origin::Host(decode(host).ok_or_else(unknown)?),
        };
        Ok(Self::Configured(origin, name))
    }
}

/// A host as a label, which differs from the other labels.
fn encode_host(host: &str) -> String {
    match host.as_bytes() {
        [first, rest @ ..] if [USER, ENVIRONMENT].contains(&host) => {
            format!("%{first:02x}{}", String::from_utf8_lossy(rest))
        }
        _ => encode(host),
    }
}

/// Replaces bytes that are not part of the name of a file everywhere by `%` and two digits.
fn encode(name: &str) -> String {
    let encoded = name.bytes().map(|byte| {
        if byte.is_ascii_alphanumeric() || PLAIN.contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02x}")
        }
    });
    encoded.collect()
}

fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_differ() {
        let host = |name: &str| Origin::Host(name.to_owned());
        let cases = [
            (Origin::System, "eth0.100", "sockbroker-eth0.100"),
            (Origin::System, "any", "sockbroker-any"),
            (Origin::System, "eth0@user", "sockbroker-eth0%40user"),
            (Origin::User, "eth0", "sockbroker-eth0@user"),
            (Origin::Environment, "eth0", "sockbroker-eth0@env"),
            (host("lab7"), "eth0", "sockbroker-eth0@lab7"),
            (host("user"), "eth0", "sockbroker-eth0@%75ser"),
            (host("env"), "}é%", "sockbroker-%7d%c3%a9%25@%65nv"),
        ];
        for (origin, name, value) in cases {
            let interface = Interface::Configured(origin, name.to_owned());
            assert_eq!(interface.value(), value);
            assert_eq!(Interface::parse(value).unwrap(), interface, "{value}");
        }
        assert_eq!(Interface::parse(&Interface::Chosen.value()).unwrap(), Interface::Chosen);
        for value in ["", "eth0", "sockbroker-", "sockbroker-%4", "sockbroker-%ff", "sockbroker-@a"]
        {
            let error = Interface::parse(value).unwrap_err().to_string();
            assert!(error.contains("--extcap-interfaces"), "{value}: {error}");
        }
    }
}
