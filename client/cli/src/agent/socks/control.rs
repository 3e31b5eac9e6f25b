//! One connection to the broker for the calls of all clients of the proxy.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::{Value, json};

use crate::agent::framed::{Frame, Reader};
use crate::agent::ready::Ready;

/// The connection, which the first call opens, and each call after its end.
#[derive(Debug)]
pub(super) struct Control {
    ready: Arc<Ready>,
    open: Mutex<Option<Arc<Open>>>,
}

/// The end of a call without a result.
#[derive(Debug)]
pub(super) enum CallError {
    /// The error object of the broker.
    Broker(Value),
    /// There is no connection.
    Lost,
}

#[derive(Debug)]
struct Open {
    stream: Mutex<UnixStream>,
    next: AtomicU64,
    /// Who waits for the answer of each request; `None` after the end of the connection.
    waiting: Mutex<Option<HashMap<u64, Sender<Value>>>>,
}

impl Control {
    pub(super) fn new(ready: Arc<Ready>) -> Self {
        Self { ready, open: Mutex::default() }
    }

    /// Another connection to the broker, for a channel.
    pub(super) fn dial(&self) -> io::Result<UnixStream> {
        self.ready.take().map_err(io::Error::other)
    }

    /// Calls a method, and waits for its result.
    pub(super) fn call(&self, method: &str, params: &Value) -> Result<Value, CallError> {
        let open = self.open().map_err(|_error| CallError::Lost)?;
        let id = open.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = mpsc::channel();
        lock(&open.waiting).as_mut().ok_or(CallError::Lost)?.insert(id, sender);
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        // If it fails, the connection ends, and with it the wait.
        drop(open.send(&request));
        let mut answer = answer.recv().map_err(|_ended| CallError::Lost)?;
        match answer.get_mut("error") {
            Some(error) => Err(CallError::Broker(error.take())),
            None => Ok(answer["result"].take()),
        }
    }

    /// Calls a method without an answer. Best effort: without the connection there is no session either.
    pub(super) fn notify(&self, method: &str, params: &Value) {
        if let Some(open) = lock(&self.open).clone() {
            let request = json!({ "jsonrpc": "2.0", "method": method, "params": params });
            drop(open.send(&request));
        }
    }

    fn open(&self) -> io::Result<Arc<Open>> {
        let mut present = lock(&self.open);
        if let Some(open) = present.as_ref().filter(|open| lock(&open.waiting).is_some()) {
            return Ok(open.clone());
        }
        let stream = self.ready.dial().map_err(io::Error::other)?;
        let reading = stream.try_clone()?;
        let open = Arc::new(Open {
            stream: Mutex::new(stream),
            next: AtomicU64::new(1),
            waiting: Mutex::new(Some(HashMap::new())),
        });
        let of_thread = open.clone();
        thread::Builder::new().spawn(move || {
            drop(of_thread.read_answers(&reading));
            *lock(&of_thread.waiting) = None;
        })?;
        Ok(present.insert(open).clone())
    }
}

impl Open {
    fn send(&self, message: &Value) -> io::Result<()> {
        Frame::of(message.to_string().into_bytes(), 0).write(&lock(&self.stream), &[])
    }

    fn read_answers(&self, stream: &UnixStream) -> io::Result<()> {
        let mut reader = Reader::new(stream);
        while let Some(frame) = reader.next()? {
            let message = serde_json::from_slice::<Value>(frame.json()).unwrap_or_default();
            let sender = message.get("id").and_then(Value::as_u64).and_then(|id| {
                lock(&self.waiting).as_mut().and_then(|waiting| waiting.remove(&id))
            });
            if let Some(sender) = sender {
                // Who waited has the receiver until then.
                drop(sender.send(message));
            }
        }
        Ok(())
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
