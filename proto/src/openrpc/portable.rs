//! Makes schemas portable: formats that validators know, and a title for each schema.

use serde_json::{Map, Value, json};

/// Keywords whose value is a schema.
const SCHEMA: [&str; 4] = ["additionalProperties", "contains", "not", "propertyNames"];
/// Keywords whose value is a list of schemas.
const LIST: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// Replaces formats of numbers by bounds, and gives this schema and all schemas in it a title that begins
/// with `title`. Generators name types by titles, so each is used once.
///
/// `format` of a number is an extension of schemars (`int64`, `double`), which validators report as unknown.
/// Integers of 64 bits get no bounds beyond the sign: JSON libraries read such bounds as other numbers.
pub(super) fn make_portable(schema: &mut Value, title: &str) {
    let Value::Object(members) = schema else { return };
    if members.contains_key("$ref") {
        // Draft 7 ignores the siblings of a reference.
        return;
    }
    replace_format(members);
    members.entry("title").or_insert_with(|| json!(title));
    for keyword in SCHEMA {
        if let Some(inner) = members.get_mut(keyword) {
            make_portable(inner, &join(title, keyword));
        }
    }
    for keyword in LIST {
        let inner = members.get_mut(keyword).and_then(Value::as_array_mut);
        for (number, inner) in inner.into_iter().flatten().enumerate() {
            make_portable(inner, &format!("{title}Choice{}", number.saturating_add(1)));
        }
    }
    match members.get_mut("items") {
        Some(Value::Array(items)) => {
            for (number, item) in items.iter_mut().enumerate() {
                make_portable(item, &format!("{title}Item{}", number.saturating_add(1)));
            }
        }
        Some(items) => make_portable(items, &join(title, "item")),
        None => {}
    }
    let properties = members.get_mut("properties").and_then(Value::as_object_mut);
    for (name, property) in properties.into_iter().flatten() {
        make_portable(property, &join(title, name));
    }
}

fn replace_format(members: &mut Map<String, Value>) {
    let format = members.get("format").and_then(Value::as_str).unwrap_or_default();
    let (least, most) = match format {
        "int8" => (Some(i64::from(i8::MIN)), Some(i64::from(i8::MAX))),
        "int16" => (Some(i64::from(i16::MIN)), Some(i64::from(i16::MAX))),
        "int32" => (Some(i64::from(i32::MIN)), Some(i64::from(i32::MAX))),
        "uint8" => (Some(0), Some(i64::from(u8::MAX))),
        "uint16" => (Some(0), Some(i64::from(u16::MAX))),
        "uint32" => (Some(0), Some(i64::from(u32::MAX))),
        "uint" | "uint64" => (Some(0), None),
        "int" | "int64" | "float" | "double" => (None, None),
        _ => return,
    };
    members.remove("format");
    for (bound, value) in [("minimum", least), ("maximum", most)] {
        if let Some(value) = value {
            members.entry(bound).or_insert_with(|| json!(value));
        }
    }
}

/// A title of these words: `socket.bind` and `address` give `SocketBindAddress`.
pub(super) fn join(title: &str, word: &str) -> String {
    let words = word.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.fold(title.to_owned(), |mut title, word| {
        let mut letters = word.chars();
        title.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        title.extend(letters);
        title
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portable(mut schema: Value) -> Value {
        make_portable(&mut schema, "T");
        schema
    }

    #[test]
    fn formats_of_numbers_become_bounds_and_others_stay() {
        let integer = |format| json!({ "type": "integer", "format": format, "title": "t" });
        for (format, least, most) in [
            ("int8", json!(-128), json!(127)),
            ("int32", json!(i32::MIN), json!(i32::MAX)),
            ("uint16", json!(0), json!(65_535)),
            ("uint32", json!(0), json!(u32::MAX)),
        ] {
            let found = portable(integer(format));
            assert_eq!((&found["minimum"], &found["maximum"]), (&least, &most), "{format}");
            assert_eq!(found.get("format"), None);
        }
        let bare = json!({ "type": "integer", "title": "t" });
        assert_eq!(portable(integer("int64")), bare);
        assert_eq!(
            portable(integer("uint64")),
            json!({ "type": "integer", "title": "t", "minimum": 0 })
        );
        assert_eq!(portable(integer("date-time"))["format"], "date-time");
        let bounded = json!({ "format": "uint8", "maximum": 3, "title": "t" });
        assert_eq!(portable(bounded)["maximum"], 3);
    }

    #[test]
    fn every_inner_schema_gets_its_own_title() {
        let schema = json!({
            "anyOf": [{ "$ref": "#/x" }, { "items": [{}, {}] }],
            "properties": { "default_timeout": { "items": {} }, "n": { "title": "kept" } },
            "additionalProperties": {},
        });
        assert_eq!(
            portable(schema),
            json!({
                "title": "T",
                "anyOf": [
                    { "$ref": "#/x" },
                    { "title": "TChoice2",
                        "items": [{ "title": "TChoice2Item1" }, { "title": "TChoice2Item2" }] },
                ],
                "properties": {
                    "default_timeout": {
                        "title": "TDefaultTimeout",
                        "items": { "title": "TDefaultTimeoutItem" },
                    },
                    "n": { "title": "kept" },
                },
                "additionalProperties": { "title": "TAdditionalProperties" },
            })
        );
        assert_eq!(portable(json!(true)), json!(true));
    }

    #[test]
    fn words_are_joined_with_capitals() {
        assert_eq!(join(&join("", "socket.bind"), "source_address"), "SocketBindSourceAddress");
    }
}
