//! Passes the frames of one client on, and answers `channel.open` with descriptors.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::{Value, json};
use sockbroker_sys::{poll, stream};

use crate::agent::asked::{Asked, Granted, Next, attributes_of, with_socket, without_descriptor};
use crate::agent::attempts::Attempts;
use crate::agent::channel::{self, LocalEnd, Wanted};
use crate::agent::connecting::{self, Connecting, FilledPair};
use crate::agent::framed::{Frame, Reader};
use crate::agent::open_channels::OpenChannels;
use crate::agent::own_calls::OwnCalls;
use crate::agent::pair::{self, Pair};
use crate::agent::ready::Ready;
use crate::agent::refusals::{
    CHANNELS_WAITING, CONNECTING, failed, refusal, too_many, too_many_connecting, too_many_watches,
};
use crate::agent::users::User;
use crate::agent::watches::{self, OWN_ID, Watches};

/// A request for a descriptor that stands for a socket. The agent answers it.
struct DescriptorRequest<'a, 'b> {
    id: &'a Value,
    handle: u64,
    /// Where the agent's own requests go: the connection to the broker.
    requests: &'a Arc<Mutex<UnixStream>>,
    /// Where the answer goes: the connection of the client.
    answers: &'a Mutex<&'b UnixStream>,
}

impl DescriptorRequest<'_, '_> {
    fn refuse(&self, answer: &Frame) -> io::Result<()> {
        answer.write(&lock(self.answers), &[])
    }

    fn grant(&self, descriptor: OwnedFd) -> io::Result<()> {
        with_descriptor(self.id).write(&lock(self.answers), &[descriptor])
    }
}

/// One client of the agent.
#[derive(Debug)]
pub(super) struct Relay {
    ready: Arc<Ready>,
    user: User,
    pair: Pair,
    /// The channels that were asked for, by the ids of their requests as JSON.
    waiting: Mutex<HashMap<String, Asked>>,
    channels: OpenChannels,
    watches: Arc<Watches>,
    calls: Arc<OwnCalls>,
    /// Each connection that is being made has a copy.
    connecting: Arc<()>,
    attempts: Attempts,
    /// The process id of the client.
    program: i32,
}

impl Relay {
    /// A relay for the connection of a program.
    pub(super) fn new(
        ready: Arc<Ready>,
        user: User,
        pair: Pair,
        (program, attempts): (i32, Attempts),
    ) -> Self {
        let (waiting, channels, watches, calls, connecting) = Default::default();
        Self { ready, user, pair, waiting, channels, watches, calls, connecting, attempts, program }
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
        let Ok(broker) = self.ready.dial() else { return };
        let Ok(requests) = broker.try_clone() else { return };
        self.ready.prepare();
        let (requests, answers) = (Arc::new(Mutex::new(requests)), Mutex::new(client));
        thread::scope(|scope| {
            scope.spawn(|| {
                // An error is the end of the connection too.
                drop(self.pass_requests(client, &requests, &answers));
                self.channels.wait();
                drop(broker.shutdown(Shutdown::Write));
            });
            drop(self.pass_answers(&broker, &requests, &answers));
            self.watches.end();
            self.calls.end();
            drop(client.shutdown(Shutdown::Both));
            drop(broker.shutdown(Shutdown::Both));
        });
    }

    fn pass_requests(
        &self,
        client: &UnixStream,
        requests: &Arc<Mutex<UnixStream>>,
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
            if contains(frame.json(), b"agent.") {
                let message = serde_json::from_slice::<Value>(frame.json()).unwrap_or_default();
                let asked = |(id, handle)| DescriptorRequest { id, handle, requests, answers };
                if let Some(request) = parse(&message, watches::METHOD).map(asked) {
                    self.watch(&request)?;
                    continue;
                }
                if let Some(request) = parse(&message, connecting::METHOD).map(asked) {
                    self.connect(&request)?;
                    continue;
                }
            }
            if let Err(answer) = self.note_channel(&mut frame) {
                answer.write(&lock(answers), &[])?;
                continue;
            }
            frame.write(&lock(requests), &[])?;
        }
        Ok(())
    }

    /// Answers a request for a descriptor that is readable when a socket is.
    fn watch(&self, request: &DescriptorRequest<'_, '_>) -> io::Result<()> {
        let Some((own, clients)) = self.watches.begin()? else {
            return request.refuse(&too_many_watches(request.id));
        };
        let (user, open) = (self.user.another(), self.channels.begin());
        let (watches, requests) = (self.watches.clone(), request.requests.clone());
        let handle = request.handle;
        thread::Builder::new().spawn(move || {
            watches.serve(&own, handle, |request| request.write(&lock(&requests), &[]));
            drop((user, open));
        })?;
        request.grant(clients.into())
    }

    /// Answers a request for a descriptor of a stream whose connection is being made.
    fn connect(&self, request: &DescriptorRequest<'_, '_>) -> io::Result<()> {
        let counted = self.connecting.clone();
        if Arc::strong_count(&counted) > CONNECTING + 1 {
            return request.refuse(&too_many_connecting(request.id));
        }
        let attempt = self.attempts.begin((self.program, request.handle));
        let (connecting, clients) = Connecting::new(FilledPair::new()?, attempt);
        let (user, open) = (self.user.another(), self.channels.begin());
        let (calls, ready) = (self.calls.clone(), self.ready.clone());
        let requests = request.requests.clone();
        thread::Builder::new().spawn(move || {
            let connected = connecting.run(&calls, |request| request.write(&lock(&requests), &[]));
            drop(counted);
            // Without the broker there is no connection either.
            if let Ok(Some((own, path))) = connected
                && let Ok(remote) = ready.take()
            {
                let wanted = Wanted { frames: false, close: true };
                channel::run(&path, wanted, &remote, &own, &[]);
            }
            drop((user, open));
        })?;
        request.grant(clients.into())
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
            "channel.open" => {
                if let Some(handle) = handle_of(params) {
                    self.attempts.replace((self.program, handle));
                }
                without_descriptor(params)
            }
            "socket.fileno" => attributes_of(params, false),
            "socket.detach" => attributes_of(params, true),
            _ => with_socket(params),
        };
        let Some(asked) = asked else { return Ok(()) };
        if matches!(asked, Asked::Attributes(_) | Asked::Raw { .. }) {
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
            if contains(frame.json(), OWN_ID.as_bytes()) {
                let message = serde_json::from_slice::<Value>(frame.json()).unwrap_or_default();
                if self.calls.take(&message) || self.watches.take(&message) {
                    continue;
                }
            }
            if self.waiting().is_empty() {
                frame.write(&lock(answers), &[])?;
                continue;
            }
            let mut message = serde_json::from_slice::<Value>(frame.json()).unwrap_or_default();
            let id = message.get("id").map(Value::to_string).unwrap_or_default();
            let asked = self.waiting().remove(&id);
            let granted = match asked.map(|asked| asked.answered(&mut message)) {
                Some(Next::Channel(granted)) => Some(granted),
                Some(Next::Request(asked, request)) => {
                    self.waiting().insert(id, asked);
                    request.write(&lock(requests), &[])?;
                    continue;
                }
                Some(Next::Refusal(refusal)) => {
                    refusal.write(&lock(answers), &[])?;
                    continue;
                }
                Some(Next::Nothing) | None => None,
            };
            let Some(granted) = granted else {
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
        let remote = self.ready.take().map_err(io::Error::other)?;
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

fn lock<T>(stream: &Mutex<T>) -> MutexGuard<'_, T> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The id and the handle of a request for a method of the agent.
fn parse<'a>(message: &'a Value, method: &str) -> Option<(&'a Value, u64)> {
    (message.get("method")? == method).then_some(())?;
    Some((message.get("id")?, handle_of(message.get("params")?)?))
}

fn handle_of(params: &Value) -> Option<u64> {
    params.get("handle").or_else(|| params.get(0))?.as_u64()
}

/// The answer with a descriptor.
fn with_descriptor(id: &Value) -> Frame {
    let answer = json!({ "jsonrpc": "2.0", "id": id, "result": { "fd": true } });
    Frame::of(answer.to_string().into_bytes(), 1)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
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
    fn requests_have_an_id_and_a_handle() {
        const METHOD: &str = watches::METHOD;
        let named = json!({ "id": 7, "method": METHOD, "params": { "handle": 9 } });
        assert_eq!(parse(&named, METHOD), Some((&json!(7), 9)));
        let in_order = json!({ "id": "x", "method": METHOD, "params": [9] });
        assert_eq!(parse(&in_order, METHOD), Some((&json!("x"), 9)));
        for other in [
            json!({ "method": METHOD, "params": [9] }),
            json!({ "id": 1, "method": "socket.close", "params": [9] }),
            json!({ "id": 1, "method": METHOD, "params": [] }),
        ] {
            assert_eq!(parse(&other, METHOD), None);
        }
    }
}
