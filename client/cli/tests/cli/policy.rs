//! `policy check` and `policy explain`: what files say, without a broker.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sockbroker_sys::peer;
use sockbroker_test_support::{Folder, bounded, namespace};

use crate::program::{Ran, command, run};

const RULES: &str = r#"
version = 1

[[rule]]
name = "web"
subject = { uids = [4242] }
allow = ["connect"]
remote = ["192.0.2.0/24"]
remote_ports = ["80"]

[[rule]]
name = "not this one"
subject = { everyone = true }
deny = ["connect"]
remote = ["192.0.2.7"]
"#;

fn written(text: &str) -> (Folder, String) {
    let folder = Folder::new();
    let path = folder.write("policy.toml", text).display().to_string();
    (folder, path)
}

#[test]
fn explain_names_the_rule_that_decides_and_why_others_do_not() {
    bounded(30, || {
        let (_folder, path) = written(RULES);
        let explain = |action: &[&str]| {
            let start = ["policy", "explain", "--uid", "4242", "--policy", &path];
            run(&[&start[..], action].concat())
        };
        let allowed = explain(&["connect remote=192.0.2.1:80"]).done();
        assert!(allowed.starts_with("allowed by rule `web`\n"), "{allowed}");
        assert!(
            allowed.contains("`not this one`") && allowed.contains("policy.toml:11"),
            "{allowed}"
        );
        for (action, part) in [
            ("connect remote=192.0.2.7:80", "rule \"not this one\" denies it"),
            ("connect remote=192.0.2.1:81", "its remote or remote_ports does not match"),
            ("create AF_PACKET SOCK_RAW", "no rule allows it; missing grant: allow = [\"create\"]"),
            ("connect remote=192.0.2.7:80", "a rule that allows it has: allow = [\"connect\"]"),
        ] {
            let refused = explain(&action.split(' ').collect::<Vec<_>>());
            assert_eq!(refused.code, 1, "{refused:?}");
            assert!(refused.out.contains(part), "{action}: {}", refused.out);
        }
        let wrong = explain(&["create", "AF_NOTHING"]);
        assert!(wrong.code == 2 && wrong.err.contains("AF_NOTHING"), "{wrong:?}");
    });
}

#[test]
fn check_warns_of_what_can_hardly_be_meant() {
    bounded(30, || {
        let odd = r#"
version = 1

[[rule]]
name = "ghosts"
subject = { users = ["no such user"], groups = ["no such group"], units = ["no-such.service"] }
allow = ["capture"]
interface = ["no-such-interface"]

[[rule]]
name = "never"
subject = { everyone = true }
allow = ["resolve"]
remote = ["192.0.2.1"]

[[rule]]
name = "none"
subject = { everyone = true }
deny = ["capture"]
"#;
        let (_folder, path) = written(odd);
        let told = run(&["policy", "check", &path]).done();
        // The last is that the kernel does not tell of units.
        let warnings = if peer::tells_processes() { 6 } else { 7 };
        assert!(told.contains(&format!("3 rules, {warnings} warnings")), "{told}");
        for part in [
            "no user `no such user`",
            "no group `no such group`",
            "no unit `no-such.service`",
            "no interface `no-such-interface`",
            "never decides `resolve`, which has no `remote`",
            "`ghosts`: it is never reached: `none`",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let (_folder, path) = written(RULES);
        let told = run(&["policy", "check", &path]).done();
        assert_eq!(told, "2 rules, 0 warnings\n");
    });
}

#[test]
fn strict_checking_refuses_every_warning() {
    bounded(30, || {
        let rule = |subject: &str, fields: &str| {
            format!("version = 1\n[[rule]]\nname = \"a\"\n{subject}\n{fields}\n")
        };
        let (someone, resolve) = ("subject = { uids = [7] }", "allow = [\"resolve\"]");
        for (text, place, part) in [
            (rule("subject = { users = [\"no such user\"] }", resolve), "4:22", "no user"),
            (rule("subject = { groups = [\"no such group\"] }", resolve), "4:23", "no group"),
            (rule("", "deny = [\"resolve\"]"), "2:1", "no `subject`"),
            (rule(someone, "allow = [\"resolve\"]\nremote = [\"any\"]"), "2:1", "never decides"),
            (
                rule(someone, "allow = [\"bind\"]\nfamily = [\"AF_UNIX\"]\nlocal = [\"any\"]"),
                "2:1",
                "never",
            ),
            (
                rule(someone, "allow = [\"capture\"]\ninterface = [\"no such one\"]"),
                "2:1",
                "no interface",
            ),
            ("version = 1\n".to_owned(), "1:1", "no rules"),
        ] {
            let (_folder, path) = written(&text);
            let warning = format!("warning: {path}:{place}: ");
            for (option, code) in [(None, 0), (Some("--strict"), 1)] {
                let words = ["policy", "check"].into_iter().chain(option).chain([path.as_str()]);
                let ran = run(&words.collect::<Vec<_>>());
                assert_eq!(ran.code, code, "{text}: {ran:?}");
                let line = ran.out.lines().find(|line| line.starts_with(&warning));
                assert!(line.is_some_and(|line| line.contains(part)), "{text}: {ran:?}");
            }
            let ran = run(&["--json", "policy", "check", "--strict", &path]);
            assert_eq!(ran.code, 1, "{ran:?}");
        }
        let (_folder, path) = written(RULES);
        run(&["policy", "check", "--strict", &path]).done();
        let (_folder, path) = written("version = 1\n[[rule]]\n");
        assert_eq!(run(&["policy", "check", "--strict", &path]).code, 78);
    });
}

/// A host of its own with the groups of the package, except one, and the shipped policy with all roles.
fn shipped_host(except: &str) {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "none", "/etc"]).status().unwrap();
    assert!(mounted.success());
    let accounts = fs::read_to_string(deploy().join("systemd/sysusers.d/sockbroker.conf")).unwrap();
    let names = accounts.lines().filter(|line| !line.starts_with('#'));
    let names = names.filter_map(|line| line.split(' ').nth(1)).filter(|name| *name != except);
    let groups = names.zip(900..).map(|(name, id)| format!("{name}:x:{id}:\n"));
    fs::write("/etc/group", groups.collect::<String>()).unwrap();
    fs::create_dir_all("/etc/sockbroker/policy.d").unwrap();
    let config = deploy().join("config");
    fs::copy(config.join("policy.toml"), "/etc/sockbroker/policy.toml").unwrap();
    for role in fs::read_dir(config.join("policy.d")).unwrap() {
        let role = role.unwrap();
        fs::copy(role.path(), Path::new("/etc/sockbroker/policy.d").join(role.file_name()))
            .unwrap();
    }
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

#[test]
fn strict_checking_accepts_the_shipped_policy_of_the_packages() {
    namespace::inside("policy::strict_checking_accepts_the_shipped_policy_of_the_packages", || {
        shipped_host("");
        let told = run(&["policy", "check", "--strict"]).done();
        assert!(told.ends_with(" rules, 0 warnings\n"), "{told}");
    });
}

#[test]
fn strict_checking_refuses_the_shipped_policy_where_a_group_is_missing() {
    let test = "policy::strict_checking_refuses_the_shipped_policy_where_a_group_is_missing";
    namespace::inside(test, || {
        shipped_host("sockbroker-ping");
        let ran = run(&["policy", "check", "--strict"]);
        let place = "/etc/sockbroker/policy.d/ping.toml:12:23: rule `ping`: there is no group";
        assert!(ran.code == 1 && ran.out.contains(place), "{ran:?}");
        fs::remove_dir_all("/etc/sockbroker").unwrap();
        let ran = run(&["policy", "check", "--strict"]);
        let place = "/etc/sockbroker/policy.toml: there is no such file";
        assert!(ran.code == 1 && ran.out.contains(place), "{ran:?}");
    });
}

#[test]
fn strict_checking_accepts_the_policies_of_the_manifests() {
    bounded(30, || {
        for policy in ["kubernetes/policy.toml", "kubernetes/capture/policy.toml"] {
            let path = deploy().join(policy).display().to_string();
            run(&["policy", "check", "--strict", &path]).done();
        }
    });
}

#[test]
fn a_mistake_is_told_with_line_column_and_caret() {
    bounded(30, || {
        let (_folder, path) = written("version = 1\n[[rule]]\nname = \"a\"\nalow = []\n");
        let ran = run(&["policy", "check", &path]);
        assert_eq!(ran.code, 78);
        assert!(ran.err.contains("policy.toml: line 4, column 1: unknown field `alow`"), "{ran:?}");
        assert!(ran.err.contains("4 | alow = []") && ran.err.contains("^^^^"), "{ran:?}");
    });
}

#[test]
fn an_address_without_a_port_is_asked_for_it() {
    bounded(30, || {
        for (action, example) in [
            ("connect remote=127.0.0.1", "write remote=127.0.0.1:80"),
            ("connect AF_INET6 remote=::1", "write remote=[::1]:80"),
            ("bind SOCK_DGRAM local=[::1]", "write local=[::1]:80"),
        ] {
            let line = run(&["policy", "explain", "--uid", "0", action]).failed_with(2);
            assert!(line.ends_with(example), "{line}");
        }
        // Raw and ICMP sockets have none.
        let action = "connect SOCK_DGRAM IPPROTO_ICMP remote=127.0.0.1";
        run(&["policy", "explain", "--uid", "0", action]).done();
    });
}

#[test]
fn explain_reports_that_it_does_not_ask_the_broker_of_the_environment() {
    bounded(30, || {
        let mut command = command(&["policy", "explain", "--uid", "0", "resolve"]);
        let ran = Ran::from(command.env("SOCKBROKER", "/run/some").output().unwrap());
        assert!(ran.err.contains("does not ask the broker of $SOCKBROKER"), "{ran:?}");
        assert!(ran.done().starts_with("allowed by rule"));
        assert_eq!(run(&["policy", "explain", "--uid", "0", "resolve"]).err, "");
    });
}
