//! The target of `tls://HOST[:PORT]`.

use std::fmt;

/// The port if none is named.
pub(crate) const DEFAULT_PORT: u16 = 7601;

/// A broker with a TLS port.
///
/// Its files are in `$XDG_CONFIG_HOME/sockbroker/HOST` (`~/.config/sockbroker/HOST`): `ca` (the authorities of its
/// certificate), `cert` and `key` (those of the client), or `token`. `$SOCKBROKER_TOKEN` precedes the files, and a certificate precedes the file of the token: a client sends one
/// of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsTarget {
    host: String,
    port: u16,
}

impl TlsTarget {
    /// Reads what follows `tls:`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let fail =
            |why: &str| Err(format!("tls:{text}: {why}: write tls://HOST or tls://HOST:PORT"));
        let Some(place) = text.strip_prefix("//") else { return fail("it has no host") };
        let place = place.strip_suffix('/').unwrap_or(place);
        if place.contains(['/', '?', '#', '@']) {
            return fail("it has more than a host and a port");
        }
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let Some(port) = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok()) else {
            return fail("the port is not a number below 65536");
        };
        if host.is_empty() || host.starts_with('.') {
            return fail("it has no host");
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// The host, a name or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for TlsTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "tls://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "tls://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_perhaps_a_port() {
        for (text, host, port, shown) in [
            ("//lab7", "lab7", DEFAULT_PORT, "tls://lab7:7601"),
            ("//lab7:80/", "lab7", 80, "tls://lab7:80"),
            ("//[::1]:443", "::1", 443, "tls://[::1]:443"),
            ("//[::1]", "::1", DEFAULT_PORT, "tls://[::1]:7601"),
        ] {
            let target = TlsTarget::parse(text).unwrap();
            assert_eq!(
                (target.host(), target.port(), target.to_string().as_str()),
                (host, port, shown)
            );
        }
        for text in [
            "lab7",
            "//",
            "//:80",
            "//lab7:x",
            "//lab7:70000",
            "//me@lab7",
            "//lab7/path",
            "//../x",
        ] {
            assert!(TlsTarget::parse(text).is_err(), "{text}");
        }
    }
}
