//! The supervisor's view of the broker: three calls, and what their failures mean for the program.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::thread::{Timespec, nanosleep};
use sockbroker_client::blocking::Broker;
use sockbroker_client::option::RawValue;
use sockbroker_client::{Domain, Error, Protocol, Result, Type};
use sockbroker_proto::api::delegation::Program;

use crate::decision::NewSocket;

/// How long a call of the broker may take. Then the program's call is made natively.
const CALL_TIME: Duration = Duration::from_mins(1);

/// The network namespace in which this process connected to the broker.
pub(crate) const CALLER: &str = "caller";

/// Why the broker did not do a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The policy refuses it.
    Denied { rule: String, grant: Option<String>, errno: i32 },
    /// The kernel refused it to the broker.
    Kernel { errno: i32, message: String },
    /// The broker cannot do it now.
    Unavailable { message: String },
}

impl Failure {
    /// The error number of a call that nobody else makes.
    pub(crate) fn errno(&self) -> i32 {
        match self {
            Self::Denied { errno, .. } | Self::Kernel { errno, .. } => *errno,
            Self::Unavailable { .. } => libc::ENETDOWN,
        }
    }
}

/// Connects to the same broker again.
type Reconnect = Box<dyn Fn() -> Result<Broker> + Send + Sync>;

/// A broker, which may restart.
pub(crate) struct Delegation {
    broker: Mutex<Broker>,
    reconnect: Reconnect,
    /// The network namespace of new sockets.
    netns: String,
    /// Waits before each call, for tests.
    delay: Duration,
}

impl std::fmt::Debug for Delegation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Delegation")
    }
}

impl Delegation {
    /// Sockets are made in the network namespace with this name; without one, in that of this process.
    pub(crate) fn new(
        broker: Broker,
        reconnect: Reconnect,
        netns: Option<&str>,
        delay: Duration,
    ) -> Self {
        broker.set_call_timeout(Some(CALL_TIME));
        let netns = netns.unwrap_or(CALLER).to_owned();
        Self { broker: Mutex::new(broker), reconnect, netns, delay }
    }

    pub(crate) fn socket(
        &self,
        new: NewSocket,
        program: &Program,
    ) -> std::result::Result<OwnedFd, Failure> {
        let kind = new.kind | if new.nonblocking { libc::SOCK_NONBLOCK } else { 0 };
        self.call(|broker| {
            let (domain, protocol) = (Domain::from(new.family), Protocol::from(new.protocol));
            let program = Some(program.clone());
            broker.namespace(&*self.netns).delegate(domain, Type::from(kind), protocol, program)
        })
    }

    pub(crate) fn bind(
        &self,
        socket: BorrowedFd<'_>,
        address: SocketAddr,
        program: &Program,
    ) -> std::result::Result<(), Failure> {
        self.call(|broker| broker.apply_bind(socket, address, Some(program.clone())))
    }

    pub(crate) fn set_option(
        &self,
        socket: BorrowedFd<'_>,
        place: (i32, i32),
        value: &RawValue,
        program: &Program,
    ) -> std::result::Result<(), Failure> {
        self.call(|broker| {
            broker.apply_option_raw(socket, place, value.clone(), Some(program.clone()))
        })
    }

    /// Makes a call, and once more if the broker was restarted.
    fn call<T>(&self, call: impl Fn(&Broker) -> Result<T>) -> std::result::Result<T, Failure> {
        if !self.delay.is_zero() {
            let pause = self.delay.try_into().unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
            drop(nanosleep(&pause));
        }
        let broker = self.broker();
        match call(&broker) {
            Err(Error::Disconnected { .. } | Error::Session { .. } | Error::Connect { .. }) => {
                let broker = (self.reconnect)().map_err(|error| meaning(&error))?;
                broker.set_call_timeout(Some(CALL_TIME));
                // A refusal is the answer to a later call.
                drop(enter(&broker, &self.netns));
                broker.clone_into(&mut self.broker.lock().unwrap_or_else(PoisonError::into_inner));
                call(&broker).map_err(|error| meaning(&error))
            }
            result => result.map_err(|error| meaning(&error)),
        }
    }

    fn broker(&self) -> Broker {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Selects a network namespace with a name: the broker then judges calls on sockets in it by the name. Does nothing for
/// that of this process.
pub(crate) fn enter(broker: &Broker, netns: &str) -> Result<()> {
    if netns == CALLER {
        return Ok(());
    }
    let (domain, ty) = (Domain::from(libc::AF_INET), Type::from(libc::SOCK_DGRAM));
    match broker.namespace(netns).delegate(domain, ty, Protocol::from(0), None) {
        // Perhaps the policy grants other sockets.
        Ok(_) | Err(Error::Denied { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What an error of the client means for the program.
fn meaning(error: &Error) -> Failure {
    match error {
        Error::Denied { rule, grant, errno, .. } => {
            Failure::Denied { rule: rule.clone(), grant: grant.clone(), errno: *errno }
        }
        Error::Os { errno: Some(errno), message, .. } => {
            Failure::Kernel { errno: *errno, message: message.clone() }
        }
        other => Failure::Unavailable { message: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_client_are_refusals_errors_or_absence() {
        let denied = Error::Denied {
            rule: "ports".to_owned(),
            grant: Some("g".to_owned()),
            errno: 13,
            call: "apply".to_owned(),
            message: String::new(),
        };
        let expected =
            Failure::Denied { rule: "ports".to_owned(), grant: Some("g".to_owned()), errno: 13 };
        assert_eq!(meaning(&denied), expected);
        assert_eq!(expected.errno(), 13);
        let taken = Error::Os {
            errno: Some(98),
            name: None,
            call: "bind".to_owned(),
            message: "in use".to_owned(),
            sent: None,
        };
        let expected = Failure::Kernel { errno: 98, message: "in use".to_owned() };
        assert_eq!(meaning(&taken), expected);
        let late = Error::Timeout { call: "socket.apply".to_owned(), sent: None };
        assert!(matches!(meaning(&late), Failure::Unavailable { .. }));
        assert_eq!(meaning(&late).errno(), libc::ENETDOWN);
    }
}
