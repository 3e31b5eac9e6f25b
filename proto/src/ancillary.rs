//! Ancillary data (`cmsg(3)`) in Python's form: `(level, type, data)`.
//!
//! Data of any level and type is raw bytes, in host order as the kernel has it. The only
//! exception is `SOL_SOCKET`, `SCM_RIGHTS`: descriptors are attached to the frame, and the item states
//! how many of them belong to it. The broker refuses raw `SCM_RIGHTS` bytes, because they would name
//! its own descriptors.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::constant::Constant;

/// One item of ancillary data: `[level, type, data]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AncillaryItem(
    /// `cmsg_level`, such as `SOL_SOCKET`.
    pub Constant,
    /// `cmsg_type`, such as `SCM_RIGHTS`.
    pub Constant,
    /// `cmsg_data`.
    pub AncillaryData,
);

/// The data of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "bytes or {\"descriptors\": n}")]
pub enum AncillaryData {
    /// The next descriptors of the frame belong to this item.
    Descriptors(Descriptors),
    /// Raw bytes.
    Bytes(Bytes),
}

/// Descriptors of an `SCM_RIGHTS` item, in order, taken from those attached to the frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptors {
    /// The number of descriptors, at most 253 (`SCM_MAX_FD`).
    pub descriptors: u32,
    /// Base64 of odd bytes after the last whole descriptor, which a truncated item has.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rest: String,
}

impl JsonSchema for AncillaryItem {
    fn schema_name() -> Cow<'static, str> {
        "AncillaryItem".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let bytes = generator.subschema_for::<Bytes>();
        let constant = generator.subschema_for::<Constant>();
        json_schema!({
            "description": "Ancillary data as [level, type, data]; SCM_RIGHTS data is \
                {\"descriptors\": n}, taken in order from the descriptors attached to the frame",
            "type": "array",
            "items": [constant, constant, { "anyOf": [bytes, {
                "type": "object",
                "properties": {
                    "descriptors": { "type": "integer", "minimum": 0, "maximum": 253 },
                    "rest": { "type": "string", "contentEncoding": "base64" }
                },
                "required": ["descriptors"],
                "additionalProperties": false
            }] }],
            "minItems": 3,
            "maxItems": 3
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_tuples_in_json() {
        for text in ["[1,1,{\"descriptors\":2}]", "[41,50,\"AAAA\"]", "[1,2,{\"attachment\":0}]"] {
            let item: AncillaryItem = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&item).unwrap(), text);
        }
    }

    #[test]
    fn unknown_fields_of_data_are_refused() {
        for text in ["[1,1,{\"descriptor\":2}]", "[1,1]", "[1,1,5]", "[1,1,{\"descriptors\":-1}]"] {
            assert!(serde_json::from_str::<AncillaryItem>(text).is_err(), "{text}");
        }
    }
}
