//! A record as a line of JSON.

use serde_json::{Map, Value as Json};

use super::record::{Record, Value, rfc3339};

/// Encodes a record as one line, including its end. JSON escapes line ends in text.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let mut object = Map::new();
    object.insert("time".to_owned(), Json::String(rfc3339(record.time)));
    object.insert("audit".to_owned(), Json::String(record.event.clone().into_owned()));
    for (name, value) in &record.fields {
        let value = match value {
            Value::Text(text) => Json::String(text.clone()),
            Value::Number(number) => Json::from(*number),
        };
        object.insert(name.clone().into_owned(), value);
    }
    let mut line = Json::Object(object).to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_with_any_text_in_it() {
        let record = Record::new("decision")
            .with("rule", "evil\n{\"audit\":\"decision\",\"verdict\":\"allowed\"}\r\u{1b}[2J")
            .with("uid", 7_u32);
        let line = encode(&record);
        assert_eq!(line.iter().filter(|byte| byte.is_ascii_control()).count(), 1);
        let read: Json = serde_json::from_slice(&line).unwrap();
        assert_eq!(read["uid"], 7);
        assert_eq!(read["audit"], "decision");
        assert!(read["rule"].as_str().unwrap().starts_with("evil\n"));
        let time = read["time"].as_str().unwrap();
        assert!(time.len() == 27 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    }
}
