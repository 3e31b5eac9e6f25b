//! Bytes on the wire: base64 text, or a reference to an attachment of the same frame.
//!
//! A parameter can be a base64 string (RFC 4648, standard alphabet, with padding) or
//! `{"attachment": n}`, the n-th raw part that follows the frame's JSON. A result is an
//! attachment only if the peer has stated that it understands attachments.

use std::borrow::Cow;
use std::fmt;

use base64_simd::STANDARD;
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes in a parameter or result: inline, or an attachment of the frame.
#[derive(Clone, PartialEq, Eq)]
pub enum Bytes {
    /// The bytes themselves; base64 text in JSON.
    Inline(Vec<u8>),
    /// The index of an attachment, counted from 0, of the frame that carries this value.
    Attachment(u32),
}

impl fmt::Debug for Bytes {
    /// Shows the length, never the payload, because this type is logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(data) => write!(f, "Inline({} bytes)", data.len()),
            Self::Attachment(index) => write!(f, "Attachment({index})"),
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(data: Vec<u8>) -> Self {
        Self::Inline(data)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Inline(data) => serializer.serialize_str(&STANDARD.encode_to_string(data)),
            Self::Attachment(index) => {
                let mut object = serializer.serialize_struct("Bytes", 1)?;
                object.serialize_field("attachment", index)?;
                object.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BytesVisitor)
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a base64 string or {\"attachment\": index}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
        decode_base64(text).map(Bytes::Inline).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bytes, A::Error> {
        match map.next_key::<Cow<'_, str>>()?.as_deref() {
            Some("attachment") => {}
            Some(other) => return Err(de::Error::unknown_field(other, &["attachment"])),
            None => return Err(de::Error::missing_field("attachment")),
        }
        let index = map.next_value()?;
        match map.next_key::<Cow<'_, str>>()? {
            Some(other) => Err(de::Error::unknown_field(&other, &["attachment"])),
            None => Ok(Bytes::Attachment(index)),
        }
    }
}

/// Decodes standard base64 with padding. Fails with a message for the peer.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, &'static str> {
    STANDARD
        .decode_to_vec(text)
        .map_err(|_error| "bytes are not valid base64 (standard alphabet, with padding)")
}

/// Encodes as standard base64 with padding.
pub fn encode_base64(data: &[u8]) -> String {
    STANDARD.encode_to_string(data)
}

impl schemars::JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Bytes: base64 text, or the index of an attachment of the same frame",
            "oneOf": [
                { "type": "string", "contentEncoding": "base64" },
                {
                    "type": "object",
                    "properties": { "attachment": { "type": "integer", "minimum": 0 } },
                    "required": ["attachment"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_text_and_attachment_references_round_trip() {
        for (value, text) in [
            (Bytes::Inline(b"hello".to_vec()), "\"aGVsbG8=\""),
            (Bytes::Inline(Vec::new()), "\"\""),
            (Bytes::Attachment(3), "{\"attachment\":3}"),
        ] {
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
            assert_eq!(serde_json::from_str::<Bytes>(text).unwrap(), value);
        }
    }

    #[test]
    fn other_values_are_refused_with_a_reason() {
        for (text, part) in [
            ("\"a\"", "not valid base64"),
            ("{}", "missing field"),
            ("{\"attachment\":0,\"x\":1}", "unknown field"),
            ("{\"attach\":0}", "unknown field"),
            ("{\"attachment\":-1}", "invalid value"),
            ("17", "a base64 string"),
        ] {
            let error = serde_json::from_str::<Bytes>(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
