//! Finding a broker: endpoints as text, and the sockets that are tried without one.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::endpoint::Endpoint;
use crate::error::{Attempt, Error, Result};
use crate::host_files;
use crate::ssh_target::SshTarget;
use crate::tls_target::TlsTarget;

/// The socket of the system's broker.
const SYSTEM_SOCKET: &str = "/run/sockbroker/socket";
/// The name of the socket of a user's broker, in the user's runtime directory.
const USER_SOCKET: &str = "sockbroker.socket";
/// The environment variable that names an endpoint.
const VARIABLE: &str = "SOCKBROKER";

/// Where a broker is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `$SOCKBROKER` names it.
    Environment,
    /// It is the user's broker.
    User,
    /// It is the system's broker.
    System,
    /// It is on another host, for which the user has configured how ssh reaches it.
    Host(String),
}

impl Endpoint {
    /// All brokers that the user has configured, whether they run or not: the user's, the system's, that of `$SOCKBROKER` if
    /// it is another one, and one for each host with a file `$XDG_CONFIG_HOME/sockbroker/HOST/ssh_config`, sorted by
    /// name.
    ///
    /// # Errors
    ///
    /// [`Error::Endpoint`] if `$SOCKBROKER` is not an endpoint.
    pub fn configured() -> Result<Vec<(Origin, Self)>> {
        let mut found = Vec::new();
        if let Some(path) = Self::user_socket() {
            found.push((Origin::User, Self::Unix(path)));
        }
        found.push((Origin::System, Self::Unix(PathBuf::from(SYSTEM_SOCKET))));
        let named = Self::from_environment()?;
        for host in host_files::hosts() {
            // A folder whose name is not the name of a host configures nothing.
            if let Ok(endpoint) = format!("ssh://{host}").parse() {
                found.push((Origin::Host(host), endpoint));
            }
        }
        if let Some(named) = named.filter(|named| found.iter().all(|(_, other)| other != named)) {
            found.push((Origin::Environment, named));
        }
        Ok(found)
    }

    /// The endpoint to use where none is named: `$SOCKBROKER` if it is set and not empty; otherwise the
    /// first of `$XDG_RUNTIME_DIR/sockbroker.socket` (the user's broker) and `/run/sockbroker/socket`
    /// (the system's broker) that accepts a connection.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] with every socket that was tried. [`Error::Endpoint`] if `$SOCKBROKER` is not
    /// an endpoint.
    pub fn find() -> Result<Self> {
        if let Some(named) = Self::from_environment()? {
            return Ok(named);
        }
        let mut attempts = Vec::new();
        for path in Self::default_sockets() {
            match UnixStream::connect(&path) {
                Ok(_probe) => return Ok(Self::Unix(path)),
                Err(error) => attempts.push(Attempt::new(&Self::Unix(path), &error)),
            }
        }
        Err(Error::Connect { attempts })
    }

    fn from_environment() -> Result<Option<Self>> {
        match std::env::var_os(VARIABLE) {
            None => Ok(None),
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => match text.to_str() {
                Some(text) => text.parse().map(Some),
                None => Err(Error::Endpoint { message: format!("${VARIABLE} is not UTF-8") }),
            },
        }
    }

    fn default_sockets() -> Vec<PathBuf> {
        Self::user_socket().into_iter().chain([PathBuf::from(SYSTEM_SOCKET)]).collect()
    }

    fn user_socket() -> Option<PathBuf> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
        runtime.map(|folder| Path::new(&folder).join(USER_SOCKET))
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fail = |why: &str| Err(Error::Endpoint { message: format!("{text:?} {why}") });
        let path = |path: &str| match path {
            "" => Err(Error::Endpoint { message: format!("{text:?} has no path") }),
            path => Ok(PathBuf::from(path)),
        };
        match text.split_once(':') {
            Some(("unix", rest)) => path(rest).map(Self::Unix),
            Some(("ssh", rest)) => {
                SshTarget::parse(rest).map(Self::Ssh).map_err(|message| Error::Endpoint { message })
            }
            Some(("tls", rest)) => {
                TlsTarget::parse(rest).map(Self::Tls).map_err(|message| Error::Endpoint { message })
            }
            Some(("ws+unix", rest)) => path(rest).map(Self::WebSocket),
            Some(("http+unix", rest)) => path(rest).map(Self::Http),
            Some(("stdio", rest)) => {
                let words: Vec<_> = rest.split_whitespace().map(OsString::from).collect();
                if words.is_empty() { fail("has no command") } else { Ok(Self::Stdio(words)) }
            }
            _ if text.starts_with(['/', '.']) => path(text).map(Self::Unix),
            Some((scheme, _)) if !scheme.contains('/') => fail(
                "is not an endpoint: use unix:PATH, ssh://HOST, tls://HOST:PORT, stdio:COMMAND, ws+unix:PATH or http+unix:PATH",
            ),
            _ if text.contains('/') => path(text).map(Self::Unix),
            _ => fail("is neither a path nor an endpoint such as unix:PATH"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_parsed_and_displayed() {
        for (text, endpoint) in [
            ("unix:/run/s", Endpoint::Unix("/run/s".into())),
            ("unix:relative", Endpoint::Unix("relative".into())),
            (
                "ssh://me@lab7:22/run/s",
                Endpoint::Ssh(SshTarget::parse("//me@lab7:22/run/s").unwrap()),
            ),
            ("tls://lab7:80", Endpoint::Tls(TlsTarget::parse("//lab7:80").unwrap())),
            ("ws+unix:/run/s", Endpoint::WebSocket("/run/s".into())),
            ("http+unix:/run/s", Endpoint::Http("/run/s".into())),
            (
                "stdio:ssh host sockbrokerd --stdio",
                Endpoint::Stdio(["ssh", "host", "sockbrokerd", "--stdio"].map(Into::into).into()),
            ),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap(), endpoint);
            assert_eq!(endpoint.to_string(), text);
        }
        for bare in ["/run/s", "./s", "run/s:1"] {
            assert_eq!(bare.parse::<Endpoint>().unwrap(), Endpoint::Unix(bare.into()));
        }
    }

    #[test]
    fn invalid_endpoints_are_refused_with_advice() {
        for (text, part) in [
            ("unix:", "has no path"),
            ("stdio: ", "has no command"),
            ("tcp:host:1", "ws+unix:PATH"),
            ("ssh:lab7", "use ssh://"),
            ("socket", "neither a path"),
            ("", "neither a path"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
