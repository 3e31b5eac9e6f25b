//! Every fault of a broker, and the error that a call returns.

use std::os::fd::AsFd as _;
use std::thread;

use serde_json::json;
use sockbroker_client::{Error, asynchronous, blocking};
use sockbroker_test_support::{HANG, LspClient, bounded, pause};

use crate::fake_broker::{FakeBroker, Peer};
use crate::setup::{LIMIT, alone, runtime, with_fault, with_fault_within};

fn is_disconnected(error: &Error) -> bool {
    matches!(error, Error::Disconnected { .. })
}

fn is_protocol(error: &Error) -> bool {
    matches!(error, Error::Protocol { .. })
}

#[test]
fn connection_closed_before_the_response() {
    with_fault(Peer::close_connection, |face, [first, _]| {
        assert!(is_disconnected(&first.unwrap_err()), "{face:?}");
    });
}

#[test]
fn connection_closed_within_the_response() {
    for cut in [5, 30] {
        with_fault(
            move |peer| {
                let frame = Peer::frame(peer.id, &json!("name"), 0);
                peer.send(&frame[..cut]);
                peer.close_connection();
            },
            |face, [first, _]| assert!(is_disconnected(&first.unwrap_err()), "{face:?}"),
        );
    }
}

#[test]
fn connection_closed_after_the_response() {
    with_fault(
        |peer| {
            peer.respond(peer.id, &json!("name"));
            peer.close_connection();
        },
        |face, [first, second]| {
            assert_eq!(first.unwrap(), "name", "{face:?}");
            // The call that meets the closed connection fails; it is not repeated.
            assert!(second.is_err_and(|error| is_disconnected(&error)), "{face:?}");
        },
    );
}

#[test]
fn no_response_is_a_timeout() {
    with_fault_within(
        [LIMIT; 2],
        |_| {},
        |face, results| {
            for result in results {
                let error = result.unwrap_err();
                assert!(matches!(error, Error::Timeout { .. }), "{face:?}: {error:?}");
            }
        },
    );
}

#[test]
fn late_response_does_not_reach_the_next_call() {
    with_fault_within(
        [LIMIT, HANG],
        |peer| {
            if peer.calls == 2 {
                peer.respond(peer.previous, &json!(1));
                peer.respond(peer.id, &json!(2));
            }
        },
        |face, [first, second]| {
            assert!(matches!(first, Err(Error::Timeout { .. })), "{face:?}: {first:?}");
            assert_eq!(second.unwrap(), 2, "{face:?}");
        },
    );
}

#[test]
fn result_after_cancellation_is_returned() {
    with_fault_within(
        [LIMIT; 2],
        |peer| {
            peer.wait_for_cancellation();
            peer.respond(peer.id, &json!("not lost"));
        },
        |face, results| {
            assert_eq!(results.map(Result::unwrap), ["not lost"; 2], "{face:?}");
        },
    );
}

#[test]
fn second_and_stray_responses_are_discarded() {
    with_fault(
        |peer| {
            let file = std::io::pipe().unwrap();
            let stray = Peer::frame(999_999, &json!("stray"), 1);
            peer.send_with(&stray, &[file.0.as_fd()]);
            peer.send(&Peer::frame("text", &json!("stray"), 0));
            let own = Peer::frame(peer.id, &json!(peer.calls), 0);
            peer.send(&[own.clone(), own].concat());
        },
        |face, results| assert_eq!(results.map(Result::unwrap), [1, 2], "{face:?}"),
    );
}

#[test]
fn garbage_is_a_protocol_error() {
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n{",
        b"Content-Length: 4\r\n\r\nnull",
        b"Content-Length: 9\r\n\r\n{\"id\": 1,",
        b"Content-Length: 99999999999999999999\r\n\r\n",
        b"Content-Length: 2\r\nFds: 254\r\n\r\n{}",
        &[0xff; 2000],
    ] {
        with_fault(
            move |peer| peer.send(garbage),
            |face, [first, _]| {
                let error = first.unwrap_err();
                assert!(is_protocol(&error), "{face:?}: {error:?}");
            },
        );
    }
}

#[test]
fn error_without_id_is_a_protocol_error() {
    with_fault(
        |peer| {
            let json = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"m"}}"#;
            peer.send(&LspClient::frame(json, None, 0));
        },
        |face, [first, _]| {
            let error = first.unwrap_err();
            assert!(is_protocol(&error), "{face:?}: {error:?}");
        },
    );
}

#[test]
fn response_without_result_and_error_is_a_protocol_error() {
    with_fault(
        |peer| {
            let json = json!({ "jsonrpc": "2.0", "id": peer.id }).to_string();
            peer.send(&LspClient::frame(&json, None, 0));
        },
        |face, results| {
            for result in results {
                let error = result.unwrap_err();
                assert!(is_protocol(&error), "{face:?}: {error:?}");
            }
        },
    );
}

#[test]
fn unknown_error_code_is_kept() {
    with_fault(
        |peer| {
            let error = json!({ "code": 5999, "message": "new", "data": { "kind": "new" } });
            let json = json!({ "jsonrpc": "2.0", "id": peer.id, "error": error }).to_string();
            peer.send(&LspClient::frame(&json, None, 0));
        },
        |face, results| {
            for result in results {
                assert!(matches!(result, Err(Error::Broker { code: 5999, .. })), "{face:?}");
            }
        },
    );
}

#[test]
fn missing_descriptors_are_a_protocol_error() {
    with_fault(
        |peer| peer.send(&Peer::frame(peer.id, &json!(1), 2)),
        |face, [first, _]| {
            let error = first.unwrap_err();
            assert!(is_protocol(&error), "{face:?}: {error:?}");
        },
    );
}

#[test]
fn unexpected_descriptors_are_closed() {
    with_fault(
        |peer| {
            let file = std::io::pipe().unwrap();
            let frame = Peer::frame(peer.id, &json!(peer.calls), 1);
            peer.send_with(&frame, &[file.0.as_fd(), file.1.as_fd(), file.1.as_fd()]);
        },
        |face, results| assert_eq!(results.map(Result::unwrap), [1, 2], "{face:?}"),
    );
}

#[test]
fn flood_of_descriptors_is_a_protocol_error() {
    with_fault(
        |peer| {
            let file = std::io::pipe().unwrap();
            let many = vec![file.0.as_fd(); 250];
            for _ in 0..3 {
                peer.send_with(&Peer::frame(999_999, &json!(1), 0), &many);
            }
        },
        |face, [first, _]| {
            let error = first.unwrap_err();
            assert!(is_protocol(&error), "{face:?}: {error:?}");
        },
    );
}

#[test]
fn announced_length_that_does_not_arrive_is_a_timeout() {
    with_fault_within(
        [LIMIT; 2],
        |peer| {
            peer.send(b"Content-Length: 60000000\r\n\r\n{\"jsonrpc\"");
            peer.wait_for_disconnect();
        },
        |face, [first, _]| {
            assert!(matches!(first, Err(Error::Timeout { .. })), "{face:?}: {first:?}");
        },
    );
}

#[test]
fn response_in_single_bytes_is_read() {
    with_fault(
        |peer| {
            for byte in Peer::frame(peer.id, &json!(peer.calls), 0) {
                peer.send(&[byte]);
            }
        },
        |face, results| assert_eq!(results.map(Result::unwrap), [1, 2], "{face:?}"),
    );
}

#[test]
fn call_uses_the_first_connection_if_a_further_one_is_not_answered() {
    let _alone = alone();
    bounded(30, || {
        let fake = FakeBroker::start_with(false, |peer| peer.respond(peer.id, &json!("served")));
        let broker = blocking::Broker::connect_to(fake.endpoint()).unwrap();
        assert_eq!(broker.call("first", ()).unwrap(), "served");
    });
}

/// Parameters larger than the buffers of a socket.
fn large() -> String {
    "x".repeat(1 << 20)
}

#[test]
fn large_request_that_is_not_read_fails() {
    let _alone = alone();
    bounded(30, || {
        let fake = FakeBroker::start(|peer| {
            peer.respond(peer.id, &json!(1));
            peer.wait_for_disconnect();
        });
        let broker = blocking::Broker::connect_to(fake.endpoint()).unwrap();
        broker.call("first", ()).unwrap();
        broker.set_call_timeout(Some(LIMIT));
        let error = broker.call("second", (large(),)).unwrap_err();
        assert!(is_disconnected(&error), "{error:?}");
        drop(broker);
        runtime().block_on(async {
            let broker = asynchronous::Broker::connect_to(fake.endpoint()).await.unwrap();
            broker.call("first", ()).await.unwrap();
            broker.set_call_timeout(Some(LIMIT));
            let error = broker.call("second", (large(),)).await.unwrap_err();
            assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        });
    });
}

#[test]
fn request_that_is_not_read_can_be_cancelled() {
    let _alone = alone();
    bounded(30, || {
        let fake = FakeBroker::start(|peer| {
            peer.respond(peer.id, &json!(1));
            peer.wait_for_disconnect();
        });
        let broker = blocking::Broker::connect_to(fake.endpoint()).unwrap();
        broker.call("first", ()).unwrap();
        let token = blocking::CancellationToken::new();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| token.run(|| broker.call("second", (large(),))));
            pause(100);
            token.cancel();
            let error = waiting.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::Cancelled { .. }), "{error:?}");
        });
    });
}

#[test]
fn cancellation_without_response_ends_the_call() {
    let _alone = alone();
    bounded(30, || {
        let fake = FakeBroker::start(|_| {});
        let broker = blocking::Broker::connect_to(fake.endpoint()).unwrap();
        let token = blocking::CancellationToken::new();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| token.run(|| broker.call("never", ())));
            pause(50);
            token.cancel();
            let error = waiting.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::Cancelled { .. }), "{error:?}");
        });
    });
}
