//! The faults.

use std::os::fd::AsFd as _;
use std::thread;

use serde_json::json;
use sockbroker_client::{Error, asynchronous, blocking};
use sockbroker_test_support::{LspClient, bounded, pause};

use crate::fake::{Fake, Peer};
use crate::{LIMIT, alone, fault, runtime};

fn is_disconnected(error: &Error) -> bool {
    matches!(error, Error::Disconnected { .. })
}

fn is_protocol(error: &Error) -> bool {
    matches!(error, Error::Protocol { .. })
}

#[test]
fn it_dies_before_the_answer() {
    fault(Peer::hang_up, |face, [first, _]| {
        assert!(is_disconnected(&first.unwrap_err()), "{face:?}");
    });
}

#[test]
fn it_dies_within_the_head_or_the_body_of_the_answer() {
    for cut in [5, 30] {
        fault(
            move |peer| {
                let frame = Peer::frame(peer.id, &json!("name"), 0);
                peer.send(&frame[..cut]);
                peer.hang_up();
            },
            |face, [first, _]| assert!(is_disconnected(&first.unwrap_err()), "{face:?}"),
        );
    }
}

#[test]
fn it_dies_after_the_answer() {
    fault(
        |peer| {
            peer.answer(peer.id, &json!("name"));
            peer.hang_up();
        },
        |face, [first, second]| {
            assert_eq!(first.unwrap(), "name", "{face:?}");
            // A connection that is found dead is an error of its call and of no other.
            assert!(second.is_err_and(|error| is_disconnected(&error)), "{face:?}");
        },
    );
}

#[test]
fn it_never_answers() {
    fault(
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
fn it_answers_too_late_and_the_next_call_gets_its_own_answer() {
    fault(
        |peer| {
            if peer.calls == 1 {
                pause(1400);
            }
            peer.answer(peer.id, &json!(peer.calls));
        },
        |face, [first, second]| {
            assert!(matches!(first, Err(Error::Timeout { .. })), "{face:?}: {first:?}");
            assert_eq!(second.unwrap(), 2, "{face:?}");
        },
    );
}

#[test]
fn it_answers_to_the_cancel_with_the_result() {
    fault(
        |peer| {
            pause(400);
            peer.answer(peer.id, &json!("not lost"));
        },
        |face, results| {
            assert_eq!(results.map(Result::unwrap), ["not lost"; 2], "{face:?}");
        },
    );
}

#[test]
fn it_answers_twice_and_to_calls_that_nobody_made() {
    fault(
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
fn it_sends_garbage_instead_of_a_frame() {
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n{",
        b"Content-Length: 4\r\n\r\nnull",
        b"Content-Length: 9\r\n\r\n{\"id\": 1,",
        b"Content-Length: 99999999999999999999\r\n\r\n",
        b"Content-Length: 2\r\nFds: 254\r\n\r\n{}",
        &[0xff; 2000],
    ] {
        fault(
            move |peer| peer.send(garbage),
            |face, [first, _]| {
                let error = first.unwrap_err();
                assert!(is_protocol(&error), "{face:?}: {error:?}");
            },
        );
    }
}

#[test]
fn it_blames_a_message_of_nobody() {
    fault(
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
fn its_answer_is_neither_a_result_nor_an_error() {
    fault(
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
fn its_error_is_of_no_known_kind() {
    fault(
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
fn it_announces_descriptors_that_do_not_come() {
    fault(
        |peer| peer.send(&Peer::frame(peer.id, &json!(1), 2)),
        |face, [first, _]| {
            let error = first.unwrap_err();
            assert!(is_protocol(&error), "{face:?}: {error:?}");
        },
    );
}

#[test]
fn it_sends_descriptors_that_nobody_asked_for() {
    fault(
        |peer| {
            let file = std::io::pipe().unwrap();
            let frame = Peer::frame(peer.id, &json!(peer.calls), 1);
            peer.send_with(&frame, &[file.0.as_fd(), file.1.as_fd(), file.1.as_fd()]);
        },
        |face, results| assert_eq!(results.map(Result::unwrap), [1, 2], "{face:?}"),
    );
}

#[test]
fn it_floods_with_descriptors_that_no_frame_announces() {
    fault(
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
fn it_announces_a_huge_answer_that_does_not_come() {
    fault(
        |peer| {
            peer.send(b"Content-Length: 60000000\r\n\r\n{\"jsonrpc\"");
            peer.wait_for_the_client_to_go();
        },
        |face, [first, _]| {
            assert!(matches!(first, Err(Error::Timeout { .. })), "{face:?}: {first:?}");
        },
    );
}

#[test]
fn it_answers_byte_by_byte() {
    fault(
        |peer| {
            for byte in Peer::frame(peer.id, &json!(peer.calls), 0) {
                peer.send(&[byte]);
            }
        },
        |face, results| assert_eq!(results.map(Result::unwrap), [1, 2], "{face:?}"),
    );
}

/// Parameters that fit into no buffer of a socket.
fn large() -> String {
    "x".repeat(1 << 20)
}

#[test]
fn it_reads_nothing_of_a_large_request() {
    let _alone = alone();
    bounded(30, || {
        let fake = Fake::start(|peer| {
            peer.answer(peer.id, &json!(1));
            peer.wait_for_the_client_to_go();
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
fn a_request_that_it_does_not_read_can_be_cancelled() {
    let _alone = alone();
    bounded(30, || {
        let fake = Fake::start(|peer| {
            peer.answer(peer.id, &json!(1));
            peer.wait_for_the_client_to_go();
        });
        let broker = blocking::Broker::connect_to(fake.endpoint()).unwrap();
        broker.call("first", ()).unwrap();
        let cancel = blocking::Cancel::new();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| cancel.run(|| broker.call("second", (large(),))));
            pause(100);
            cancel.cancel();
            let error = waiting.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::Cancelled { .. }), "{error:?}");
        });
    });
}

#[test]
fn it_does_not_answer_to_being_asked_to_cancel() {
    let _alone = alone();
    bounded(30, || {
        let fake = Fake::start(|_| {});
        let broker = blocking::Broker::connect_to(fake.endpoint()).unwrap();
        let cancel = blocking::Cancel::new();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| cancel.run(|| broker.call("never", ())));
            pause(50);
            cancel.cancel();
            let error = waiting.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::Cancelled { .. }), "{error:?}");
        });
    });
}
