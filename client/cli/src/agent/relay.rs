//! Passes the frames of one client on, and answers `channel.open` with descriptors.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::{Value, json};
use sockbroker_client::Dialer;
use sockbroker_sys::{poll, stream};

use crate::agent::channel;
use crate::agent::framed::{Frame, Reader};
use crate::agent::starting::Starting;
use crate::agent::users::User;

/// The error of a call that would pass descriptors to or from the remote broker.
const NO_DESCRIPTORS: &str =
    "descriptors cannot reach a broker of another machine: only channel.open passes one";
/// The code of errors about descriptors, as in the table of the protocol.
const DESCRIPTOR: i32 = 4003;
/// The channels of one client that wait for the answer of the broker; a further `channel.open` is refused.
const CHANNELS_WAITING: usize = 1024;

/// One client of the agent.
#[derive(Debug)]
pub(super) struct Relay {
    dialer: Arc<Dialer>,
    user: User,
    /// The channels that were asked for, by the ids of their requests as JSON.
    waiting: Mutex<HashMap<String, Wanted>>,
    starting: Starting,
}

/// What a client asked for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// Whether the client moves frames, and not plain bytes.
    frames: bool,
    /// Whether the handle is closed with the descriptor.
    close: bool,
}

impl Relay {
    pub(super) fn new(dialer: Arc<Dialer>, user: User) -> Self {
        Self { dialer, user, waiting: Mutex::default(), starting: Starting::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Wanted>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a client until it or the broker closes.
    pub(super) fn run(&self, client: UnixStream) {
        // The first byte selects the framing, as for the broker.
        let waited = poll::poll_for(&[(client.as_fd(), libc::POLLIN)], None);
        let first = waited.and_then(|_| stream::peek_byte(client.as_fd()));
        let Ok(Some(first)) = first else { return };
        if !first.eq_ignore_ascii_case(&b'c') {
            // One line, which a client with newline-delimited JSON can read.
            let error = json!({ "code": -32600, "message": "the agent speaks LSP framing" });
            let line = json!({ "jsonrpc": "2.0", "id": null, "error": error });
            drop(writeln!(&client, "{line}"));
            return;
        }
        let Ok(broker) = self.dialer.dial() else { return self.user.note_cut_off() };
        let answers = Mutex::new(&client);
        thread::scope(|scope| {
            scope.spawn(|| {
                // An error is the end of the connection too.
                drop(self.pass_requests(&client, &broker, &answers));
                self.starting.wait();
                drop(broker.shutdown(Shutdown::Write));
            });
            drop(self.pass_answers(&broker, &answers));
            drop(client.shutdown(Shutdown::Both));
            drop(broker.shutdown(Shutdown::Both));
        });
    }

    fn pass_requests(
        &self,
        client: &UnixStream,
        broker: &UnixStream,
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
            if contains(frame.json(), b"channel.open") {
                match self.without_descriptor(&mut frame) {
                    Ok(()) => {}
                    Err(answer) => {
                        answer.write(&lock(answers), &[])?;
                        continue;
                    }
                }
            }
            frame.write(broker, &[])?;
        }
        Ok(())
    }

    /// Makes a request for a descriptor one for a token. The error is the answer of a request that is refused.
    fn without_descriptor(&self, frame: &mut Frame) -> Result<(), Frame> {
        let Ok(mut message) = serde_json::from_slice::<Value>(frame.json()) else { return Ok(()) };
        let is_open = message.get("method").is_some_and(|method| method == "channel.open");
        let Some(params) = message.get_mut("params").filter(|_| is_open) else { return Ok(()) };
        let names = ["handle", "want_fd", "framing", "direction", "close"];
        if let Value::Array(values) = params {
            let values = std::mem::take(values);
            let named = names.iter().zip(values).map(|(name, value)| ((*name).to_owned(), value));
            *params = named.collect();
        }
        let Value::Object(fields) = params else { return Ok(()) };
        if fields.get("want_fd") != Some(&Value::Bool(true)) {
            return Ok(());
        }
        fields.remove("want_fd");
        let frames = fields.remove("framing").is_some_and(|framing| framing == "frames");
        // The frame `close` of the channel closes the handle after all data.
        let close = fields.get("close") == Some(&Value::Bool(true));
        let Some(id) = message.get("id").cloned() else { return Ok(()) };
        let mut waiting = self.waiting();
        if waiting.len() >= CHANNELS_WAITING {
            return Err(refusal(&id));
        }
        waiting.insert(id.to_string(), Wanted { frames, close });
        let attachments = frame.body.split_off(frame.head.content_length);
        frame.body = message.to_string().into_bytes();
        frame.head.content_length = frame.body.len();
        frame.body.extend(attachments);
        Ok(())
    }

    fn pass_answers(&self, broker: &UnixStream, answers: &Mutex<&UnixStream>) -> io::Result<()> {
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
            let message = serde_json::from_slice::<Value>(frame.json()).unwrap_or_default();
            let id = message.get("id").map(Value::to_string).unwrap_or_default();
            let wanted = self.waiting().remove(&id);
            let path = message.get("result").and_then(|result| result.get("path")?.as_str());
            let (Some(wanted), Some(path)) = (wanted, path) else {
                frame.write(&lock(answers), &[])?;
                continue;
            };
            match self.begin(path, wanted) {
                Ok(clients) => {
                    let id = message.get("id").cloned().unwrap_or_default();
                    let answer = json!({ "jsonrpc": "2.0", "id": id, "result": { "fd": true } });
                    let answer = Frame::of(answer.to_string().into_bytes(), 1);
                    answer.write(&lock(answers), &[clients.into()])?;
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
    fn begin(&self, path: &str, wanted: Wanted) -> io::Result<UnixStream> {
        let remote = self.dialer.dial().map_err(io::Error::other)?;
        let (own, clients) = UnixStream::pair()?;
        let (path, user, start) = (path.to_owned(), self.user.clone(), self.starting.begin());
        thread::Builder::new().spawn(move || {
            if wanted.frames {
                channel::copy(&path, &remote, &own, start);
            } else {
                channel::run(&path, &remote, &own, start, wanted.close);
            }
            drop(user);
        })?;
        Ok(clients)
    }
}

fn lock<'a, 'b>(answers: &'a Mutex<&'b UnixStream>) -> MutexGuard<'a, &'b UnixStream> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}

fn refusal(id: &Value) -> Frame {
    failed(id, NO_DESCRIPTORS)
}

fn failed(id: &Value, message: &str) -> Frame {
    let data = json!({ "kind": "descriptor", "errno": libc::EBADF, "name": "EBADF" });
    let error = json!({ "code": DESCRIPTOR, "message": message, "data": data });
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
    fn refusals_have_the_code_of_the_protocol() {
        let kind = sockbroker_proto::error::ErrorKind::Descriptor;
        assert_eq!((kind.code(), kind.entry().name), (DESCRIPTOR, "descriptor"));
    }
}
