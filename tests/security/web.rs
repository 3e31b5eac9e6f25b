//! Attacks from a web page whose requests reach the socket.

use serde_json::{Value, json};
use sockbroker_test_support::message::request;
use sockbroker_test_support::{Client as _, HttpClient, NdjsonClient};

use crate::arena::attacker;

attack!(web_page_gets_no_answer, arena, {
    let call = request(1, "socket.socket", Value::Null).to_string();
    let json_type = ("content-type", "application/json");
    let mut root = arena.broker.lsp();
    let before = root.call("admin.sessions", Value::Null).result().as_array().unwrap().len();
    for fields in [
        vec![json_type, ("origin", "http://evil.example")],
        vec![json_type, ("origin", "null")],
        vec![json_type, ("origin", "http://localhost")],
    ] {
        let mut http = HttpClient::over(attacker().connect(&arena.broker));
        let refused = http.request("POST /", &fields, call.as_bytes());
        assert_eq!(refused.status, 403, "{fields:?}");
        assert!(!String::from_utf8_lossy(&refused.body).contains("handle"));
        assert_eq!(refused.field("access-control-allow-origin"), None);
    }
    // Content types that a form can send without a preflight request.
    for media in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let mut http = HttpClient::over(attacker().connect(&arena.broker));
        let refused = http.request("POST /", &[("content-type", media)], call.as_bytes());
        assert_eq!(refused.status, 415, "{media}");
    }
    let mut http = HttpClient::over(attacker().connect(&arena.broker));
    let preflight = http.request("OPTIONS /", &[("origin", "http://evil.example")], b"");
    assert_eq!(preflight.status, 403);
    drop(http);
    let after = root.call("admin.sessions", Value::Null).result().as_array().unwrap().clone();
    assert!(after.iter().all(|session| session["handles"] == 0), "{before} then {after:?}");
});

attack!(web_page_cannot_open_a_websocket, mut arena, {
    for origin in ["http://evil.example", "null", "file://"] {
        let mut http = HttpClient::over(attacker().connect(&arena.broker));
        let refused = http.request(
            "GET /",
            &[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("origin", origin),
            ],
            b"",
        );
        assert_eq!(refused.status, 403, "{origin}");
    }
    arena.attacker.expect_service();
});

attack!(all_protocols_have_the_same_rights, mut arena, {
    let mut http = HttpClient::over(attacker().connect(&arena.broker));
    let call = request(1, "socket.socket", json!(["AF_INET", "SOCK_RAW", 1]));
    let answer = http.post(&call, &[]).json();
    assert_eq!(answer["error"]["data"]["rule"], "no rule");
    let mut lines = NdjsonClient::over(attacker().connect(&arena.broker));
    let refused = lines.call("socket.socket", json!(["AF_INET", "SOCK_RAW", 1]));
    crate::arena::assert_denied(&refused, "no rule", "SOCK_RAW", "ndjson");
    arena.denied("socket.socket", json!(["AF_INET", "SOCK_RAW", 1]), "no rule", "SOCK_RAW");
});
