//! `sockbroker info`, `handles` and `sessions`: tables for people, JSON for scripts.

use std::io::{BufRead as _, BufReader};
use std::process::Command;

use serde_json::json;
use sockbroker_test_support::bounded;

use crate::program::{ask, broker, endpoint, start};

#[test]
fn the_broker_tells_of_itself_and_of_the_caller() {
    bounded(30, || {
        let mut broker = broker();
        let told = ask(&broker, &["info"]).done();
        let first = told.lines().next().unwrap();
        let version = format!(
            "sockbrokerd {} at {} runs as uid ",
            env!("CARGO_PKG_VERSION"),
            endpoint(&broker)
        );
        assert!(first.starts_with(&version) && first.contains("; you are uid "), "{first}");
        assert!(!told.contains("frame_bytes"), "{told}");
        assert!(ask(&broker, &["info", "--limits"]).done().contains("frame_bytes"));
        let known = ["protocol 1", "uid ", "no_new_privs", "errno: ", "built-in: "];
        for part in known.into_iter().chain([endpoint(&broker).as_str()]) {
            assert!(told.contains(part), "{part} in {told}");
        }
        let told = ask(&broker, &["info", "--json"]).json();
        assert_eq!(told["endpoint"], endpoint(&broker));
        assert_eq!(told["session"]["protocol"], 1);
        assert_eq!(told["broker"]["process"]["pid"], broker.process().number());
        assert_eq!(told["broker"]["process"]["seccomp"], "errno");
        assert_eq!(told["limits"]["frame_bytes"]["unit"], "bytes");
    });
}

#[test]
fn open_handles_are_listed_by_session_and_for_all() {
    bounded(30, || {
        let broker = broker();
        let mut other = broker.lsp();
        let listener = other.call("socket.create_server", json!([["127.0.0.1", 0]])).handle();
        let port = other.call("socket.getsockname", json!([listener])).result()[1].clone();
        let number = other.call("session.info", json!([])).result()["session"].clone();
        let of = number.to_string();
        for arguments in [&["handles", "--of", of.as_str()][..], &["handles", "--all"]] {
            let told = ask(&broker, arguments).done();
            let row = told.lines().find(|line| line.contains("listening")).expect("the listener");
            for cell in
                [&listener.to_string(), "AF_INET", "SOCK_STREAM", &format!("127.0.0.1:{port}")]
            {
                assert!(row.contains(cell), "{cell} in {row}");
            }
        }
        // The other sessions of the caller are listed without the grant, too.
        let told = ask(&broker, &["handles"]).done();
        assert_eq!(told.lines().count(), 2, "{told}");
        assert_eq!(told.lines().nth(1).unwrap().split_whitespace().next(), Some(of.as_str()));
        let told = ask(&broker, &["handles", "--of", &of, "--json"]).json();
        assert_eq!(told[0]["session"], number);
        assert_eq!(told[0]["handles"][0]["local"], json!(["127.0.0.1", port]));
        let line = ask(&broker, &["handles", "--of", "999999"]).failed_with(1);
        assert!(line.contains("no session with this number"), "{line}");
    });
}

#[test]
fn handles_of_others_need_the_grant_and_those_of_a_narrow_session_are_its_own() {
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
        let within =
            |more: &[&str]| ask(&broker, &[&["--session", &token, "handles"], more].concat());
        let output = within(&[]).done();
        assert!(output.lines().count() == 2 && output.contains("SOCK_DGRAM"), "{output}");
        let line = within(&["--all"]).failed_with(1);
        assert!(line.contains("admin"), "{line}");
    });
}

#[test]
fn watched_handles_are_listed_again_until_an_interrupt() {
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
fn all_sessions_are_listed() {
    bounded(30, || {
        let broker = broker();
        let mut other = broker.lsp();
        other.pair();
        let number = other.call("session.info", json!([])).result()["session"].clone();
        let told = ask(&broker, &["sessions"]).done();
        let row = |line: &&str| line.split_whitespace().next() == Some(&number.to_string());
        let row = told.lines().find(row).expect("the session");
        assert!(row.contains("implicit"), "{row}");
        let told = ask(&broker, &["sessions", "--json"]).json();
        let found = told.as_array().unwrap().iter().find(|found| found["session"] == number);
        assert_eq!(found.unwrap()["handles"], 2);
    });
}
