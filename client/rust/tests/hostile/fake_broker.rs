//! A broker that follows the protocol until the first call, and then does what a test defines.

use std::io::Write as _;
use std::os::fd::BorrowedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};
use sockbroker_client::Endpoint;
use sockbroker_test_support::{Client as _, Folder, LspClient};

/// Listens on a socket until it is dropped.
pub(crate) struct FakeBroker {
    endpoint: Endpoint,
    path: std::path::PathBuf,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _folder: Folder,
}

/// A connection to a client, with the call that it has made.
pub(crate) struct Peer {
    client: LspClient,
    stream: UnixStream,
    /// The id of the call.
    pub(crate) id: u64,
    /// The id of the request before it.
    pub(crate) previous: u64,
    /// The number of calls on this connection, including this one.
    pub(crate) calls: usize,
}

impl FakeBroker {
    /// Starts to listen. `fault` handles every call except those that open the session.
    pub(crate) fn start(fault: impl Fn(&mut Peer) + Clone + Send + 'static) -> Self {
        Self::start_with(true, fault)
    }

    /// Like [`FakeBroker::start`]. `attaches` is whether it answers further connections.
    pub(crate) fn start_with(
        attaches: bool,
        fault: impl Fn(&mut Peer) + Clone + Send + 'static,
    ) -> Self {
        let folder = Folder::new();
        let path = folder.join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let thread = thread::spawn(move || {
            let mut threads = Vec::new();
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let (stream, fault) = (stream.unwrap(), fault.clone());
                threads.push(thread::spawn(move || serve(stream, attaches, &fault)));
            }
            // All clients have disconnected by now, so each thread ends.
            for thread in threads {
                thread.join().unwrap();
            }
        });
        let endpoint = Endpoint::Unix(path.clone());
        Self { endpoint, path, stopping, thread: Some(thread), _folder: folder }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        drop(UnixStream::connect(&self.path));
        self.thread.take().map(JoinHandle::join);
    }
}

fn serve(stream: UnixStream, attaches: bool, fault: &impl Fn(&mut Peer)) {
    let client = LspClient::over(stream.try_clone().unwrap());
    let mut peer = Peer { client, stream, id: 0, previous: 0, calls: 0 };
    while let Some(request) = peer.client.read_json() {
        // Notifications are ignored: a test handles cancellation within the call.
        let Some(id) = request["id"].as_u64() else { continue };
        peer.previous = std::mem::replace(&mut peer.id, id);
        let opened = json!({ "token": "t", "connection": 1, "protocol": 1, "version": "0" });
        let info = json!({ "session": 1, "connection": 1, "connections": 1, "handles": 0,
            "default_timeout": null, "linger": 0.0, "opened": false, "uid": 0, "gid": 0, "pid": 1,
            "framing": "lsp", "descriptors": true, "attachments": false, "protocol": 1,
            "version": "0" });
        match request["method"].as_str() {
            Some("session.attach") if !attaches => {}
            Some("session.open" | "session.attach") => peer.respond(id, &opened),
            Some("session.info") => peer.respond(id, &info),
            _ => {
                peer.calls += 1;
                fault(&mut peer);
            }
        }
    }
}

impl Peer {
    /// A framed response.
    pub(crate) fn frame(id: impl Into<Value>, result: &Value, descriptors: usize) -> Vec<u8> {
        let json = json!({ "jsonrpc": "2.0", "id": id.into(), "result": result }).to_string();
        LspClient::frame(&json, None, descriptors)
    }

    /// Sends the response to a call.
    pub(crate) fn respond(&mut self, id: u64, result: &Value) {
        self.send(&Self::frame(id, result, 0));
    }

    /// Sends bytes. An error is ignored, because the client may have disconnected.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.send_with(bytes, &[]);
    }

    /// Sends bytes with descriptors. An error is ignored, because the client may have disconnected.
    pub(crate) fn send_with(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        drop(self.client.wire.send(bytes, descriptors));
        drop(self.stream.flush());
    }

    /// Waits until the client cancels the call.
    pub(crate) fn wait_for_cancellation(&mut self) {
        while self.client.read_json().is_some_and(|message| message["method"] != "$/cancelRequest")
        {
        }
    }

    /// Waits without reading and writing until the client disconnects.
    pub(crate) fn wait_for_disconnect(&self) {
        self.client.wire.wait_for_the_other_end_to_close();
    }

    /// Closes the connection.
    pub(crate) fn close_connection(&mut self) {
        drop(self.stream.shutdown(std::net::Shutdown::Both));
    }
}
