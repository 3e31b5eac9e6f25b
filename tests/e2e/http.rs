//! HTTP on the broker's socket: statuses, keep-alive, batches and sessions.

use serde_json::{Value, json};
use sockbroker_test_support::http::Response;
use sockbroker_test_support::message::{notification, request};
use sockbroker_test_support::{Client, HttpClient, bounded};

use crate::broker::{broker, limited};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[test]
fn openrpc_document_is_served_at_its_standard_path() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.http();
        let response = client.request("GET /openrpc.json", &[], b"");
        assert_eq!((response.status, response.field("content-type")), (200, Some(JSON[0].1)));
        let reported = client.call("rpc.discover", Value::Null);
        assert_eq!(response.json(), *reported.result());
    });
}

#[test]
fn invalid_http_request_returns_a_status_and_keeps_the_connection() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.http();
        let body = request(1, "socket.htons", json!([1])).to_string();
        let text = [("content-type", "text/plain")];
        let origin = [JSON[0], ("origin", "http://localhost")];
        let wrong_type: [&[(&str, &str)]; 2] = [&[], &text];
        for (line, fields, status) in [
            ("GET /", &JSON[..], 405),
            ("PUT /", &JSON, 405),
            ("DELETE /openrpc.json", &JSON, 405),
            ("POST /openrpc.json", &JSON, 405),
            ("POST /elsewhere", &JSON, 404),
            ("GET /index.html", &JSON, 404),
            ("POST /", wrong_type[0], 415),
            ("POST /", wrong_type[1], 415),
            ("POST /", &origin, 403),
            ("GET /openrpc.json", &origin, 403),
        ] {
            let response = client.request(line, fields, body.as_bytes());
            assert_eq!(response.status, status, "{line} {fields:?}");
            assert_eq!(response.field("allow").is_some(), status == 405, "{line}");
            assert!(!response.body.is_empty(), "{line} returns no reason");
        }
        let fields = [("content-type", "Application/JSON; charset=utf-8")];
        let response = client.request("POST /", &fields, body.as_bytes());
        assert_eq!(response.json()["result"], 256);
    });
}

#[test]
fn body_over_frame_bytes_returns_413() {
    bounded(20, || {
        let broker = limited(&[("frame_bytes", 70_000), ("receive_bytes", 1000)]);
        let body = |length: usize| {
            let message = request(1, "socket.htons", json!([1])).to_string();
            format!("{message}{}", " ".repeat(length - message.len())).into_bytes()
        };
        let mut client = broker.http();
        assert_eq!(client.request("POST /", &JSON, &body(70_000)).json()["result"], 256);
        let refused = client.request("POST /", &JSON, &body(70_001));
        assert_eq!(refused.status, 413);
        assert!(String::from_utf8(refused.body).unwrap().contains("frame_bytes"));
        assert_eq!(*broker.http().call("socket.htons", json!([1])).result(), 256);
    });
}

#[test]
fn keep_alive_connection_keeps_handles_and_a_new_one_has_none() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.http();
        let (left, right) = client.call("socket.socketpair", Value::Null).handles();
        client.call("socket.send", json!([left, "aGk="])).result();
        assert_eq!(client.call("socket.recv", json!([right, 9])).result()["data"], "aGk=");
        let other_user = broker.http().call("socket.recv", json!([right, 9])).fault();
        assert_eq!(other_user.kind(), (4000, "handle"));
        let last = [JSON[0], ("connection", "close")];
        assert_eq!(client.request("POST /", &last, b"{}").json()["error"]["code"], -32600);
        assert!(client.read().is_none());
    });
}

#[test]
fn notifications_return_no_body() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.http();
        let one = notification("socket.htons", json!([1]));
        for message in [one.clone(), json!([one, one])] {
            let response = client.post(&message, &[]);
            assert_eq!((response.status, response.body.len()), (204, 0), "{message}");
        }
        // A waiting notification is not answered either, and ends before the response.
        let slow = notification("socket.poll", json!([[], 0.1]));
        assert_eq!(client.post(&slow, &[]).status, 204);
    });
}

#[test]
fn session_header_field_selects_the_session() {
    bounded(20, || {
        let broker = broker();
        let mut keeper = broker.lsp();
        let token = keeper.call("session.open", Value::Null).result()["token"].clone();
        let token = token.as_str().unwrap();
        let (left, right) = keeper.pair();
        let with = |client: &mut HttpClient, token: &str, method: &str, params| -> Response {
            client.post(&request(1, method, params), &[("sockbroker-session", token)])
        };
        // Each request on a new connection, as programs without keep-alive do.
        let sent = with(&mut broker.http(), token, "socket.send", json!([left, "aGk="]));
        assert_eq!(sent.json()["result"], 2);
        let received = with(&mut broker.http(), token, "socket.recv", json!([right, 9]));
        assert_eq!(received.json()["result"]["data"], "aGk=");
        let forged = token.replace(|c: char| c.is_ascii_digit(), "0");
        for wrong in ["", "nonsense", "1.00", &forged] {
            let refused = with(&mut broker.http(), wrong, "socket.htons", json!([1]));
            assert_eq!(refused.status, 403, "{wrong:?}");
        }
        let mut holder = broker.http();
        holder.call("socket.socket", Value::Null).handle();
        assert_eq!(with(&mut holder, token, "socket.htons", json!([1])).status, 403);
    });
}

#[test]
fn malformed_http_request_returns_400_or_ends_the_connection() {
    bounded(20, || {
        let broker = broker();
        for text in [
            "GET\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            "POST / HTTP/9.9\r\n\r\n",
            "POST / HTTP/1.1\r\nno colon\r\n\r\n",
            "XXXX\0\0\0\r\n\r\n",
        ] {
            let mut client = broker.http();
            client.wire.send(text.as_bytes(), &[]).unwrap();
            let status = client.read().map(|response| response.status);
            assert!(matches!(status, None | Some(400)), "{text:?}: {status:?}");
            if status.is_some() {
                assert!(client.read().is_none(), "{text:?}");
            }
        }
        let mut client = broker.http();
        let long = "x".repeat(100_000);
        let response = client.request("GET /openrpc.json", &[("x", &long)], b"");
        assert_eq!(response.status, 431);
        broker.lsp().expect_service();
    });
}

#[test]
fn failed_calls_are_json_rpc_errors_with_status_200() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.http();
        for (body, code) in [
            (&b"{"[..], -32700),
            (b"", -32700),
            (b"\xff", -32700),
            (b"[]", -32600),
            (b"17", -32600),
            (br#"{"jsonrpc":"2.0","id":1,"method":"x"}"#, -32601),
        ] {
            let response = client.request("POST /", &JSON, body);
            assert_eq!(response.status, 200);
            assert_eq!(response.json()["error"]["code"], code, "{body:?}");
        }
    });
}

#[test]
fn chunked_bodies_and_expect_100_continue_are_accepted() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.http();
        let body = request(1, "socket.htons", json!([1])).to_string();
        let head = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        let (first, second) = body.split_at(10);
        let chunks = format!("a\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", second.len());
        let text = format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}");
        client.wire.send(text.as_bytes(), &[]).unwrap();
        assert_eq!(client.read_json().unwrap()["result"], 256);
        // curl sends this before a large body.
        let text = format!("{head}expect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len());
        client.wire.send(text.as_bytes(), &[]).unwrap();
        assert_eq!(client.read().unwrap().status, 100);
        client.wire.send(body.as_bytes(), &[]).unwrap();
        assert_eq!(client.read_json().unwrap()["result"], 256);
    });
}

#[test]
fn pipelined_http_requests_are_answered_in_order() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.http();
        for number in 0..20 {
            let wait = if number % 5 == 0 { 0.02 } else { 0.0 };
            client.send_json(&request(number, "socket.poll", json!([[], wait])));
        }
        for number in 0..20 {
            assert_eq!(client.read_json().unwrap()["id"], number);
        }
    });
}
