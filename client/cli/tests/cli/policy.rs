//! `policy check` and `policy explain`: what files say, without a broker.

use sockbroker_sys::peer;
use sockbroker_test_support::{Folder, bounded};

use crate::program::run;

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
            ("connect remote=192.0.2.7:80", "not granted to uid 4242: not this one"),
            ("connect remote=192.0.2.1:81", "its remote or remote_ports does not match"),
            ("create AF_PACKET SOCK_RAW", "a rule that allows it has: allow = [\"create\"]"),
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
fn a_mistake_is_told_with_line_column_and_caret() {
    bounded(30, || {
        let (_folder, path) = written("version = 1\n[[rule]]\nname = \"a\"\nalow = []\n");
        let ran = run(&["policy", "check", &path]);
        assert_eq!(ran.code, 78);
        assert!(ran.err.contains("policy.toml: line 4, column 1: unknown field `alow`"), "{ran:?}");
        assert!(ran.err.contains("4 | alow = []") && ran.err.contains("^^^^"), "{ran:?}");
    });
}
