//! The JSON form of an address, before it is read for a family.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::constant::Constant;

/// An address in JSON: a path, a number, raw bytes, a tuple, or the opaque form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "an address: a string, a number, an array, {\"base64\"}, {\"family\", \"base64\"} or {\"descriptor\"}"
)]
pub enum AddressValue {
    /// `null`: no address, for example of a peer.
    None(()),
    /// A path of `AF_UNIX` (a leading NUL means the abstract namespace), or a Bluetooth SCO device.
    Text(String),
    /// The number of a Bluetooth controller.
    Number(i64),
    /// A tuple in Python's order.
    Tuple(Vec<AddressItem>),
    /// Any family: its raw `sockaddr` bytes after `sa_family`.
    Opaque(OpaqueValue),
    /// An `AF_UNIX` name that is not UTF-8, or is abstract (leading NUL).
    Bytes(BytesValue),
    /// An `AF_UNIX` file that the client has opened.
    File(FileValue),
}

/// `{"descriptor": n}`; for `bind` `{"descriptor": n, "name": "...", "path": "..."}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileValue {
    /// The index, from 0, of a descriptor of the frame: the socket's file, for `bind` the directory. It was
    /// opened with `O_PATH`.
    pub descriptor: u32,
    /// For `bind`: the name to create in the directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<PathValue>,
    /// For `bind`: the path from the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathValue>,
}

/// A path, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a string or {\"base64\"}")]
pub enum PathValue {
    /// As text.
    Text(String),
    /// Bytes that are not UTF-8.
    Bytes(BytesValue),
}

/// `{"family": n, "base64": "..."}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpaqueValue {
    /// The number of the address family.
    pub family: Constant,
    /// The bytes of the kernel's structure that follow `sa_family`.
    pub base64: String,
}

/// `{"base64": "..."}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BytesValue {
    /// The bytes.
    pub base64: String,
}

/// One item of an address tuple.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AddressItem {
    /// An integer.
    Number(i64),
    /// A host, an interface, a Bluetooth device, or base64 if Python has bytes here.
    Text(String),
    /// Bytes, if the item can also be text.
    Bytes(BytesValue),
    /// Python's `None`, if a host or port can be absent (`getaddrinfo`).
    None(()),
    /// Any other value, kept so that the error is that of CPython.
    Other(serde_json::Value),
}

impl AddressItem {
    /// The item as an integer, if it is one. JSON parsers read an integer beyond 64 bits as a floating point
    /// number, which keeps its sign and its high bits.
    pub fn integer(&self) -> Option<i128> {
        match self {
            Self::Number(number) => Some((*number).into()),
            Self::Other(serde_json::Value::Number(number)) => match number.as_u64() {
                Some(number) => Some(number.into()),
                None => number.as_f64().and_then(beyond_64_bits),
            },
            Self::Text(_) | Self::Bytes(_) | Self::None(()) | Self::Other(_) => None,
        }
    }
}

/// An integral number that does not fit into 64 bits.
fn beyond_64_bits(number: f64) -> Option<i128> {
    const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
    #[expect(clippy::cast_possible_truncation, reason = "it has no fraction, and `as` saturates")]
    (number.abs() >= TWO_TO_63 && number.fract() == 0.0).then_some(number as i128)
}

impl JsonSchema for AddressValue {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A socket address in Python's form for the handle's family: \
                a path, a tuple as an array, a controller's number, {\"base64\"} for names that are not text, \
                {\"family\", \"base64\"} for the raw sockaddr of any family, or {\"descriptor\"} for a \
                file of AF_UNIX that the client has opened",
            "anyOf": [
                { "type": "null" },
                { "type": "string" },
                { "type": "integer" },
                { "type": "array", "items": { "anyOf": [
                    { "type": "integer" }, { "type": "string" }, { "type": "null" },
                    { "type": "object", "properties": { "base64": { "type": "string" } },
                      "required": ["base64"], "additionalProperties": false }
                ] } },
                { "type": "object",
                  "properties": { "family": { "type": ["integer", "string"] }, "base64": { "type": "string" } },
                  "required": ["base64"], "additionalProperties": false },
                { "type": "object",
                  "properties": {
                    "descriptor": { "type": "integer", "minimum": 0 },
                    "name": { "type": ["string", "object"] },
                    "path": { "type": ["string", "object"] }
                  },
                  "required": ["descriptor"], "additionalProperties": false }
            ]
        })
    }
}

impl JsonSchema for AddressItem {
    fn schema_name() -> Cow<'static, str> {
        "AddressItem".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "One item of an address tuple",
            "anyOf": [
                { "type": "integer" }, { "type": "string" }, { "type": "null" },
                { "type": "object", "properties": { "base64": { "type": "string" } },
                  "required": ["base64"], "additionalProperties": false }
            ]
        })
    }
}
