//! The confinement of the broker, as it reports it and as the kernel shows it: as root, as an unprivileged
//! user with ambient capabilities, in a user namespace, and in every mode.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use sockbroker_test_support::namespace::inside;
use sockbroker_test_support::skip::{program_or_skip, skip};
use sockbroker_test_support::user::{NOBODY, other_users_or_skip};
use sockbroker_test_support::{Daemon, User, bounded, until};

use crate::broker::{broker, prepare};

/// A policy that needs `CAP_NET_RAW` and no other capability.
const RAW: &str = "version = 1\n[[rule]]\nname = \"raw\"\n\
                   subject = { everyone = true }\nallow = [\"create\", \"capture\"]\n\
                   family = [\"AF_PACKET\"]\n[[rule]]\nname = \"me\"\n\
                   subject = { everyone = true }\nallow = [\"admin\"]\n";

/// Returns what `broker.info` reports about the process.
fn process_info(broker: &Daemon) -> Value {
    broker.lsp().call("broker.info", Value::Null).result()["process"].clone()
}

/// Returns the status of the threads in the kernel. Fails if the threads differ.
fn kernel_status(broker: &mut Daemon) -> BTreeMap<String, String> {
    let tasks = format!("/proc/{}/task", broker.worker());
    let read = |path: std::path::PathBuf| {
        // Threads end when they have been idle for long.
        let status = fs::read_to_string(path.join("status")).ok()?;
        let start_line = |start_line: &str| {
            let (key, value) = start_line.split_once(':').unwrap();
            (key.to_owned(), value.trim().to_owned())
        };
        let kept = ["Uid", "Gid", "CapEff", "CapPrm", "CapInh", "CapAmb", "NoNewPrivs"];
        let kept = [&kept[..], &["Seccomp", "Seccomp_filters"]].concat();
        let all = status.lines().map(start_line);
        Some(all.filter(|(key, _)| kept.contains(&key.as_str())).collect::<BTreeMap<_, _>>())
    };
    let mut threads: Vec<_> =
        fs::read_dir(tasks).unwrap().filter_map(|entry| read(entry.ok()?.path())).collect();
    threads.dedup();
    assert_eq!(threads.len(), 1, "{threads:?}");
    threads.remove(0)
}

/// Returns what `broker.info` reports. Fails if the kernel shows something else.
fn checked_process_info(broker: &mut Daemon) -> Value {
    let (process_info, kernel_status) = (process_info(broker), kernel_status(broker));
    let first =
        |key: &str| kernel_status[key].split_whitespace().next().unwrap().parse::<u64>().unwrap();
    assert_eq!(process_info["pid"], broker.worker());
    assert_eq!(process_info["uid"], first("Uid"));
    assert_eq!(process_info["gid"], first("Gid"));
    assert_eq!(process_info["no_new_privs"], kernel_status["NoNewPrivs"] == "1");
    assert_eq!(
        process_info["seccomp"] != "off",
        kernel_status["Seccomp"] == "2",
        "{process_info} {kernel_status:?}"
    );
    assert_eq!(process_info["seccomp_filters"], first("Seccomp_filters"));
    let set = u64::from_str_radix(&kernel_status["CapEff"], 16).unwrap();
    let named = process_info["capabilities"].as_array().unwrap().len();
    assert_eq!(named, set.count_ones() as usize, "{process_info} {kernel_status:?}");
    let raw = process_info["capabilities"].as_array().unwrap().contains(&json!("CAP_NET_RAW"));
    assert_eq!(raw, set >> 13 & 1 == 1);
    assert_eq!(kernel_status["CapPrm"], kernel_status["CapEff"]);
    assert_eq!([&kernel_status["CapInh"], &kernel_status["CapAmb"]], ["0000000000000000"; 2]);
    process_info
}

/// Returns the capabilities that `broker.info` reports of the opener. Fails if the kernel shows something else.
fn opener_capabilities(broker: &Daemon) -> Value {
    let info = broker.lsp().call("broker.info", Value::Null).result()["opener"].clone();
    let status = fs::read_to_string(format!("/proc/{}/status", info["pid"])).unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let set = u64::from_str_radix(set.trim(), 16).unwrap();
    let named = info["capabilities"].as_array().unwrap();
    assert_eq!(named.len(), set.count_ones() as usize, "{info} {set:x}");
    assert_eq!(named.contains(&json!("CAP_NET_RAW")), set >> 13 & 1 == 1);
    for (fact, value) in [("no_new_privs", json!(true)), ("seccomp", json!("errno"))] {
        assert_eq!(info[fact], value, "{info}");
    }
    info["capabilities"].clone()
}

/// Returns the log line of the start.
fn start_line(broker: &Daemon) -> String {
    let mut found = None;
    until("the broker has confined itself", || {
        let log = broker.log();
        found = log.lines().find(|line| line.contains("confined:")).map(str::to_owned);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn broker_info_matches_the_kernel() {
    bounded(20, || {
        let mut broker = prepare().policy(RAW).start();
        let process_info = checked_process_info(&mut broker);
        assert_eq!(
            (&process_info["no_new_privs"], &process_info["seccomp"]),
            (&json!(true), &json!("errno"))
        );
        assert_eq!(process_info["capabilities"], json!([]), "{process_info}");
        if sockbroker_sys::process::effective_uid() == 0 {
            assert_eq!(opener_capabilities(&broker), json!(["CAP_NET_RAW"]));
        }
        assert_eq!(process_info["activated"], json!(false));
        let start_line = start_line(&broker);
        for part in ["no_new_privs=true", "seccomp=errno", "landlock="] {
            assert!(start_line.contains(part), "{part}: {start_line}");
        }
    });
}

#[test]
fn broker_info_reports_policy_files_and_generation() {
    bounded(20, || {
        let own = broker().lsp().call("broker.info", Value::Null).result()["policy"].clone();
        let start = prepare().policy(RAW);
        let main = start.folder().join("policy.toml");
        let broker = start.start();
        let mut client = broker.lsp();
        let mut policy = || client.call("broker.info", Value::Null).result()["policy"].clone();
        if !std::path::Path::new("/etc/sockbroker/policy.toml").exists() {
            assert_eq!(own, json!({ "generation": 1, "files": [], "rules": 0 }));
        }
        assert_eq!(policy(), json!({ "generation": 1, "files": [main], "rules": 2 }));
        let further = main.with_file_name("policy.d");
        fs::create_dir(&further).unwrap();
        let further = further.join("more.toml");
        let rule = "[[rule]]\nname = \"x\"\nsubject = { everyone = true }\nallow = [\"admin\"]\n";
        fs::write(&further, format!("version = 1\n{rule}")).unwrap();
        broker.lsp().call("admin.reload", Value::Null).result();
        assert_eq!(policy(), json!({ "generation": 2, "files": [main, further], "rules": 3 }));
    });
}

#[test]
fn broker_info_reports_who_can_connect() {
    if !other_users_or_skip("confinement::broker_info_reports_who_can_connect") {
        return;
    }
    bounded(20, || {
        let broker = prepare().policy("version = 1\n").start().open_to_all();
        let mut other_user = User::unrelated(1).lsp(&broker);
        let process = other_user.call("broker.info", Value::Null).result()["process"].clone();
        assert_eq!(process["seccomp"], "errno");
        assert_eq!(other_user.call("admin.reload", Value::Null).fault().kind(), (3000, "denied"));
    });
}

#[test]
fn broker_info_reports_disabled_confinement() {
    bounded(20, || {
        let off = "[confine]\ncapabilities = false\nlandlock = false\nseccomp = \"off\"\n";
        let before = broker();
        // Two of the monitor, which the worker inherits, and two of the worker.
        let outer = process_info(&before)["seccomp_filters"].as_u64().unwrap() - 4;
        let mut broker = prepare().policy(RAW).section(off).start();
        let process_info = process_info(&broker);
        assert_eq!(
            (&process_info["landlock"], &process_info["landlock_abi"]),
            (&json!("off"), &Value::Null)
        );
        assert_eq!(
            (&process_info["seccomp"], &process_info["seccomp_filters"]),
            (&json!("off"), &json!(outer))
        );
        // The broker sets no_new_privs in every configuration.
        assert_eq!(process_info["no_new_privs"], json!(true));
        let set = u64::from_str_radix(&kernel_status(&mut broker)["CapEff"], 16).unwrap();
        assert_eq!(
            process_info["capabilities"].as_array().unwrap().len(),
            set.count_ones() as usize
        );
        if sockbroker_sys::process::effective_uid() == 0 {
            assert!(set.count_ones() > 1, "no capability was dropped: {process_info}");
        }
        assert!(start_line(&broker).contains("seccomp=off"));
    });
}

#[test]
fn logging_filter_is_reported_and_serves() {
    bounded(20, || {
        let mut broker = prepare().section("[confine]\nseccomp = \"log\"\n").start();
        let process_info = checked_process_info(&mut broker);
        assert_eq!(process_info["seccomp"], "log");
        broker.lsp().expect_service();
        assert!(start_line(&broker).contains("seccomp=log"));
    });
}

#[test]
fn unprivileged_user_keeps_the_ambient_capabilities_that_its_policy_needs() {
    let test =
        "confinement::unprivileged_user_keeps_the_ambient_capabilities_that_its_policy_needs";
    if !other_users_or_skip(test) || !program_or_skip("setpriv", test) {
        return;
    }
    if !can_pass("net_raw,+net_admin") {
        return skip("CAP_NET_RAW and CAP_NET_ADMIN are not permitted here", test);
    }
    bounded(20, || {
        let start = prepare().policy(RAW);
        let own = start.folder().path().to_owned();
        std::os::unix::fs::chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
        let mut broker = start.shell(&ambient("net_raw,+net_admin")).start();
        let process_info = checked_process_info(&mut broker);
        assert_eq!((&process_info["uid"], &process_info["gid"]), (&json!(NOBODY), &json!(NOBODY)));
        assert_eq!(process_info["capabilities"], json!([]));
        // The broker had CAP_NET_ADMIN, which no rule can use.
        assert_eq!(opener_capabilities(&broker), json!(["CAP_NET_RAW"]));
        assert_eq!(process_info["user_namespace"], json!(false));
        let mut client = broker.lsp();
        let packet = client.call("socket.socket", json!(["AF_PACKET", "SOCK_RAW", 0])).handle();
        client.call("socket.close", json!([packet])).result();
    });
}

/// The shell command that continues as nobody, with these ambient capabilities.
fn ambient(capabilities: &str) -> String {
    let user = format!("--reuid={NOBODY} --regid={NOBODY} --clear-groups");
    let sets = ["inh", "ambient"].map(|set| format!("--{set}-caps=-all,+{capabilities}"));
    format!("exec setpriv {user} {} \"$0\" \"$@\"", sets.join(" "))
}

/// Whether `setpriv` can pass these capabilities.
fn can_pass(capabilities: &str) -> bool {
    let sets = ["inh", "ambient"].map(|set| format!("--{set}-caps=-all,+{capabilities}"));
    let tried = Command::new("setpriv").args(sets).arg("true").output();
    tried.is_ok_and(|output| output.status.success())
}

#[test]
fn broker_in_a_user_namespace_confines_itself_and_reports_it() {
    inside("confinement::broker_in_a_user_namespace_confines_itself_and_reports_it", || {
        let mut broker = prepare().policy(RAW).start();
        let process_info = checked_process_info(&mut broker);
        assert_eq!(
            (&process_info["uid"], &process_info["user_namespace"]),
            (&json!(0), &json!(true))
        );
        assert_eq!(process_info["capabilities"], json!([]));
        assert_eq!(opener_capabilities(&broker), json!(["CAP_NET_RAW"]));
        assert_eq!(process_info["seccomp"], "errno");
        let mut client = broker.lsp();
        client.call("socket.socket", json!(["AF_PACKET", "SOCK_RAW", 0])).handle();
    });
}
