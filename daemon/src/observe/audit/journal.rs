//! A record as an entry of the journal.

use super::record::{Record, Value};
use crate::observe::journal::{Entry, Priority};

/// Marks the broker's records, for `journalctl MESSAGE_ID=...`.
const MESSAGE_ID: &str = "5c0b2f1e7a9d4c63b8f45a1e90d37264";

/// The entry.
pub(super) fn encode(record: &Record) -> Entry {
    let text = |name: &str| match record.get(name) {
        Some(Value::Text(text)) => text.as_str(),
        _ => "",
    };
    let denied = text("verdict") == "denied";
    let message = [record.event, text("verdict"), text("verb"), text("rule")];
    let message: Vec<_> = message.into_iter().filter(|word| !word.is_empty()).collect();
    let priority = if denied { Priority::Notice } else { Priority::Info };
    let mut entry = Entry::new(&message.join(" "), priority);
    entry.put("MESSAGE_ID", MESSAGE_ID);
    entry.put_own("audit", record.event);
    for (name, value) in &record.fields {
        match value {
            Value::Text(text) => entry.put_own(name, text),
            Value::Number(number) => entry.put_own(name, &number.to_string()),
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use sockbroker_test_support::journal::fields;

    use super::*;

    #[test]
    fn values_cannot_make_fields() {
        let record = Record::new("decision")
            .with("verdict", "denied")
            .with("rule", "x\nSOCKBROKER_VERDICT=allowed\n_UID=0")
            .with("uid", 7_u32);
        let told = fields(encode(&record).bytes());
        assert_eq!(
            (told["SOCKBROKER_VERDICT"].as_str(), told["SOCKBROKER_UID"].as_str()),
            ("denied", "7")
        );
        assert_eq!(told["PRIORITY"], "5");
        assert!(told["SOCKBROKER_RULE"].contains("_UID=0"));
        assert!(!told.contains_key("_UID"));
    }
}
