//! Descriptors that are readable when a socket of the broker is, for sockets without a channel: `agent.watch`.
//!
//! The descriptor is one end of a pair. While the broker waits for the socket (`socket.poll`), nothing is in the pair. When
//! the socket is readable, the agent writes one byte. The client takes the byte when it has received or accepted, and
//! writes a byte, after which the agent lets the broker wait again.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::{Value, json};

use crate::agent::framed::Frame;

/// The method, which the agent serves itself. Its parameter is a handle.
pub(super) const METHOD: &str = "agent.watch";
/// What the ids of the agent's own requests begin with; a client has no such ids.
pub(super) const OWN_ID: &str = "agent/";
/// The most watched sockets of one connection; a further one is refused.
pub(super) const WATCHES: usize = 64;

/// The watched sockets of one connection.
#[derive(Debug, Default)]
pub(super) struct Watches {
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The agent's ends, by the ids of the calls that wait for their sockets.
    waiting: HashMap<String, Arc<UnixStream>>,
    open: Vec<Weak<UnixStream>>,
    has_ended: bool,
}

impl Watches {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to watch a socket. Returns the ends of the agent and of the client; `None` at the limit.
    pub(super) fn begin(&self) -> io::Result<Option<(Arc<UnixStream>, UnixStream)>> {
        let (own, clients) = UnixStream::pair()?;
        let own = Arc::new(own);
        let mut state = self.state();
        state.open.retain(|open| open.strong_count() > 0);
        if state.has_ended || state.open.len() >= WATCHES {
            return Ok(None);
        }
        state.open.push(Arc::downgrade(&own));
        Ok(Some((own, clients)))
    }

    /// Serves one watched socket until the client closes the descriptor. `send` passes a request to the broker.
    pub(super) fn serve(
        &self,
        own: &Arc<UnixStream>,
        handle: u64,
        mut send: impl FnMut(&Frame) -> io::Result<()>,
    ) {
        let mut last = String::new();
        loop {
            // A byte of the client while the broker still waits changes nothing.
            if !self.state().waiting.contains_key(&last) {
                last = format!("{OWN_ID}{}", self.next.fetch_add(1, Ordering::Relaxed));
                self.state().waiting.insert(last.clone(), own.clone());
                let params = json!({ "fds": [[handle, libc::POLLIN]], "timeout": null });
                if send(&call(&last, "socket.poll", &params)).is_err() {
                    break;
                }
            }
            if !matches!((&**own).read(&mut [0]), Ok(1)) {
                break;
            }
        }
        if self.state().waiting.remove(&last).is_some() {
            let params = json!({ "id": last });
            let cancel = json!({ "jsonrpc": "2.0", "method": "$/cancelRequest", "params": params });
            // Best effort: without the broker, nothing waits.
            drop(send(&Frame::of(cancel.to_string().into_bytes(), 0)));
        }
        drop(own.shutdown(Shutdown::Both));
    }

    /// Takes an answer of the broker. Returns whether it is one to the agent.
    pub(super) fn take(&self, message: &Value) -> bool {
        let Some(id) = message.get("id").and_then(Value::as_str) else { return false };
        if !id.starts_with(OWN_ID) {
            return false;
        }
        let Some(own) = self.state().waiting.remove(id) else { return true };
        let events = message.pointer("/result/0/1").and_then(Value::as_i64);
        let is_open = events.is_some_and(|events| events & i64::from(libc::POLLNVAL) == 0);
        // The pair has room: its one byte was taken before the call.
        if !is_open || (&*own).write_all(&[0]).is_err() {
            drop(own.shutdown(Shutdown::Both));
        }
        true
    }

    /// Ends all: the connection to the broker has ended.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.has_ended = true;
        for own in state.open.drain(..).filter_map(|own| own.upgrade()) {
            drop(own.shutdown(Shutdown::Both));
        }
    }
}

fn call(id: &str, method: &str, params: &Value) -> Frame {
    let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
    Frame::of(request.to_string().into_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_watches_is_limited_until_one_ends() {
        let watches = Watches::default();
        let mut open: Vec<_> = (0..WATCHES).map(|_| watches.begin().unwrap().unwrap()).collect();
        assert!(watches.begin().unwrap().is_none());
        open.pop();
        assert!(watches.begin().unwrap().is_some());
        watches.end();
        assert!(watches.begin().unwrap().is_none());
        assert_eq!((&open[0].1).read(&mut [0]).unwrap(), 0);
    }
}
