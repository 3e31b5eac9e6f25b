//! Descriptors attached to frames, in both directions.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::{Value, json};
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::message::request;
use sockbroker_test_support::{Answer, Client, Folder, HANG, LspClient, base64, bounded, until};

use crate::broker::{broker, limited, prepare};

const DESCRIPTOR: (i64, &str) = (4003, "descriptor");

fn stream(mut answer: Answer) -> UnixStream {
    answer.result();
    assert_eq!(answer.descriptors.len(), 1, "{}", answer.short());
    let stream = UnixStream::from(answer.descriptors.remove(0));
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

fn read(mut stream: &UnixStream, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    stream.read_exact(&mut data).unwrap();
    data
}

/// Covers every way in which a client can pass the end of a connection to the broker.
#[test]
fn control_connection_is_refused_as_a_descriptor_and_its_session_ends() {
    bounded(20, || {
        let broker = broker();
        let _starter = broker.start_caller();
        let files = broker.idle_open_files();
        let refused = |client: &mut LspClient, end: &UnixStream| {
            let (left, _right) = client.pair();
            let item = json!([1, 1, { "descriptors": 1 }]);
            for (method, params) in [
                ("socket.fromfd", json!([0])),
                ("socket.apply", json!({ "bind": "" })),
                ("socket.socket", json!({ "fileno": 0 })),
                ("socket.sendmsg", json!([left, ["aGk="], [item]])),
                ("socket.sendfile", json!([left, 0])),
            ] {
                let descriptors = [end.as_fd()];
                let fault = client
                    .call_with_parts(method, params, RequestParts::descriptors(&descriptors))
                    .fault();
                assert_eq!(fault.kind(), (3000, "denied"), "{method}");
                assert_eq!(fault.data.name.as_deref(), Some("EPERM"), "{method}");
            }
        };
        let own = broker.connect();
        let mut client = LspClient::over(own.try_clone().unwrap());
        refused(&mut client, &own);
        // The end of another connection is refused too.
        let other = broker.connect();
        refused(&mut client, &other);
        drop((client, own, other));
        broker.wait_for_open_files(files);
        // Other sockets are accepted.
        let (ours, _theirs) = UnixStream::pair().unwrap();
        broker.lsp().lend(&ours);
    });
}

#[test]
fn exported_descriptor_keeps_the_handle_open() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        let mut ours = stream(client.call("socket.fileno", json!([left])));
        ours.write_all(b"native").unwrap();
        client.call("socket.send", json!([left, base64(" brokered")])).result();
        assert_eq!(client.call("socket.recv", json!([right, 99])).data(), b"native brokered");
        drop(ours);
        client.call("socket.send", json!([left, base64("still")])).result();
    });
}

#[test]
fn detached_socket_belongs_only_to_the_client() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        for opened in [false, true] {
            if opened {
                client.call("session.open", Value::Null).result();
            }
            let (left, right) = client.pair();
            let peer = stream(client.call("socket.detach", json!([right])));
            let ours = stream(client.call("socket.detach", json!([left])));
            assert_eq!(client.call("socket.gettimeout", json!([left])).fault().code, 4000);
            drop(ours);
            assert_eq!((&peer).read(&mut [0]).unwrap(), 0);
        }
    });
}

#[test]
fn detach_leaves_no_descriptor_in_the_broker() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        client.call("session.open", Value::Null).result();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(HANG)).unwrap();
        let handle = client.lend(&theirs);
        drop(theirs);
        drop(stream(client.call("socket.detach", json!([handle]))));
        let seen = (&ours).read(&mut [0]);
        assert_eq!(seen.unwrap_or_else(|error| panic!("the broker holds on to it: {error}")), 0);
    });
}

#[test]
fn new_sockets_include_descriptors_on_request() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let folder = Folder::new();
        let path = folder.join("listener");
        let created = client.call("socket.socket", json!({ "family": "AF_UNIX", "want_fd": true }));
        let handle = created.handle();
        assert_eq!(created.descriptors.len(), 1);
        client.call("socket.bind", json!([handle, path])).result();
        client.call("socket.listen", json!([handle])).result();
        let ours = UnixStream::connect(&path).unwrap();
        let theirs = stream(client.call("socket.accept", json!([handle, true])));
        (&theirs).write_all(b"hi").unwrap();
        assert_eq!(read(&ours, 2), b"hi");
        let pair = client.call("socket.socketpair", json!({ "want_fd": true }));
        let (left, _) = pair.handles();
        let both: Vec<UnixStream> = pair.descriptors.into_iter().map(UnixStream::from).collect();
        assert_eq!(both.len(), 2);
        // The descriptors have the order of the result.
        client.call("socket.send", json!([left, "aGk="])).result();
        assert_eq!(read(&both[1], 2), b"hi");
        let copy = stream(client.call("socket.dup", json!({ "handle": left, "want_fd": true })));
        (&copy).write_all(b"ho").unwrap();
        assert_eq!(read(&both[1], 2), b"ho");
        let connected = client.call("socket.socket", json!({ "family": "AF_UNIX" })).handle();
        client.call("socket.connect", json!([connected, path])).result();
        drop(UnixListener::from(created_descriptor(client.call("socket.detach", json!([handle])))));
    });
}

fn created_descriptor(mut answer: Answer) -> OwnedFd {
    answer.descriptors.remove(0)
}

#[test]
fn adopted_socket_keeps_its_family_type_and_protocol() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("[::1]:0").unwrap();
        let descriptors = [tcp.as_fd(), udp.as_fd()];
        for (index, family, kind, proto) in [
            (0, libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP),
            (1, libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        ] {
            for (method, params) in
                [("socket.fromfd", json!([index])), ("socket.socket", json!({ "fileno": index }))]
            {
                let adopted =
                    client.call_with_parts(method, params, RequestParts::descriptors(&descriptors));
                let result = adopted.result();
                assert_eq!(
                    (&result["family"], &result["type"], &result["proto"]),
                    (&json!(family), &json!(kind), &json!(proto)),
                    "{method}"
                );
            }
        }
        let handle = client.lend(&tcp);
        let port = tcp.local_addr().unwrap().port();
        assert_eq!(client.call("socket.getsockname", json!([handle])).result()[1], port);
    });
}

#[test]
fn descriptor_without_a_socket_is_refused() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        client.expect_service();
        let before = broker.idle_open_files();
        let file = File::open("/dev/null").unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let file = [file.as_fd()];
        let refused =
            client.call_with_parts("socket.fromfd", Value::Null, RequestParts::descriptors(&file));
        assert_eq!(refused.fault().errno(), "ENOTSOCK");
        let socket = [ours.as_fd()];
        for params in [json!([1]), json!([253]), json!([u32::MAX])] {
            let refused =
                client.call_with_parts("socket.fromfd", params, RequestParts::descriptors(&socket));
            assert_eq!(refused.fault().kind(), DESCRIPTOR);
        }
        assert_eq!(client.call("socket.fromfd", Value::Null).fault().kind(), DESCRIPTOR);
        assert_eq!(client.call("socket.fromfd", json!([-1])).fault().code, -32602);
        assert_eq!(client.call("socket.fromfd", json!([1_u64 << 32])).fault().code, -32602);
        broker.wait_for_open_files(before);
    });
}

#[test]
fn connection_without_descriptors_refuses_before_any_effect() {
    bounded(20, || {
        let broker = broker();
        let mut refusing = broker.ndjson();
        refusing.call("session.open", json!({ "descriptors": false })).result();
        let mut clients: [Box<dyn Client>; 3] =
            [Box::new(refusing), Box::new(broker.http()), Box::new(broker.websocket())];
        for client in &mut clients {
            let (left, _) = client.call("socket.socketpair", Value::Null).handles();
            for (method, params) in [
                ("socket.fileno", json!([left])),
                ("socket.detach", json!([left])),
                ("socket.fromfd", Value::Null),
                ("socket.socket", json!({ "fileno": 0 })),
                ("socket.socket", json!({ "want_fd": true })),
                ("socket.socketpair", json!({ "want_fd": true })),
                ("socket.dup", json!({ "handle": left, "want_fd": true })),
                ("socket.accept", json!({ "handle": left, "want_fd": true })),
                ("socket.sendfile", json!([left, 0])),
                ("socket.sendmsg", json!([left, ["aGk="], [[1, 1, { "descriptors": 1 }]]])),
            ] {
                assert_eq!(client.call(method, params).fault().kind(), DESCRIPTOR, "{method}");
            }
            let info = client.call("session.info", Value::Null);
            assert_eq!(info.result()["handles"], 2);
        }
    });
}

#[test]
fn batch_with_descriptors_is_refused_and_closes_them() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, _) = client.pair();
        let before = broker.idle_open_files();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let batch = json!([
            request(1, "socket.fromfd", Value::Null),
            request(2, "socket.fileno", json!([left])),
            request(3, "socket.send", json!([left, { "attachment": 0 }])),
        ]);
        let descriptors = [ours.as_fd()];
        let descriptors = RequestParts { attachments: Some(&[b"x"]), descriptors: &descriptors };
        client.send_with(&batch, descriptors);
        let answers = client.next_answer().unwrap();
        let code = |index: usize| answers.json[index]["error"]["code"].as_i64();
        assert_eq!([code(0), code(1), code(2)], [Some(4003), Some(4003), Some(-32602)]);
        assert!(answers.attachments.is_empty() && answers.descriptors.is_empty());
        broker.wait_for_open_files(before);
    });
}

#[test]
fn pipelined_frames_keep_their_descriptors() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let pairs: Vec<_> = (0..50).map(|_| UnixStream::pair().unwrap()).collect();
        let ids: Vec<u64> = pairs
            .iter()
            .enumerate()
            .map(|(index, (ours, theirs))| {
                // A frame without descriptors in between, and a frame whose descriptor is the second parameter.
                client.send("socket.htons", json!([1]));
                let descriptors = [ours.as_fd(), theirs.as_fd()];
                let first = index % 2;
                let descriptors = &descriptors[first..];
                client.send_with_parts(
                    "socket.fromfd",
                    json!([1 - first]),
                    RequestParts::descriptors(descriptors),
                )
            })
            .collect();
        for (index, (id, (mut ours, _))) in (0..50_u8).zip(ids.into_iter().zip(pairs)) {
            let handle = client.answer(id).handle();
            ours.write_all(&[index]).unwrap();
            assert_eq!(client.call("socket.recv", json!([handle, 9])).data(), [index]);
        }
    });
}

#[test]
fn scm_rights_descriptors_keep_the_order_of_their_items() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        let folder = Folder::new();
        let files: Vec<File> =
            ["a", "b", "c"].map(|name| File::open(folder.write(name, name)).unwrap()).into();
        let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let item = |count: u32| json!(["SOL_SOCKET", "SCM_RIGHTS", { "descriptors": count }]);
        let params = json!([left, ["aGk="], [item(3)]]);
        assert_eq!(
            *client
                .call_with_parts("socket.sendmsg", params, RequestParts::descriptors(&descriptors))
                .result(),
            2
        );
        let mut received = client.call("socket.recvmsg", json!([right, 9, 100]));
        assert_eq!(received.result()["ancdata"], json!([[1, 1, { "descriptors": 3 }]]));
        let texts: Vec<String> = received
            .descriptors
            .drain(..)
            .map(|descriptor| {
                let mut file = File::from(descriptor);
                file.rewind().unwrap();
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                text
            })
            .collect();
        assert_eq!(texts, ["a", "b", "c"]);
        // With too small a buffer the kernel truncates and sets MSG_CTRUNC.
        let params = json!([left, ["aGk="], [item(3)]]);
        client
            .call_with_parts("socket.sendmsg", params, RequestParts::descriptors(&descriptors))
            .result();
        let cut = client.call("socket.recvmsg", json!([right, 9, 20]));
        assert_eq!((cut.descriptors.len(), &cut.result()["flags"]), (1, &json!(libc::MSG_CTRUNC)));
    });
}

#[test]
fn untransferable_received_descriptors_are_closed_and_reported_as_truncated() {
    bounded(20, || {
        let broker = broker();
        let (mut client, mut other) = (broker.lsp(), broker.websocket());
        let token = client.call("session.open", Value::Null).result()["token"].clone();
        let (left, right) = client.pair();
        other.call("session.attach", json!([token])).result();
        let before = broker.idle_open_files();
        let file = File::open("/dev/null").unwrap();
        let descriptors = [file.as_fd()];
        let params = json!([left, ["aGk="], [[1, 1, { "descriptors": 1 }]]]);
        client
            .call_with_parts("socket.sendmsg", params, RequestParts::descriptors(&descriptors))
            .result();
        let received = other.call("socket.recvmsg", json!([right, 9, 100]));
        assert_eq!((received.data(), &received.result()["ancdata"]), (b"hi".to_vec(), &json!([])));
        assert_eq!(received.result()["flags"], libc::MSG_CTRUNC);
        broker.wait_for_open_files(before);
    });
}

#[test]
fn sendfile_reads_the_descriptor_without_moving_its_offset() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        let folder = Folder::new();
        let mut file = File::open(folder.write("file", "0123456789")).unwrap();
        for (params, expected) in [
            (json!([left, 0]), "0123456789"),
            (json!([left, 0, 3]), "3456789"),
            (json!([left, 0, 3, 4]), "3456"),
            (json!([left, 0, 8, 100]), "89"),
        ] {
            let descriptors = [file.as_fd()];
            let sent = client.call_with_parts(
                "socket.sendfile",
                params,
                RequestParts::descriptors(&descriptors),
            );
            assert_eq!(*sent.result(), expected.len());
            assert_eq!(client.call("socket.recv", json!([right, 99])).data(), expected.as_bytes());
        }
        assert_eq!(file.stream_position().unwrap(), 0);
        let pipe = std::io::pipe().unwrap();
        let descriptors = [pipe.0.as_fd()];
        let refused = client.call_with_parts(
            "socket.sendfile",
            json!([left, 0]),
            RequestParts::descriptors(&descriptors),
        );
        assert_eq!(refused.fault().exception(), "ValueError");
    });
}

#[test]
fn descriptors_are_accepted_with_any_byte_of_their_frame() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let message = request(1, "socket.fromfd", Value::Null).to_string();
        let frame = LspClient::frame(&message, None, 1);
        for at in [0, 1, 20, frame.len() - 1] {
            client.wire.send(&frame[..at], &[]).unwrap();
            client.wire.send(&frame[at..], &[theirs.as_fd()]).unwrap();
            let handle = client.answer(1).handle();
            client.call("socket.send", json!([handle, "aGk="])).result();
            assert_eq!(read(&ours, 2), b"hi");
        }
    });
}

/// Sends calls of `fileno` without reading, as many as the broker takes. Returns the ids.
fn pass_without_reading(client: &mut LspClient, handle: u64, calls: u64) -> Vec<u64> {
    let mut ids = Vec::new();
    for _ in 0..calls {
        let id = 1000 + ids.len() as u64;
        let message = request(id, "socket.fileno", json!([handle])).to_string();
        if client.wire.send(&LspClient::frame(&message, None, 0), &[]).is_err() {
            break;
        }
        ids.push(id);
    }
    ids
}

#[test]
fn calls_fail_that_would_pass_descriptors_beyond_the_limit() {
    bounded(20, || {
        let broker = limited(&[("buffered_descriptors_per_user", 5)]);
        let mut client = broker.lsp();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let handle = client.lend(&theirs);
        let ids = pass_without_reading(&mut client, handle, 300);
        // The calls before this one have their responses.
        client.notify("socket.send", json!([handle, "aGk="]));
        assert_eq!(read(&ours, 2), b"hi");
        let mut passed = 0;
        for id in ids {
            let answer = client.answer(id);
            if answer.is_fault() {
                assert_eq!(answer.fault().limit(), "buffered_descriptors_per_user");
            }
            passed += answer.descriptors.len();
        }
        assert!((1..=5).contains(&passed), "{passed}");
        // Those that were received count no longer.
        until("a descriptor is passed again", || {
            client.call("socket.fileno", json!([handle])).descriptors.len() == 1
        });
    });
}

#[test]
fn responses_with_descriptors_beyond_the_limit_are_not_kept() {
    bounded(20, || {
        for (most, kept) in [(2, true), (1, false)] {
            let broker = limited(&[("buffered_descriptors_per_user", most)]);
            let (mut client, mut other) = (broker.lsp(), broker.lsp());
            let opened = client.call("session.open", Value::Null).result().clone();
            other.call("session.attach", json!([opened["token"]])).result();
            let connection =
                client.call("session.info", Value::Null).result()["connection"].clone();
            let (left, _right) = client.pair();
            let message = request(77, "socket.fileno", json!([left])).to_string();
            client.wire.send(&LspClient::frame(&message, None, 0), &[]).unwrap();
            until("the response arrives", || client.wire.arrived() > 0);
            drop(client);
            let outcome = other.call("call.resolve", json!([connection, 77]));
            assert_eq!(outcome.result()["state"] == "answered", kept, "{}", outcome.short());
        }
    });
}

#[test]
fn a_call_whose_descriptor_cannot_be_passed_fails_and_its_connection_continues() {
    const OPEN_FILES: u32 = 64;
    bounded(20, || {
        // With CAP_SYS_RESOURCE the kernel lets a process have any number of descriptors in queues.
        let root = sockbroker_sys::process::effective_uid() == 0;
        let drop_all = "exec setpriv --bounding-set=-all --inh-caps=-all \"$0\" \"$@\"";
        let broker = prepare().shell(if root { drop_all } else { "true" }).start();
        broker.lower_open_file_limit(OPEN_FILES);
        let mut client = broker.lsp();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let handle = client.lend(&theirs);
        let ids = pass_without_reading(&mut client, handle, 150);
        // The calls before this one have their responses.
        client.notify("socket.send", json!([handle, "aGk="]));
        assert_eq!(read(&ours, 2), b"hi");
        let mut passed = 0;
        for id in ids {
            let answer = client.answer(id);
            if answer.is_fault() {
                assert_eq!(answer.fault().errno(), "ETOOMANYREFS");
            } else {
                assert_eq!(answer.descriptors.len(), 1);
                passed += 1;
            }
        }
        // Few if many are in flight for other tests: the kernel counts those of a user.
        assert!(passed < 150, "{passed} of 150");
        client.expect_service();
        until("a descriptor is passed", || {
            client.call("socket.fileno", json!([handle])).descriptors.len() == 1
        });
    });
}
