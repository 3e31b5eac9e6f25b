//! Passes the frames of one client on, and answers `channel.open` with descriptors.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::{Value, json};
use sockbroker_client::Dialer;
use sockbroker_proto::error::ErrorKind;
use sockbroker_sys::{poll, stream};

use crate::agent::channel::{self, LocalEnd, Wanted};
use crate::agent::framed::{Frame, Reader};
use crate::agent::open_channels::OpenChannels;
use crate::agent::pair::{self, Pair};
use crate::agent::users::User;

/// The error of a call that would pass descriptors to or from the remote broker.
const NO_DESCRIPTORS: &str = "descriptors cannot reach a broker of another machine: channel.open, want_channel, fileno and detach return one for a stream";
/// The most channels of one connection whose request the broker has not answered; a further one is refused.
const CHANNELS_WAITING: usize = 256;
/// The parameters of `channel.open` in their order.
const OPEN: [&str; 5] = ["handle", "want_fd", "framing", "direction", "close"];

/// One client of the agent.
#[derive(Debug)]
pub(super) struct Relay {
    dialer: Arc<Dialer>,
    user: User,
    pair: Pair,
    /// The channels that were asked for, by the ids of their requests as JSON.
    waiting: Mutex<HashMap<String, Asked>>,
    channels: OpenChannels,
}

/// How a client asked for a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// By `channel.open`.
    Open(Wanted),
    /// By `want_channel` of a call that returns a new socket.
    WithSocket,
    /// By `socket.fileno` and `socket.detach`: the broker first answers `socket.attributes`.
    Attributes(Detached),
    /// The same, when the socket is a stream.
    Stream(Detached),
}

/// A handle whose descriptor a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Detached {
    handle: u64,
    /// Whether the handle is closed with the descriptor.
    close: bool,
}

impl Relay {
    pub(super) fn new(dialer: Arc<Dialer>, user: User, pair: Pair) -> Self {
        Self { dialer, user, pair, waiting: Mutex::default(), channels: OpenChannels::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Asked>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a client until it or the broker closes.
    pub(super) fn run(&self, client: &UnixStream) {
        // The first byte selects the framing, as for the broker.
        let waited = poll::poll_for(&[(client.as_fd(), libc::POLLIN)], None);
        let first = waited.and_then(|_| stream::peek_byte(client.as_fd()));
        let Ok(Some(first)) = first else { return };
        if !first.eq_ignore_ascii_case(&b'c') {
            // One line, which a client with newline-delimited JSON can read.
            let error = json!({ "code": -32600, "message": "the agent speaks LSP framing" });
            let line = json!({ "jsonrpc": "2.0", "id": null, "error": error });
            drop(writeln!(&*client, "{line}"));
            return;
        }
        let Ok(broker) = self.dialer.dial() else { return };
        let Ok(requests) = broker.try_clone() else { return };
        let (requests, answers) = (Arc::new(Mutex::new(requests)), Mutex::new(client));
        thread::scope(|scope| {
            scope.spawn(|| {
                // An error is the end of the connection too.
                drop(self.pass_requests(client, &requests, &answers));
                self.channels.wait();
                drop(broker.shutdown(Shutdown::Write));
            });
            drop(self.pass_answers(&broker, &requests, &answers));
            drop(client.shutdown(Shutdown::Both));
            drop(broker.shutdown(Shutdown::Both));
        });
    }

    fn pass_requests(
        &self,
        client: &UnixStream,
        requests: &Mutex<UnixStream>,
        answers: &Mutex<&UnixStream>,
    ) -> io::Result<()> {
        let mut reader = Reader::new(client);
        while let Some(mut frame) = reader.next()? {
            if frame.head.descriptors > 0 {
                let message = serde_json::from_slice::<Value>(frame.json()).unwrap_or_default();
                if let Some(id) = message.get("id") {
                    refusal(id).write(&lock(answers), &[])?;
                }
                continue;
            }
            if let Err(answer) = self.note_channel(&mut frame) {
                answer.write(&lock(answers), &[])?;
                continue;
            }
            frame.write(&lock(requests), &[])?;
        }
        Ok(())
    }

    /// Notes a request for a channel, and makes it one for a token. The error is the answer to a request that is refused.
    fn note_channel(&self, frame: &mut Frame) -> Result<(), Frame> {
        let words = ["channel.open", "want_channel", "socket.fileno", "socket.detach"];
        if !words.iter().any(|word| contains(frame.json(), word.as_bytes())) {
            return Ok(());
        }
        let Ok(mut message) = serde_json::from_slice::<Value>(frame.json()) else { return Ok(()) };
        let Some(id) = message.get("id").cloned() else { return Ok(()) };
        let method = message.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(params) = message.get_mut("params") else { return Ok(()) };
        let asked = match &*method {
            "channel.open" => without_descriptor(params),
            "socket.fileno" => attributes_of(params, false),
            "socket.detach" => attributes_of(params, true),
            _ => with_socket(params),
        };
        let Some(asked) = asked else { return Ok(()) };
        if matches!(asked, Asked::Attributes(_)) {
            message["method"] = json!("socket.attributes");
        }
        let mut waiting = self.waiting();
        if waiting.len() >= CHANNELS_WAITING {
            return Err(too_many(&id));
        }
        waiting.insert(id.to_string(), asked);
        let attachments = frame.body.split_off(frame.head.content_length);
        frame.body = message.to_string().into_bytes();
        frame.head.content_length = frame.body.len();
        frame.body.extend(attachments);
        Ok(())
    }

    fn pass_answers(
        &self,
        broker: &UnixStream,
        requests: &Arc<Mutex<UnixStream>>,
        answers: &Mutex<&UnixStream>,
    ) -> io::Result<()> {
        let mut reader = Reader::new(broker);
        while let Some(frame) = reader.next()? {
            if frame.head.descriptors > 0 {
                // ssh has dropped them: the answer would wait for them for ever.
                let message = serde_json::from_slice::<Value>(frame.json()).unwrap_or_default();
                refusal(message.get("id").unwrap_or(&Value::Null)).write(&lock(answers), &[])?;
                continue;
            }
            if self.waiting().is_empty() {
                frame.write(&lock(answers), &[])?;
                continue;
            }
            let mut message = serde_json::from_slice::<Value>(frame.json()).unwrap_or_default();
            let id = message.get("id").map(Value::to_string).unwrap_or_default();
            let asked = self.waiting().remove(&id);
            if let Some(Asked::Attributes(detached)) = asked
                && let Some(kind) = message.get("result").and_then(|result| result.get("type"))
            {
                let number = message.get("id").unwrap_or(&Value::Null);
                if *kind == json!(libc::SOCK_STREAM) {
                    self.waiting().insert(id, Asked::Stream(detached));
                    open(number, detached).write(&lock(requests), &[])?;
                } else {
                    refusal(number).write(&lock(answers), &[])?;
                }
                continue;
            }
            let Some(granted) = asked.and_then(|asked| asked.granted(&mut message)) else {
                frame.write(&lock(answers), &[])?;
                continue;
            };
            match self.begin(granted, requests) {
                Ok(clients) => {
                    let answer = Frame::of(message.to_string().into_bytes(), 1);
                    answer.write(&lock(answers), &[clients])?;
                }
                Err(error) => {
                    let id = message.get("id").cloned().unwrap_or_default();
                    failed(&id, &format!("channel.open: {error}")).write(&lock(answers), &[])?;
                }
            }
        }
        Ok(())
    }

    /// Begins a channel, and returns the client's end.
    fn begin(&self, granted: Granted, requests: &Arc<Mutex<UnixStream>>) -> io::Result<OwnedFd> {
        // Frames are for programs that know the protocol.
        if self.pair == Pair::Tcp && !granted.wanted.frames {
            let (own, clients) = pair::tcp()?;
            self.serve(granted, own, requests)?;
            return Ok(clients.into());
        }
        let (own, clients) = UnixStream::pair()?;
        self.serve(granted, own, requests)?;
        Ok(clients.into())
    }

    /// Begins a channel with the agent's end of a pair.
    fn serve<E>(
        &self,
        granted: Granted,
        own: E,
        requests: &Arc<Mutex<UnixStream>>,
    ) -> io::Result<()>
    where
        E: LocalEnd + Send + 'static,
        for<'a> &'a E: Read + Write,
    {
        let Granted { wanted, path, last } = granted;
        let remote = self.dialer.dial().map_err(io::Error::other)?;
        let (user, open) = (self.user.another(), self.channels.begin());
        let requests = requests.clone();
        thread::Builder::new().spawn(move || {
            channel::run(&path, wanted, &remote, &own, &[]);
            // Best effort: without the broker there is no socket either.
            last.and_then(|request| request.write(&lock(&requests), &[]).ok());
            drop((user, open));
        })?;
        Ok(())
    }
}

/// A channel that the broker has granted.
#[derive(Debug)]
struct Granted {
    wanted: Wanted,
    path: String,
    /// The request at its end.
    last: Option<Frame>,
}

impl Asked {
    /// The channel that an answer grants, and its path. In the answer, a descriptor takes the place of the token.
    fn granted(self, message: &mut Value) -> Option<Granted> {
        let result = message.get_mut("result")?;
        let (wanted, channel, last) = match self {
            Self::Attributes(_) => return None,
            Self::Open(wanted) => (wanted, result, None),
            Self::WithSocket => {
                let frames = result.get("type")? != &json!(libc::SOCK_STREAM);
                // The frame `close` does not arrive if the peer has reset the connection.
                let last = close(result.get("handle")?);
                (Wanted { frames, close: true }, result.get_mut("channel")?, Some(last))
            }
            Self::Stream(Detached { close, .. }) => (Wanted { frames: false, close }, result, None),
        };
        let path = channel.get("path")?.as_str()?.to_owned();
        let is_number = matches!(self, Self::Stream(_));
        *channel = if is_number { json!(1) } else { json!({ "fd": true }) };
        Some(Granted { wanted, path, last })
    }
}

/// Makes the parameters of `channel.open` those of a request for a token; `None` if they are already.
fn without_descriptor(params: &mut Value) -> Option<Asked> {
    if let Value::Array(values) = params {
        let values = std::mem::take(values);
        let named = OPEN.iter().zip(values).map(|(name, value)| ((*name).to_owned(), value));
        *params = named.collect();
    }
    let fields = params.as_object_mut()?;
    if fields.get("want_fd") != Some(&Value::Bool(true)) {
        return None;
    }
    fields.remove("want_fd");
    let frames = fields.remove("framing").is_some_and(|framing| framing == "frames");
    // The frame `close` of the channel closes the handle after all data.
    let close = fields.get("close") == Some(&Value::Bool(true));
    Some(Asked::Open(Wanted { frames, close }))
}

/// Whether the named parameters of another call ask for a channel.
fn with_socket(params: &Value) -> Option<Asked> {
    (params.get("want_channel")? == true).then_some(Asked::WithSocket)
}

/// The handle in the parameters of `socket.fileno` or `socket.detach`, which are those of `socket.attributes` too.
fn attributes_of(params: &Value, close: bool) -> Option<Asked> {
    let handle = params.get("handle").or_else(|| params.get(0))?.as_u64()?;
    Some(Asked::Attributes(Detached { handle, close }))
}

fn open(id: &Value, Detached { handle, close }: Detached) -> Frame {
    let params = json!({ "handle": handle, "close": close });
    let request = json!({ "jsonrpc": "2.0", "id": id, "method": "channel.open", "params": params });
    Frame::of(request.to_string().into_bytes(), 0)
}

/// A notification, which has no answer.
fn close(handle: &Value) -> Frame {
    let request = json!({ "jsonrpc": "2.0", "method": "socket.close", "params": [handle] });
    Frame::of(request.to_string().into_bytes(), 0)
}

fn lock<T>(stream: &Mutex<T>) -> MutexGuard<'_, T> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}

fn refusal(id: &Value) -> Frame {
    failed(id, NO_DESCRIPTORS)
}

fn failed(id: &Value, message: &str) -> Frame {
    error(id, ErrorKind::Descriptor, message, json!({ "errno": libc::EBADF, "name": "EBADF" }))
}

fn too_many(id: &Value) -> Frame {
    let message =
        format!("the agent opens at most {CHANNELS_WAITING} channels of one connection at once");
    let data =
        json!({ "errno": libc::ENOBUFS, "name": "ENOBUFS", "limit": "agent_channels_waiting" });
    error(id, ErrorKind::Limit, &message, data)
}

fn error(id: &Value, kind: ErrorKind, message: &str, mut data: Value) -> Frame {
    data["kind"] = json!(kind.entry().name);
    let error = json!({ "code": kind.code(), "message": message, "data": data });
    let answer = json!({ "jsonrpc": "2.0", "id": id, "error": error });
    Frame::of(answer.to_string().into_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_anywhere() {
        assert!(contains(b"{\"method\":\"channel.open\"}", b"channel.open"));
        assert!(!contains(b"channel.ope", b"channel.open"));
    }

    #[test]
    fn requests_for_descriptors_become_requests_for_tokens() {
        let mut params = json!([7, true, "frames"]);
        let wanted = Wanted { frames: true, close: false };
        assert_eq!(without_descriptor(&mut params), Some(Asked::Open(wanted)));
        assert_eq!(params, json!({ "handle": 7 }));
        let mut params = json!({ "handle": 7, "want_fd": true, "close": true });
        let wanted = Wanted { frames: false, close: true };
        assert_eq!(without_descriptor(&mut params), Some(Asked::Open(wanted)));
        assert_eq!(params, json!({ "handle": 7, "close": true }));
        assert_eq!(without_descriptor(&mut json!([7])), None);
        assert_eq!(with_socket(&json!({ "want_channel": true })), Some(Asked::WithSocket));
        assert_eq!(with_socket(&json!({ "want_channel": false })), None);
        let detached = Some(Asked::Attributes(Detached { handle: 7, close: true }));
        assert_eq!(attributes_of(&json!([7]), true), detached);
        assert_eq!(attributes_of(&json!({ "handle": 7 }), true), detached);
    }

    #[test]
    fn answers_get_a_descriptor_in_place_of_the_token() {
        let channel = json!({ "fd": false, "token": "x", "path": "/channel/x", "seconds": 30 });
        let mut answer =
            json!({ "id": 1, "result": { "handle": 9, "type": 2, "channel": channel } });
        let Granted { wanted, path, last } = Asked::WithSocket.granted(&mut answer).unwrap();
        assert_eq!((wanted, &*path), (Wanted { frames: true, close: true }, "/channel/x"));
        assert!(contains(last.unwrap().json(), b"[9]"));
        let expected =
            json!({ "id": 1, "result": { "handle": 9, "type": 2, "channel": { "fd": true } } });
        assert_eq!(answer, expected);
        assert!(Asked::WithSocket.granted(&mut json!({ "id": 1, "error": {} })).is_none());
    }
}
