//! Connecting to an endpoint, up to where messages can be exchanged.

use std::io::{self, IoSlice};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use sockbroker_proto::descriptors::Received;

use super::framing::Framing;
use super::unix::{self, Ready, Wanted};
use crate::endpoint::Endpoint;
use crate::error::{Attempt, Error, Result};

/// How long a broker may take to accept a connection and to answer its first call.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The longest answer to the request for an upgrade.
const HEAD: usize = 8192;

/// Connects to the socket of an endpoint, and upgrades the connection where that is needed. It waits
/// for [`LONGEST_WAIT`] at most.
pub(crate) fn connect(endpoint: &Endpoint) -> Result<UnixStream> {
    let connected = match endpoint {
        Endpoint::Unix(path) => unix::connect(path, LONGEST_WAIT),
        Endpoint::WebSocket(path) | Endpoint::Http(path) => upgraded(path, Framing::of(endpoint)),
        Endpoint::Stdio(_) => Err(io::ErrorKind::Unsupported.into()),
    };
    connected.map_err(|error| Error::Connect { attempts: vec![Attempt::new(endpoint, &error)] })
}

fn upgraded(path: &Path, framing: Framing) -> io::Result<UnixStream> {
    let stream = unix::connect(path, LONGEST_WAIT)?;
    let Some(request) = framing.upgrade() else { return Ok(stream) };
    let refused = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    if unix::send(&stream, &[IoSlice::new(request.as_bytes())], &[])? < request.len() {
        return Err(refused("it takes no request"));
    }
    let deadline = Some(Instant::now() + LONGEST_WAIT);
    let mut answer = Vec::new();
    // Byte by byte, so that nothing of what follows is taken. The proof of the key is left
    // unread: it guards against proxies, which a Unix socket does not have.
    while !answer.ends_with(b"\r\n\r\n") {
        if unix::wait(&stream, Wanted::Input, deadline)? == Ready::Nothing {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut byte = [0];
        match unix::receive(&stream, &mut byte, &mut std::collections::VecDeque::new()) {
            Ok(Received { bytes: 0, .. }) => return Err(refused("it closed the connection")),
            Ok(_) => answer.extend(byte),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if answer.len() > HEAD {
            return Err(refused("it does not speak HTTP"));
        }
    }
    if answer.starts_with(b"HTTP/1.1 101 ") { Ok(stream) } else { Err(refused("no WebSocket")) }
}
