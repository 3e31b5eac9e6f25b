//! A record in the journal's native protocol (systemd's "Native Journal Protocol").

use super::record::{Record, Value};

/// Marks the broker's records, for `journalctl MESSAGE_ID=...`.
const MESSAGE_ID: &str = "5c0b2f1e7a9d4c63b8f45a1e90d37264";
/// `LOG_NOTICE` of `syslog(3)`.
const NOTICE: &str = "5";
/// `LOG_INFO`.
const INFO: &str = "6";

/// The datagram. Every value has its length before it, so that nothing in it can be taken for another
/// field.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let text = |name: &str| match record.get(name) {
        Some(Value::Text(text)) => text.as_str(),
        _ => "",
    };
    let denied = text("verdict") == "denied";
    let message = [record.event, text("verdict"), text("verb"), text("rule")];
    let message: Vec<_> = message.into_iter().filter(|word| !word.is_empty()).collect();
    let mut datagram = Vec::with_capacity(1024);
    put(&mut datagram, "MESSAGE", message.join(" ").as_bytes());
    put(&mut datagram, "MESSAGE_ID", MESSAGE_ID.as_bytes());
    put(&mut datagram, "PRIORITY", if denied { NOTICE } else { INFO }.as_bytes());
    put(&mut datagram, "SYSLOG_IDENTIFIER", b"sockbrokerd");
    put(&mut datagram, "SOCKBROKER_AUDIT", record.event.as_bytes());
    for (name, value) in &record.fields {
        let name = format!("SOCKBROKER_{}", name.to_ascii_uppercase());
        match value {
            Value::Text(text) => put(&mut datagram, &name, text.as_bytes()),
            Value::Number(number) => put(&mut datagram, &name, number.to_string().as_bytes()),
        }
    }
    datagram
}

fn put(datagram: &mut Vec<u8>, name: &str, value: &[u8]) {
    datagram.extend_from_slice(name.as_bytes());
    datagram.push(b'\n');
    datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    datagram.extend_from_slice(value);
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a datagram, as the journal reads them.
    fn fields(mut rest: &[u8]) -> Vec<(String, String)> {
        let mut found = Vec::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
            let name = String::from_utf8(rest[..end].to_vec()).unwrap();
            let length = u64::from_le_bytes(rest[end + 1..end + 9].try_into().unwrap());
            let from = end + 9;
            let to = from + usize::try_from(length).unwrap();
            found.push((name, String::from_utf8(rest[from..to].to_vec()).unwrap()));
            assert_eq!(rest[to], b'\n');
            rest = &rest[to + 1..];
        }
        found
    }

    #[test]
    fn values_cannot_make_fields() {
        let record = Record::new("decision")
            .with("verdict", "denied")
            .with("rule", "x\nSOCKBROKER_VERDICT=allowed\n_UID=0")
            .with("uid", 7_u32);
        let fields = fields(&encode(&record));
        let of = |name: &str| {
            let found: Vec<_> = fields.iter().filter(|(field, _)| field == name).collect();
            assert_eq!(found.len(), 1, "{name}");
            found[0].1.clone()
        };
        assert_eq!(
            (of("SOCKBROKER_VERDICT").as_str(), of("SOCKBROKER_UID").as_str()),
            ("denied", "7")
        );
        assert_eq!(of("PRIORITY"), NOTICE);
        assert!(of("SOCKBROKER_RULE").contains("_UID=0"));
        assert!(!fields.iter().any(|(name, _)| name == "_UID"));
    }
}
