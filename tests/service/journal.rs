//! The entries of the broker in the journal.

use serde_json::Value;

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

/// Returns the entry with this part in its message.
fn entry(guest: &Guest, part: &str) -> Value {
    let found = entries(guest, "");
    let has_part =
        |entry: &&Value| entry["MESSAGE"].as_str().is_some_and(|text| text.contains(part));
    found.iter().find(has_part).unwrap_or_else(|| panic!("{part}: {found:#?}")).clone()
}

#[test]
fn journal_has_decisions_with_caller_and_rule() {
    let test = "journal_has_decisions_with_caller_and_rule";
    let Some(guest) = installed_or_skip(test) else { return };
    let refused = guest.run_as("alice", "sockbroker ping --count 1 127.0.0.1");
    assert!(refused.output.contains("no rule"), "{}", refused.output);
    let alice = guest.ok("id -u alice");
    let service = guest.ok("id -u sockbroker");
    let denied = entries(&guest, "SOCKBROKER_VERDICT=denied");
    let denied = denied.first().expect("the refusal is in the journal");
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
    assert!(!entries(&guest, "SOCKBROKER_VERDICT=allowed").is_empty());
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
    assert!(denied() > before, "{}", guest.log());
    guest.write("/etc/sockbroker/policy.d/local.toml", "version = 2\n");
    guest.ok("systemctl kill --signal=HUP sockbrokerd.service; sleep 0.5");
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
    guest.ok("systemctl kill --signal=HUP sockbrokerd.service; sleep 0.5");
    let error = entry(&guest, "local.toml");
    assert_eq!(error["PRIORITY"], "3", "{error:#}");
}
