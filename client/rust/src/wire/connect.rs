//! Connecting to an endpoint, up to the point where messages can be exchanged.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use sockbroker_proto::descriptors::Received;

use super::framing::Framing;
use super::tls;
use super::unix::{self, Interest, Readiness};
use crate::endpoint::Endpoint;
use crate::error::{Attempt, Error, Result};

/// How long a broker may take to accept a connection, and how long to answer its first call.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest head of a response to an upgrade request, in bytes.
const HEAD_BYTES_MAX: usize = 8192;

/// Connects to the socket of an endpoint and upgrades the connection to a WebSocket if the endpoint
/// asks for one. Each step takes at most [`CONNECT_TIMEOUT`].
pub(crate) fn connect(endpoint: &Endpoint) -> Result<UnixStream> {
    let connected = match endpoint {
        Endpoint::Unix(path) => unix::connect(path, CONNECT_TIMEOUT),
        Endpoint::Tls(target) => tls::connect(target, CONNECT_TIMEOUT),
        Endpoint::WebSocket(path) | Endpoint::Http(path) => {
            connect_http(path, Framing::of(endpoint))
        }
        Endpoint::Ssh(_) | Endpoint::Stdio(_) => Err(io::ErrorKind::Unsupported.into()),
    };
    connected.map_err(|error| Error::Connect { attempts: vec![Attempt::new(endpoint, &error)] })
}

fn connect_http(path: &Path, framing: Framing) -> io::Result<UnixStream> {
    let stream = unix::connect(path, CONNECT_TIMEOUT)?;
    let Some(request) = framing.upgrade_request() else { return Ok(stream) };
    let refused = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    if unix::send(&stream, &[IoSlice::new(request.as_bytes())], &[])? < request.len() {
        return Err(refused("the peer does not read the upgrade request"));
    }
    let deadline = Some(Instant::now() + CONNECT_TIMEOUT);
    let mut head = Vec::new();
    // Reads byte by byte so that no byte of the first message is consumed. `Sec-WebSocket-Accept` is
    // not checked: it guards against proxies, which a Unix socket does not have.
    while !head.ends_with(b"\r\n\r\n") {
        if unix::wait(&stream, Interest::Readable, deadline)? == Readiness::TimedOut {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut byte = [0];
        match unix::receive(&stream, &mut byte, &mut VecDeque::new()) {
            Ok(Received { bytes: 0, .. }) => {
                return Err(refused("the peer closed the connection during the upgrade"));
            }
            Ok(_) => head.extend(byte),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if head.len() > HEAD_BYTES_MAX {
            return Err(refused("the peer does not speak HTTP"));
        }
    }
    if head.starts_with(b"HTTP/1.1 101 ") {
        Ok(stream)
    } else {
        Err(refused("the peer refused the upgrade to a WebSocket"))
    }
}
