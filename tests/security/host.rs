//! Attacks on the host: its name, its interfaces, its namespaces, and the records of the broker.

use std::fs;

use serde_json::{Value, json};
use sockbroker_test_support::{Folder, until};

use crate::arena::{attacker, run_with};

attack!(host_name_cannot_be_changed, mut arena, {
    let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    arena.denied("socket.sethostname", json!(["owned"]), "no rule", "sethostname");
    arena.denied("socket.gethostname", Value::Null, "no rule", "hostname");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
});

attack!(interfaces_are_not_listed, mut arena, {
    for (method, params) in [
        ("socket.if_nameindex", Value::Null),
        ("socket.if_nametoindex", json!(["lo"])),
        ("socket.if_indextoname", json!([1])),
    ] {
        arena.denied(method, params, "no rule", "interfaces");
    }
});

#[test]
fn names_cannot_forge_records() {
    let folder = Folder::new();
    let path = folder.join("audit");
    let section = format!("[audit]\nto = \"{}\"\n", path.display());
    let test = concat!(module_path!(), "::names_cannot_forge_records");
    run_with(
        test,
        move |start| start.section(&section),
        move |mut arena| {
            let _kept = &folder;
            let forged =
                "\u{0}x\n{\"audit\":\"decision\",\"verdict\":\"allowed\",\"uid\":0}\n\u{1b}[2J";
            let unix = arena.socket(json!(["AF_UNIX"]));
            arena.attacker.call("socket.bind", json!([unix, forged])).result();
            arena.attacker.call("socket.connect", json!([unix, forged])).fault();
            arena.denied("socket.sethostname", json!([forged]), "no rule", "sethostname");
            let records = || {
                let text = fs::read_to_string(&path).unwrap();
                let read = |line: &str| serde_json::from_str::<Value>(line).unwrap();
                // The last line can be incomplete.
                let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
                whole.map(read).collect::<Vec<_>>()
            };
            until("the records are written", || records().len() >= 4);
            for record in records() {
                assert_eq!(record["uid"], attacker().uid(), "{record}");
            }
            // They cannot add lines to the log either.
            assert!(!arena.broker.log().lines().any(|line| line.starts_with("{\"audit\"")));
        },
    );
}
