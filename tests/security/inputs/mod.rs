//! The matrix of inputs: every input of a request by which the kernel chooses a source, a destination, an interface,
//! a path or a port.
//!
//! A row has one input, the attack that uses it to bypass a rule, and the rule that refuses it. Add a row for a new
//! or forgotten input of the kernel.

/// Rows of the matrix: the name, the input and the kernel function that reads it, the rule, and the attack.
macro_rules! rows {
    ($policy:expr; $($name:ident: $input:literal, $rule:literal, $attack:expr;)*) => {
        $(
            #[doc = $input]
            #[test]
            fn $name() {
                let test = concat!(module_path!(), "::", stringify!($name));
                crate::inputs::refused(test, $policy, $rule, $attack);
            }
        )*
    };
}

mod destination;
mod source;
mod interface;
mod path;
mod port;
mod sender;
mod state;

use std::fs::File;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sockbroker_test_support::Answer;
use sockbroker_test_support::lsp::RequestParts;

use crate::arena::{Arena, run_with};

/// The rule that allows the attacker everything; the rules of the matrix deny exceptions.
pub(super) const EVERYTHING: &str = r#"version = 1
[[rule]]
name = "everything"
subject = { uids = [4200001] }
allow = ["create", "adopt", "bind", "listen", "accept", "connect", "send", "receive", "option", "spoof",
    "handover", "capture", "inject", "interfaces"]
handover = "unrevocable"
"#;

/// The answers to the calls of an attack.
pub(super) type Answers = Vec<Answer>;

/// Runs an attack under these rules. Fails unless this rule refuses each of its calls.
fn refused(test: &str, rules: &'static str, rule: &'static str, attack: fn(&mut Arena) -> Answers) {
    let policy = format!("{EVERYTHING}{rules}");
    run_with(
        test,
        move |start| {
            start.folder().write("policy.toml", &policy);
            start
        },
        move |mut arena| {
            ip("link add lan0 type veth peer name lan1");
            ip("link property add dev lan0 altname thesamelan");
            ip("link add averylongname15 type veth peer name lan2");
            ip("link set lan1 up");
            ip("address add 10.99.0.5/24 dev lan0");
            ip("address add fd99::5/64 dev lan0 nodad");
            ip("link set lan0 up");
            ip("address add 127.0.0.77/32 dev lo");
            ip("address add fd99::66/128 dev lo nodad");
            ip("address add fd99::77/128 dev lo nodad");
            let answers = attack(&mut arena);
            assert!(!answers.is_empty(), "the attack made no call");
            for answer in answers {
                let fault = answer.fault();
                assert_eq!(fault.kind(), (3000, "denied"), "{fault:?}");
                assert_eq!(fault.data.rule.as_deref(), Some(rule), "{fault:?}");
            }
        },
    );
}

/// Runs `ip` in the namespace of the test.
fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Returns the index of an interface.
fn index(name: &str) -> u32 {
    sockbroker_sys::interface::index_of(name).unwrap()
}

impl Arena {
    /// Makes a call as the attacker, and returns the answer.
    fn tries(&mut self, method: &str, params: Value) -> Answer {
        self.attacker.call(&format!("socket.{method}"), params)
    }

    /// Like `tries`, with a file that the attacker has opened with `O_PATH`.
    fn tries_with(&mut self, method: &str, params: Value, file: &Path) -> Answer {
        let file = opened(file);
        let descriptors = [file.as_fd()];
        let parts = RequestParts::descriptors(&descriptors);
        self.attacker.call_with_parts(&format!("socket.{method}"), params, parts)
    }

    /// Sends with every method that takes an address.
    fn sends(&mut self, socket: u64, address: &Value, ancillary: &Value) -> Answers {
        let message = json!({ "buffers": ["aGk="], "ancdata": ancillary, "address": address });
        let mut answers = vec![
            self.tries("sendmsg", json!([socket, ["aGk="], ancillary, 0, address])),
            self.tries("sendmmsg", json!([socket, [message]])),
        ];
        if ancillary.as_array().is_none_or(Vec::is_empty) {
            answers.push(self.tries("sendto", json!([socket, "aGk=", 0, address])));
        }
        answers
    }

    /// Makes a call of the attack that must succeed.
    fn does(&mut self, method: &str, params: Value) -> Value {
        self.tries(method, params).result().clone()
    }
}

/// Loads another policy.
fn load(arena: &mut Arena, rules: &str) {
    std::fs::write(arena.broker.folder().join("policy.toml"), rules).unwrap();
    arena.broker.lsp().call("admin.reload", Value::Null).result();
}

/// Encodes an IPv6 header with this destination and next header.
fn header6(destination: &str, next: i32) -> Vec<u8> {
    let host: Ipv6Addr = destination.parse().unwrap();
    let next = u8::try_from(next).unwrap();
    [&[0x60, 0, 0, 0, 0, 24, next, 64][..], &[0; 16], &host.octets()].concat()
}

/// Encodes a routing header of type 4 (RFC 8754) with one host.
fn routing_header(host: &str) -> Vec<u8> {
    let host: Ipv6Addr = host.parse().unwrap();
    [&[59, 2, 4, 0, 0, 0, 0, 0][..], &host.octets()].concat()
}

/// Opens a file with `O_PATH`, as a client does to refer to it.
fn opened(path: &Path) -> File {
    File::options().read(true).custom_flags(libc::O_PATH).open(path).unwrap()
}
