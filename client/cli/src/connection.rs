//! The way to a broker, and its errors on one line: what failed, the error by name, what to do.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sockbroker_client::blocking::Broker;
use sockbroker_client::{Attempt, Endpoint, Error};
use sockbroker_proto::errno;

use crate::failure::{Exit, Failure};
use crate::global::Global;

/// The variable that names the session to use.
const SESSION: &str = "SOCKBROKER_SESSION";
/// This very program, also if its file was replaced since.
const SELF: &str = "/proc/self/exe";

/// A broker, and a session with it.
#[derive(Debug)]
pub(crate) struct Connection {
    broker: Broker,
    endpoint: String,
}

impl Connection {
    /// A way to the broker that [`Connection::connect`] finds, in the session that the command line or the
    /// environment says, if one does. For calls one after the other only: the library then uses one
    /// connection, which is moved.
    pub(crate) fn open(global: &Global) -> Result<Self, Failure> {
        let connection = Self::connect(global)?;
        let named = || std::env::var(SESSION).ok().filter(|token| !token.is_empty());
        if let Some(token) = global.session.clone().or_else(named) {
            connection.call("session.attach", json!({ "token": token }))?;
        }
        Ok(connection)
    }

    /// Finds the broker that the command line or the environment says, else the user's or the
    /// system's; or starts one. In a session of its own.
    pub(crate) fn connect(global: &Global) -> Result<Self, Failure> {
        match (&global.broker, global.private) {
            (_, true) => Self::private(),
            (Some(text), _) => {
                let endpoint =
                    text.parse::<Endpoint>().map_err(|error| failure("--broker", &error))?;
                Self::to(Broker::connect_to(&endpoint))
            }
            (None, _) => Self::to(Broker::connect()),
        }
    }

    /// Starts a broker of one's own: this program in its other part.
    pub(crate) fn private() -> Result<Self, Failure> {
        let mut command = Command::new(SELF);
        // In a group of its own: Ctrl-C is for this program, which ends the broker when it is done.
        command.arg0("sockbrokerd").args(["broker", "--stdio", "--built-in-policy"]);
        command.process_group(0);
        if std::env::var_os("SOCKBROKER_LOG").is_none() {
            command.env("SOCKBROKER_LOG", "error");
        }
        let mut connection = Self::to(Broker::spawn_command(command))?;
        "a private broker".clone_into(&mut connection.endpoint);
        Ok(connection)
    }

    fn to(broker: Result<Broker, Error>) -> Result<Self, Failure> {
        let broker = broker.map_err(|error| failure("connect", &error))?;
        let endpoint = broker.endpoint().to_string();
        Ok(Self { broker, endpoint })
    }

    /// Where the broker is.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The broker, for sockets.
    pub(crate) fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Calls a method by its wire name.
    pub(crate) fn call(&self, method: &str, parameters: Value) -> Result<Value, Failure> {
        self.broker.call(method, parameters).map_err(|error| failure(method, &error))
    }

    /// Calls a method whose result has a type.
    pub(crate) fn call_typed<T: DeserializeOwned>(
        &self,
        method: &str,
        parameters: Value,
    ) -> Result<T, Failure> {
        let result = self.call(method, parameters)?;
        decode(method, result)
    }
}

/// Reads the result of a method as the type that the contract documents.
pub(crate) fn decode<T: DeserializeOwned>(method: &str, result: Value) -> Result<T, Failure> {
    serde_json::from_value(result).map_err(|error| {
        Failure::protocol(format!("{method}: cannot read the broker's answer: {error}"))
    })
}

/// An error of the library for people. `what` is the method, or what else was tried.
pub(crate) fn failure(what: &str, error: &Error) -> Failure {
    let errno = error.errno();
    let failed = |text: String| Failure::new(Exit::Failed, text).with_errno(errno);
    match error {
        Error::Os { errno, name, message, .. } => {
            let named = name.as_deref().map(|name| format!("{name}: ")).unwrap_or_default();
            let hint = errno.and_then(|number| hint(what, number));
            failed(format!("{what}: {named}{}", without_call_name(message))).with_hint(hint)
        }
        Error::Resolver { name, message, .. } => {
            let named = name.as_deref().map(|name| format!("{name}: ")).unwrap_or_default();
            failed(format!("{what}: {named}{message}"))
        }
        Error::Denied { message, grant, errno: number, .. } => {
            let name = errno::name(*number).unwrap_or("EACCES");
            let lacks = match grant.as_deref() {
                // Where no rule decided, the message has it.
                Some(grant) if !message.contains(grant) => {
                    format!("; a rule that allows it has: {grant}")
                }
                Some(_) | None => String::new(),
            };
            failed(format!("{what}: {name}: {message}{lacks}")).denied()
        }
        Error::Timeout { .. } => failed(format!("{what}: timed out")).timed_out(),
        Error::Argument { message, .. } => {
            failed(format!("{what}: {message}; `sockbroker discover {what}` tells its parameters"))
        }
        Error::Method { message } => {
            failed(format!("{what}: {message}; `sockbroker discover` lists the methods"))
        }
        Error::Connect { attempts } => Failure::new(Exit::NoBroker, no_broker_message(attempts)),
        Error::Disconnected { message } => {
            Failure::new(Exit::NoBroker, format!("{what}: the broker is gone: {message}"))
        }
        // This program cancels nothing itself.
        Error::Cancelled { .. } => Failure::new(
            Exit::NoBroker,
            format!(
                "{what}: the broker is gone: it ended the call, because it stops or was upgraded"
            ),
        ),
        Error::Endpoint { message } => Failure::usage(format!("{what}: {message}")),
        Error::Protocol { .. } => Failure::protocol(format!("{what}: {error}")),
        other => failed(format!("{what}: {other}")),
    }
}

fn no_broker_message(attempts: &[Attempt]) -> String {
    let tried = |attempt: &Attempt| {
        let name = attempt.errno.and_then(errno::name);
        format!("{} ({})", attempt.endpoint, name.unwrap_or(&attempt.reason))
    };
    let denied = attempts.iter().any(|attempt| attempt.errno == Some(libc::EACCES));
    let hint = if denied {
        "its socket is for a group (sockbroker, with the shipped service): log in as a member"
    } else {
        "start one with `sockbrokerd` or `systemctl start sockbrokerd.socket`"
    };
    let tried: Vec<_> = attempts.iter().map(tried).collect();
    format!("no broker answers; tried {}; {hint}, or give --private", tried.join(" and "))
}

/// A message without the name of its call, which stands before it anyway.
fn without_call_name(message: &str) -> &str {
    message
        .split_once(": ")
        .filter(|(call, _)| !call.contains(' '))
        .map_or(message, |(_, rest)| rest)
}

/// What to do about an error of the system.
fn hint(what: &str, number: i32) -> Option<&'static str> {
    let is_creation = what.ends_with(".socket");
    match number {
        libc::EPERM | libc::EACCES if is_creation => {
            Some("the broker lacks a capability: raw and packet sockets need CAP_NET_RAW")
        }
        libc::EACCES if what.ends_with("bind") || what.starts_with("bind to ") => Some(
            "the broker lacks a capability: ports below net.ipv4.ip_unprivileged_port_start (1024) need \
             CAP_NET_BIND_SERVICE; the service has it with the drop-in roles/ports.conf",
        ),
        libc::ENODEV => Some("`sockbroker call socket.if_nameindex` lists the interfaces"),
        libc::ECONNREFUSED => Some("nobody listens there"),
        libc::EADDRINUSE => Some("another socket has this address"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_is_told_by_name_with_what_to_do() {
        let error = Error::Os {
            errno: Some(111),
            name: Some("ECONNREFUSED".to_owned()),
            call: "connect".to_owned(),
            message: "connect: connection refused".to_owned(),
            sent: None,
        };
        let failed = failure("socket.connect", &error);
        assert_eq!(
            failed.to_string(),
            "socket.connect: ECONNREFUSED: connection refused; nobody listens there"
        );
        assert_eq!((failed.exit(), failed.errno()), (Exit::Failed, Some(111)));
    }

    #[test]
    fn without_a_broker_the_sockets_are_told_and_how_to_start_one() {
        let endpoint: Endpoint = "unix:/run/x".parse().unwrap();
        let attempt = Attempt { endpoint, reason: "no such file".to_owned(), errno: Some(2) };
        let failed = failure("connect", &Error::Connect { attempts: vec![attempt] });
        assert_eq!(failed.exit(), Exit::NoBroker);
        let line = failed.to_string();
        for part in ["unix:/run/x (ENOENT)", "sockbrokerd", "systemctl start", "--private"] {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn who_may_not_connect_is_told_of_the_group_and_not_to_start_another_broker() {
        let endpoint: Endpoint = "unix:/run/x".parse().unwrap();
        let attempt = Attempt { endpoint, reason: "permission denied".to_owned(), errno: Some(13) };
        let line = failure("connect", &Error::Connect { attempts: vec![attempt] }).to_string();
        assert!(line.contains("unix:/run/x (EACCES)") && line.contains("group"), "{line}");
        assert!(!line.contains("systemctl start"), "{line}");
    }
}
