//! `sockbroker policy check` and `sockbroker policy explain`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sockbroker_sys::peer;
use sockbroker_test_support::{Folder, bounded, namespace};

use crate::program::{Outcome, command, run};

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

fn policy_file(text: &str) -> (Folder, String) {
    let folder = Folder::new();
    let path = folder.write("policy.toml", text).display().to_string();
    (folder, path)
}

#[test]
fn explain_reports_the_deciding_rule_and_why_others_do_not_match() {
    bounded(30, || {
        let (_folder, path) = policy_file(RULES);
        let explain = |action: &[&str]| {
            let start = ["policy", "explain", "--uid", "4242", "--policy", &path];
            run(&[&start[..], action].concat())
        };
        let allowed = explain(&["connect remote=192.0.2.1:80"]).success();
        assert!(allowed.starts_with("allowed by rule `web`\n"), "{allowed}");
        assert!(
            allowed.contains("`not this one`") && allowed.contains("policy.toml:11"),
            "{allowed}"
        );
        for (action, part) in [
            ("connect remote=192.0.2.7:80", "rule \"not this one\" denies it"),
            ("connect remote=192.0.2.1:81", "its remote_ports does not match"),
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
fn explain_shows_which_packets_a_capture_lets_through() {
    bounded(30, || {
        let rules = r#"
version = 1

[[rule]]
name = "dhcp"
subject = { everyone = true }
allow = ["capture"]
interface = ["eth*"]
protocol = ["IPPROTO_UDP"]
local_ports = ["67-68"]

[[rule]]
name = "not the lab"
subject = { everyone = true }
deny = ["capture"]
remote = ["192.0.2.0/24"]
"#;
        let (_folder, path) = policy_file(rules);
        let explain = |action: &str, more: &[&str]| {
            let start = ["policy", "explain", "--uid", "4242", "--policy", &path, action];
            run(&[more, &start[..]].concat())
        };
        let allowed = explain("capture eth0", &[]).success();
        let lines = [
            "allowed by rule `dhcp`",
            "lets through: packets with protocol = [\"IPPROTO_UDP\"], local_ports = [\"67-68\"] (`dhcp`)",
            "              but no packets with remote = [\"192.0.2.0/24\"] (`not the lab`)",
        ];
        assert!(allowed.starts_with(&lines.join("\n")), "{allowed}");
        let json: serde_json::Value =
            serde_json::from_str(&explain("capture eth0", &["--json"]).success()).unwrap();
        assert_eq!(json["packets"].as_array().unwrap().len(), 2, "{json}");
        // A rule about some packets does not decide about the capture.
        assert!(allowed.contains("`not the lab`"), "{allowed}");
        let line = |name: &str| allowed.lines().rfind(|line| line.contains(name)).unwrap();
        assert!(
            line("`not the lab`").ends_with("excludes the packets of its fields: deny"),
            "{allowed}"
        );
        assert!(
            line("`dhcp`").ends_with("lets through the packets of its fields: allow"),
            "{allowed}"
        );
        for (words, part) in [
            ("capture lo0 eth0", "`lo0` and `eth0` are two interfaces"),
            ("capture eth0 remote=192.0.2.1:1", "a capture has no `remote`"),
        ] {
            let wrong = explain(words, &[]).failure(2);
            assert!(wrong.contains(part), "{wrong}");
        }
        for action in
            ["capture", "capture wlan0", "capture any", "capture AF_PACKET SOCK_RAW interface=eth0"]
        {
            let refused = explain(action, &[]);
            assert_eq!(refused.code, 1, "{action}: {refused:?}");
        }
        // The built-in rule of root is about the broker's own network namespace.
        let explain_to_root = |action: &str| {
            run(&["policy", "explain", "--uid", "0", "--policy", &path, action]).code
        };
        assert_eq!(explain_to_root("capture lo"), 0);
        assert_eq!(explain_to_root("capture lo netns=lab1"), 1);
    });
}

#[test]
fn check_warns_about_likely_mistakes() {
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
        let (_folder, path) = policy_file(odd);
        let output = run(&["policy", "check", &path]).success();
        // The seventh warning is that this kernel does not report processes, and so no units.
        let warnings = if peer::has_peer_pidfd() { 6 } else { 7 };
        assert!(output.contains(&format!("3 rules, {warnings} warnings")), "{output}");
        for part in [
            "no user `no such user`",
            "no group `no such group`",
            "no unit `no-such.service`",
            "no interface `no-such-interface`",
            "never decides `resolve`, which has no `remote`",
            "`ghosts`: it is never reached: `none`",
        ] {
            assert!(output.contains(part), "{part}: {output}");
        }
        let (_folder, path) = policy_file(RULES);
        let output = run(&["policy", "check", &path]).success();
        assert_eq!(output, "2 rules, 0 warnings\n");
    });
}

#[test]
fn strict_check_fails_on_every_warning() {
    bounded(30, || {
        let rule = |subject: &str, fields: &str| {
            format!("version = 1\n[[rule]]\nname = \"a\"\n{subject}\n{fields}\n")
        };
        let (subject, resolve) = ("subject = { uids = [7] }", "allow = [\"resolve\"]");
        for (text, place, part) in [
            (rule("subject = { users = [\"no such user\"] }", resolve), "4:22", "no user"),
            (rule("subject = { groups = [\"no such group\"] }", resolve), "4:23", "no group"),
            (rule("", "deny = [\"resolve\"]"), "2:1", "no `subject`"),
            (rule(subject, "allow = [\"resolve\"]\nremote = [\"any\"]"), "2:1", "never decides"),
            (
                rule(subject, "allow = [\"bind\"]\nfamily = [\"AF_UNIX\"]\nlocal = [\"any\"]"),
                "2:1",
                "never",
            ),
            (
                rule(subject, "allow = [\"capture\"]\ninterface = [\"no such one\"]"),
                "2:1",
                "no interface",
            ),
            ("version = 1\n".to_owned(), "1:1", "no rules"),
        ] {
            let (_folder, path) = policy_file(&text);
            let warning = format!("warning: {path}:{place}: ");
            for (option, code) in [(None, 0), (Some("--strict"), 1)] {
                let words = ["policy", "check"].into_iter().chain(option).chain([path.as_str()]);
                let outcome = run(&words.collect::<Vec<_>>());
                assert_eq!(outcome.code, code, "{text}: {outcome:?}");
                let line = outcome.out.lines().find(|line| line.starts_with(&warning));
                assert!(line.is_some_and(|line| line.contains(part)), "{text}: {outcome:?}");
            }
            let outcome = run(&["--json", "policy", "check", "--strict", &path]);
            assert_eq!(outcome.code, 1, "{outcome:?}");
        }
        // Interfaces of other network namespaces are unknown here.
        let elsewhere = "allow = [\"capture\"]\ninterface = [\"no such one\"]\nnetns = [\"any\"]";
        for text in [RULES, &rule(subject, elsewhere)] {
            let (_folder, path) = policy_file(text);
            run(&["policy", "check", "--strict", &path]).success();
        }
        let (_folder, path) = policy_file("version = 1\n[[rule]]\n");
        assert_eq!(run(&["policy", "check", "--strict", &path]).code, 78);
    });
}

/// Mounts an /etc with the groups of the package, except one, and with the shipped policy and all roles.
fn mount_shipped_configuration(except: &str) {
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
fn strict_check_accepts_the_shipped_policy() {
    namespace::inside("policy::strict_check_accepts_the_shipped_policy", || {
        mount_shipped_configuration("");
        let output = run(&["policy", "check", "--strict"]).success();
        assert!(output.ends_with(" rules, 0 warnings\n"), "{output}");
    });
}

#[test]
fn strict_check_refuses_the_shipped_policy_without_a_group() {
    let test = "policy::strict_check_refuses_the_shipped_policy_without_a_group";
    namespace::inside(test, || {
        mount_shipped_configuration("sockbroker-ping");
        let outcome = run(&["policy", "check", "--strict"]);
        let place = "/etc/sockbroker/policy.d/ping.toml:12:23: rule `ping`: there is no group";
        assert!(outcome.code == 1 && outcome.out.contains(place), "{outcome:?}");
        fs::remove_dir_all("/etc/sockbroker").unwrap();
        let outcome = run(&["policy", "check", "--strict"]);
        let place = "/etc/sockbroker/policy.toml: there is no such file";
        assert!(outcome.code == 1 && outcome.out.contains(place), "{outcome:?}");
    });
}

#[test]
fn strict_check_accepts_the_kubernetes_policies() {
    bounded(30, || {
        for folder in ["", "capture/", "netns/"] {
            let policy = format!("kubernetes/{folder}policy.toml");
            let path = deploy().join(policy).display().to_string();
            run(&["policy", "check", "--strict", &path]).success();
        }
    });
}

#[test]
fn syntax_error_is_reported_with_line_column_and_caret() {
    bounded(30, || {
        let (_folder, path) = policy_file("version = 1\n[[rule]]\nname = \"a\"\nalow = []\n");
        let outcome = run(&["policy", "check", &path]);
        assert_eq!(outcome.code, 78);
        assert!(
            outcome.err.contains("policy.toml: line 4, column 1: unknown field `alow`"),
            "{outcome:?}"
        );
        assert!(
            outcome.err.contains("4 | alow = []") && outcome.err.contains("^^^^"),
            "{outcome:?}"
        );
    });
}

#[test]
fn explain_requires_a_port_in_addresses() {
    bounded(30, || {
        for (action, example) in [
            ("connect remote=127.0.0.1", "write remote=127.0.0.1:80"),
            ("connect AF_INET6 remote=::1", "write remote=[::1]:80"),
            ("bind SOCK_DGRAM local=[::1]", "write local=[::1]:80"),
        ] {
            let line = run(&["policy", "explain", "--uid", "0", action]).failure(2);
            assert!(line.ends_with(example), "{line}");
        }
        // Raw and ICMP sockets have no ports.
        let action = "connect SOCK_DGRAM IPPROTO_ICMP remote=127.0.0.1";
        run(&["policy", "explain", "--uid", "0", action]).success();
    });
}

#[test]
fn explain_reports_that_it_ignores_the_environment() {
    bounded(30, || {
        let mut command = command(&["policy", "explain", "--uid", "0", "resolve"]);
        let outcome = Outcome::from(command.env("SOCKBROKER", "/run/some").output().unwrap());
        assert!(outcome.err.contains("does not query the broker of $SOCKBROKER"), "{outcome:?}");
        assert!(outcome.success().starts_with("allowed by rule"));
        assert_eq!(run(&["policy", "explain", "--uid", "0", "resolve"]).err, "");
    });
}

#[test]
fn explain_shows_the_snap_length_and_promiscuous_mode_of_a_capture() {
    bounded(30, || {
        let rules = r#"
version = 1

[[rule]]
name = "dhcp"
subject = { everyone = true }
allow = ["capture"]
interface = ["eth*"]
snaplen = 512
"#;
        let (_folder, path) = policy_file(rules);
        let explain = |action: &str, more: &[&str]| {
            let start = ["policy", "explain", "--uid", "4242", "--policy", &path, action];
            run(&[more, &start[..]].concat())
        };
        let allowed = explain("capture eth0", &[]).success();
        assert!(
            allowed.contains("snap length:  at most 512 bytes of each packet (sniff -s 512)\n")
        );
        assert!(
            allowed.contains("promiscuous:  refused (sniff -p); uid 4242 may not use an option")
        );
        let longer = explain("capture eth0 snaplen=513", &[]);
        let hint = "; rule \"dhcp\" allows a snap length of 512 bytes\n";
        assert!(longer.out.contains(hint), "{longer:?}");
        let json: serde_json::Value =
            serde_json::from_str(&explain("capture eth0", &["--json"]).success()).unwrap();
        assert_eq!((&json["snaplen"], &json["promiscuous"]), (&512.into(), &false.into()));
    });
}
