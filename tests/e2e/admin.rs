//! `session.handles`, `admin.sessions` and `admin.handles`: the caller's own handles, and those of all users.

use std::time::Instant;

use serde_json::{Value, json};
use sockbroker_test_support::{LspClient, bounded, until};

use crate::broker::broker;

fn number(client: &mut LspClient) -> Value {
    client.call("session.info", Value::Null).result()["session"].clone()
}

fn list(client: &mut LspClient, method: &str, params: Value) -> Vec<Value> {
    client.call(method, params).result().as_array().unwrap().clone()
}

#[test]
fn session_handles_lists_handles_with_addresses_and_state() {
    bounded(20, || {
        let begun = Instant::now();
        let broker = broker();
        let mut client = broker.lsp();
        assert!(list(&mut client, "session.handles", Value::Null).is_empty());
        let listener = client.call("socket.create_server", json!([["127.0.0.1", 0]])).handle();
        let address = client.call("socket.getsockname", json!([listener])).result().clone();
        let made = client.call("socket.create_connection", json!([address, 5.5])).handle();
        let own = client.call("socket.getsockname", json!([made])).result().clone();
        let gone = client.call("socket.socket", Value::Null).handle();
        client.call("socket.close", json!([gone])).result();
        let handles = list(&mut client, "session.handles", Value::Null);
        let longest = begun.elapsed().as_secs_f64();
        let seconds = |age: &Value| (0.0..=longest).contains(&age.as_f64().unwrap());
        assert!(handles.iter().all(|handle| seconds(&handle["age"])), "{handles:?}");
        let fields = |handle: &Value| {
            let names = ["handle", "family", "type", "timeout", "local", "peer", "listening"];
            names.map(|name| handle[name].clone())
        };
        let fields: Vec<_> = handles.iter().map(fields).collect();
        let inet = [json!(2), json!(1)];
        let [family, kind] = &inet;
        let first = [json!(listener), family.clone(), kind.clone(), Value::Null];
        assert_eq!(fields[0][..4], first);
        assert_eq!(fields[0][4..], [address.clone(), Value::Null, json!(true)]);
        assert_eq!(fields[1][..4], [json!(made), family.clone(), kind.clone(), json!(5.5)]);
        assert_eq!(fields[1][4..], [own, address, json!(false)]);
        assert_eq!(fields.len(), 2);
    });
}

#[test]
fn all_sessions_lists_own_handles_unless_the_session_is_restricted() {
    bounded(20, || {
        let broker = broker();
        let (mut client, mut other) = (broker.lsp(), broker.lsp());
        let theirs = number(&mut other);
        let (left, right) = other.pair();
        let all = list(&mut client, "session.handles", json!({ "all_sessions": true }));
        let found: Vec<_> = all
            .iter()
            .map(|handle| (handle["session"].clone(), handle["handle"].clone()))
            .collect();
        assert_eq!(found, [(theirs.clone(), json!(left)), (theirs, json!(right))]);
        assert!(list(&mut client, "session.handles", json!([false])).is_empty());
        client.call("session.restrict", json!({ "rules": [] })).result();
        let fault = client.call("session.handles", json!([true])).fault();
        assert_eq!(fault.kind().1, "session", "{fault:?}");
    });
}

#[test]
fn administrator_lists_all_sessions_and_handles_until_they_end() {
    bounded(20, || {
        let broker = broker();
        let (mut admin, mut other) = (broker.lsp(), broker.lsp());
        let (mine, theirs) = (number(&mut admin), number(&mut other));
        let (left, right) = other.pair();
        let all = list(&mut admin, "admin.sessions", Value::Null);
        let find = |number: &Value| all.iter().find(|found| found["session"] == *number).unwrap();
        assert_eq!((&find(&mine)["handles"], &find(&mine)["connections"]), (&json!(0), &json!(1)));
        assert_eq!(
            (&find(&theirs)["handles"], &find(&theirs)["opened"]),
            (&json!(2), &json!(false))
        );
        // A session is listed once, both as an implicit and as an opened one.
        other.call("session.open", json!({ "linger": 0.5 })).result();
        let all = list(&mut admin, "admin.sessions", Value::Null);
        let same: Vec<_> = all.iter().filter(|found| found["session"] == theirs).collect();
        assert_eq!(same.len(), 1, "{all:?}");
        assert_eq!((&same[0]["opened"], &same[0]["linger"]), (&json!(true), &json!(0.5)));
        let handles = list(&mut admin, "admin.handles", json!([theirs]));
        let numbers: Vec<_> = handles.iter().map(|handle| handle["handle"].clone()).collect();
        assert_eq!(numbers, [json!(left), json!(right)]);
        drop(other);
        until("the other session is over", || {
            let all = list(&mut admin, "admin.sessions", Value::Null);
            all.iter().all(|found| found["session"] != theirs)
        });
        let fault = admin.call("admin.handles", json!([theirs])).fault();
        assert_eq!(fault.kind(), (4001, "session"));
    });
}
