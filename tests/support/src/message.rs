//! Requests and answers as JSON, and what all clients have in common.

use std::os::fd::OwnedFd;

use serde_json::{Value, json};
use sockbroker_proto::bytes::{decode_base64, encode_base64};
use sockbroker_proto::error::ErrorData;

/// A request; no parameters if `params` is null.
pub fn request(id: impl Into<Value>, method: &str, params: Value) -> Value {
    let mut message = notification(method, params);
    message["id"] = id.into();
    message
}

/// A request without an id.
pub fn notification(method: &str, params: Value) -> Value {
    let mut message = json!({ "jsonrpc": "2.0", "method": method });
    if !params.is_null() {
        message["params"] = params;
    }
    message
}

/// Bytes as base64.
pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    encode_base64(bytes.as_ref())
}

/// Base64 as bytes.
pub fn unbase64(text: &Value) -> Vec<u8> {
    decode_base64(text.as_str().unwrap_or_else(|| panic!("no base64 text: {text}"))).unwrap()
}

/// An answer with what came beside it.
#[derive(Debug)]
pub struct Answer {
    /// The message: an object, or the array of a batch.
    pub json: Value,
    /// Its attachments.
    pub attachments: Vec<Vec<u8>>,
    /// Its descriptors.
    pub descriptors: Vec<OwnedFd>,
}

/// The error of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The JSON-RPC code.
    pub code: i64,
    /// The message.
    pub message: String,
    /// The fixed data fields.
    pub data: ErrorData,
}

impl From<Value> for Answer {
    fn from(json: Value) -> Self {
        Self { json, attachments: Vec::new(), descriptors: Vec::new() }
    }
}

impl Answer {
    /// Its id.
    pub fn id(&self) -> &Value {
        &self.json["id"]
    }

    /// The beginning of its text, for messages.
    pub fn short(&self) -> String {
        self.json.to_string().chars().take(500).collect()
    }

    /// Whether it tells an error.
    pub fn is_fault(&self) -> bool {
        self.json.get("error").is_some()
    }

    /// The result; fails if it is an error, or no answer of JSON-RPC 2.0.
    pub fn result(&self) -> &Value {
        assert_eq!(self.json["jsonrpc"], "2.0", "{}", self.short());
        self.json.get("result").unwrap_or_else(|| panic!("no result: {}", self.short()))
    }

    /// The error; fails if it is none, or not in the form of the contract.
    pub fn fault(&self) -> Fault {
        assert_eq!(self.json["jsonrpc"], "2.0", "{}", self.short());
        let error = self.json.get("error").unwrap_or_else(|| panic!("no error: {}", self.short()));
        let data = serde_json::from_value(error["data"].clone());
        Fault {
            code: error["code"].as_i64().unwrap(),
            message: error["message"].as_str().unwrap().to_owned(),
            data: data.unwrap_or_else(|wrong| panic!("{wrong}: {}", self.short())),
        }
    }

    /// The handle in a result that has one.
    pub fn handle(&self) -> u64 {
        let handle = self.result()["handle"].as_u64();
        handle.unwrap_or_else(|| panic!("no handle: {}", self.short()))
    }

    /// The handles of a pair of sockets.
    pub fn handles(&self) -> (u64, u64) {
        let handle = |index: usize| self.result()[index]["handle"].as_u64();
        let both = handle(0).zip(handle(1));
        both.unwrap_or_else(|| panic!("no two handles: {}", self.short()))
    }

    /// The bytes `data` of a result, from JSON or from an attachment.
    pub fn data(&self) -> Vec<u8> {
        self.bytes_of(&self.result()["data"])
    }

    /// Bytes somewhere in a result.
    pub fn bytes_of(&self, value: &Value) -> Vec<u8> {
        match value["attachment"].as_u64() {
            None => unbase64(value),
            Some(index) => self.attachments[usize::try_from(index).unwrap()].clone(),
        }
    }
}

impl Fault {
    /// The name of the limit that was crossed; fails if it is another error.
    pub fn limit(&self) -> &str {
        assert_eq!((self.code, self.data.kind.as_str()), (4002, "limit"), "{self:?}");
        self.data.limit.as_deref().unwrap()
    }

    /// The name of the error number of a system call; fails if it is another error.
    pub fn errno(&self) -> &str {
        assert_eq!((self.code, self.data.kind.as_str()), (1000, "OSError"), "{self:?}");
        self.data.name.as_deref().unwrap()
    }

    /// The Python exception of an argument error; fails if it is another error.
    pub fn exception(&self) -> &str {
        assert_eq!((self.code, self.data.kind.as_str()), (-32602, "argument"), "{self:?}");
        self.data.exception.as_deref().unwrap()
    }

    /// Code and kind.
    pub fn kind(&self) -> (i64, &str) {
        (self.code, &self.data.kind)
    }
}

/// A client of any spelling.
pub trait Client {
    /// Sends a message.
    fn send_json(&mut self, message: &Value);

    /// The next message; `None` at the end. Fails after a while without one.
    fn read_json(&mut self) -> Option<Value>;

    /// Sends a request and reads its answer, the next message.
    fn call(&mut self, method: &str, params: Value) -> Answer {
        self.send_json(&request(1, method, params));
        self.read_json().unwrap_or_else(|| panic!("the broker closed after {method}")).into()
    }
}
