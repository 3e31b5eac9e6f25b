//! Objects of other users: handles, tokens, sessions and the administration.

use serde_json::{Value, json};
use sockbroker_test_support::message::request;
use sockbroker_test_support::{Client, Fault, HttpClient, LspClient};

use crate::arena::{assert_denied, attacker, neighbour};

/// Removes a handle number from the message of an error, to compare errors.
fn without(fault: Fault, number: u64) -> Fault {
    Fault { message: fault.message.replace(&number.to_string(), "N"), ..fault }
}

/// Calls that take a handle.
fn uses(handle: u64) -> Vec<(&'static str, Value)> {
    vec![
        ("socket.recv", json!([handle, 10])),
        ("socket.send", json!([handle, "aGk="])),
        ("socket.sendmsg", json!([handle, ["aGk="]])),
        ("socket.fileno", json!([handle])),
        ("socket.detach", json!([handle])),
        ("socket.dup", json!([handle])),
        ("socket.shutdown", json!([handle, 2])),
        ("socket.getsockname", json!([handle])),
        ("socket.getsockopt", json!([handle, "SOL_SOCKET", "SO_TYPE"])),
        ("socket.settimeout", json!([handle, 1])),
        ("socket.close", json!([handle])),
    ]
}

attack!(handle_of_another_user_is_unknown, mut arena, {
    let mut victim = neighbour().lsp(&arena.broker);
    // Several handles, so that the attacker has none with the same number.
    let handles: Vec<u64> =
        (0..20).map(|_| victim.call("socket.socket", Value::Null).handle()).collect();
    let (open_handle, never) = (handles[19], handles[19] + 1000);
    for ((method, params), (_, other)) in uses(open_handle).into_iter().zip(uses(never)) {
        let refused = without(arena.attacker.call(method, params).fault(), open_handle);
        assert_eq!(refused.kind(), (4000, "handle"), "{method}");
        let never = without(arena.attacker.call(method, other).fault(), never);
        assert_eq!(refused, never, "{method}");
    }
    victim.call("socket.getsockopt", json!([open_handle, "SOL_SOCKET", "SO_TYPE"])).result();
});

attack!(poll_reveals_nothing_about_handles_of_others, mut arena, {
    let mut victim = neighbour().lsp(&arena.broker);
    let handles: Vec<u64> =
        (0..20).map(|_| victim.call("socket.socket", Value::Null).handle()).collect();
    let fds: Vec<_> = [handles[19], handles[19] + 1000].map(|handle| json!([handle, 5])).into();
    let found = arena.attacker.call("socket.poll", json!([fds, 0])).result().clone();
    assert_eq!(found[0][1], 0x20, "POLLNVAL");
    assert_eq!(found[0][1], found[1][1]);
});

attack!(session_of_another_user_cannot_be_attached, mut arena, {
    let mut victim = neighbour().lsp(&arena.broker);
    let token = victim.call("session.open", Value::Null).result()["token"].clone();
    let wrong = token.as_str().unwrap().replace(['1', '2', '3', '4', '5'], "6");
    let right = arena.attacker.call("session.attach", json!([token])).fault();
    assert_eq!(right.kind(), (4001, "session"));
    assert_eq!(right, arena.attacker.call("session.attach", json!([wrong])).fault());
    // The session of root is refused too, and over HTTP as well.
    let mut root = arena.broker.lsp();
    let roots = root.call("session.open", Value::Null).result()["token"].clone();
    assert_eq!(right, arena.attacker.call("session.attach", json!([roots])).fault());
    let mut http = HttpClient::over(attacker().connect(&arena.broker));
    let call = request(1, "socket.socket", Value::Null);
    let fields = [("sockbroker-session", token.as_str().unwrap())];
    assert_eq!(http.post(&call, &fields).status, 403);
    assert_eq!(victim.call("session.info", Value::Null).result()["connections"], 1);
});

attack!(tokens_cannot_be_guessed, mut arena, {
    let mut victim = neighbour().lsp(&arena.broker);
    let info = victim.call("session.open", Value::Null).result().clone();
    let token = info["token"].as_str().unwrap().to_owned();
    let (number, secret) = token.split_once('.').unwrap();
    assert_eq!(secret.len(), 64, "256 bits");
    for guess in [number.to_owned(), format!("{number}."), format!("{number}.{}", "0".repeat(64))] {
        let refused = arena.attacker.call("session.attach", json!([guess])).fault();
        assert_eq!(refused.kind(), (4001, "session"), "{guess}");
    }
});

attack!(calls_of_another_user_cannot_be_resolved, mut arena, {
    let mut victim = neighbour().lsp(&arena.broker);
    let opened = victim.call("session.open", Value::Null).result().clone();
    let id = victim.send("socket.gettimeout", json!([1]));
    victim.answer(id);
    let params = json!([opened["connection"], id]);
    let answer = arena.attacker.call("call.resolve", params).result().clone();
    assert_eq!(answer, json!({ "state": "unknown" }));
});

attack!(administration_requires_the_admin_grant, mut arena, {
    for (method, params) in [
        ("admin.sessions", Value::Null),
        ("admin.handles", json!([1])),
        ("admin.reload", Value::Null),
    ] {
        arena.denied(method, params, "no rule", "admin");
    }
    let mut http = HttpClient::over(attacker().connect(&arena.broker));
    assert_eq!(http.request("GET /metrics", &[], b"").status, 403);
});

attack!(partly_allowed_batch_is_partly_executed, mut arena, {
    let batch = json!([
        request(1, "socket.socket", Value::Null),
        request(2, "socket.socket", json!(["AF_PACKET", "SOCK_RAW", 3])),
        request(3, "socket.sethostname", json!(["owned"])),
        request(4, "socket.htons", json!([1])),
    ]);
    arena.attacker.send_json(&batch);
    let answers = arena.attacker.read_json().unwrap();
    let of = |id: usize| sockbroker_test_support::Answer::from(answers[id - 1].clone());
    of(1).handle();
    assert_denied(&of(2), "no rule", "AF_PACKET", "the packet socket");
    assert_denied(&of(3), "no rule", "sethostname", "the name");
    assert_eq!(*of(4).result(), 256);
    let info = arena.attacker.call("session.info", Value::Null);
    assert_eq!(info.result()["handles"], 1);
});

attack!(restricted_rights_cannot_be_regained_by_clone_or_dup, mut arena, {
    let client = &mut arena.attacker;
    let udp = client.call("socket.socket", json!(["AF_INET", "SOCK_DGRAM"])).handle();
    let keep = json!({ "filters": [{ "allow": ["session", "inspect", "receive"] }] });
    client.call("session.restrict", keep).result();
    let copy = client.call("socket.dup", json!([udp])).handle();
    let token = client.call("session.clone", Value::Null).result()["token"].clone();
    let mut clone: LspClient = attacker().lsp(&arena.broker);
    clone.call("session.attach", json!([token])).result();
    for (client, handle) in [(&mut arena.attacker, copy), (&mut clone, udp)] {
        let refused = client.call("socket.connect", json!([handle, ["127.0.0.1", 8000]]));
        assert_denied(&refused, "session.restrict", "connect", "connect");
        let refused = client.call("socket.socket", Value::Null);
        assert_denied(&refused, "session.restrict", "create", "create");
    }
});
