//! A client with newline-delimited JSON.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::message::{Answer, Client};
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

impl NdjsonClient {
    /// Sends a line with descriptors, which its member `fds` announces.
    pub fn send_with(&mut self, line: &Value, descriptors: &[BorrowedFd<'_>]) {
        self.wire.send(format!("{line}\n").as_bytes(), descriptors).unwrap();
    }

    /// Returns the next answer with its descriptors.
    pub fn answer(&mut self) -> Answer {
        let mut answer = Answer::from(self.read_json().unwrap());
        let announced = answer.json["fds"].as_u64().unwrap_or(0);
        answer
            .descriptors
            .extend((0..announced).map(|_| self.wire.descriptors.pop_front().unwrap()));
        answer
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
