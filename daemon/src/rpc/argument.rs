//! Error messages for parameters that could not be decoded, in the terms of the contract.
//!
//! The decoder reports the Rust type that it expected, and a column of the text. This module compares the
//! parameters with their schemas instead. Only calls that failed pay for it.

use std::sync::LazyLock;

use serde_json::Value;
use serde_json::value::RawValue;
use sockbroker_proto::address::Exception;
use sockbroker_proto::api;
use sockbroker_proto::method::{Parameters, ParametersError};

use crate::rpc::error::{RpcError, is_out_of_range};

/// Names of types in the parser's messages, and what the messages of the broker call them.
const NUMBERS: [(&str, &str); 9] = [
    ("i64", "an integer"),
    ("i32", "an integer"),
    ("u64", "an integer from 0"),
    ("u32", "an integer from 0"),
    ("u16", "an integer from 0 to 65535"),
    ("u8", "an integer from 0 to 255"),
    ("usize", "an integer from 0"),
    ("f64", "a number"),
    ("unit", "null"),
];

static CONTRACT: LazyLock<Value> = LazyLock::new(api::document);

/// The error of parameters that could not be decoded.
pub(super) fn refused<P: Parameters>(
    params: Option<&RawValue>,
    error: ParametersError,
) -> RpcError {
    let call = P::METHOD.rsplit('.').next().unwrap_or(P::METHOD);
    match error {
        ParametersError::Shape(text) => {
            RpcError::argument(Exception::TypeError, format!("{call}: {text}"))
        }
        ParametersError::Missing(_) => {
            RpcError::argument(Exception::TypeError, message(P::METHOD, params, ""))
        }
        ParametersError::Value(refusal) => {
            let out_of_range = is_out_of_range(&refusal);
            let exception =
                if out_of_range { Exception::OverflowError } else { Exception::TypeError };
            RpcError::argument(exception, message(P::METHOD, params, &refusal))
        }
    }
}

/// Describes the first parameter that does not fit, after the name of the call. `refusal` is the decoder's
/// message.
fn message(method: &str, params: Option<&RawValue>, refusal: &str) -> String {
    let call = method.rsplit('.').next().unwrap_or(method);
    let params = params.and_then(|params| serde_json::from_str(params.get()).ok());
    let params: Value = params.unwrap_or_default();
    let found = parameters(method).iter().enumerate().find_map(|(index, parameter)| {
        let name = parameter.get("name")?.as_str()?;
        let given = params.get(name).or_else(|| params.get(index));
        misfit(call, name, parameter, given)
    });
    found.unwrap_or_else(|| format!("{call}: {}", plain(refusal)))
}

fn parameters(method: &str) -> &'static [Value] {
    let methods = CONTRACT.get("methods").and_then(Value::as_array);
    let found = methods
        .into_iter()
        .flatten()
        .find(|found| found.get("name").and_then(Value::as_str) == Some(method));
    let parameters = found.and_then(|found| found.get("params")).and_then(Value::as_array);
    parameters.map_or(&[], Vec::as_slice)
}

/// Describes why this parameter does not fit; `None` if it fits.
fn misfit(call: &str, name: &str, parameter: &Value, given: Option<&Value>) -> Option<String> {
    let required = parameter.get("required") == Some(&Value::Bool(true));
    let schema = parameter.get("schema")?;
    let about = parameter.get("description").and_then(Value::as_str).map(about)?;
    let words = words(schema);
    match given {
        None if required => Some(format!("{call} needs {name} ({words}): {about}")),
        None => None,
        Some(Value::Null) if !required => None,
        Some(value) if fits(schema, value) => None,
        Some(value) => {
            let found = described(value);
            Some(format!("{call} takes {name} as {words}, not {found}: {about}"))
        }
    }
}

/// The first sentence of a description, in a form that fits into a message.
fn about(description: &str) -> String {
    let sentence = description.split(". ").next().unwrap_or_default();
    let sentence = sentence.split_once(".\n").map_or(sentence, |(first, _)| first);
    let sentence = sentence.trim_end_matches('.').replace('\n', " ");
    let mut letters = sentence.chars();
    let starts_word = letters.clone().nth(1).is_some_and(char::is_lowercase);
    match letters.next() {
        Some(first) if starts_word || sentence.starts_with("A ") => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => sentence,
    }
}

/// The schema that a reference names, with the name. Any other schema is returned as it is.
fn resolved(schema: &Value) -> (&Value, Option<&str>) {
    let reference = schema.get("$ref").and_then(Value::as_str);
    let Some(name) = reference.and_then(|name| name.strip_prefix("#/components/schemas/")) else {
        return (schema, None);
    };
    let schemas = CONTRACT.get("components").and_then(|parts| parts.get("schemas"));
    (schemas.and_then(|schemas| schemas.get(name)).unwrap_or(schema), Some(name))
}

/// The alternatives of a schema.
fn alternatives(schema: &Value) -> Option<&Vec<Value>> {
    ["anyOf", "oneOf"].into_iter().find_map(|key| schema.get(key)?.as_array())
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whether a value has one of the types that a schema allows. The contents of lists and objects are not
/// checked.
fn fits(schema: &Value, value: &Value) -> bool {
    let (schema, _) = resolved(schema);
    if let Some(schemas) = alternatives(schema) {
        return schemas.iter().any(|schema| fits(schema, value));
    }
    let names = types(schema);
    let least = schema.get("minimum").and_then(Value::as_i64).unwrap_or(i64::MIN);
    names.is_empty()
        || names.iter().any(|name| match (*name, value) {
            ("null", Value::Null)
            | ("boolean", Value::Bool(_))
            | ("number", Value::Number(_))
            | ("string", Value::String(_))
            | ("array", Value::Array(_))
            | ("object", Value::Object(_)) => true,
            ("integer", Value::Number(number)) => {
                number.is_u64() || number.as_i64().is_some_and(|number| number >= least)
            }
            _ => false,
        })
}

/// A short description of the values that a schema allows.
fn words(schema: &Value) -> String {
    let (schema, name) = resolved(schema);
    match name {
        Some("Bytes") => return "base64 text or {\"attachment\": n}".to_owned(),
        Some("ConstantInput") => return "integer or name of a constant".to_owned(),
        Some("Address") => return "address".to_owned(),
        Some("Handle") => return "handle".to_owned(),
        _ => {}
    }
    if let Some(schemas) = alternatives(schema) {
        let words: Vec<_> = schemas.iter().map(words).filter(|words| words != "null").collect();
        return words.join(" or ");
    }
    let from_zero = schema.get("minimum").and_then(Value::as_u64).is_some();
    let word = |name: &str| match name {
        "integer" if from_zero => "integer from 0",
        "string" => "text",
        "boolean" => "true or false",
        "array" => "list",
        "null" => "null",
        "integer" => "integer",
        "number" => "number",
        _ => "object",
    };
    let names: Vec<_> = types(schema).into_iter().map(word).collect();
    let only = names.len() == 1;
    let names: Vec<_> = names.into_iter().filter(|name| only || *name != "null").collect();
    names.join(" or ")
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        // The digits as they were written, also of a number beyond 64 bits.
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// A message of the parser, without the position and the names of Rust types.
pub(super) fn plain(refusal: &str) -> String {
    let text = refusal.split(" at line ").next().unwrap_or(refusal).trim();
    let text = match text.split_once(", expected ") {
        Some((found, expected)) if found.starts_with("invalid ") => {
            let found = found.split_once(": ").map_or(found, |(_, found)| found);
            let found = found
                .strip_prefix("invalid length ")
                .map_or_else(|| found.to_owned(), |count| format!("{count} items"));
            let number = NUMBERS.iter().find(|(name, _)| *name == expected);
            let expected = number.map_or(expected, |(_, words)| words);
            format!("{expected} is expected, not {found}")
        }
        _ if text.starts_with("data did not match any variant") => {
            "the value does not fit".to_owned()
        }
        _ => text.to_owned(),
    };
    let text = text
        .strip_prefix("missing field `")
        .map_or_else(|| text.clone(), |rest| format!("{} is missing", rest.trim_end_matches('`')));
    let mut letters = text.chars();
    // Names stay in upper case: EOF, AF_INET.
    let starts_word = letters.clone().nth(1).is_some_and(char::is_lowercase);
    match letters.next() {
        Some(first) if starts_word => first.to_lowercase().chain(letters).collect(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, params: &str) -> String {
        let params = RawValue::from_string(params.to_owned()).unwrap();
        message(method, Some(&params), "invalid type: map, expected i64 at line 1 column 5")
    }

    #[test]
    fn message_names_a_missing_parameter_its_type_and_its_meaning() {
        let expected = "recv needs bufsize (integer): at most this many bytes";
        for params in [r#"{"handle":1}"#, "[1]"] {
            assert_eq!(of("socket.recv", params), expected);
        }
        assert!(message("socket.recv", None, "").starts_with("recv needs handle (handle): "));
    }

    #[test]
    fn message_shows_a_value_of_the_wrong_type() {
        for (value, found) in [
            ("\"1\"", "a text"),
            ("1.5", "1.5"),
            ("[1]", "a list"),
            ("{}", "an object"),
            ("true", "true"),
            ("null", "null"),
        ] {
            let expected =
                format!("recv takes bufsize as integer, not {found}: at most this many bytes");
            assert_eq!(
                of("socket.recv", &format!(r#"{{"handle":1,"bufsize":{value}}}"#)),
                expected
            );
        }
        let text = of("admin.handles", "[-1]");
        assert!(text.starts_with("handles takes session as integer from 0, not -1: "), "{text}");
    }

    #[test]
    fn errors_within_a_value_name_no_rust_types() {
        for (refusal, expected) in [
            (
                "invalid type: map, expected i64 at line 1 column 5",
                "an integer is expected, not map",
            ),
            (
                "invalid value: integer `-1`, expected u32",
                "an integer from 0 is expected, not integer `-1`",
            ),
            ("missing field `buffers` at line 1 column 12", "buffers is missing"),
            ("data did not match any variant of untagged enum X", "the value does not fit"),
            ("AF_NOTHING is not a constant", "AF_NOTHING is not a constant"),
            ("No more params", "no more params"),
        ] {
            assert_eq!(plain(refusal), expected);
        }
    }

    #[test]
    fn every_parameter_of_the_contract_has_a_description() {
        for (method, names) in api::parameters() {
            assert_eq!(parameters(method).len(), names.len(), "{method}");
            for parameter in parameters(method) {
                assert!(!words(&parameter["schema"]).is_empty(), "{method}: {parameter}");
            }
        }
    }
}
