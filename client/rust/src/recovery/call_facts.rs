//! What recovery has to know of a call: which rule applies to it, its socket, and how much it sends.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use sockbroker_proto::handle::Handle;

use crate::error::Error;
use crate::request::Request;

/// `MSG_OOB`: urgent data has a place of its own in the stream.
const MSG_OOB: i64 = 1;
const MSG_PEEK: i64 = 2;

/// What is done with a call whose process has ended before the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// It has no effect, or the same when repeated.
    Repeat,
    /// `socket.poll`: it is repeated, and ends with an empty list at its timeout.
    Poll,
    /// It is repeated; a missing handle means that it is done.
    Close,
    /// It is repeated; a missing handle means that its result is lost.
    Detach,
    /// The handle that it made names it.
    Create,
    /// The same, for a socket that came from the network.
    Accept,
    /// The socket shows whether it took effect.
    Bind,
    /// The same.
    Connect,
    /// The position in the stream shows how much it sent.
    Send,
    /// The same for what it received.
    Receive,
    /// Nothing shows whether it took effect.
    Unknown,
}

impl CallKind {
    pub(crate) fn of(method: &str) -> Self {
        let Some(name) = method.strip_prefix("socket.") else {
            return match method {
                "session.info" | "session.limits" | "session.handles" | "session.restrict"
                | "session.close" | "capture.stats" | "capture.interfaces" | "rpc.discover" => {
                    Self::Repeat
                }
                _ if method.starts_with("broker.") || method.starts_with("policy.") => Self::Repeat,
                _ => Self::Unknown,
            };
        };
        match name {
            "poll" => Self::Poll,
            "close" => Self::Close,
            "detach" => Self::Detach,
            "socket" | "socketpair" | "dup" | "fromfd" | "create_connection" | "create_server" => {
                Self::Create
            }
            "accept" => Self::Accept,
            "bind" => Self::Bind,
            "connect" => Self::Connect,
            "send" | "sendall" | "sendto" | "sendmsg" | "sendfile" => Self::Send,
            "recv" | "recv_into" | "recvfrom" | "recvfrom_into" | "recvmsg" | "recvmsg_into" => {
                Self::Receive
            }
            "setsockopt" | "settimeout" | "setdefaulttimeout" | "setblocking"
            | "set_inheritable" | "listen" | "shutdown" | "attributes" | "fileno" | "delegate"
            | "ioctl" | "attach_filter" | "detach_filter" | "constants" | "has_dualstack_ipv6" => {
                Self::Repeat
            }
            _ if ["get", "if_", "hton", "ntoh", "inet_", "CMSG_"]
                .iter()
                .any(|start| name.starts_with(start)) =>
            {
                Self::Repeat
            }
            _ => Self::Unknown,
        }
    }

    /// Whether the timeout of the socket bounds it.
    pub(crate) fn has_timeout(self) -> bool {
        matches!(self, Self::Accept | Self::Connect | Self::Send | Self::Receive)
    }
}

/// A call.
#[derive(Debug, Clone)]
pub(crate) struct CallFacts {
    pub(crate) method: String,
    pub(crate) kind: CallKind,
    /// The socket, if its first parameter is one.
    pub(crate) handle: Option<Handle>,
    /// How many bytes a send carries.
    pub(crate) length: u64,
    /// Whether a receive leaves the data in the queue.
    pub(crate) peeks: bool,
    /// Whether it concerns urgent data, descriptors or other ancillary data.
    pub(crate) is_special: bool,
    /// What `settimeout` sets, and how long `poll` waits: seconds, `None` for no limit.
    pub(crate) timeout: Option<f64>,
}

impl CallFacts {
    pub(crate) fn of<P: Serialize>(request: &Request<'_, P>) -> Self {
        let method = request.method.to_owned();
        let kind = CallKind::of(&method);
        let params = serde_json::to_value(&request.params).unwrap_or_default();
        let first = params.get(0).or_else(|| params.get("handle"));
        let handle = first.and_then(Value::as_u64).and_then(Handle::new);
        let flags_at = match (kind, method.as_str()) {
            (CallKind::Receive, "socket.recvmsg") | (CallKind::Send, "socket.sendmsg") => 3,
            (CallKind::Receive | CallKind::Send, _) => 2,
            _ => usize::MAX,
        };
        let flags = params.get(flags_at).and_then(Value::as_i64).unwrap_or_default();
        let ancillary =
            params.get(2).and_then(Value::as_array).is_some_and(|items| !items.is_empty());
        Self {
            kind,
            handle: if kind == CallKind::Create && method != "socket.dup" { None } else { handle },
            length: request.attachments().iter().map(|part| part.len() as u64).sum(),
            peeks: kind == CallKind::Receive && flags & MSG_PEEK != 0,
            is_special: flags & MSG_OOB != 0 || (method == "socket.sendmsg" && ancillary),
            timeout: match method.as_str() {
                "socket.settimeout" | "socket.poll" => params.get(1).and_then(Value::as_f64),
                _ => None,
            },
            method,
        }
    }

    /// How long `poll` waits.
    pub(crate) fn poll_limit(&self) -> Option<Duration> {
        let seconds = self.timeout.filter(|_| self.kind == CallKind::Poll)?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// The name of the call without its namespace, as in other errors.
    pub(crate) fn call(&self) -> String {
        self.method.rsplit('.').next().unwrap_or_default().to_owned()
    }

    /// The error of a call whose effect is not known. `detail` is what is known of it.
    pub(crate) fn interrupted(&self, detail: &str) -> Error {
        let call = self.call();
        let on = self.handle.map(|handle| format!(" of socket {handle}")).unwrap_or_default();
        let message = format!("the broker was restarted during {call}{on}: {detail}");
        Error::Interrupted { call, handle: self.handle, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constant::Flags;
    use crate::request::Attachments;

    #[test]
    fn kinds_follow_the_table_of_the_protocol() {
        for (method, kind) in [
            ("socket.getsockname", CallKind::Repeat),
            ("socket.sethostname", CallKind::Unknown),
            ("socket.recvmmsg", CallKind::Unknown),
            ("socket.sendmmsg", CallKind::Unknown),
            ("socket.close", CallKind::Close),
            ("socket.create_server", CallKind::Create),
            ("session.open", CallKind::Unknown),
            ("session.handles", CallKind::Repeat),
            ("capture.replay", CallKind::Unknown),
        ] {
            assert_eq!(CallKind::of(method), kind, "{method}");
        }
    }

    #[test]
    fn facts_are_read_from_the_parameters() {
        let request = Request::new("socket.send", (7, Value::Null, Flags::NONE))
            .with_attachments(Attachments::One([b"abc"]));
        let facts = CallFacts::of(&request);
        assert_eq!((facts.handle, facts.length, facts.is_special), (Handle::new(7), 3, false));
        let facts = CallFacts::of(&Request::new("socket.recv", (7, 9, Flags::PEEK)));
        assert!(facts.peeks && !facts.is_special);
        let facts = CallFacts::of(&Request::new("socket.settimeout", (7, 0.5)));
        assert_eq!((facts.timeout, facts.poll_limit()), (Some(0.5), None));
        let facts = CallFacts::of(&Request::new("socket.poll", (Vec::<u8>::new(), 2.5)));
        assert_eq!((facts.handle, facts.poll_limit()), (None, Some(Duration::from_millis(2500))));
        // The first parameter is an address family, not a handle.
        assert_eq!(CallFacts::of(&Request::new("socket.socket", (2, 1, 0))).handle, None);
    }
}
