//! Remote principals and local ones: rules, sessions, identity and limits.

use serde_json::{Value, json};
use sockbroker_test_support::message::Client as _;
use sockbroker_test_support::{bounded, until};

use super::fixture::{Files, Lab, Leaf, POLICY};

#[test]
fn a_rule_without_remote_subject_never_grants_to_a_remote_principal() {
    bounded(60, || {
        let lab = Lab::start(Files::new(), "");
        let mut remote = lab.connect(Some(&lab.files.authority.client("spiffe://lab/alice")));
        // A rule for everyone allows it, and the gateway runs on this machine.
        let answer = remote.call("socket.if_nameindex", Value::Null);
        assert_eq!(answer["error"]["data"]["kind"], "denied", "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("certificate uri:spiffe://lab/alice may not"), "{message}");
        // One whose name no rule has is granted nothing.
        let mut stranger = lab.connect(Some(&lab.files.authority.client("spiffe://other/eve")));
        for method in ["socket.gethostname", "socket.if_nameindex", "session.open"] {
            let answer = stranger.call(method, Value::Null);
            assert_eq!(answer["error"]["data"]["kind"], "denied", "{answer}");
        }
    });
}

#[test]
fn what_depends_on_local_ids_is_refused() {
    bounded(60, || {
        let policy = "version = 1\n[[rule]]\nname = \"all\"\nsubject = { certificates = [\"*\"] }\n\
            allow = [\"create\", \"bind\", \"connect\", \"send\", \"receive\", \"listen\", \"accept\"]\npaths = \"broker\"\n";
        let lab = Lab::start_with(Files::new(), "", |start| start.policy(policy));
        let mut remote = lab.connect(Some(&lab.files.authority.client("spiffe://lab/alice")));
        let made =
            remote.call("socket.socket", json!({ "family": "AF_UNIX", "type": "SOCK_STREAM" }));
        let handle =
            made["result"]["handle"].as_u64().or(made["result"].as_u64()).expect("a handle");
        let path = lab.broker.socket().display().to_string();
        let connect = json!({ "handle": handle, "address": path });
        let bind = json!({ "handle": handle, "address": format!("{path}-2") });
        for (method, params) in [("socket.connect", connect), ("socket.bind", bind)] {
            let answer = remote.call(method, params);
            assert_eq!(answer["error"]["data"]["kind"], "denied", "{answer}");
        }
        let pair = remote.call("socket.socketpair", Value::Null);
        let message = pair["error"]["message"].as_str().unwrap();
        assert!(message.contains("a remote principal has none on this machine"), "{message}");
        let own = json!({ "family": "AF_INET", "type": "SOCK_DGRAM", "netns": "caller" });
        let answer = remote.call("socket.socket", own);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("has no network namespace on this machine"), "{message}");
    });
}

#[test]
fn a_session_token_of_another_principal_is_refused() {
    bounded(60, || {
        let lab = Lab::start(Files::new(), "");
        let client = |name| lab.files.authority.client(&format!("spiffe://lab/{name}"));
        let (alice, bob) = (client("alice"), client("bob"));
        let mut first = lab.connect(Some(&alice));
        let token = first.call("session.open", Value::Null)["result"]["token"].clone();
        assert!(token.is_string(), "{token}");
        let attach = json!({ "token": token });
        let own = lab.connect(Some(&alice)).call("session.attach", attach.clone());
        assert!(own.get("result").is_some(), "{own}");
        let foreign = lab.connect(Some(&bob)).call("session.attach", attach.clone());
        assert_eq!(foreign["error"]["data"]["kind"], "session", "{foreign}");
        let local = lab.broker.ndjson().call("session.attach", attach);
        assert!(local.is_fault());
    });
}

#[test]
fn an_administrator_sees_the_sessions_of_remote_principals() {
    bounded(60, || {
        let lab = Lab::start(Files::new(), "");
        let mut remote = lab.connect(Some(&lab.files.authority.client("spiffe://lab/alice")));
        let own = remote.call("session.info", Value::Null);
        let sessions = lab.broker.ndjson().call("admin.sessions", Value::Null);
        let found = sessions
            .result()
            .as_array()
            .unwrap()
            .iter()
            .find(|session| session["session"] == own["result"]["session"]);
        let found = found.unwrap_or_else(|| panic!("{:?}", sessions.result()));
        assert_eq!(found["principal"], "certificate uri:spiffe://lab/alice");
        // A number that no user has.
        assert!(found["uid"].as_u64().unwrap() >= 0xf000_0000, "{found}");
    });
}

#[test]
fn limits_of_remote_principals_are_their_own() {
    bounded(60, || {
        let with = |start: sockbroker_test_support::Start| {
            let start = start.limit("remote_connections", 3).limit("connections_per_user", 2);
            start.limit("remote_workers", 2).policy(POLICY)
        };
        let lab = Lab::start_with(Files::new(), "", with);
        let client = |name| lab.files.authority.client(&format!("spiffe://lab/{name}"));
        let (alice, bob, carol) = (client("alice"), client("bob"), client("carol"));
        let serve = |leaf: &Leaf| {
            let mut remote = lab.connect(Some(leaf));
            let answer = remote.call("session.info", Value::Null);
            (remote, answer)
        };
        let refused = |leaf: &Leaf, limit: &str| {
            let (mut remote, answer) = serve(leaf);
            let message = answer["error"]["message"].as_str().unwrap().to_owned();
            assert!(message.contains(limit), "{message}");
            assert_eq!(remote.line(), None);
        };
        let held = [&alice, &alice].map(serve);
        refused(&alice, "connections_per_user");
        let last = serve(&bob);
        assert!(last.1.get("result").is_some(), "{}", last.1);
        refused(&carol, "remote_connections");
        // They do not count for local users.
        lab.broker.lsp().expect_service();
        drop(held);
        until("the connections are released", || serve(&alice).1.get("result").is_some());
        refused(&carol, "remote_workers");
    });
}

#[test]
fn remote_principals_take_no_place_of_local_ones() {
    bounded(60, || {
        let with = |start: sockbroker_test_support::Start| {
            let start =
                start.limit("workers", 2).limit("sessions", 2).limit("sessions_reserved", 0);
            let start = start.limit("remote_workers", 3).limit("remote_sessions", 3);
            start.policy(POLICY)
        };
        let lab = Lab::start_with(Files::new(), "", with);
        let client = |name| lab.files.authority.client(&format!("spiffe://lab/{name}"));
        let all = ["alice", "bob", "carol"].map(client);
        let open = |leaf: &Leaf| {
            let mut remote = lab.connect(Some(leaf));
            let answer = remote.call("session.open", json!({}));
            (remote, answer)
        };
        let held = all.each_ref().map(&open);
        for (_, answer) in &held {
            assert!(answer.get("result").is_some(), "{answer}");
        }
        let (mut remote, answer) = open(&all[0]);
        assert_eq!(answer["error"]["data"]["limit"], "remote_sessions", "{answer}");
        // The workers and sessions of this machine are free.
        let mut local = lab.broker.lsp();
        local.call("session.open", json!({})).result();
        let mut other = lab.broker.lsp();
        other.call("session.open", json!({})).result();
        let fault = lab.broker.lsp().call("session.open", json!({})).fault();
        assert_eq!(fault.limit(), "sessions");
        // Nor do these take theirs.
        drop(held);
        until("a session is free", || {
            remote.call("session.open", json!({})).get("result").is_some()
        });
        let dave = client("dave");
        let _others = [&all[1], &all[2]].map(&open);
        let (_, answer) = open(&dave);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("remote_workers"), "{message}");
        lab.wait_for_log("principal=\"certificate uri:spiffe://lab/dave\"");
        assert!(!lab.broker.log().contains("uid=4026531"), "{}", lab.broker.log());
    });
}
