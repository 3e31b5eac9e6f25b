//! Invalid requests and parameters: each gets one clear error.

use serde_json::{Value, json};
use sockbroker_test_support::message::{notification, request};
use sockbroker_test_support::{Answer, Client, LspClient, bounded};

use crate::broker::broker;

/// Sends this text as the JSON part of a frame, and returns the answer.
fn send_text(client: &mut LspClient, text: impl AsRef<[u8]>) -> Answer {
    let text = text.as_ref();
    let head = format!("Content-Length: {}\r\n\r\n", text.len());
    client.wire.send(&[head.as_bytes(), text].concat(), &[]).unwrap();
    client.next_answer().expect("an error is an answer")
}

#[test]
fn invalid_json_returns_parse_error() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let deep = "[".repeat(60_000);
        for text in [
            &b""[..],
            b" ",
            b"{",
            b"}",
            b"nothing",
            b"{\"jsonrpc\":\"2.0\",}",
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\"} {}",
            b"[1,",
            b"[}",
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\\x\"}",
            b"\xff\xfe",
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}",
            b"\xef\xbb\xbf{}",
            deep.as_bytes(),
        ] {
            let answer = send_text(&mut client, text);
            let shown = String::from_utf8_lossy(&text[..text.len().min(50)]).into_owned();
            assert_eq!(answer.fault().kind(), (-32700, "parse"), "{shown}");
            assert_eq!(*answer.id(), Value::Null, "{shown}");
        }
        client.expect_service();
    });
}

#[test]
fn invalid_request_returns_request_error_with_its_id() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        for (message, id) in [
            (json!(17), json!(null)),
            (json!("text"), json!(null)),
            (json!(null), json!(null)),
            (json!({}), json!(null)),
            (json!({ "id": 7, "method": "x" }), json!(7)),
            (json!({ "jsonrpc": "1.0", "id": 7, "method": "x" }), json!(7)),
            (json!({ "jsonrpc": 2.0, "id": 7, "method": "x" }), json!(7)),
            (json!({ "jsonrpc": "2.0", "id": "a" }), json!("a")),
            (json!({ "jsonrpc": "2.0", "id": "a", "method": 1 }), json!("a")),
            (json!({ "jsonrpc": "2.0", "id": "a", "method": null }), json!("a")),
            (json!({ "jsonrpc": "2.0", "id": -1, "method": "x" }), json!(null)),
            (json!({ "jsonrpc": "2.0", "id": 1.5, "method": "x" }), json!(null)),
            (json!({ "jsonrpc": "2.0", "id": {}, "method": "x" }), json!(null)),
            (json!({ "jsonrpc": "2.0", "id": [1], "method": "x" }), json!(null)),
            (json!({ "jsonrpc": "2.0", "id": true, "method": "x" }), json!(null)),
            (json!([]), json!(null)),
        ] {
            let answer = send_text(&mut client, message.to_string());
            assert_eq!(answer.fault().kind(), (-32600, "request"), "{message}");
            assert_eq!(*answer.id(), id, "{message}");
        }
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","method":"y"}"#,
            r#"{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"x"}"#,
        ] {
            assert_eq!(send_text(&mut client, text).fault().code, -32600, "{text}");
        }
        client.expect_service();
    });
}

#[test]
fn unknown_method_returns_error_with_its_id() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        for method in ["", "recv", "socket.", "Socket.recv", "socket.recv ", "rpc.nothing", "\u{0}"]
        {
            let fault = client.call(method, json!([1])).fault();
            assert_eq!(fault.kind(), (-32601, "method"), "{method:?}");
        }
        let long = "x".repeat(100_000);
        assert_eq!(client.call(&long, Value::Null).fault().code, -32601);
        client.notify("socket.nothing", Value::Null);
        client.expect_silence_for(30);
    });
}

#[test]
fn batch_entries_fail_independently() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        client.send_json(&json!([
            1,
            [],
            {},
            [request(1, "socket.htons", json!([1]))],
            request("good", "socket.htons", json!([1])),
            notification("socket.nothing", Value::Null),
            request("bad", "socket.htons", json!(["x"])),
            request("good", "socket.htons", json!([2])),
        ]));
        let answers = client.read_json().unwrap();
        let seen: Vec<_> = answers.as_array().unwrap().iter().collect();
        let codes: Vec<_> = seen.iter().map(|answer| answer["error"]["code"].as_i64()).collect();
        let wrong = Some(-32600);
        assert_eq!(codes, [wrong, wrong, wrong, wrong, None, Some(-32602), None], "{answers}");
        assert_eq!((&seen[4]["result"], &seen[6]["result"]), (&json!(256), &json!(512)));
        client.expect_service();
    });
}

/// Fails if a message has a phrase, a position or a Rust type of the JSON parser.
fn assert_no_parser_phrases(message: &str) {
    for phrase in ["at line", "missing field", "invalid type", "invalid value", "variant", "i64"] {
        assert!(!message.contains(phrase), "{message}");
    }
}

#[test]
fn invalid_parameters_are_named() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let handle = client.call("socket.socket", Value::Null).handle();
        for (method, params, part) in [
            ("socket.recv", json!({ "handle": handle, "bufsise": 1 }), "bufsise"),
            ("socket.recv", json!({ "handle": handle, "bufsize": 1, "Flags": 0 }), "Flags"),
            ("socket.recv", json!({ "handle": handle }), "recv needs bufsize (integer): at most"),
            ("socket.recv", json!({ "bufsize": 1 }), "recv needs handle (handle): "),
            ("socket.recv", json!([handle]), "recv needs bufsize (integer)"),
            ("socket.recv", json!([]), "recv needs handle"),
            ("socket.recv", Value::Null, "recv needs handle"),
            ("socket.recv", json!([handle, 1, 0, 0]), "at most 3"),
            ("socket.gethostname", json!([1]), "at most 0"),
            ("socket.gethostname", json!({ "x": 1 }), "x"),
            ("rpc.discover", json!({ "x": 1 }), "x"),
            ("socket.recv", json!("text"), "by name or by position"),
            ("socket.recv", json!(5), "by name or by position"),
            ("socket.recv", json!(true), "by name or by position"),
            ("socket.recv", json!({ "handle": handle, "bufsize": null }), "not null"),
            (
                "socket.recv",
                json!({ "handle": handle, "bufsize": "1" }),
                "takes bufsize as integer, not a text",
            ),
            ("socket.recv", json!({ "handle": handle, "bufsize": 1.5 }), "not 1.5"),
            ("socket.recv", json!({ "handle": handle, "bufsize": [1] }), "not a list"),
            ("socket.recv", json!({ "handle": handle, "bufsize": true }), "not true"),
            ("socket.send", json!({ "handle": handle, "bytes": 5 }), "base64"),
            ("socket.send", json!({ "handle": handle, "bytes": "a" }), "base64"),
            ("socket.send", json!({ "handle": handle, "bytes": "aGk" }), "base64"),
            ("socket.send", json!({ "handle": handle, "bytes": "aG k=" }), "base64"),
            ("socket.send", json!({ "handle": handle, "bytes": "-_-_" }), "base64"),
            ("socket.send", json!({ "handle": handle, "bytes": { "attach": 0 } }), "attach"),
            (
                "socket.send",
                json!({ "handle": handle, "bytes": { "attachment": 0 } }),
                "attachment 0",
            ),
            ("socket.send", json!({ "handle": handle, "bytes": { "attachment": -1 } }), ""),
            ("socket.socket", json!({ "family": "AF_NOTHING" }), "AF_NOTHING"),
            ("socket.socket", json!({ "family": "" }), ""),
            ("socket.socket", json!({ "family": "AF_INET|" }), ""),
            ("socket.settimeout", json!({ "handle": handle }), "value"),
            ("socket.setdefaulttimeout", Value::Null, "timeout"),
            ("socket.sendmmsg", json!([handle, [{ "buffers": [], "adress": null }]]), "adress"),
            ("socket.setblocking", json!([handle, 1]), "takes flag as true or false, not 1"),
            ("call.resolve", json!([1, null]), ""),
            ("call.resolve", json!([1, 1.5]), ""),
        ] {
            let fault = client.call(method, params.clone()).fault();
            assert_eq!(fault.kind(), (-32602, "argument"), "{method} {params}");
            assert!(fault.data.exception.is_some(), "{method} {params}");
            assert_eq!(fault.data.call.as_deref(), method.rsplit('.').next(), "{method} {params}");
            assert!(fault.message.contains(part), "{method} {params}: {}", fault.message);
            assert_no_parser_phrases(&fault.message);
        }
        client.call("socket.gettimeout", json!([handle])).result();
    });
}

#[test]
fn duplicate_parameters_are_refused() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let text = r#"{"jsonrpc":"2.0","id":1,"method":"socket.htons","params":{"x":1,"x":2}}"#;
        let fault = send_text(&mut client, text).fault();
        assert_eq!((fault.exception(), fault.message.contains("twice")), ("TypeError", true));
        // The same name, with a JSON escape.
        let text =
            r#"{"jsonrpc":"2.0","id":1,"method":"socket.htons","params":{"x":1,"\u0078":2}}"#;
        assert_eq!(send_text(&mut client, text).fault().exception(), "TypeError");
    });
}

#[test]
fn numbers_out_of_range_are_refused() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let handle = client.call("socket.socket", Value::Null).handle();
        for number in
            ["1e400", "-1e400", "1e30", "99999999999999999999999", "-99999999999999999999"]
        {
            for method in ["recv", "settimeout", "listen", "shutdown", "getsockopt"] {
                let method = format!("socket.{method}");
                let extra = if method.ends_with("getsockopt") { ",1" } else { "" };
                let text = format!(
                    r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":[{handle},{number}{extra}]}}"#
                );
                let fault = send_text(&mut client, &text).fault();
                assert_eq!(fault.code, -32602, "{text}");
            }
        }
        for (method, params) in [
            ("socket.listen", json!([handle, 2_147_483_648_i64])),
            ("socket.shutdown", json!([handle, 2_147_483_648_i64])),
            ("socket.getsockopt", json!([handle, 1, -2_147_483_649_i64])),
            ("socket.socket", json!([4_294_967_298_i64])),
            ("socket.settimeout", json!([handle, 1e11])),
            ("socket.htons", json!([65536])),
            ("socket.htonl", json!([-1])),
            ("socket.if_indextoname", json!([4_294_967_296_i64])),
            ("socket.getservbyport", json!([65536])),
            ("socket.CMSG_LEN", json!([-1])),
            ("socket.CMSG_SPACE", json!([i64::MAX])),
        ] {
            let fault = client.call(method, params.clone()).fault();
            assert_eq!(fault.exception(), "OverflowError", "{method} {params}");
        }
        client.expect_service();
    });
}

#[test]
fn deeply_nested_parameters_are_refused() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        // The second depth exceeds the number of values that a message is allowed to have.
        for (open, close, depth) in
            [("[", "]", 30_000), ("{\"a\":", "}", 30_000), ("[", "]", 100_000)]
        {
            let inner = if open == "[" { "" } else { "1" };
            let value = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
            for method in ["socket.htons", "socket.bind", "socket.sendmsg"] {
                let text = format!(
                    r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":[{value},{value}]}}"#
                );
                let code = send_text(&mut client, &text).fault().code;
                assert!([-32602, -32700, 4002].contains(&code), "{method}: {code}");
            }
        }
        client.expect_service();
    });
}
