//! The sandbox of the unit, and the confinement that the broker reports.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::environment::take_role;
use crate::guest::Guest;

/// Writes files with modes that allow all users to read them.
pub(crate) fn put_files(guest: &Guest) {
    guest.ok("chmod 755 /home/alice
              echo text >/home/alice/file
              echo text >/srv/file
              chmod 777 /srv");
}

/// Parses the result of each attempt of `probe.py`.
fn outcomes(printed: &str) -> BTreeMap<&str, &str> {
    printed.lines().filter_map(|line| line.split_once(": ")).collect()
}

/// Address families that a kernel can lack. The kernel then returns the same error as the filter.
const FOREIGN: [&str; 2] = ["AF_VSOCK", "AF_XDP"];

on_each_system!(unit_denies_files_mounts_tracing_and_other_families);

fn unit_denies_files_mounts_tracing_and_other_families(guest: &Guest) {
    put_files(guest);
    take_role(guest, "capture");
    guest.write("/usr/local/lib/probe.py", include_str!("probe.py"));
    // Run the probe in place of the broker, with the rest of the unit unchanged.
    guest.write(
        "/etc/systemd/system/sockbrokerd.service.d/zz-probe.conf",
        "[Service]\nType=oneshot\nRestart=no\nExecStartPre=\nExecStart=\n\
         ExecStart=/usr/bin/python3 /usr/local/lib/probe.py\n",
    );
    guest.ok("systemctl daemon-reload; systemctl restart sockbrokerd.service");
    let log = guest.log();
    let inside = outcomes(&log);
    let expected = [
        ("read /home/alice/file", "EACCES"),
        ("write /srv/new", "EROFS"),
        ("write /usr/new", "EROFS"),
        ("write /etc/sockbroker/policy.toml", "EACCES"),
        ("ptrace", "EPERM"),
        ("new user namespace", "EPERM"),
        ("mount", "EPERM"),
        ("fsopen", "EPERM"),
        ("open_tree", "EPERM"),
        // systemd refuses it with a system call filter before version 254, and with `PR_SET_MDWE` (`prctl(2)`) since.
        ("executable memory", "EACCES or EPERM"),
        ("AF_VSOCK", "EAFNOSUPPORT"),
        ("AF_XDP", "EAFNOSUPPORT"),
        // The broker needs these.
        ("read /etc/hosts", "done"),
        ("AF_UNIX", "done"),
        ("AF_INET", "done"),
        ("AF_INET6", "done"),
        ("AF_NETLINK", "done"),
        ("AF_PACKET", "done"),
        // Allowed in the unit: the broker denies them to itself, as the next test shows.
        ("read /srv/file", "done"),
        ("execve", "done"),
    ];
    for (attempt, outcome) in expected {
        let met =
            inside.get(attempt).is_some_and(|met| outcome.split(" or ").any(|one| one == *met));
        assert!(met, "{attempt} is not {outcome}: {log}");
    }
    // Outside of the unit, as root, the probe succeeds with all attempts.
    let printed = guest.ok("python3 /usr/local/lib/probe.py");
    let outside = outcomes(&printed);
    assert_eq!(outside.len(), expected.len(), "{printed}");
    for (attempt, outcome) in outside {
        let unknown = FOREIGN.contains(&attempt) && outcome == "EAFNOSUPPORT";
        assert!(outcome == "done" || unknown, "{attempt}: {outcome}");
    }
}

/// Returns `broker.info`. The first client is alice.
pub(crate) fn info(guest: &Guest) -> Value {
    let reported = guest.ok_as("alice", "sockbroker call broker.info");
    serde_json::from_str(&reported).unwrap()
}

on_each_system!(broker_info_reports_the_confinement);

fn broker_info_reports_the_confinement(guest: &Guest) {
    let reported = info(guest);
    let process = &reported["process"];
    for (fact, value) in [
        ("unit", json!("sockbrokerd.service")),
        ("activated", json!(true)),
        ("user_namespace", json!(false)),
        ("capabilities", json!([])),
        ("no_new_privs", json!(true)),
        ("seccomp", json!("errno")),
    ] {
        assert_eq!(process[fact], value, "{fact}: {reported:#}");
    }
    // An older kernel supports Landlock partly or not at all.
    let landlock = if process["landlock_abi"].as_u64().is_some_and(|abi| abi >= 5) {
        "full"
    } else {
        "partial"
    };
    let without = process["landlock_abi"].is_null();
    assert_eq!(process["landlock"], if without { "none" } else { landlock }, "{reported:#}");
}

#[cfg(not(target_arch = "x86_64"))]
#[test]
fn injected_calls_are_confined_by_seccomp_and_landlock() {
    let test = "injected_calls_are_confined_by_seccomp_and_landlock";
    sockbroker_test_support::skip::skip("the intruder speaks x86-64 alone", test);
}
