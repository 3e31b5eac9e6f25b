//! A whole connection: the bytes that a client sends, with real system calls.
//!
//! For any input the output is well-formed JSON-RPC in the framing of the client, and no request is answered twice.
//! The sockets are real, so run the fuzzer in isolation (`run` creates a network namespace).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sockbroker_proto::error::ErrorKind;
use sockbroker_proto::frame::{FrameLimits, read_head};

/// Sends the bytes to a broker on one connection, closes it, and checks the answers.
pub fn body(data: &[u8]) {
    let output = sockbrokerd::fuzzing::request(data);
    let (requested, answered) = match data.first() {
        Some(b'C' | b'c') => (frames(data).0, whole_frames(&output)),
        Some(b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n') => {
            (lines(data).into_iter().flat_map(messages).collect(), whole_lines(&output))
        }
        // HTTP and WebSocket wrap their answers: check only that no call panics.
        _ => return,
    };
    let mut open = BTreeMap::<String, usize>::new();
    for id in requested.into_iter().flat_map(ids) {
        *open.entry(id.to_string()).or_default() += 1;
    }
    for message in answered {
        let answer = must_be_json(message);
        for answer in answer.as_array().map_or(std::slice::from_ref(&answer), Vec::as_slice) {
            check_answer(answer);
            let id = answer["id"].to_string();
            // Invalid requests are answered with the ID null.
            if id != "null" {
                let count = open.entry(id).or_default();
                assert!(*count > 0, "this ID is answered more often than requested: {answer}");
                *count -= 1;
            }
        }
    }
}

/// Returns the IDs of a request or of a batch. It ignores parameters, which can be numbers out of range.
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
        assert!(known, "the error code is not documented: {answer}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        assert_ne!(error["code"], ErrorKind::Internal.code(), "the broker failed: {answer}");
    }
}

/// Returns the messages of the valid frames of a stream, and the rest.
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

/// The messages of a line: an object or array ends with its last bracket, and anything else with the line.
fn messages(mut line: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while !line.is_empty() {
        let (message, rest) = line.split_at(end_of_structure(line).unwrap_or(line.len()));
        messages.push(message);
        line = rest;
    }
    messages
}

/// The length of the object or array with which a text begins, if it is whole.
fn end_of_structure(text: &[u8]) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if depth > 0 => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            b' ' | b'\t' | b'\r' => {}
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
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
