//! What confines the broker, told by itself and measured from outside: as root, as an ordinary user
//! with ambient capabilities, in a user namespace, in every mode.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use sockbroker_test_support::namespace::inside;
use sockbroker_test_support::skip::{program_or_skip, skip};
use sockbroker_test_support::user::{NOBODY, other_users_or_skip};
use sockbroker_test_support::{Daemon, User, bounded};

use crate::broker::{broker, prepare};

/// A rule that raw sockets are of use to, and nothing else.
const RAW: &str = "version = 1\n[[rule]]\nname = \"raw\"\n\
                   subject = { everyone = true }\nallow = [\"create\", \"capture\"]\n\
                   family = [\"AF_PACKET\"]\n[[rule]]\nname = \"me\"\n\
                   subject = { everyone = true }\nallow = [\"admin\"]\n";

/// What `broker.info` tells of the process.
fn told(broker: &Daemon) -> Value {
    broker.lsp().call("broker.info", Value::Null).result()["process"].clone()
}

/// What the kernel shows of every thread of the broker: all of them are confined, or none is.
fn shown(broker: &mut Daemon) -> BTreeMap<String, String> {
    let tasks = format!("/proc/{}/task", broker.process().number());
    let read = |path: std::path::PathBuf| {
        let status = fs::read_to_string(path.join("status")).unwrap();
        let line = |line: &str| {
            let (key, value) = line.split_once(':').unwrap();
            (key.to_owned(), value.trim().to_owned())
        };
        let kept = ["Uid", "Gid", "CapEff", "CapPrm", "CapInh", "CapAmb", "NoNewPrivs"];
        let kept = [&kept[..], &["Seccomp", "Seccomp_filters"]].concat();
        let all = status.lines().map(line);
        all.filter(|(key, _)| kept.contains(&key.as_str())).collect::<BTreeMap<_, _>>()
    };
    let mut threads: Vec<_> =
        fs::read_dir(tasks).unwrap().map(|entry| read(entry.unwrap().path())).collect();
    assert!(threads.len() > 1, "{threads:?}");
    threads.dedup();
    assert_eq!(threads.len(), 1, "{threads:?}");
    threads.remove(0)
}

/// Holds what was told to what the kernel shows; gives it.
fn agreed(broker: &mut Daemon) -> Value {
    let (told, shown) = (told(broker), shown(broker));
    let first = |key: &str| shown[key].split_whitespace().next().unwrap().parse::<u64>().unwrap();
    assert_eq!(told["pid"], broker.process().number());
    assert_eq!(told["uid"], first("Uid"));
    assert_eq!(told["gid"], first("Gid"));
    assert_eq!(told["no_new_privs"], shown["NoNewPrivs"] == "1");
    assert_eq!(told["seccomp"] != "off", shown["Seccomp"] == "2", "{told} {shown:?}");
    assert_eq!(told["seccomp_filters"], first("Seccomp_filters"));
    let set = u64::from_str_radix(&shown["CapEff"], 16).unwrap();
    let named = told["capabilities"].as_array().unwrap().len();
    assert_eq!(named, set.count_ones() as usize, "{told} {shown:?}");
    let raw = told["capabilities"].as_array().unwrap().contains(&json!("CAP_NET_RAW"));
    assert_eq!(raw, set >> 13 & 1 == 1);
    assert_eq!(shown["CapPrm"], shown["CapEff"]);
    assert_eq!([&shown["CapInh"], &shown["CapAmb"]], ["0000000000000000"; 2]);
    told
}

/// What the log said at the start.
fn line(broker: &Daemon) -> String {
    let log = broker.log();
    log.lines()
        .find(|line| line.contains("confined:"))
        .unwrap_or_else(|| panic!("{log}"))
        .to_owned()
}

#[test]
fn the_broker_tells_what_the_kernel_shows_of_it() {
    bounded(20, || {
        let mut broker = prepare().policy(RAW).start();
        let told = agreed(&mut broker);
        assert_eq!((&told["no_new_privs"], &told["seccomp"]), (&json!(true), &json!("errno")));
        let capabilities = told["capabilities"].as_array().unwrap().clone();
        assert!(capabilities.is_empty() || capabilities == [json!("CAP_NET_RAW")], "{told}");
        assert_eq!(told["activated"], json!(false));
        let line = line(&broker);
        for part in ["no_new_privs=true", "seccomp=errno", "landlock="] {
            assert!(line.contains(part), "{part}: {line}");
        }
    });
}

#[test]
fn the_policy_is_told_with_its_files_and_its_number() {
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
fn everybody_who_may_connect_is_told() {
    if !other_users_or_skip("confinement::everybody_who_may_connect_is_told") {
        return;
    }
    bounded(20, || {
        let broker = prepare().policy("version = 1\n").start().open_to_all();
        let mut stranger = User::unrelated(1).lsp(&broker);
        let process = stranger.call("broker.info", Value::Null).result()["process"].clone();
        assert_eq!(process["seccomp"], "errno");
        assert_eq!(stranger.call("admin.reload", Value::Null).fault().kind(), (3000, "denied"));
    });
}

#[test]
fn what_is_switched_off_is_told_as_off() {
    bounded(20, || {
        let off = "[confine]\ncapabilities = false\nlandlock = false\nseccomp = \"off\"\n";
        let before = broker();
        let outer = told(&before)["seccomp_filters"].as_u64().unwrap() - 2;
        let mut broker = prepare().policy(RAW).section(off).start();
        let told = told(&broker);
        assert_eq!((&told["landlock"], &told["landlock_abi"]), (&json!("off"), &Value::Null));
        assert_eq!((&told["seccomp"], &told["seccomp_filters"]), (&json!("off"), &json!(outer)));
        // Whatever the configuration says: programs that gain privileges are none of its business.
        assert_eq!(told["no_new_privs"], json!(true));
        let set = u64::from_str_radix(&shown(&mut broker)["CapEff"], 16).unwrap();
        assert_eq!(told["capabilities"].as_array().unwrap().len(), set.count_ones() as usize);
        if sockbroker_sys::process::effective_uid() == 0 {
            assert!(set.count_ones() > 1, "nothing was given up: {told}");
        }
        assert!(line(&broker).contains("seccomp=off"));
    });
}

#[test]
fn a_filter_that_logs_is_told_and_serves() {
    bounded(20, || {
        let mut broker = prepare().section("[confine]\nseccomp = \"log\"\n").start();
        let told = agreed(&mut broker);
        assert_eq!(told["seccomp"], "log");
        broker.lsp().expect_service();
        assert!(line(&broker).contains("seccomp=log"));
    });
}

#[test]
fn an_ordinary_user_with_ambient_capabilities_keeps_what_its_policy_needs() {
    let test =
        "confinement::an_ordinary_user_with_ambient_capabilities_keeps_what_its_policy_needs";
    if !other_users_or_skip(test) || !program_or_skip("setpriv", test) {
        return;
    }
    if !permitted("net_raw,+net_admin") {
        return skip("CAP_NET_RAW and CAP_NET_ADMIN are not permitted here", test);
    }
    bounded(20, || {
        let start = prepare().policy(RAW);
        let own = start.folder().path().to_owned();
        std::os::unix::fs::chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
        let mut broker = start.shell(&ambient("net_raw,+net_admin")).start();
        let told = agreed(&mut broker);
        assert_eq!((&told["uid"], &told["gid"]), (&json!(NOBODY), &json!(NOBODY)));
        // CAP_NET_ADMIN was there, and no rule can use it.
        assert_eq!(told["capabilities"], json!(["CAP_NET_RAW"]));
        assert_eq!(told["user_namespace"], json!(false));
        let mut client = broker.lsp();
        let packet = client.call("socket.socket", json!(["AF_PACKET", "SOCK_RAW", 0])).handle();
        client.call("socket.close", json!([packet])).result();
    });
}

/// The words of the shell that go on as nobody with these capabilities.
fn ambient(capabilities: &str) -> String {
    let user = format!("--reuid={NOBODY} --regid={NOBODY} --clear-groups");
    let sets = ["inh", "ambient"].map(|set| format!("--{set}-caps=-all,+{capabilities}"));
    format!("exec setpriv {user} {} \"$0\" \"$@\"", sets.join(" "))
}

/// Whether `setpriv` can hand these down.
fn permitted(capabilities: &str) -> bool {
    let sets = ["inh", "ambient"].map(|set| format!("--{set}-caps=-all,+{capabilities}"));
    let tried = Command::new("setpriv").args(sets).arg("true").output();
    tried.is_ok_and(|output| output.status.success())
}

#[test]
fn in_a_user_namespace_the_broker_confines_itself_and_says_where_it_is() {
    inside(
        "confinement::in_a_user_namespace_the_broker_confines_itself_and_says_where_it_is",
        || {
            let mut broker = prepare().policy(RAW).start();
            let told = agreed(&mut broker);
            assert_eq!((&told["uid"], &told["user_namespace"]), (&json!(0), &json!(true)));
            assert_eq!(told["capabilities"], json!(["CAP_NET_RAW"]));
            assert_eq!(told["seccomp"], "errno");
            let mut client = broker.lsp();
            client.call("socket.socket", json!(["AF_PACKET", "SOCK_RAW", 0])).handle();
        },
    );
}
