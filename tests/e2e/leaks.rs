//! Thousands of failures in random order leak nothing.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::message::request;
use sockbroker_test_support::{Client, Daemon, LspClient, bounded};

use crate::broker::broker;

const ROUNDS: u32 = 2500;

/// Pseudo-random numbers, the same in every run (xorshift, G. Marsaglia 2003).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

/// A broker, a connection that survives the failures, and the state to provoke them.
struct Fixture {
    broker: Daemon,
    client: LspClient,
    left: u64,
    right: u64,
    file: File,
    socket: UnixStream,
    numbers: Numbers,
}

impl Fixture {
    fn new() -> Self {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        // Warm up: one-time resources, such as registrations with the event loop, exist from now on.
        let first = client.send("socket.recvmsg", json!([right, 9, 100]));
        client.call("socket.send", json!([left, "aGk="])).result();
        client.answer(first).result();
        // The process that acts as the caller.
        client.call("socket.connect", json!([left, "/nonexistent"])).fault();
        let file = File::open("/dev/null").unwrap();
        let (socket, _) = UnixStream::pair().unwrap();
        Self { broker, client, left, right, file, socket, numbers: Numbers(0x5eed) }
    }

    /// Sends a request on the surviving connection that is refused in one of many ways, with unused descriptors.
    fn refused(&mut self) {
        let (left, right) = (self.left, self.right);
        let item = |count: u32| json!([1, 1, { "descriptors": count }]);
        let calls = [
            ("socket.fromfd", json!([9])),
            ("socket.fromfd", json!(["x"])),
            ("socket.fromfd", json!([0])),
            ("socket.socket", json!({ "fileno": 0, "timeout": -1 })),
            ("socket.socket", json!(["AF_INET", 99])),
            ("socket.socketpair", json!(["AF_INET"])),
            ("socket.sendmsg", json!([left, ["aGk="], [item(9)]])),
            ("socket.sendmsg", json!([left, ["aGk="], [item(1), item(9)]])),
            ("socket.sendmsg", json!([left, ["?"], [item(1)]])),
            ("socket.sendmsg", json!([7, ["aGk="], [item(1)]])),
            (
                "socket.sendmmsg",
                json!([left, [{ "buffers": [], "ancdata": [item(1), [1, 1, "AAAA"]] }]]),
            ),
            ("socket.sendfile", json!([left, 0, -1])),
            ("socket.sendfile", json!([7, 0])),
            ("socket.accept", json!([left])),
            ("socket.create_connection", json!([["127.0.0.1", 1], 1])),
            ("socket.create_server", json!([["203.0.113.1", 0]])),
            ("socket.recv", json!([right, -1])),
            ("socket.connect", json!([left, "/nonexistent"])),
            ("socket.nothing", json!([])),
            ("session.attach", json!(["1.00"])),
        ];
        let (method, params) = calls[self.numbers.below(calls.len())].clone();
        let count = self.numbers.below(4);
        let descriptors: Vec<BorrowedFd<'_>> = vec![self.file.as_fd(); count];
        let answer = self.client.call_with_parts(
            method,
            params.clone(),
            RequestParts::descriptors(&descriptors),
        );
        assert!(answer.is_fault(), "{method} {params}");
    }

    /// Cancels a receive of descriptors, before or after they arrive.
    fn cancelled(&mut self) {
        let id = self.client.send("socket.recvmsg", json!([self.right, 9, 100]));
        let late = self.numbers.below(2) == 0;
        if !late {
            self.send_descriptor();
        }
        self.client.cancel(id);
        if late {
            self.send_descriptor();
        }
        if self.client.answer(id).is_fault() {
            let params = json!([self.right, 9, 100]);
            assert_eq!(self.client.call("socket.recvmsg", params).descriptors.len(), 1);
        }
    }

    fn send_descriptor(&mut self) {
        let params = json!([self.left, ["aGk="], [[1, 1, { "descriptors": 1 }]]]);
        let descriptors = [self.file.as_fd()];
        self.client
            .call_with_parts("socket.sendmsg", params, RequestParts::descriptors(&descriptors))
            .result();
    }

    /// Opens a connection that ends abnormally.
    fn dropped(&mut self) {
        let mut client = self.broker.lsp();
        let descriptors = [self.socket.as_fd(), self.file.as_fd()];
        let call = request(1, "socket.fromfd", Value::Null).to_string();
        let frame = LspClient::frame(&call, Some(&[b"attached"]), 2);
        match self.numbers.below(8) {
            // Ends within a frame that has descriptors.
            0 => {
                let cut = 1 + self.numbers.below(frame.len() - 1);
                client.wire.send(&frame[..cut], &descriptors).unwrap();
            }
            // Fewer descriptors than announced.
            1 => client.wire.send(&frame, &descriptors[..1]).unwrap(),
            // More descriptors than announced, and more than the kernel passes at once.
            2 => client
                .wire
                .send(&LspClient::frame(&call, None, 0), &[self.file.as_fd(); 253])
                .unwrap(),
            // With open handles and waiting calls.
            3 => {
                let (left, right) = client.pair();
                client.send("socket.recv", json!([left, 1]));
                client.send("socket.recvmsg", json!([right, 1, 100]));
            }
            // With unread answers.
            4 => {
                for _ in 0..20 {
                    client.send("socket.socketpair", json!({ "want_fd": true }));
                }
            }
            // In an opened and cloned session.
            5 => {
                client.call("session.open", Value::Null).result();
                client.pair();
                let cloned = client.call("session.clone", Value::Null).result()["token"].clone();
                self.broker.lsp().call("session.attach", json!([cloned])).result();
            }
            // On another protocol.
            6 => {
                let mut client = self.broker.ndjson();
                client.call("socket.socketpair", Value::Null).result();
                client.send_text("{\"jsonrpc\":");
            }
            _ => {
                let mut client = self.broker.websocket();
                client.call("socket.socketpair", Value::Null).result();
                client.wire.send(&[0xff, 0xff, 0xff], &[]).unwrap();
            }
        }
    }
}

#[test]
fn thousands_of_failures_leak_no_descriptors() {
    bounded(60, || {
        let mut fixture = Fixture::new();
        let before = fixture.broker.idle_open_files();
        for _ in 0..ROUNDS {
            match fixture.numbers.below(4) {
                0 => fixture.cancelled(),
                1 => fixture.dropped(),
                _ => fixture.refused(),
            }
        }
        fixture.broker.wait_for_open_files(before);
        fixture.client.expect_service();
        fixture.client.expect_silence_for(50);
        let params = json!([fixture.left, "aGk="]);
        fixture.client.call("socket.send", params).result();
        let received = fixture.client.call("socket.recv", json!([fixture.right, 9]));
        assert_eq!(received.data(), b"hi");
    });
}

#[test]
fn opening_and_closing_sockets_leaks_no_memory() {
    bounded(30, || {
        let broker = broker();
        let mut client = broker.lsp();
        let mut rounds = |count: u32| {
            for _ in 0..count {
                let (left, right) = client.pair();
                let id = client.send("socket.recv", json!([left, 9]));
                client.send("socket.send", json!([right, "aGk="]));
                client.answer(id).result();
                client.send("socket.close", json!([left]));
                client.call("socket.close", json!([right])).result();
                while client.wire.receives_within(std::time::Duration::ZERO) {
                    client.next_answer().unwrap();
                }
            }
        };
        rounds(500);
        let before = broker.resident_bytes();
        rounds(1500);
        let grown = broker.resident_bytes().saturating_sub(before);
        assert!(grown < 1 << 20, "{grown} bytes for 1500 pairs");
    });
}
