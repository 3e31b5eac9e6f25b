//! A client with newline-delimited JSON.

use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::message::Client;
use crate::wire::Wire;

/// A connection with newline-delimited JSON.
#[derive(Debug)]
pub struct NdjsonClient {
    /// The underlying connection.
    pub wire: Wire,
}

impl NdjsonClient {
    pub fn over(stream: UnixStream) -> Self {
        Self { wire: Wire::socket(stream) }
    }

    /// Sends text unchanged.
    pub fn send_text(&mut self, text: &str) {
        self.wire.send(text.as_bytes(), &[]).unwrap();
    }
}

impl Client for NdjsonClient {
    fn send_json(&mut self, message: &Value) {
        self.send_text(&format!("{message}\n"));
    }

    fn read_json(&mut self) -> Option<Value> {
        let line = self.wire.take_through(b"\n")?;
        Some(serde_json::from_slice(&line).unwrap())
    }
}
