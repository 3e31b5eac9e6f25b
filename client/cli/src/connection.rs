//! A connection to a broker. Its errors become one line: what failed, the name of the error, what to do.

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sockbroker_client::blocking::Broker;
use sockbroker_client::{Attempt, Endpoint, Error};
use sockbroker_proto::errno;

use crate::failure::{Exit, Failure};
use crate::global::Global;

/// The environment variable with the token of the session to use.
const SESSION: &str = "SOCKBROKER_SESSION";
/// How messages of the broker name its list of interfaces, and the command that prints it.
const INTERFACES_BY_CALL: &str = "socket.if_nameindex lists the interfaces";
const INTERFACES_BY_COMMAND: &str = "`sockbroker sniff -D` lists the interfaces";
/// The network namespace of this program.
pub(crate) const CALLER: &str = "caller";
/// The running program, even if an upgrade has replaced its file.
const SELF: &str = "/proc/self/exe";

/// A connection to a broker, in one session.
#[derive(Debug)]
pub(crate) struct Connection {
    broker: Broker,
    endpoint: String,
    /// The network namespace of sockets, names and interfaces; `None` for that of the broker.
    netns: Option<String>,
}

impl Connection {
    /// Connects like [`Connection::connect`], then attaches to the session that the command line or the
    /// environment names, if any. Only for calls in sequence: concurrent calls would use further connections
    /// of the library, which are not attached.
    pub(crate) fn open(global: &Global) -> Result<Self, Failure> {
        let connection = Self::connect(global)?;
        if let Some(token) = session_of(global).filter(|_| !global.persist) {
            connection.call("session.attach", json!({ "token": token }))?;
        }
        Ok(connection)
    }

    /// Connects like [`Connection::open`], for calls of several threads at once.
    pub(crate) fn open_shared(global: &Global) -> Result<Self, Failure> {
        if global.private || session_of(global).is_none() {
            return Self::open(global);
        }
        Self::to(Self::connector(global)?())
    }

    /// Connects to the broker that the command line or the environment names, else to the user's, else to the
    /// system's. With `--private` it starts one. The session is new.
    pub(crate) fn connect(global: &Global) -> Result<Self, Failure> {
        match (&global.broker, global.private) {
            (_, true) => Self::private(),
            (Some(text), _) => {
                let endpoint =
                    text.parse::<Endpoint>().map_err(|error| failure("--broker", &error))?;
                Self::to(Broker::connect_with(&endpoint, global.config()))
            }
            (None, _) => Self::to(
                Endpoint::find()
                    .and_then(|endpoint| Broker::connect_with(&endpoint, global.config())),
            ),
        }
    }

    /// Connects to a broker. The session is new.
    pub(crate) fn to_endpoint(endpoint: &Endpoint) -> Result<Self, Failure> {
        Self::to(Broker::connect_to(endpoint))
    }

    /// Starts this program as a private broker and connects to it.
    pub(crate) fn private() -> Result<Self, Failure> {
        let mut command = Command::new(SELF);
        // In its own process group, so that Ctrl-C reaches only this program, which ends the broker.
        command.arg0("sockbrokerd").args(["broker", "--stdio", "--built-in-policy"]);
        command.process_group(0);
        if std::env::var_os("SOCKBROKER_LOG").is_none() {
            command.env("SOCKBROKER_LOG", "error");
        }
        let mut connection = Self::to(Broker::spawn_command(command))?;
        "a private broker".clone_into(&mut connection.endpoint);
        Ok(connection)
    }

    /// The endpoint that [`Connection::connect`] would use, and a function that connects to it in the session that the
    /// command line or the environment names, else in a new one.
    pub(crate) fn connector(
        global: &Global,
    ) -> Result<impl Fn() -> sockbroker_client::Result<Broker> + Send + Sync + 'static, Failure>
    {
        let endpoint = match &global.broker {
            Some(text) => text.parse::<Endpoint>(),
            None => Endpoint::find(),
        };
        let endpoint = endpoint.map_err(|error| failure("--broker", &error))?;
        let (session, config) = (session_of(global), global.config());
        if config.is_persistent() && session.is_some() {
            let text = "--persist opens a session of its own, and SOCKBROKER_SESSION names another one: unset it";
            return Err(Failure::usage(text));
        }
        Ok(move || match &session {
            Some(token) => Broker::attach_to(&endpoint, token),
            None => Broker::connect_with(&endpoint, config),
        })
    }

    fn to(broker: Result<Broker, Error>) -> Result<Self, Failure> {
        let broker = broker.map_err(|error| failure("connect", &error))?;
        let endpoint = broker.endpoint().to_string();
        Ok(Self { broker, endpoint, netns: None })
    }

    /// Uses a network namespace.
    #[must_use]
    pub(crate) fn within(self, netns: Option<&String>) -> Self {
        Self { netns: netns.cloned(), ..self }
    }

    pub(crate) fn netns(&self) -> Option<&str> {
        self.netns.as_deref()
    }

    /// Calls a method that takes `netns`.
    pub(crate) fn call_within(
        &self,
        method: &str,
        mut parameters: Value,
    ) -> Result<Value, Failure> {
        if let Some(netns) = &self.netns {
            parameters["netns"] = json!(netns);
        }
        self.call(method, parameters)
    }

    /// `socket.getaddrinfo`. The names of the caller's own network namespace are those of this process.
    pub(crate) fn resolve(&self, mut parameters: Value) -> Result<Value, Failure> {
        let host = parameters["host"].as_str().map(str::to_owned);
        let name = host.filter(|host| host.parse::<IpAddr>().is_err() && !host.is_empty());
        let Some(name) = name.filter(|_| self.netns() == Some(CALLER)) else {
            return self.call_within("socket.getaddrinfo", parameters);
        };
        let mut rows = Vec::new();
        for address in own_addresses(&name, &parameters["family"])? {
            parameters["host"] = json!(address.to_string());
            let found = self.call_within("socket.getaddrinfo", parameters.clone())?;
            rows.extend(found.as_array().cloned().unwrap_or_default());
        }
        Ok(Value::Array(rows))
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The client library's handle, to create sockets.
    pub(crate) fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Calls a method by its wire name.
    pub(crate) fn call(&self, method: &str, parameters: Value) -> Result<Value, Failure> {
        self.broker.call(method, parameters).map_err(|error| failure(method, &error))
    }

    /// Calls a method and reads its result as the type that the contract documents.
    pub(crate) fn call_typed<T: DeserializeOwned>(
        &self,
        method: &str,
        parameters: Value,
    ) -> Result<T, Failure> {
        let result = self.call(method, parameters)?;
        decode(method, result)
    }
}

/// The token that the command line or the environment names.
fn session_of(global: &Global) -> Option<String> {
    let named = || std::env::var(SESSION).ok().filter(|token| !token.is_empty());
    global.session.clone().or_else(named)
}

/// The addresses that this process finds for a name.
#[expect(
    clippy::disallowed_methods,
    reason = "a name of its own network, which the broker cannot look up"
)]
fn own_addresses(name: &str, family: &Value) -> Result<Vec<IpAddr>, Failure> {
    let is_wanted = |address: &IpAddr| match family.as_str() {
        Some("AF_INET") => address.is_ipv4(),
        Some("AF_INET6") => address.is_ipv6(),
        _ => true,
    };
    let found = (name, 0)
        .to_socket_addrs()
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot resolve {name}: {error}")))?;
    Ok(found.map(|address| address.ip()).filter(is_wanted).collect())
}

/// Reads the result of a method as the type that the contract documents.
pub(crate) fn decode<T: DeserializeOwned>(method: &str, result: Value) -> Result<T, Failure> {
    serde_json::from_value(result).map_err(|error| {
        Failure::protocol(format!("{method}: cannot read the broker's answer: {error}"))
    })
}

/// Converts an error of the client library. `what` is the method or another operation that failed.
pub(crate) fn failure(what: &str, error: &Error) -> Failure {
    let errno = error.errno();
    let failed = |text: String| Failure::new(Exit::Failed, text).with_errno(errno);
    match error {
        Error::Os { errno, name, message, .. } => {
            let named = name.as_deref().map(|name| format!("{name}: ")).unwrap_or_default();
            let text = without_call_name(message);
            let text = &text.replace(INTERFACES_BY_CALL, INTERFACES_BY_COMMAND);
            // A message that says more than the system's text has the reason.
            let unexplained = errno.filter(|number| is_text_of(*number, text));
            let hint = unexplained.and_then(|number| hint(what, number));
            failed(format!("{what}: {named}{text}")).with_hint(hint)
        }
        Error::Resolver { name, message, .. } => {
            let named = name.as_deref().map(|name| format!("{name}: ")).unwrap_or_default();
            failed(format!("{what}: {named}{message}"))
        }
        Error::Denied { message, grant, errno: number, .. } => {
            let name = errno::name(*number).unwrap_or("EACCES");
            let lacks = match grant.as_deref() {
                // If no rule decided, the message already names the grant.
                Some(grant) if !message.contains(grant) => {
                    format!("; a rule that allows it has: {grant}")
                }
                Some(_) | None => String::new(),
            };
            failed(format!("{what}: {name}: {message}{lacks}")).denied()
        }
        Error::Timeout { .. } => failed(format!("{what}: timed out")).timed_out(),
        Error::Argument { message, .. } => {
            failed(format!("{what}: {message}; `sockbroker discover {what}` lists its parameters"))
        }
        Error::Method { message } => {
            failed(format!("{what}: {message}; `sockbroker discover` lists the methods"))
        }
        Error::Connect { attempts } => {
            let is_remote = matches!(attempts[..], [Attempt { endpoint: Endpoint::Ssh(_), .. }]);
            Failure::new(Exit::NoBroker, no_broker_message(attempts))
                .with_hint((!is_remote).then_some("or use --private"))
        }
        Error::Disconnected { message } => Failure::new(
            Exit::NoBroker,
            format!("{what}: the connection to the broker ended: {message}"),
        ),
        // This program cancels no calls, so the broker did.
        Error::Cancelled { .. } => Failure::new(
            Exit::NoBroker,
            format!(
                "{what}: the connection to the broker ended: the broker cancelled the call because it stops or restarts"
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
    if let [Attempt { endpoint: endpoint @ Endpoint::Ssh(_), reason, .. }] = attempts {
        return format!("no broker answers at {endpoint}: {reason}");
    }
    let denied = attempts.iter().any(|attempt| attempt.errno == Some(libc::EACCES));
    let hint = if denied {
        "only members of a group may connect (the shipped service: group sockbroker): log in as a member"
    } else {
        "start one with `sockbrokerd` or `systemctl start sockbrokerd.socket`"
    };
    let tried: Vec<_> = attempts.iter().map(tried).collect();
    format!("no broker answers; tried {}; {hint}", tried.join(" and "))
}

/// Returns the message without the name of its call, which the failure already has.
fn without_call_name(message: &str) -> &str {
    message
        .split_once(": ")
        .filter(|(call, _)| !call.contains(' '))
        .map_or(message, |(_, rest)| rest)
}

/// Whether this is the text of the system for an error number, which the broker writes in lower case.
fn is_text_of(number: i32, text: &str) -> bool {
    let known = io::Error::from_raw_os_error(number).to_string();
    known.rsplit_once(" (os error").is_some_and(|(known, _)| known.eq_ignore_ascii_case(text))
}

/// Returns what to do about a system error.
fn hint(what: &str, number: i32) -> Option<&'static str> {
    let is_creation = what.ends_with(".socket") || what == "capture.open";
    match number {
        libc::EPERM | libc::EACCES if is_creation => {
            Some("the broker lacks a capability: raw and packet sockets need CAP_NET_RAW")
        }
        libc::EACCES if what.ends_with("bind") || what.starts_with("bind to ") => Some(
            "the broker lacks a capability: ports below net.ipv4.ip_unprivileged_port_start (1024) need \
             CAP_NET_BIND_SERVICE; the service has it with the drop-in roles/ports.conf",
        ),
        libc::ENODEV => Some(INTERFACES_BY_COMMAND),
        libc::ECONNREFUSED => Some("no process listens at this address"),
        libc::EADDRINUSE => Some("another socket has this address"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_error_is_reported_by_name_with_a_hint() {
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
            "socket.connect: ECONNREFUSED: connection refused; no process listens at this address"
        );
        assert_eq!((failed.exit(), failed.errno()), (Exit::Failed, Some(111)));
    }

    #[test]
    fn without_a_broker_the_error_lists_sockets_and_how_to_start_one() {
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
    fn connect_denied_reports_the_group_and_not_how_to_start_a_broker() {
        let endpoint: Endpoint = "unix:/run/x".parse().unwrap();
        let attempt = Attempt { endpoint, reason: "permission denied".to_owned(), errno: Some(13) };
        let line = failure("connect", &Error::Connect { attempts: vec![attempt] }).to_string();
        assert!(line.contains("unix:/run/x (EACCES)") && line.contains("group"), "{line}");
        assert!(!line.contains("systemctl start"), "{line}");
    }
}
