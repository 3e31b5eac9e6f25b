//! Sessions: tokens, attach, clone, linger, and when handles close.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sockbroker_test_support::{Answer, HANG, LspClient, base64, bounded, pause, until};

use crate::broker::{broker, limited};

const SESSION: (i64, &str) = (4001, "session");
const HANDLE: (i64, &str) = (4000, "handle");

fn token(client: &mut LspClient) -> Value {
    client.call("session.open", Value::Null).result()["token"].clone()
}

fn info(client: &mut LspClient) -> Value {
    client.call("session.info", Value::Null).result().clone()
}

/// Waits until the other end of a stream closes. A reset counts: the end had unread data.
fn is_closed(mut stream: &UnixStream) -> bool {
    stream.set_read_timeout(Some(HANG)).unwrap();
    match stream.read(&mut [0]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn is_open(mut stream: &UnixStream) -> bool {
    stream.write_all(b"x").is_ok()
}

#[test]
fn attached_connections_share_the_session() {
    bounded(20, || {
        let broker = broker();
        let (mut first, mut second) = (broker.lsp(), broker.lsp());
        let (left, right) = first.pair();
        first.call("socket.setdefaulttimeout", json!([7])).result();
        let token = token(&mut first);
        let attached = second.call("session.attach", json!({ "token": token }));
        assert_eq!(attached.result()["token"], token);
        assert_ne!(attached.result()["connection"], info(&mut first)["connection"]);
        assert_eq!(info(&mut second)["session"], info(&mut first)["session"]);
        assert_eq!(
            (&info(&mut second)["handles"], &info(&mut second)["connections"]),
            (&json!(2), &json!(2))
        );
        second.call("socket.send", json!([left, "aGk="])).result();
        assert_eq!(first.call("socket.recv", json!([right, 9])).data(), b"hi");
        assert_eq!(*second.call("socket.getdefaulttimeout", Value::Null).result(), 7.0);
        second.call("socket.close", json!([left])).result();
        assert_eq!(first.call("socket.gettimeout", json!([left])).fault().kind(), HANDLE);
        // Attaching to the current session has no effect, even with handles.
        first.call("session.attach", json!([token])).result();
    });
}

#[test]
fn wrong_tokens_return_the_same_error() {
    bounded(20, || {
        let broker = broker();
        let (mut first, mut second) = (broker.lsp(), broker.lsp());
        let real = token(&mut first);
        let real = real.as_str().unwrap();
        let (number, bits) = real.split_once('.').unwrap();
        assert_eq!(bits.len(), 64);
        let flipped = if bits.ends_with('0') { "1" } else { "0" };
        let near = format!("{number}.{}{flipped}", &bits[..63]);
        let wrong =
            [near, format!("{number}."), format!("ffff.{bits}"), bits.into(), String::new()];
        let mut words = wrong.map(|wrong| {
            let fault = second.call("session.attach", json!([wrong])).fault();
            assert_eq!(fault.kind(), SESSION, "{wrong}");
            fault.message
        });
        words.sort();
        assert_eq!(words.first(), words.last());
        second.call("session.attach", json!([real])).result();
    });
}

#[test]
fn attach_is_refused_if_it_would_close_handles() {
    bounded(20, || {
        let broker = broker();
        let (mut first, mut second) = (broker.lsp(), broker.lsp());
        let token = token(&mut first);
        let handle = second.call("socket.socket", Value::Null).handle();
        assert_eq!(second.call("session.attach", json!([token])).fault().kind(), SESSION);
        second.call("socket.gettimeout", json!([handle])).result();
        second.call("socket.close", json!([handle])).result();
        second.call("session.attach", json!([token])).result();
    });
}

#[test]
fn handles_close_after_the_last_connection() {
    bounded(20, || {
        let broker = broker();
        let (mut first, mut second) = (broker.lsp(), broker.lsp());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let token = token(&mut first);
        second.call("session.attach", json!([token])).result();
        first.lend(&theirs);
        drop(theirs);
        drop(first);
        until("the connection has ended", || info(&mut second)["connections"] == 1);
        assert!(is_open(&ours));
        drop(second);
        assert!(is_closed(&ours));
        let mut late = broker.lsp();
        assert_eq!(late.call("session.attach", json!([token])).fault().kind(), SESSION);
    });
}

#[test]
fn implicit_session_ends_with_its_connection() {
    bounded(20, || {
        let broker = broker();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut client = broker.lsp();
        client.lend(&theirs);
        drop(theirs);
        assert!(is_open(&ours));
        drop(client);
        assert!(is_closed(&ours));
    });
}

#[test]
fn linger_keeps_handles_after_the_last_connection() {
    bounded(20, || {
        let broker = broker();
        // On a machine that is slow, a session can end before the client attaches: then one that lingers longer.
        let mut attached = None;
        for linger in [1, 2, 4, 8, 16, 32, 64] {
            let mut client = broker.lsp();
            let (ours, theirs) = UnixStream::pair().unwrap();
            let opened = client.call("session.open", json!({ "linger": linger }));
            let token = opened.result()["token"].clone();
            let handle = client.lend(&theirs);
            drop(theirs);
            let begun = Instant::now();
            drop(client);
            pause(300);
            let open = is_open(&ours);
            let mut again = broker.lsp();
            if !again.call("session.attach", json!([token])).is_fault() {
                assert!(open, "the handle is closed while the session lingers");
                attached = Some((again, ours, token, handle, linger));
                break;
            }
            assert!(begun.elapsed() >= Duration::from_secs(linger), "it lingers for {linger} s");
        }
        let (mut again, ours, token, handle, linger) = attached.expect("one attaches in time");
        // A client that attaches in time stops the timer.
        pause(1500 * linger);
        assert_eq!(again.call("socket.recv", json!([handle, 9])).data(), b"x");
        assert_eq!(info(&mut again)["linger"].as_f64().unwrap().to_string(), linger.to_string());
        drop(again);
        assert!(is_closed(&ours));
        let mut late = broker.lsp();
        assert_eq!(late.call("session.attach", json!([token])).fault().kind(), SESSION);
    });
}

#[test]
fn linger_must_be_a_nonnegative_number() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        for wrong in [json!(-1), json!("x"), json!([]), json!(true)] {
            let fault = client.call("session.open", json!({ "linger": wrong })).fault();
            assert_eq!(fault.code, -32602, "{wrong}");
        }
        assert_eq!(info(&mut client)["opened"], false);
        client.call("session.open", json!({ "linger": null })).result();
        assert_eq!(info(&mut client)["opened"], true);
    });
}

#[test]
fn cloned_session_has_the_same_handles_and_closes_independently() {
    bounded(20, || {
        let broker = broker();
        let (mut parent, mut child) = (broker.lsp(), broker.lsp());
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let handle = parent.lend(&theirs);
        drop(theirs);
        let gone = parent.call("socket.socket", Value::Null).handle();
        parent.call("socket.settimeout", json!([handle, 3])).result();
        parent.call("socket.setdefaulttimeout", json!([9])).result();
        parent.call("socket.close", json!([gone])).result();
        let cloned = parent.call("session.clone", Value::Null).result()["token"].clone();
        child.call("session.attach", json!([cloned])).result();
        assert_ne!(info(&mut child)["session"], info(&mut parent)["session"]);
        assert_eq!(info(&mut child)["handles"], 1);
        assert_eq!(*child.call("socket.gettimeout", json!([handle])).result(), 3.0);
        assert_eq!(*child.call("socket.getdefaulttimeout", Value::Null).result(), 9.0);
        assert_eq!(child.call("socket.gettimeout", json!([gone])).fault().kind(), HANDLE);
        // It is the same socket: both can send, and either receives what the peer sends.
        child.call("socket.send", json!([handle, base64("child")])).result();
        parent.call("socket.send", json!([handle, base64("parent")])).result();
        let mut text = [0; 11];
        ours.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"childparent");
        parent.call("socket.close", json!([handle])).result();
        assert!(is_open(&ours));
        assert_eq!(child.call("socket.recv", json!([handle, 9])).data(), b"x");
        // New handles of one session are unknown in the other.
        let new = parent.call("socket.socket", Value::Null).handle();
        assert_eq!(child.call("socket.gettimeout", json!([new])).fault().kind(), HANDLE);
        child.call("socket.close", json!([handle])).result();
        assert!(is_closed(&ours));
    });
}

#[test]
fn unattached_clone_ends_after_clone_seconds() {
    bounded(20, || {
        let broker = limited(&[("clone_seconds", 1)]);
        let mut parent = broker.lsp();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let handle = parent.lend(&theirs);
        drop(theirs);
        let begun = Instant::now();
        let cloned = parent.call("session.clone", Value::Null).result()["token"].clone();
        parent.call("socket.close", json!([handle])).result();
        pause(300);
        let open = is_open(&ours);
        assert!(open || begun.elapsed() >= Duration::from_secs(1));
        assert!(is_closed(&ours));
        let late = parent.call("session.clone", Value::Null);
        assert!(!late.is_fault());
        let mut child = broker.lsp();
        assert_eq!(child.call("session.attach", json!([cloned])).fault().kind(), SESSION);
    });
}

#[test]
fn session_close_closes_its_handles_for_every_connection() {
    bounded(20, || {
        let broker = broker();
        let (mut first, mut second) = (broker.lsp(), broker.lsp());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let token = token(&mut first);
        second.call("session.attach", json!([token])).result();
        let handle = first.lend(&theirs);
        drop(theirs);
        first.call("session.close", Value::Null).result();
        assert!(is_closed(&ours));
        assert_eq!(second.call("socket.gettimeout", json!([handle])).fault().kind(), HANDLE);
        assert_eq!(second.call("socket.socket", Value::Null).fault().kind(), SESSION);
        assert_eq!(broker.lsp().call("session.attach", json!([token])).fault().kind(), SESSION);
        // The connections stay open and can attach to another session.
        let mut other = broker.lsp();
        let elsewhere = self::token(&mut other);
        second.call("session.attach", json!([elsewhere])).result();
        second.call("socket.socket", Value::Null).handle();
    });
}

#[test]
fn handles_of_another_session_are_unknown() {
    bounded(20, || {
        let broker = broker();
        let (mut mine, mut theirs) = (broker.lsp(), broker.lsp());
        let handles: Vec<u64> =
            (0..5).map(|_| theirs.call("socket.socket", Value::Null).handle()).collect();
        let used = mine.call("socket.socket", Value::Null).handle();
        for handle in handles.into_iter().filter(|handle| *handle != used) {
            let answer: Answer = mine.call("socket.close", json!([handle]));
            assert_eq!(answer.fault().kind(), HANDLE);
            theirs.call("socket.gettimeout", json!([handle])).result();
        }
    });
}
