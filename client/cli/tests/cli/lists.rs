//! `sockbroker info`, `handles` and `sessions`: their tables and their JSON.

use std::io::{BufRead as _, BufReader};
use std::process::Command;

use serde_json::json;
use sockbroker_test_support::{Start, bounded, namespace};

use crate::program::{PROGRAM, broker, endpoint, run_at, start};

#[test]
fn info_describes_the_broker_and_the_caller() {
    bounded(30, || {
        let broker = broker();
        let output = run_at(&broker, &["info"]).success();
        let first = output.lines().next().unwrap();
        let version = format!(
            "sockbrokerd {} at {} runs as uid ",
            env!("CARGO_PKG_VERSION"),
            endpoint(&broker)
        );
        assert!(first.starts_with(&version) && first.contains("; you are uid "), "{first}");
        assert!(!output.contains("frame_bytes"), "{output}");
        assert!(run_at(&broker, &["info", "--limits"]).success().contains("frame_bytes"));
        let known = ["protocol 1", "uid ", "no_new_privs", "errno: ", "built-in: "];
        for part in known.into_iter().chain([endpoint(&broker).as_str()]) {
            assert!(output.contains(part), "{part} in {output}");
        }
        let output = run_at(&broker, &["info", "--json"]).json();
        assert_eq!(output["endpoint"], endpoint(&broker));
        assert_eq!(output["session"]["protocol"], 1);
        assert_eq!(output["broker"]["process"]["pid"], broker.worker());
        assert_eq!(output["broker"]["process"]["seccomp"], "errno");
        assert_eq!(output["limits"]["frame_bytes"]["unit"], "bytes");
    });
}

#[test]
fn info_names_the_process_that_has_the_capabilities() {
    namespace::inside("lists::info_names_the_process_that_has_the_capabilities", || {
        let raw = "version = 1\n[[rule]]\nname = \"r\"\nsubject = { everyone = true }\n\
            allow = [\"create\"]\nfamily = [\"AF_INET\"]\ntype = [\"SOCK_RAW\"]\n";
        let start = || Start::new(PROGRAM).shell("set -- broker \"$@\"");
        let output = run_at(&start().policy(raw).start(), &["info"]).success();
        let first = output.lines().next().unwrap();
        assert!(first.contains(" with CAP_NET_RAW in its opener; you are"), "{first}");
        let row = |name: &str| output.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(row("capabilities").contains("serves you: the opener has them"), "{output}");
        assert!(row("opener").contains(" with CAP_NET_RAW: makes the calls that"), "{output}");
        let tcp = raw.replace("SOCK_RAW", "SOCK_STREAM");
        let output = run_at(&start().policy(&tcp).start(), &["info"]).success();
        assert!(output.contains(" with no capability; you are"), "{output}");
        assert!(output.lines().any(|line| line.ends_with("  none")), "{output}");
    });
}

#[test]
fn handles_are_listed_by_session_and_for_all_sessions() {
    bounded(30, || {
        let broker = broker();
        let mut other = broker.lsp();
        let listener = other.call("socket.create_server", json!([["127.0.0.1", 0]])).handle();
        let port = other.call("socket.getsockname", json!([listener])).result()[1].clone();
        let number = other.call("session.info", json!([])).result()["session"].clone();
        let of = number.to_string();
        for arguments in [&["handles", "--of", of.as_str()][..], &["handles", "--all"]] {
            let output = run_at(&broker, arguments).success();
            let row = output.lines().find(|line| line.contains("listening")).expect("the listener");
            for cell in
                [&listener.to_string(), "AF_INET", "SOCK_STREAM", &format!("127.0.0.1:{port}")]
            {
                assert!(row.contains(cell), "{cell} in {row}");
            }
        }
        // The other sessions of the caller are listed without a grant too.
        let output = run_at(&broker, &["handles"]).success();
        assert_eq!(output.lines().count(), 2, "{output}");
        assert_eq!(output.lines().nth(1).unwrap().split_whitespace().next(), Some(of.as_str()));
        let output = run_at(&broker, &["handles", "--of", &of, "--json"]).json();
        assert_eq!(output[0]["session"], number);
        assert_eq!(output[0]["handles"][0]["local"], json!(["127.0.0.1", port]));
        let line = run_at(&broker, &["handles", "--of", "999999"]).failure(1);
        assert!(line.contains("no session with this number"), "{line}");
    });
}

#[test]
fn restricted_session_lists_only_its_own_handles() {
    bounded(30, || {
        let broker = broker();
        let mut other = broker.lsp();
        other.pair();
        let mut narrow = broker.lsp();
        let opened = narrow.call("session.open", json!({ "linger": 20 })).result().clone();
        let token = opened["token"].as_str().unwrap().to_owned();
        let filters = json!([{ "allow": ["inspect", "create"] }]);
        narrow.call("session.restrict", json!({ "filters": filters })).result();
        narrow.call("socket.socket", json!(["AF_INET", "SOCK_DGRAM"])).handle();
        let in_session =
            |more: &[&str]| run_at(&broker, &[&["--session", &token, "handles"], more].concat());
        let output = in_session(&[]).success();
        assert!(output.lines().count() == 2 && output.contains("SOCK_DGRAM"), "{output}");
        let line = in_session(&["--all"]).failure(1);
        assert!(line.contains("admin"), "{line}");
    });
}

#[test]
fn watch_repeats_the_list_until_an_interrupt() {
    bounded(30, || {
        let broker = broker();
        let mut other = broker.lsp();
        let endpoint = endpoint(&broker);
        let arguments = ["--broker", &endpoint, "--json", "handles", "--watch=0.05"];
        let mut child = start(&arguments);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "[]");
        other.pair();
        let seen = lines.by_ref().map(Result::unwrap).find(|line| line != "[]").unwrap();
        assert!(seen.contains("\"handles\":[{"), "{seen}");
        let mut kill = Command::new("kill");
        assert!(kill.args(["-INT", &child.id().to_string()]).status().unwrap().success());
        for line in lines {
            line.unwrap();
        }
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn sessions_lists_all_sessions() {
    bounded(30, || {
        let broker = broker();
        let mut other = broker.lsp();
        other.pair();
        let number = other.call("session.info", json!([])).result()["session"].clone();
        let output = run_at(&broker, &["sessions"]).success();
        let row = |line: &&str| line.split_whitespace().next() == Some(&number.to_string());
        let row = output.lines().find(row).expect("the session");
        assert!(row.contains("implicit"), "{row}");
        let mut kept = broker.lsp();
        kept.call("session.open", json!({ "persist": true })).result();
        let kept = kept.call("session.info", json!([])).result()["session"].to_string();
        let output = run_at(&broker, &["sessions"]).success();
        let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let row = output.lines().map(cells).find(|cells| cells.first() == Some(&kept)).unwrap();
        assert_eq!(row[2..4], ["opened", "worker"]);
        let output = run_at(&broker, &["sessions", "--json"]).json();
        let found = output.as_array().unwrap().iter().find(|found| found["session"] == number);
        assert_eq!(found.unwrap()["handles"], 2);
    });
}
