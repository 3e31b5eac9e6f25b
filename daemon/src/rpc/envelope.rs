//! A JSON-RPC 2.0 request, read without copying its parameters.

use std::borrow::Cow;
use std::fmt;

use jsonrpsee_types::Id;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sockbroker_proto::api::session::RequestId;

use crate::rpc::argument::plain;

/// A request or, without an id, a notification.
#[derive(Debug, Deserialize)]
#[serde(expecting = "a JSON-RPC request object")]
pub(super) struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    /// `Some` for an id that is present, also if it is `null`.
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<ReadId<'a>>,
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    #[serde(borrow, default)]
    pub params: Option<&'a RawValue>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<ReadId<'a>>, D::Error> {
    from.deserialize_any(IdVisitor).map(Some)
}

/// The value of an id; `None` if it is not a string, an unsigned integer or `null`.
type ReadId<'a> = Option<Id<'a>>;

/// Reads an id. It is faster than the library's decoder, which tries each form in turn.
struct IdVisitor;

impl<'de> Visitor<'de> for IdVisitor {
    type Value = ReadId<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(Id::Number(number)))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Id::Str(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Id::Str(Cow::Owned(text.to_owned()))))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Some(Id::Null))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_seq(seq).map(|_ignored| None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_map(map).map(|_ignored| None)
    }
}

/// Why a text is not a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EnvelopeError {
    NotJson(String),
    /// JSON, but not a JSON-RPC request.
    NotRequest(String),
}

/// A request with its id, or an error with the id as far as it can be read.
type Read<'a> = Result<(Envelope<'a>, Option<Id<'a>>), (EnvelopeError, Id<'static>)>;

impl<'a> Envelope<'a> {
    /// Reads one request. An error comes with the id, so that it can be answered.
    pub(super) fn read(json: &'a str) -> Read<'a> {
        let mut envelope: Self =
            serde_json::from_str(json).map_err(|error| (classify(&error), find_id(json)))?;
        if envelope.jsonrpc != "2.0" {
            let text = "jsonrpc must be \"2.0\"".to_owned();
            return Err((EnvelopeError::NotRequest(text), find_id(json)));
        }
        match envelope.id.take() {
            None => Ok((envelope, None)),
            Some(Some(id)) => Ok((envelope, Some(id))),
            Some(None) => {
                let text = "the id must be a string, an unsigned integer or null".to_owned();
                Err((EnvelopeError::NotRequest(text), Id::Null))
            }
        }
    }
}

fn classify(error: &serde_json::Error) -> EnvelopeError {
    match error.classify() {
        serde_json::error::Category::Data => EnvelopeError::NotRequest(plain(&error.to_string())),
        serde_json::error::Category::Io
        | serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof => EnvelopeError::NotJson(not_json(error)),
    }
}

/// The message for a text that is not JSON, with the position of the error.
pub(super) fn not_json(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    format!("the message is not JSON: line {line}, column {column}")
}

/// The id of a request that has an error elsewhere.
fn find_id(json: &str) -> Id<'static> {
    #[derive(Deserialize)]
    struct Only<'a> {
        #[serde(borrow, default)]
        id: Option<Id<'a>>,
    }
    let only = serde_json::from_str::<Only<'_>>(json).ok();
    only.and_then(|only| only.id).map_or(Id::Null, Id::into_owned)
}

/// The id as a type of the contract. `None` for `null`, which identifies no call.
pub(super) fn request_id(id: &Id<'_>) -> Option<RequestId> {
    match id {
        Id::Null => None,
        Id::Number(number) => Some(RequestId::Number(*number)),
        Id::Str(text) => Some(RequestId::Text(text.clone().into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_id_differs_from_an_absent_id() {
        let (_, id) = Envelope::read(r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#).unwrap();
        assert_eq!(id, Some(Id::Null));
        let (_, id) = Envelope::read(r#"{"jsonrpc":"2.0","method":"m"}"#).unwrap();
        assert_eq!(id, None);
    }

    #[test]
    fn ids_are_strings_and_unsigned_integers() {
        for (text, expected) in [
            ("0", Id::Number(0)),
            ("18446744073709551615", Id::Number(u64::MAX)),
            (r#""a""#, Id::Str("a".into())),
            (r#""a\u0062\n""#, Id::Str("ab\n".into())),
        ] {
            let json = format!(r#"{{"jsonrpc":"2.0","id":{text},"method":"m"}}"#);
            assert_eq!(Envelope::read(&json).unwrap().1, Some(expected));
        }
    }

    #[test]
    fn errors_come_with_the_id_of_the_request() {
        let cases = [
            (r#"{"jsonrpc":"1.0","id":7,"method":"m"}"#, Id::Number(7)),
            (r#"{"id":7,"method":"m"}"#, Id::Number(7)),
            (r#"{"jsonrpc":"2.0","id":"a","method":1}"#, Id::Str("a".into())),
            (r#"{"jsonrpc":"2.0","id":-1,"method":"m"}"#, Id::Null),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"m"}"#, Id::Null),
            (r#"{"jsonrpc":"2.0","id":18446744073709551616,"method":"m"}"#, Id::Null),
            (r#"{"jsonrpc":"2.0","id":true,"method":"m"}"#, Id::Null),
            (r#"{"jsonrpc":"2.0","id":[1],"method":"m"}"#, Id::Null),
            (r#"{"jsonrpc":"2.0","id":{"a":1},"method":"m"}"#, Id::Null),
            ("17", Id::Null),
        ];
        for (text, expected) in cases {
            let (error, id) = Envelope::read(text).unwrap_err();
            assert!(matches!(error, EnvelopeError::NotRequest(_)), "{text}");
            assert_eq!(id, expected, "{text}");
        }
        assert!(matches!(Envelope::read("{").unwrap_err().0, EnvelopeError::NotJson(_)));
    }
}
