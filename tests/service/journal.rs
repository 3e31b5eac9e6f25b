//! The entries of the broker in the journal.

use serde_json::Value;
use sockbroker_test_support::until;

use crate::environment::installed_or_skip;
use crate::guest::Guest;

/// Returns the journal entries of the service with their fields; `filter` is an argument of `journalctl`.
fn entries(guest: &Guest, filter: &str) -> Vec<Value> {
    let command = format!(
        "journalctl --sync && journalctl --no-pager --output=json _SYSTEMD_UNIT=sockbrokerd.service {filter}"
    );
    let lines = guest.ok(&command);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits for the entry with this part in its message.
fn entry(guest: &Guest, part: &str) -> Value {
    let mut found = None;
    let has_part =
        |entry: &Value| entry["MESSAGE"].as_str().is_some_and(|text| text.contains(part));
    until(&format!("the journal has {part:?}"), || {
        found = entries(guest, "").into_iter().find(has_part);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn journal_has_decisions_with_caller_and_rule() {
    let test = "journal_has_decisions_with_caller_and_rule";
    let Some(guest) = installed_or_skip(test) else { return };
    let refused = guest.run_as("alice", "sockbroker ping --count 1 127.0.0.1");
    assert!(refused.output.contains("no rule"), "{}", refused.output);
    let alice = guest.ok("id -u alice");
    let service = guest.ok("id -u sockbroker");
    // The monitor writes records apart from the calls.
    let mut denied = Vec::new();
    until("the refusal is in the journal", || {
        denied = entries(&guest, "SOCKBROKER_VERDICT=denied");
        !denied.is_empty()
    });
    let denied = &denied[0];
    for (field, value) in [
        ("SOCKBROKER_AUDIT", "decision"),
        ("SOCKBROKER_VERB", "create"),
        ("SOCKBROKER_RULE", "no rule"),
        ("SOCKBROKER_UID", alice.trim()),
        ("_UID", service.trim()),
        ("SYSLOG_IDENTIFIER", "sockbrokerd"),
        ("PRIORITY", "5"),
    ] {
        assert_eq!(denied[field], value, "{field}: {denied:#}");
    }
    until("a granted call is in the journal", || {
        !entries(&guest, "SOCKBROKER_VERDICT=allowed").is_empty()
    });
}

#[test]
fn restarted_journal_receives_later_records() {
    let test = "restarted_journal_receives_later_records";
    let Some(guest) = installed_or_skip(test) else { return };
    guest.ok_as("alice", "sockbroker call socket.gethostname");
    // Restart its sockets too: after a restart of the service alone, the service manager keeps them.
    guest.ok(
        "units='systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket'
              systemctl stop $units; systemctl start $units",
    );
    let denied = || entries(&guest, "SOCKBROKER_VERDICT=denied").len();
    let before = denied();
    guest.run_as("alice", "sockbroker ping --count 1 127.0.0.1");
    until("the refusal is in the journal", || denied() > before);
    guest.write("/etc/sockbroker/policy.d/local.toml", "version = 2\n");
    guest.ok("systemctl kill --signal=HUP sockbrokerd.service");
    assert_eq!(entry(&guest, "local.toml")["PRIORITY"], "3");
}

#[test]
fn journal_has_the_log_with_priorities() {
    let Some(guest) = installed_or_skip("journal_has_the_log_with_priorities") else {
        return;
    };
    guest.ok_as("alice", "sockbroker call socket.gethostname");
    let service = guest.ok("id -u sockbroker");
    let serving = entry(&guest, "serving");
    assert_eq!((&serving["PRIORITY"], &serving["_UID"]), (&"6".into(), &service.trim().into()));
    // A rule that needs a dropped capability causes a warning, an invalid policy an error.
    guest.ok("cp /usr/share/sockbroker/policy.d/capture.toml /etc/sockbroker/policy.d/
              systemctl reload sockbrokerd.service");
    let warning = entry(&guest, "a new rule needs a capability that was dropped at the start");
    assert_eq!(warning["PRIORITY"], "4", "{warning:#}");
    guest.write("/etc/sockbroker/policy.d/local.toml", "version = 2\n");
    guest.ok("systemctl kill --signal=HUP sockbrokerd.service");
    let error = entry(&guest, "local.toml");
    assert_eq!(error["PRIORITY"], "3", "{error:#}");
}
