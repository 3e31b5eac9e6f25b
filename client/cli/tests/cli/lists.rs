//! `sockbroker info`, `handles` and `sessions`: tables for people, JSON for scripts.

use serde_json::json;
use sockbroker_test_support::bounded;

use crate::program::{ask, broker, endpoint};

#[test]
fn the_broker_tells_of_itself_and_of_the_caller() {
    bounded(30, || {
        let mut broker = broker();
        let told = ask(&broker, &["info"]).done();
        let known = ["protocol 1", "uid ", "no_new_privs", "errno: ", "built-in: ", "frame_bytes"];
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
        assert_eq!(ask(&broker, &["handles"]).done().lines().count(), 1);
        let told = ask(&broker, &["handles", "--of", &of, "--json"]).json();
        assert_eq!(told[0]["session"], number);
        assert_eq!(told[0]["handles"][0]["local"], json!(["127.0.0.1", port]));
        let line = ask(&broker, &["handles", "--of", "999999"]).failed_with(1);
        assert!(line.contains("no session with this number"), "{line}");
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
