//! What became of the calls in progress of a process that has ended.
//!
//! The rules are those of PROTOCOL.md, "Persistent sessions". The asynchronous face runs this on a thread.

use std::sync::Mutex;

use serde_json::{Value, json};
use sockbroker_proto::api::admin::{HandleInfo, Maker};
use sockbroker_proto::api::session::{CallState, RequestId};
use sockbroker_proto::bytes::decode_base64;
use sockbroker_proto::handle::Handle;

use super::attach::ends_connection;
use super::connection::Connection;
use super::first_call::{call_within, run_within};
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::operation;
use crate::recovery::{
    CallFacts, CallKind, INFO_BYTES, Position, Settling, Streams, is_tcp, send_result,
};
use crate::wire::connect::CONNECT_TIMEOUT;
use crate::wire::response::OwnedResponse;

/// How often the position of a stream is read until nothing moves meanwhile.
const READINGS_MAX: usize = 100;

/// `SOCK_DGRAM`, `SOCK_RAW` and `SOCK_PACKET`, whose data may be lost on their way anyway; `AF_UNIX`, whose data not.
const LOSSY_TYPES: [i64; 3] = [2, 3, 10];
const AF_UNIX: i64 = 1;

/// A call whose connection ended before its response.
#[derive(Debug)]
pub(crate) struct LostCall<'a> {
    pub(crate) facts: &'a CallFacts,
    /// Its connection and its id, as `call.resolve` names it, and the process that served it.
    pub(crate) connection: u64,
    pub(crate) id: u64,
    pub(crate) epoch: u64,
    /// How many of its bytes earlier attempts have sent.
    pub(crate) skipped: u64,
    /// Whether other sends are resolved in the order in which they began.
    pub(crate) is_ordered: bool,
}

/// What became of a call.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It had no effect, or may have it twice.
    Repeat,
    /// It sent this many further bytes; the others have to follow.
    Continue(u64),
    /// Its response, and how many bytes that its result counts are recorded already.
    Answered(OwnedResponse, u64),
}

impl Verdict {
    fn of_result(result: &str) -> Self {
        Self::Answered(OwnedResponse::of_result(result), 0)
    }
}

impl LostCall<'_> {
    /// Finds out what became of the call, on a connection to the process `epoch`.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] if nobody knows; an error of [`ends_connection`] if this connection has ended too.
    pub(crate) fn resolve(
        &self,
        connection: &Connection,
        epoch: u64,
        streams: &Mutex<Streams>,
    ) -> Result<Verdict> {
        if self.epoch == epoch {
            return self.kept(connection, streams);
        }
        match self.facts.kind {
            CallKind::Repeat | CallKind::Poll | CallKind::Close | CallKind::Detach => {
                Ok(Verdict::Repeat)
            }
            CallKind::Create | CallKind::Accept => self.created(connection),
            CallKind::Bind => self.bound(connection),
            CallKind::Connect => self.connected(connection),
            CallKind::Receive => self.received(connection, streams),
            CallKind::Send => self.sent(connection, epoch, streams),
            CallKind::Unknown => Err(self.unknown()),
        }
    }

    fn unknown(&self) -> Error {
        self.facts.interrupted("whether this call took effect is not known")
    }

    /// An error of a call that recovery makes: it says nothing of the lost call.
    fn failed(&self, error: Error) -> Error {
        if ends_connection(&error) || matches!(error, Error::Handle { .. }) {
            return error;
        }
        self.facts
            .interrupted(&format!("whether this call took effect is not known, because {error}"))
    }

    /// The process is the same and keeps the response.
    fn kept(&self, connection: &Connection, streams: &Mutex<Streams>) -> Result<Verdict> {
        let resolve = operation::resolve_call(self.connection, self.id);
        let found =
            run_within(CONNECT_TIMEOUT, connection, resolve).map_err(|error| self.failed(error))?;
        match (found.state, found.answer) {
            (CallState::Answered, Some(answer)) => Ok(Verdict::Answered(answer, 0)),
            (CallState::Unknown, _) => Ok(Verdict::Repeat),
            (CallState::Cancelled, _) => Ok(self.stopped(found.sent, streams)),
            (CallState::Answered | CallState::Interrupted, _) => Err(self.unknown()),
        }
    }

    /// The broker has cancelled the call, which sent this many bytes.
    pub(crate) fn stopped(&self, sent: u64, streams: &Mutex<Streams>) -> Verdict {
        if sent == 0 || self.facts.kind != CallKind::Send {
            return Verdict::Repeat;
        }
        let is_all = self.skipped + sent >= self.facts.length;
        if let Some(result) = send_result(self.facts, sent, is_all) {
            // The end of the call counts it.
            return Verdict::of_result(&result);
        }
        lock(streams).add_sent(self.facts.handle, sent);
        Verdict::Continue(sent)
    }

    /// Looks for the sockets that the call made.
    fn created(&self, connection: &Connection) -> Result<Verdict> {
        let handles: Vec<HandleInfo> =
            call_within(CONNECT_TIMEOUT, connection, "session.handles", ())
                .map_err(|error| self.failed(error))?;
        let maker = Maker { connection: self.connection, request: RequestId::Number(self.id) };
        let mut made: Vec<_> =
            handles.into_iter().filter(|info| info.maker.as_ref() == Some(&maker)).collect();
        let wanted = if self.facts.method == "socket.socketpair" { 2 } else { 1 };
        if made.len() != wanted {
            for info in made {
                call(connection, "socket.close", (info.handle,))?;
            }
            return Ok(Verdict::Repeat);
        }
        made.sort_by_key(|info| info.handle);
        let mut sockets: Vec<_> = made.iter().map(|info| self.created_value(info)).collect();
        let value =
            if wanted == 2 { Value::Array(sockets) } else { sockets.pop().unwrap_or_default() };
        Ok(Verdict::of_result(&value.to_string()))
    }

    fn created_value(&self, info: &HandleInfo) -> Value {
        let mut value = json!({
            "handle": info.handle,
            "family": info.family,
            "type": info.r#type,
            "proto": info.proto,
            "timeout": info.timeout,
        });
        if self.facts.kind == CallKind::Accept {
            value["address"] = json!(info.peer);
        }
        value
    }

    /// Whether a socket of the Internet or of a path has an address.
    fn bound(&self, connection: &Connection) -> Result<Verdict> {
        let name = call(connection, "socket.getsockname", (self.facts.handle,));
        let name = name.map_err(|error| self.failed(error))?;
        let has_port = name.get(1).and_then(Value::as_u64).is_some_and(|port| port != 0);
        let has_path = name.as_str().is_some_and(|path| !path.is_empty()) || name.is_object();
        // What has no name is bound again.
        Ok(if has_port || has_path { Verdict::of_result("null") } else { Verdict::Repeat })
    }

    /// Whether the socket has a peer, or why it has none. A connection in progress continues when the call is repeated.
    fn connected(&self, connection: &Connection) -> Result<Verdict> {
        match call(connection, "socket.getpeername", (self.facts.handle,)) {
            Ok(_) => return Ok(Verdict::of_result("null")),
            Err(Error::Os { .. }) => {}
            Err(error) => return Err(self.failed(error)),
        }
        let found =
            call(connection, "socket.getsockopt", (self.facts.handle, "SOL_SOCKET", "SO_ERROR"));
        let errno = found.map_err(|error| self.failed(error))?.as_i64().unwrap_or_default();
        match i32::try_from(errno) {
            Ok(errno) if errno != 0 => {
                Err(Error::native("connect", &std::io::Error::from_raw_os_error(errno)))
            }
            _ => Ok(Verdict::Repeat),
        }
    }

    fn attributes(&self, connection: &Connection) -> Result<Value> {
        let found = call(connection, "socket.attributes", (self.facts.handle,));
        found.map_err(|error| self.failed(error))
    }

    /// Finds out the position of the socket's stream; `false` if it was found out before.
    fn find(
        &self,
        connection: &Connection,
        epoch: u64,
        streams: &Mutex<Streams>,
    ) -> Result<Option<bool>> {
        let Some(handle) = self.facts.handle else { return Ok(None) };
        match lock(streams).needs_position(handle, epoch) {
            Some(true) => {}
            other => return Ok(other),
        }
        let position = position(connection, handle).map_err(|error| self.failed(error))?;
        let mut streams = lock(streams);
        match position {
            Some(position) => streams.found(handle, epoch, position),
            None => streams.forget(Some(handle)),
        }
        Ok(Some(true))
    }

    /// The broker knows how much the program has received before the call is repeated ([`settle`]).
    fn received(&self, connection: &Connection, streams: &Mutex<Streams>) -> Result<Verdict> {
        if self.facts.peeks {
            return Ok(Verdict::Repeat);
        }
        let socket = self.attributes(connection)?;
        let number = |name: &str| socket.get(name).and_then(Value::as_i64).unwrap_or_default();
        if LOSSY_TYPES.contains(&number("type")) && number("family") != AF_UNIX {
            return Ok(Verdict::Repeat);
        }
        let lost = self.facts.handle.and_then(|handle| lock(streams).readers.take_error(handle));
        if let Some(Error::Interrupted { message, .. }) = lost {
            return Err(self.facts.interrupted(&message));
        }
        let is_reader =
            self.facts.handle.is_some_and(|handle| lock(streams).readers.contains(handle));
        if is_tcp(&socket) && is_reader {
            return Ok(Verdict::Repeat);
        }
        Err(self.facts.interrupted("whether it received data is not known"))
    }

    fn sent(
        &self,
        connection: &Connection,
        epoch: u64,
        streams: &Mutex<Streams>,
    ) -> Result<Verdict> {
        let (Some(handle), false) = (self.facts.handle, self.facts.is_special) else {
            return Err(self.unknown());
        };
        let socket = self.attributes(connection)?;
        if !is_tcp(&socket) || self.find(connection, epoch, streams)?.is_none() {
            return Err(self.unknown());
        }
        let length = self.facts.length - self.skipped;
        match lock(streams).sent(handle, length, self.is_ordered) {
            None => Err(self.unknown()),
            Some(0) if length > 0 => Ok(Verdict::Repeat),
            Some(sent) => Ok(match send_result(self.facts, sent, sent == length) {
                Some(result) => Verdict::Answered(OwnedResponse::of_result(&result), sent),
                None => Verdict::Continue(sent),
            }),
        }
    }
}

/// Reports to the process `epoch` how many bytes the program has received from a connection. An error of
/// [`ends_connection`] if this connection has ended; [`Error::Interrupted`] if received bytes are lost, or may come twice.
pub(crate) fn settle(
    connection: &Connection,
    (handle, received): (Handle, Option<u64>),
    epoch: u64,
    streams: &Mutex<Streams>,
) -> Result<()> {
    match call(connection, "socket.resume", (handle, received)) {
        Err(error) if ends_connection(&error) => Err(error),
        answer => lock(streams).readers.settle(handle, epoch, answer),
    }
}

/// Before a call that receives, or waits until there is something to receive: reports to the process how much the program has
/// received. `Wait` if that is not known yet. Errors are those of [`settle`].
pub(super) fn settle_before(
    facts: &CallFacts,
    connection: &Connection,
    streams: &Mutex<Streams>,
) -> Result<Settling> {
    let epoch = connection.identity().1;
    let receives = facts.kind == CallKind::Receive;
    let handles = match facts.kind {
        CallKind::Receive => facts.handle.into_iter().collect(),
        CallKind::Poll => lock(streams).readers.unsettled(epoch),
        _ => return Ok(Settling::Done),
    };
    for handle in handles {
        let settling = lock(streams).readers.settling(handle, epoch);
        let received = match settling {
            Settling::Done => continue,
            Settling::Wait => return Ok(Settling::Wait),
            Settling::Ask(received) => received,
        };
        match settle(connection, (handle, received), epoch, streams) {
            Err(Error::Interrupted { message, .. }) if receives => {
                return Err(facts.interrupted(&message));
            }
            // The next receive from that socket reports it.
            Err(error @ Error::Interrupted { .. }) => {
                lock(streams).readers.report_later(handle, error);
            }
            other => other?,
        }
    }
    let lost = facts.handle.filter(|_| receives);
    match lost.and_then(|handle| lock(streams).readers.take_error(handle)) {
        Some(Error::Interrupted { message, .. }) => Err(facts.interrupted(&message)),
        Some(error) => Err(error),
        None => Ok(Settling::Done),
    }
}

/// A call that recovery makes.
fn call(connection: &Connection, method: &str, params: impl serde::Serialize) -> Result<Value> {
    call_within(CONNECT_TIMEOUT, connection, method, params)
}

/// The position of a stream; `None` if it moves all the time.
fn position(connection: &Connection, handle: Handle) -> Result<Option<Position>> {
    let info = || {
        let params = (handle, "IPPROTO_TCP", "TCP_INFO", INFO_BYTES);
        let text: String = call_within(CONNECT_TIMEOUT, connection, "socket.getsockopt", params)?;
        decode_base64(&text).map_err(Error::protocol)
    };
    let queued = |request: &str| -> Result<u64> {
        call_within(CONNECT_TIMEOUT, connection, "socket.ioctl", (handle, request))
    };
    let mut before = info()?;
    for _ in 0..READINGS_MAX {
        let unsent = queued("SIOCOUTQ")?;
        let after = info()?;
        if Position::is_same(&before, &after)? {
            return Position::of(&after, unsent).map(Some);
        }
        before = after;
    }
    Ok(None)
}

/// The result of a repeated call: an earlier attempt may have succeeded.
pub(crate) fn settle_repeated<T>(
    facts: &CallFacts,
    result: Result<T>,
    done: impl FnOnce(&mut OwnedResponse) -> Result<T>,
) -> Result<T> {
    const EISCONN: i32 = 106;
    match (facts.kind, result) {
        (CallKind::Close, Err(Error::Handle { .. })) => done(&mut OwnedResponse::of_result("null")),
        (CallKind::Connect, Err(Error::Os { errno: Some(EISCONN), .. })) => {
            done(&mut OwnedResponse::of_result("null"))
        }
        (CallKind::Poll, Err(Error::Timeout { .. })) => done(&mut OwnedResponse::of_result("[]")),
        (CallKind::Detach, Err(Error::Handle { .. })) => {
            Err(facts.interrupted("its descriptor is lost, and the socket is closed"))
        }
        (_, result) => result,
    }
}
