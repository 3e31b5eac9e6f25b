//! Parses parameters and times of the command line.

use std::fs;
use std::io::Read as _;

use serde_json::{Map, Value};
use sockbroker_proto::bytes::Bytes;

use crate::failure::Failure;

/// Parses the parameters of a call: arguments `NAME=VALUE`, or one JSON array or object.
pub(crate) fn parameters(words: &[String]) -> Result<Value, Failure> {
    if let [word] = words
        && word.trim_start().starts_with(['[', '{'])
    {
        return serde_json::from_str(word).map_err(|error| {
            Failure::usage(format!("cannot read the parameters as JSON: {error}"))
        });
    }
    let mut named = Map::new();
    for word in words {
        let (name, value) = split(word)?;
        if named.insert(name.to_owned(), read(name, value)?).is_some() {
            return Err(Failure::usage(format!("parameter {name} is given twice")));
        }
    }
    Ok(Value::Object(named))
}

fn split(word: &str) -> Result<(&str, &str), Failure> {
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    word.split_once('=').filter(|(name, _)| is_name(name)).ok_or_else(|| {
        Failure::usage(format!(
            "cannot read parameter {word:?}: write NAME=VALUE, or one JSON array or object alone"
        ))
    })
}

fn read(name: &str, value: &str) -> Result<Value, Failure> {
    if let Some(path) = value.strip_prefix('@') {
        let bytes =
            file(path).map_err(|error| Failure::stream(&format!("{name}={value}"), &error))?;
        return serde_json::to_value(Bytes::Inline(bytes))
            .map_err(|error| Failure::usage(format!("{name}: {error}")));
    }
    Ok(serde_json::from_str(value).unwrap_or_else(|_not_json| Value::from(value)))
}

fn file(path: &str) -> std::io::Result<Vec<u8>> {
    if path != "-" {
        return fs::read(path);
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Parses a time in seconds that is finite and not negative.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=1e9).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds from 0 to 1e9".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn times_are_finite_and_not_negative() {
        assert_eq!(seconds("0.25"), Ok(0.25));
        for wrong in ["-1", "inf", "NaN", "soon", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    use super::*;

    fn of(words: &[&str]) -> Result<Value, Failure> {
        parameters(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn values_are_json_if_they_parse_else_strings() {
        let words = ["a=1", "b=AF_INET", "c=[\"x\",2]", "d=null", "e=", "f=\"1\"", "g=a=b", "h={"];
        let expected = json!({
            "a": 1, "b": "AF_INET", "c": ["x", 2], "d": null, "e": "", "f": "1", "g": "a=b", "h": "{"
        });
        assert_eq!(of(&words).unwrap(), expected);
        assert_eq!(of(&[]).unwrap(), json!({}));
    }

    #[test]
    fn one_array_or_object_is_all_parameters() {
        assert_eq!(of(&["[80]"]).unwrap(), json!([80]));
        assert_eq!(of(&[" {\"x\": 1}"]).unwrap(), json!({ "x": 1 }));
        assert!(of(&["[80"]).unwrap_err().to_string().contains("as JSON"));
    }

    #[test]
    fn argument_without_name_and_value_is_refused() {
        for wrong in [&["80"][..], &["=1"], &["a b=1"], &["a=1", "[2]"]] {
            let failure = of(wrong).unwrap_err().to_string();
            assert!(failure.contains("NAME=VALUE"), "{failure}");
        }
        assert_eq!(of(&["a=1", "a=2"]).unwrap_err().to_string(), "parameter a is given twice");
    }

    #[test]
    fn file_parameter_is_passed_as_base64() {
        let folder = sockbroker_test_support::Folder::new();
        let path = folder.write("bytes", "hello");
        let word = format!("bytes=@{}", path.display());
        assert_eq!(of(&[&word]).unwrap(), json!({ "bytes": "aGVsbG8=" }));
        let failure = of(&["bytes=@/nowhere/at/all"]).unwrap_err().to_string();
        assert!(failure.contains("ENOENT") && failure.contains("bytes=@/nowhere"), "{failure}");
    }
}
