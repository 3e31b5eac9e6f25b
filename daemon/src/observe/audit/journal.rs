//! A record as an entry of the journal.

use std::cell::RefCell;
use std::collections::HashMap;

use sockbroker_sys::accounts;

use super::record::{Record, Value};
use crate::observe::journal::{Entry, Priority};

/// The message id of audit records, for `journalctl MESSAGE_ID=...`.
const MESSAGE_ID: &str = "5c0b2f1e7a9d4c63b8f45a1e90d37264";

/// The number of user names that are cached.
const KNOWN_NAMES: usize = 1024;

/// Encodes a record as an entry.
pub(super) fn encode(record: &Record) -> Entry {
    let text = |name: &str| match record.get(name) {
        Some(Value::Text(text)) => text.as_str(),
        _ => "",
    };
    let denied = text("verdict") == "denied";
    let priority = if denied { Priority::Notice } else { Priority::Info };
    let mut entry = Entry::new(&sentence(record), priority);
    entry.put("MESSAGE_ID", MESSAGE_ID);
    entry.put_own("audit", &record.event);
    // The sentence is the message of the entry.
    for (name, value) in record.fields.iter().filter(|(name, _)| *name != "message") {
        match value {
            Value::Text(text) => entry.put_own(name, text),
            Value::Number(number) => entry.put_own(name, &number.to_string()),
        }
    }
    entry
}

/// What happened, as a sentence. That of a decision gets the name of the user.
fn sentence(record: &Record) -> String {
    if let (Some(Value::Text(sentence)), Some(Value::Number(uid))) =
        (record.get("message"), record.get("uid"))
    {
        let unnamed = format!("uid {uid} ");
        let name = u32::try_from(*uid).ok().and_then(user_name);
        return match (name, sentence.strip_prefix(&unnamed)) {
            (Some(name), Some(rest)) => format!("{name} (uid {uid}) {rest}"),
            _ => sentence.clone(),
        };
    }
    let value = |name: &str| match record.get(name) {
        Some(Value::Text(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        None => String::new(),
    };
    match (&*record.event, value("state").as_str()) {
        ("session", state) => {
            format!("session {} of uid {} is {state}", value("session"), value("uid"))
        }
        ("policy", "kept") => format!("the policy in force is kept: {}", value("reason")),
        ("policy", state) => format!("policy {} is {state}", value("number")),
        (event, _) => event.to_owned(),
    }
}

/// The name of a user. It is cached, because the database of users may be slow.
fn user_name(uid: u32) -> Option<String> {
    NAMES.with_borrow_mut(|names| {
        if names.len() >= KNOWN_NAMES {
            names.clear();
        }
        names.entry(uid).or_insert_with(|| accounts::name(uid)).clone()
    })
}

thread_local! {
    /// The cache, used only by the thread that writes.
    static NAMES: RefCell<HashMap<u32, Option<String>>> = RefCell::default();
}

#[cfg(test)]
mod tests {
    use sockbroker_test_support::journal::fields;

    use super::*;

    #[test]
    fn values_cannot_forge_fields() {
        let record = Record::new("decision")
            .with("verdict", "denied")
            .with("rule", "x\nSOCKBROKER_VERDICT=allowed\n_UID=0")
            .with("uid", 7_u32);
        let written = fields(encode(&record).bytes());
        assert_eq!(
            (written["SOCKBROKER_VERDICT"].as_str(), written["SOCKBROKER_UID"].as_str()),
            ("denied", "7")
        );
        assert_eq!(written["PRIORITY"], "5");
        assert!(written["SOCKBROKER_RULE"].contains("_UID=0"));
        assert!(!written.contains_key("_UID"));
    }

    #[test]
    fn a_decision_is_a_sentence_with_the_name_of_the_user() {
        let decision = |uid: u32| {
            let message = format!("uid {uid} may not resolve a name: no rule allows it");
            Record::new("decision")
                .with("verdict", "denied")
                .with("uid", uid)
                .with("message", message)
        };
        let entry = fields(encode(&decision(0)).bytes());
        assert_eq!(entry["MESSAGE"], "root (uid 0) may not resolve a name: no rule allows it");
        assert!(!entry.contains_key("SOCKBROKER_MESSAGE"));
        // A number without an account.
        let entry = fields(encode(&decision(4_000_000_001)).bytes());
        assert!(entry["MESSAGE"].starts_with("uid 4000000001 may not "), "{entry:?}");
        let session = Record::new("session").with("state", "opened").with("session", 7_u64);
        let entry = fields(encode(&session.with("uid", 5_u32)).bytes());
        assert_eq!(entry["MESSAGE"], "session 7 of uid 5 is opened");
        let policy = Record::new("policy").with("state", "kept").with("reason", "line 3");
        assert_eq!(
            fields(encode(&policy).bytes())["MESSAGE"],
            "the policy in force is kept: line 3"
        );
    }
}
