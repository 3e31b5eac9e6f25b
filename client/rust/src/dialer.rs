//! Connections to a broker as plain streams, for programs that speak the protocol themselves.

use std::os::unix::net::UnixStream;

use crate::endpoint::Endpoint;
use crate::error::{Attempt, Error, Result};
use crate::wire::connect::{CONNECT_TIMEOUT, connect};
use crate::wire::ssh::{self, Connected, Forward};
use crate::wire::{tls, unix};

/// Opens connections to a broker that carry its protocol, without speaking it. Descriptors pass only to a broker of
/// this machine.
#[derive(Debug)]
pub struct Dialer {
    endpoint: Endpoint,
    forward: Option<Forward>,
}

impl Dialer {
    /// Prepares connections to an endpoint. For `ssh://`, this logs in, and the login ends with the value.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if the endpoint cannot be reached, or serves only one connection: `stdio:`, and `ssh://` where
    /// sshd does not forward sockets; for `tls://` with a token, which the program would have to send.
    pub fn new(endpoint: &Endpoint) -> Result<Self> {
        let forward = match endpoint {
            Endpoint::Unix(_) => None,
            Endpoint::Tls(target) => match tls::has_token(target) {
                Ok(false) => None,
                Ok(true) => {
                    let reason = "a token stands in messages, which are not those of this client: use a certificate";
                    return Err(refused(endpoint, reason));
                }
                Err(error) => return Err(refused(endpoint, &error.to_string())),
            },
            Endpoint::Ssh(target) => match ssh::connect(target)? {
                Connected::Forward(forward) => Some(forward),
                Connected::Program(..) => {
                    return Err(refused(
                        endpoint,
                        "sshd there does not forward sockets, and one connection is not enough",
                    ));
                }
            },
            Endpoint::Stdio(_) | Endpoint::WebSocket(_) | Endpoint::Http(_) => {
                return Err(refused(endpoint, "use unix:PATH, ssh://HOST or tls://HOST"));
            }
        };
        Ok(Self { endpoint: endpoint.clone(), forward })
    }

    /// Whether the login has ended, and with it all connections.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.forward.as_ref().is_some_and(Forward::has_ended)
    }

    /// Opens a connection. Reads and writes of it block.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`], or [`Error::Disconnected`] if ssh has ended.
    pub fn dial(&self) -> Result<UnixStream> {
        let stream = match &self.forward {
            None => connect(&self.endpoint),
            Some(forward) => {
                unix::connect(&forward.socket(), CONNECT_TIMEOUT).map_err(|_error| forward.lost())
            }
        }?;
        // The time limit of connecting would also limit writes. The call cannot fail on a socket.
        drop(stream.set_write_timeout(None));
        Ok(stream)
    }
}

fn refused(endpoint: &Endpoint, reason: &str) -> Error {
    let attempt = Attempt { endpoint: endpoint.clone(), reason: reason.to_owned(), errno: None };
    Error::Connect { attempts: vec![attempt] }
}
