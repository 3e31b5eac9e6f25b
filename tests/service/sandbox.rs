//! What is out of reach for somebody who has taken the service over: by the unit, and by the broker itself.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::ground::take_role;
use crate::guest::Guest;

/// Files that everybody may read, as far as their modes go.
pub(crate) fn put_files(guest: &Guest) {
    guest.ok("chmod 755 /home/alice
              echo text >/home/alice/file
              echo text >/srv/file
              chmod 777 /srv");
}

/// What became of each attempt of `probe.py`.
fn outcomes(printed: &str) -> BTreeMap<&str, &str> {
    printed.lines().filter_map(|line| line.split_once(": ")).collect()
}

/// A family that this kernel may not have. Without it the kernel's answer is that of the filter.
const FOREIGN: [&str; 2] = ["AF_VSOCK", "AF_XDP"];

on_each_system!(unit_denies_files_mounts_tracing_and_other_families);

fn unit_denies_files_mounts_tracing_and_other_families(guest: &Guest) {
    put_files(guest);
    take_role(guest, "capture");
    guest.write("/usr/local/lib/probe.py", include_str!("probe.py"));
    // The probe in place of the broker; everything else of the unit as it is.
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
        // systemd refuses it by a filter of system calls before 254, by `PR_SET_MDWE` (`prctl(2)`) since.
        ("executable memory", "EACCES or EPERM"),
        ("AF_VSOCK", "EAFNOSUPPORT"),
        ("AF_XDP", "EAFNOSUPPORT"),
        // What the broker needs.
        ("read /etc/hosts", "done"),
        ("AF_UNIX", "done"),
        ("AF_INET", "done"),
        ("AF_INET6", "done"),
        ("AF_NETLINK", "done"),
        ("AF_PACKET", "done"),
        // Open in the unit: the broker closes them for itself, as the next test shows.
        ("read /srv/file", "done"),
        ("execve", "done"),
    ];
    for (attempt, outcome) in expected {
        let met =
            inside.get(attempt).is_some_and(|met| outcome.split(" or ").any(|one| one == *met));
        assert!(met, "{attempt} is not {outcome}: {log}");
    }
    // The probe can do all of it: outside, root does.
    let printed = guest.ok("python3 /usr/local/lib/probe.py");
    let outside = outcomes(&printed);
    assert_eq!(outside.len(), expected.len(), "{printed}");
    for (attempt, outcome) in outside {
        let unknown = FOREIGN.contains(&attempt) && outcome == "EAFNOSUPPORT";
        assert!(outcome == "done" || unknown, "{attempt}: {outcome}");
    }
}

/// What the broker says of itself; its first client is alice.
pub(crate) fn info(guest: &Guest) -> Value {
    let told = guest.ok_as("alice", "sockbroker call broker.info");
    serde_json::from_str(&told).unwrap()
}

on_each_system!(broker_info_reports_the_confinement);

fn broker_info_reports_the_confinement(guest: &Guest) {
    let told = info(guest);
    let process = &told["process"];
    for (fact, value) in [
        ("unit", json!("sockbrokerd.service")),
        ("activated", json!(true)),
        ("user_namespace", json!(false)),
        ("capabilities", json!([])),
        ("no_new_privs", json!(true)),
        ("seccomp", json!("errno")),
    ] {
        assert_eq!(process[fact], value, "{fact}: {told:#}");
    }
    // An older kernel knows a part of what is asked for, or nothing.
    let landlock = if process["landlock_abi"].as_u64().is_some_and(|abi| abi >= 5) {
        "full"
    } else {
        "partial"
    };
    let without = process["landlock_abi"].is_null();
    assert_eq!(process["landlock"], if without { "none" } else { landlock }, "{told:#}");
}

#[cfg(not(target_arch = "x86_64"))]
#[test]
fn injected_calls_are_confined_by_seccomp_and_landlock() {
    let test = "injected_calls_are_confined_by_seccomp_and_landlock";
    sockbroker_test_support::skip::skip("the intruder speaks x86-64 alone", test);
}
