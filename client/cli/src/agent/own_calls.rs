//! Calls that the agent makes for itself on the connection of a client.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::agent::framed::Frame;

/// What the ids of these calls begin with; a client has no such ids.
const OWN_ID: &str = "agent/call/";

/// The calls that the broker has not answered.
#[derive(Debug, Default)]
pub(super) struct OwnCalls {
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Where the answers are written, by the ids of the calls.
    waiting: HashMap<String, UnixStream>,
    has_ended: bool,
}

/// A call that the broker has not answered.
#[derive(Debug)]
pub(super) struct OwnCall {
    id: String,
    /// Readable when there is an answer, or when none will come.
    answer: UnixStream,
}

impl OwnCalls {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares a call. Returns the request, which the caller sends.
    pub(super) fn begin(&self, method: &str, params: &Value) -> io::Result<(Frame, OwnCall)> {
        let (input, answer) = UnixStream::pair()?;
        // The thread that takes answers must not wait: a longer answer than fits is an error.
        input.set_nonblocking(true)?;
        let id = format!("{OWN_ID}{}", self.next.fetch_add(1, Ordering::Relaxed));
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let mut state = self.state();
        if !state.has_ended {
            state.waiting.insert(id.clone(), input);
        }
        drop(state);
        Ok((Frame::of(request.to_string().into_bytes(), 0), OwnCall { id, answer }))
    }

    /// Takes an answer of the broker. Returns whether it is one to such a call.
    pub(super) fn take(&self, message: &Value) -> bool {
        let Some(id) = message.get("id").and_then(Value::as_str) else { return false };
        if !id.starts_with(OWN_ID) {
            return false;
        }
        if let Some(mut input) = self.state().waiting.remove(id) {
            drop(input.write_all(message.to_string().as_bytes()));
        }
        true
    }

    /// Forgets a call. Returns the notification that cancels it.
    pub(super) fn cancel(&self, call: &OwnCall) -> Frame {
        self.state().waiting.remove(&call.id);
        let params = json!({ "id": call.id });
        let cancel = json!({ "jsonrpc": "2.0", "method": "$/cancelRequest", "params": params });
        Frame::of(cancel.to_string().into_bytes(), 0)
    }

    /// Ends all: the connection to the broker has ended.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.has_ended = true;
        state.waiting.clear();
    }
}

impl OwnCall {
    /// A descriptor that is readable when [`Self::result`] does not wait.
    pub(super) fn answered(&self) -> BorrowedFd<'_> {
        self.answer.as_fd()
    }

    /// Waits for the result; `None` if the call has failed.
    pub(super) fn result(mut self) -> Option<Value> {
        let mut text = Vec::new();
        self.answer.read_to_end(&mut text).ok()?;
        let mut message: Value = serde_json::from_slice(&text).ok()?;
        message.get_mut("result").map(Value::take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(request: &Frame, name: &str, value: &Value) -> Value {
        let request: Value = serde_json::from_slice(request.json()).unwrap();
        json!({ "jsonrpc": "2.0", "id": request["id"], name: value })
    }

    #[test]
    fn answers_reach_the_calls_they_are_for() {
        let calls = OwnCalls::default();
        let (first, one) = calls.begin("a.b", &json!([1])).unwrap();
        let (second, other) = calls.begin("a.b", &json!([2])).unwrap();
        assert!(calls.take(&answer(&second, "result", &json!([7]))));
        assert!(calls.take(&answer(&first, "error", &json!({}))));
        assert_eq!((one.result(), other.result()), (None, Some(json!([7]))));
        assert!(!calls.take(&json!({ "id": 1, "result": 2 })));
        assert!(!calls.take(&json!({ "id": "agent/1", "result": 2 })));
    }

    #[test]
    fn calls_end_with_the_connection() {
        let calls = OwnCalls::default();
        let (_, before) = calls.begin("a.b", &json!([])).unwrap();
        calls.end();
        let (_, after) = calls.begin("a.b", &json!([])).unwrap();
        assert_eq!((before.result(), after.result()), (None, None));
    }
}
