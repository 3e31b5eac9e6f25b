//! Where a broker is: spelt as text, or looked for in the usual places.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Attempt, Error, Result};

/// The socket of the broker that the system runs.
const SYSTEM_SOCKET: &str = "/run/sockbroker/socket";
/// The name of a user's own socket in the runtime directory.
const USER_SOCKET: &str = "sockbroker.socket";
/// The variable that names the endpoint to use.
const VARIABLE: &str = "SOCKBROKER";

/// Where a broker is, and how it is spoken to.
///
/// | spelling | carries | what it cannot |
/// |---|---|---|
/// | `unix:PATH`, or a bare path | bytes raw, descriptors | |
/// | `stdio:COMMAND ARGS` | bytes raw; descriptors if the command is the broker itself | one connection, which all threads share |
/// | `ws+unix:PATH` | bytes as base64 | descriptors |
/// | `http+unix:PATH` | bytes as base64; one call at a time on a connection | descriptors, cancelling |
///
/// ```
/// use sockbroker_client::Endpoint;
///
/// let endpoint: Endpoint = "unix:/run/sockbroker/socket".parse()?;
/// assert_eq!(endpoint, Endpoint::Unix("/run/sockbroker/socket".into()));
/// assert_eq!("/run/sockbroker/socket".parse::<Endpoint>()?, endpoint);
/// assert_eq!(endpoint.to_string(), "unix:/run/sockbroker/socket");
/// # Ok::<(), sockbroker_client::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A Unix socket, spoken to with LSP framing: everything the broker can do.
    Unix(PathBuf),
    /// A command that serves its standard input and output, such as `sockbrokerd --stdio` or
    /// `ssh host sockbrokerd --stdio`: the program and its arguments. In text they are divided at
    /// blanks, without a shell and without quotes.
    Stdio(Vec<OsString>),
    /// A Unix socket, spoken to as a WebSocket.
    WebSocket(PathBuf),
    /// A Unix socket, spoken to with HTTP POST.
    Http(PathBuf),
}

impl Endpoint {
    /// The endpoint to use where nobody names one: `$SOCKBROKER` if it is set; else the user's own
    /// socket, `$XDG_RUNTIME_DIR/sockbroker.socket`; else the system's, `/run/sockbroker/socket`. Of
    /// the last two the first that accepts a connection.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] with every socket that was tried, or [`Error::Endpoint`] for a
    /// `$SOCKBROKER` that is none.
    pub fn find() -> Result<Self> {
        if let Some(named) = Self::named()? {
            return Ok(named);
        }
        let mut attempts = Vec::new();
        for path in Self::usual_sockets() {
            match UnixStream::connect(&path) {
                Ok(_probe) => return Ok(Self::Unix(path)),
                Err(error) => attempts.push(Attempt::new(&Self::Unix(path), &error)),
            }
        }
        Err(Error::Connect { attempts })
    }

    /// What `$SOCKBROKER` says, if it says anything.
    fn named() -> Result<Option<Self>> {
        match std::env::var_os(VARIABLE) {
            None => Ok(None),
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => match text.to_str() {
                Some(text) => text.parse().map(Some),
                None => Err(Error::Endpoint { message: format!("${VARIABLE} is not UTF-8") }),
            },
        }
    }

    /// The user's socket and the system's.
    fn usual_sockets() -> Vec<PathBuf> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
        let user = runtime.map(|folder| Path::new(&folder).join(USER_SOCKET));
        user.into_iter().chain([PathBuf::from(SYSTEM_SOCKET)]).collect()
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
            Some(("ws+unix", rest)) => path(rest).map(Self::WebSocket),
            Some(("http+unix", rest)) => path(rest).map(Self::Http),
            Some(("stdio", rest)) => {
                let words: Vec<_> = rest.split_whitespace().map(OsString::from).collect();
                if words.is_empty() { fail("has no command") } else { Ok(Self::Stdio(words)) }
            }
            _ if text.starts_with(['/', '.']) => path(text).map(Self::Unix),
            Some((scheme, _)) if !scheme.contains('/') => {
                fail("is no endpoint: unix:PATH, stdio:COMMAND, ws+unix:PATH or http+unix:PATH")
            }
            _ if text.contains('/') => path(text).map(Self::Unix),
            _ => fail("is neither a path nor an endpoint such as unix:PATH"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::WebSocket(path) => write!(f, "ws+unix:{}", path.display()),
            Self::Http(path) => write!(f, "http+unix:{}", path.display()),
            Self::Stdio(words) => {
                let words: Vec<_> = words.iter().map(|word| OsStr::to_string_lossy(word)).collect();
                write!(f, "stdio:{}", words.join(" "))
            }
        }
    }
}

impl From<PathBuf> for Endpoint {
    fn from(path: PathBuf) -> Self {
        Self::Unix(path)
    }
}

impl From<&Path> for Endpoint {
    fn from(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_reads_back_as_it_is_written() {
        for (text, endpoint) in [
            ("unix:/run/s", Endpoint::Unix("/run/s".into())),
            ("unix:relative", Endpoint::Unix("relative".into())),
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
    fn what_is_no_endpoint_is_refused_with_what_would_be_one() {
        for (text, part) in [
            ("unix:", "has no path"),
            ("stdio: ", "has no command"),
            ("tcp:host:1", "ws+unix:PATH"),
            ("socket", "neither a path"),
            ("", "neither a path"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
