//! A whole connection: the bytes a client might send, down to the kernel and back.
//!
//! Whatever comes in, what goes out is well-formed JSON-RPC in the spelling of the client, and no
//! request is answered twice. Sockets are real: run the fuzzer where it may do as it likes (`run`
//! gives it a network of its own).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sockbroker_proto::error::ErrorKind;
use sockbroker_proto::frame::{FrameLimits, read_head};

/// Sends the bytes to a broker, as one connection that then ends, and judges the answers.
pub fn body(data: &[u8]) {
    let output = sockbrokerd::fuzzing::request(data);
    let (asked, answered) = match data.first() {
        Some(b'C' | b'c') => (frames(data).0, whole_frames(&output)),
        Some(b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n') => (lines(data), whole_lines(&output)),
        // HTTP and WebSocket wrap their answers; that no panic ends a call is all that is asked.
        _ => return,
    };
    let mut open = BTreeMap::<String, usize>::new();
    for id in asked.into_iter().flat_map(ids) {
        *open.entry(id.to_string()).or_default() += 1;
    }
    for message in answered {
        let answer = must_be_json(message);
        for answer in answer.as_array().map_or(std::slice::from_ref(&answer), Vec::as_slice) {
            check_answer(answer);
            let id = answer["id"].to_string();
            // What could not be read as a request is answered under the id null.
            if id != "null" {
                let count = open.entry(id).or_default();
                assert!(*count > 0, "this id is answered more often than asked: {answer}");
                *count -= 1;
            }
        }
    }
}

/// The ids of a request or of a batch of requests. Nothing but the ids is looked at: a parameter may
/// be a number that no type holds.
fn ids(message: &[u8]) -> Vec<Value> {
    #[derive(Deserialize)]
    struct Request {
        id: Value,
    }
    let id = |text: &str| serde_json::from_str::<Request>(text).ok().map(|request| request.id);
    match serde_json::from_slice::<Vec<&RawValue>>(message) {
        Ok(batch) => batch.into_iter().filter_map(|request| id(request.get())).collect(),
        Err(_) => std::str::from_utf8(message).ok().and_then(id).into_iter().collect(),
    }
}

fn check_answer(answer: &Value) {
    assert_eq!(answer["jsonrpc"], "2.0", "{answer}");
    let error = answer.get("error");
    assert_ne!(answer.get("result").is_some(), error.is_some(), "{answer}");
    if let Some(error) = error {
        let known = ErrorKind::all().any(|kind| error["code"] == kind.code());
        assert!(known, "no code of the table: {answer}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        assert_ne!(error["code"], ErrorKind::Internal.code(), "the broker failed: {answer}");
    }
}

/// The messages of a stream of frames that can be read, and what is left of it.
fn frames(mut data: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut messages = Vec::new();
    while let Ok(Some((head, length))) = read_head(data, &FrameLimits::default()) {
        let Some((body, rest)) = data[length..].split_at_checked(head.body_length()) else { break };
        messages.push(&body[..head.content_length]);
        data = rest;
    }
    (messages, data)
}

fn whole_frames(data: &[u8]) -> Vec<&[u8]> {
    let (messages, rest) = frames(data);
    assert!(rest.is_empty(), "no frame: {:?}", String::from_utf8_lossy(rest));
    messages
}

fn lines(data: &[u8]) -> Vec<&[u8]> {
    data.split(|byte| *byte == b'\n').collect()
}

fn whole_lines(data: &[u8]) -> Vec<&[u8]> {
    assert!(data.is_empty() || data.ends_with(b"\n"), "the last line does not end");
    lines(data).into_iter().filter(|line| !line.is_empty()).collect()
}

fn must_be_json(json: &[u8]) -> Value {
    let value = serde_json::from_slice(json).ok();
    assert!(value.is_some(), "not JSON: {:?}", String::from_utf8_lossy(json));
    value.unwrap_or_default()
}
