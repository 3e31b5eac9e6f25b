//! The address of a broker and the protocol that it is spoken to with.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::ssh_target::SshTarget;
use crate::tls_target::TlsTarget;

/// The address of a broker, and the protocol of its connections.
///
/// | text | payload | restrictions |
/// |---|---|---|
/// | `unix:PATH`, or a path | raw, with descriptors | |
/// | `ssh://[USER@]HOST[:PORT][/PATH]` | raw | no descriptors; needs ssh |
/// | `tls://HOST[:PORT]` | raw | no descriptors; needs the files of [`TlsTarget`] |
/// | `stdio:COMMAND ARGS` | raw; descriptors if the command is `sockbrokerd` itself | one connection, which all threads share |
/// | `ws+unix:PATH` | base64 | no descriptors |
/// | `http+unix:PATH` | base64 | no descriptors; one call at a time on each connection; cancelling a call ends the connection |
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
    /// A Unix socket, with LSP framing. It supports everything that the broker can do.
    Unix(PathBuf),
    /// A socket of another host, through ssh. The user of the login is the caller. It needs nothing on the
    /// other host if sshd can forward sockets, else the program `sockbroker`.
    Ssh(SshTarget),
    /// The TLS port of a broker on another host. The name of the certificate or of the token is the caller.
    Tls(TlsTarget),
    /// A program and its arguments, which serves its standard input and output, such as
    /// `sockbrokerd --stdio` or `ssh host sockbrokerd --stdio`. In text the words are separated by
    /// white space; there is no quoting and no shell.
    Stdio(Vec<OsString>),
    /// A Unix socket, with a WebSocket.
    WebSocket(PathBuf),
    /// A Unix socket, with HTTP POST.
    Http(PathBuf),
}

/// The file name of the broker's program.
const BROKER: &str = "sockbrokerd";

impl Endpoint {
    /// Whether descriptors are lost on the way: a program other than the broker's copies the bytes.
    pub(crate) fn is_relayed(&self) -> bool {
        match self {
            Self::Unix(_) | Self::WebSocket(_) | Self::Http(_) => false,
            Self::Ssh(_) | Self::Tls(_) => true,
            Self::Stdio(words) => {
                let program = words.first().map(Path::new).and_then(Path::file_name);
                program != Some(OsStr::new(BROKER))
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Ssh(target) => target.fmt(f),
            Self::Tls(target) => target.fmt(f),
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
