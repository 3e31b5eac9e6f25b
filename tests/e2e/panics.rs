//! A panic fails only its own call (promise 1 of PROTOCOL.md).

use serde_json::{Value, json};
use sockbroker_test_support::message::request;
use sockbroker_test_support::{Client, bounded};
use sockbrokerd::config::limits::Limits;

use crate::in_process::InProcess;

const PANICS: [&str; 4] =
    ["test_panic", "test_panic_before_waiting", "test_panic_after_waiting", "test_panic_elsewhere"];

#[test]
fn panic_is_answered_and_keeps_the_connection() {
    bounded(20, || {
        let server = InProcess::start(Limits::default());
        let mut client = server.lsp();
        let (left, right) = client.pair();
        let waiting = client.send("socket.recv", json!([right, 9]));
        for method in PANICS {
            let fault = client.call(method, Value::Null).fault();
            assert_eq!(fault.kind(), (-32603, "internal"), "{method}");
            assert!(fault.message.contains(method), "{}", fault.message);
            assert!(
                !fault.message.contains("before any"),
                "the panic's own words are the broker's"
            );
            client.expect_service();
        }
        client.call("socket.send", json!([left, "aGk="])).result();
        assert_eq!(client.answer(waiting).data(), b"hi");
    });
}

#[test]
fn panic_in_a_batch_fails_one_entry() {
    bounded(20, || {
        let server = InProcess::start(Limits::default());
        let mut client = server.lsp();
        let mut batch: Vec<Value> =
            PANICS.iter().map(|method| request(*method, method, Value::Null)).collect();
        batch.push(request("last", "socket.htons", json!([1])));
        client.send_json(&batch.into());
        let answers = client.read_json().unwrap();
        for (index, method) in PANICS.iter().enumerate() {
            assert_eq!(answers[index]["id"], *method);
            assert_eq!(answers[index]["error"]["code"], -32603, "{answers}");
        }
        assert_eq!(answers[4]["result"], 256);
    });
}

#[test]
fn panic_in_a_notification_is_not_answered() {
    bounded(20, || {
        let server = InProcess::start(Limits::default());
        let mut client = server.lsp();
        for method in PANICS {
            client.notify(method, Value::Null);
        }
        client.expect_silence_for(100);
        client.expect_service();
    });
}

#[test]
fn panics_do_not_count_as_calls_in_flight() {
    bounded(20, || {
        let limits = Limits { calls_in_flight: 2, ..Limits::default() };
        let server = InProcess::start(limits);
        let mut client = server.lsp();
        for _ in 0..20 {
            let fault = client.call("test_panic_after_waiting", Value::Null).fault();
            assert_eq!(fault.code, -32603);
        }
        let (first, second) = (
            client.send("test_panic_after_waiting", Value::Null),
            client.send("test_panic_after_waiting", Value::Null),
        );
        assert_eq!(
            client.call("test_panic_after_waiting", Value::Null).fault().limit(),
            "calls_in_flight"
        );
        for id in [first, second] {
            assert_eq!(client.answer(id).fault().code, -32603);
        }
    });
}
