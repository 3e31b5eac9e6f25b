//! Requests and answers as JSON, and the interface of all clients.

use std::os::fd::OwnedFd;

use serde_json::{Value, json};
use sockbroker_proto::bytes::{decode_base64, encode_base64};
use sockbroker_proto::error::ErrorData;

/// Builds a request. If `params` is null, it has no parameters.
pub fn request(id: impl Into<Value>, method: &str, params: Value) -> Value {
    let mut message = notification(method, params);
    message["id"] = id.into();
    message
}

/// Builds a notification.
pub fn notification(method: &str, params: Value) -> Value {
    let mut message = json!({ "jsonrpc": "2.0", "method": method });
    if !params.is_null() {
        message["params"] = params;
    }
    message
}

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    encode_base64(bytes.as_ref())
}

pub fn unbase64(text: &Value) -> Vec<u8> {
    decode_base64(text.as_str().unwrap_or_else(|| panic!("not a base64 string: {text}"))).unwrap()
}

/// An answer with its attachments and descriptors.
#[derive(Debug)]
pub struct Answer {
    /// The JSON message: an object, or the array of a batch.
    pub json: Value,
    pub attachments: Vec<Vec<u8>>,
    pub descriptors: Vec<OwnedFd>,
}

/// The error object of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub code: i64,
    pub message: String,
    /// The documented fields of `data`.
    pub data: ErrorData,
}

impl From<Value> for Answer {
    fn from(json: Value) -> Self {
        Self { json, attachments: Vec::new(), descriptors: Vec::new() }
    }
}

impl Answer {
    pub fn id(&self) -> &Value {
        &self.json["id"]
    }

    /// The start of the JSON text, for failure messages.
    pub fn short(&self) -> String {
        self.json.to_string().chars().take(500).collect()
    }

    /// Whether the answer is an error.
    pub fn is_fault(&self) -> bool {
        self.json.get("error").is_some()
    }

    /// Returns the result. Fails if the answer is an error or is not JSON-RPC 2.0.
    pub fn result(&self) -> &Value {
        assert_eq!(self.json["jsonrpc"], "2.0", "{}", self.short());
        self.json.get("result").unwrap_or_else(|| panic!("no result: {}", self.short()))
    }

    /// Returns the error. Fails if the answer is a result, or if the error does not follow the contract.
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

    /// Returns the handle in the result.
    pub fn handle(&self) -> u64 {
        let handle = self.result()["handle"].as_u64();
        handle.unwrap_or_else(|| panic!("no handle: {}", self.short()))
    }

    /// Returns the two handles in the result of `socket.socketpair`.
    pub fn handles(&self) -> (u64, u64) {
        let handle = |index: usize| self.result()[index]["handle"].as_u64();
        let both = handle(0).zip(handle(1));
        both.unwrap_or_else(|| panic!("no two handles: {}", self.short()))
    }

    /// Returns the bytes `data` of the result, from base64 or an attachment.
    pub fn data(&self) -> Vec<u8> {
        self.bytes_of(&self.result()["data"])
    }

    /// Decodes bytes of the result, from base64 or an attachment.
    pub fn bytes_of(&self, value: &Value) -> Vec<u8> {
        match value["attachment"].as_u64() {
            None => unbase64(value),
            Some(index) => self.attachments[usize::try_from(index).unwrap()].clone(),
        }
    }
}

impl Fault {
    /// Returns the name of the exceeded limit. Fails on another error.
    pub fn limit(&self) -> &str {
        assert_eq!((self.code, self.data.kind.as_str()), (4002, "limit"), "{self:?}");
        self.data.limit.as_deref().unwrap()
    }

    /// Returns the errno name of a failed system call. Fails on another error.
    pub fn errno(&self) -> &str {
        assert_eq!((self.code, self.data.kind.as_str()), (1000, "OSError"), "{self:?}");
        self.data.name.as_deref().unwrap()
    }

    /// Returns the Python exception of an argument error. Fails on another error.
    pub fn exception(&self) -> &str {
        assert_eq!((self.code, self.data.kind.as_str()), (-32602, "argument"), "{self:?}");
        self.data.exception.as_deref().unwrap()
    }

    /// Returns the code and the kind.
    pub fn kind(&self) -> (i64, &str) {
        (self.code, &self.data.kind)
    }
}

/// A client of any protocol.
pub trait Client {
    fn send_json(&mut self, message: &Value);

    /// Reads the next message; returns `None` at the end of the connection. Fails if none arrives in time.
    fn read_json(&mut self) -> Option<Value>;

    /// Sends a request and reads the next message as its answer.
    fn call(&mut self, method: &str, params: Value) -> Answer {
        self.send_json(&request(1, method, params));
        self.read_json().unwrap_or_else(|| panic!("the broker closed after {method}")).into()
    }
}
