//! `sockbroker agent`: descriptors for the sockets of a broker that passes none.

use std::fs::{File, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use serde_json::{Value, json};
use sockbroker_client::{Domain, Error, Protocol, Type, blocking};
use sockbroker_proto::channel::{ChannelFrame, read_frame, write_frame};
use sockbroker_test_support::channel::{connected, expect_half_close, is_closed, local, rest};
use sockbroker_test_support::daemon::kill_process;
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::sshd::installed_or_skip;
use sockbroker_test_support::{Daemon, Folder, HANG, LspClient, Sshd, bounded, until};

use crate::program::{Outcome, PROGRAM, broker, command, end, endpoint, run};
use crate::remote::Lab;

/// A running agent.
pub(crate) struct Agent {
    process: Child,
    folder: Folder,
}

impl Agent {
    pub(crate) fn start(url: &str, options: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        Self::start_connected(url, options, prepare).0
    }

    /// Starts an agent. Returns it with a first connection.
    fn start_connected(
        url: &str,
        options: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> (Self, UnixStream) {
        let folder = Folder::new();
        let path = folder.join("agents/one");
        let mut arguments = vec!["--broker", url, "agent", "--listen", path.to_str().unwrap()];
        arguments.extend(options);
        let mut command = command(&arguments);
        prepare(&mut command);
        let process = command.spawn().unwrap();
        let agent = Self { process, folder };
        let mut first = None;
        until("the agent listens", || {
            first = UnixStream::connect(agent.path()).ok();
            first.is_some()
        });
        (agent, first.unwrap())
    }

    fn of(broker: &Daemon) -> Self {
        Self::start(&endpoint(broker), &[], |_| {})
    }

    /// The number of the process, which timeout(1) has started.
    pub(crate) fn number(&self) -> u32 {
        let parent = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        children.unwrap().trim().parse().unwrap()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("agents/one")
    }

    pub(crate) fn client(&self) -> LspClient {
        LspClient::connect(&self.path())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

pub(crate) fn channel(client: &mut LspClient, handle: u64) -> UnixStream {
    local(client, json!({ "handle": handle, "want_fd": true, "close": true }))
}

/// What a descriptor of a remote socket does.
fn check(agent: &Agent) {
    let mut client = agent.client();
    // Half-close, and the answer after it.
    let (handle, peer) = connected(&mut client);
    let mut stream = channel(&mut client, handle);
    expect_half_close(&mut stream, peer);
    drop(stream);
    until("the handle is closed", || is_closed(&mut client, handle));
    // Data in both directions at once.
    let (handle, mut peer) = connected(&mut client);
    let mut stream = channel(&mut client, handle);
    let data: Vec<u8> = (0..2_000_000_u32).map(|place| (place % 251) as u8).collect();
    let (sent, mut writer) = (data.clone(), stream.try_clone().unwrap());
    let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut echo = peer.try_clone().unwrap();
    let length = data.len();
    let echoing = thread::spawn(move || {
        let mut data = vec![0; length];
        peer.read_exact(&mut data).unwrap();
        echo.write_all(&data).unwrap();
        peer
    });
    let mut received = vec![0; length];
    stream.read_exact(&mut received).unwrap();
    assert!(received == data);
    writing.join().unwrap();
    // A reset is the end of the stream.
    let peer = echoing.join().unwrap();
    stream.write_all(b"unread").unwrap();
    until("the data has arrived", || peer.peek(&mut [0; 6]).unwrap() == 6);
    drop(peer);
    assert_eq!(rest(&mut stream), b"");
    assert_eq!(stream.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    // A program that writes and ends loses nothing.
    let (handle, mut peer) = connected(&mut client);
    let mut stream = channel(&mut client, handle);
    stream.write_all(&data[..150_000]).unwrap();
    drop((stream, client));
    assert!(rest(&mut peer) == data[..150_000]);
}

#[test]
fn descriptors_of_remote_sockets_are_streams() {
    bounded(20, || {
        let broker = broker();
        let agent = Agent::of(&broker);
        check(&agent);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&agent.path()), 0o600);
        assert_eq!(mode(agent.path().parent().unwrap()), 0o700);
    });
}

#[test]
fn agent_reaches_a_broker_by_ssh() {
    if !installed_or_skip("agent::agent_reaches_a_broker_by_ssh") {
        return;
    }
    bounded(60, || {
        let broker = broker();
        let sshd = Sshd::start(PROGRAM, "");
        let agent = Agent::start(&sshd.url(None, broker.socket()), &[], |command| {
            command.envs(sshd.variables());
        });
        check(&agent);
        // The end of ssh ends the descriptors and the agent.
        let mut agent = agent;
        let mut client = agent.client();
        let (handle, mut peer) = connected(&mut client);
        let mut stream = channel(&mut client, handle);
        stream.write_all(b"hi").unwrap();
        peer.read_exact(&mut [0; 2]).unwrap();
        let started = sshd.clients();
        assert!(!started.is_empty());
        started.into_iter().for_each(kill_process);
        assert_eq!(rest(&mut stream), b"");
        assert_eq!(stream.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        assert_eq!(rest(&mut peer), b"");
        assert!(agent.process.wait().unwrap().success());
        assert!(!agent.path().exists());
    });
}

#[test]
fn agent_reaches_a_broker_by_tls() {
    bounded(120, || {
        let lab = Lab::start();
        let alice = lab.alice();
        let agent = Agent::start(&lab.endpoint(), &[], |command| {
            command.env("XDG_CONFIG_HOME", alice.path()).env_remove("SOCKBROKER_TOKEN");
        });
        check(&agent);
        // A token has no place in a channel.
        let mut refused =
            command(&["--broker", &lab.endpoint(), "agent", "--listen", "/tmp/none/socket"]);
        refused.env("XDG_CONFIG_HOME", alice.path()).env("SOCKBROKER_TOKEN", "sbk_none");
        let refused = Outcome::from(refused.output().unwrap());
        assert!(refused.failure(69).contains("use a certificate"));
    });
}

#[test]
fn want_channel_returns_the_descriptor_with_the_socket() {
    bounded(20, || {
        let broker = broker();
        let agent = Agent::of(&broker);
        let mut client = agent.client();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let params = json!({ "address": ["127.0.0.1", port], "want_channel": true });
        let mut made = client.call("socket.create_connection", params);
        assert_eq!(made.result()["channel"], json!({ "fd": true, "type": libc::SOCK_STREAM }));
        let handle = made.result()["handle"].as_u64().unwrap();
        let mut stream = UnixStream::from(made.descriptors.remove(0));
        stream.set_read_timeout(Some(HANG)).unwrap();
        let mut peer = listener.accept().unwrap().0;
        stream.write_all(b"question").unwrap();
        peer.read_exact(&mut [0; 8]).unwrap();
        assert!(!is_closed(&mut client, handle));
        // A reset closes the handle too: no frame can.
        stream.write_all(b"unread").unwrap();
        until("the data has arrived", || peer.peek(&mut [0; 6]).unwrap() == 6);
        drop(peer);
        assert_eq!(rest(&mut stream), b"");
        until("the handle is closed", || is_closed(&mut client, handle));
        let closed = json!({ "address": ["127.0.0.1", 1], "want_channel": true });
        let fault = client.call("socket.create_connection", closed).fault();
        assert_eq!(fault.errno(), "ECONNREFUSED");
    });
}

#[test]
fn descriptor_outlives_the_connection_of_its_client() {
    bounded(20, || {
        let broker = broker();
        let agent = Agent::of(&broker);
        let mut client = agent.client();
        let (handle, mut peer) = connected(&mut client);
        let mut stream = channel(&mut client, handle);
        drop(client);
        stream.write_all(b"from a child process").unwrap();
        peer.read_exact(&mut [0; 20]).unwrap();
        peer.write_all(b"unread").unwrap();
        stream.read_exact(&mut [0; 1]).unwrap();
        stream.write_all(b"last").unwrap();
        drop(stream);
        assert_eq!(rest(&mut peer), b"last");
    });
}

#[test]
fn client_that_does_not_read_gets_the_failure_of_its_writes() {
    bounded(20, || {
        let broker = broker();
        let agent = Agent::of(&broker);
        let mut client = agent.client();
        let (handle, mut peer) = connected(&mut client);
        let mut stream = channel(&mut client, handle);
        let mut written = 0;
        peer.set_nonblocking(true).unwrap();
        until("the peer has written more than the buffers of the agent hold", || {
            written += peer.write(&[1; 8192]).unwrap_or(0);
            written > 1_200_000
        });
        stream.set_write_timeout(Some(HANG)).unwrap();
        stream.write_all(b"unread").unwrap();
        until("the data has arrived", || peer.peek(&mut [0; 6]).is_ok());
        drop(peer);
        let error = loop {
            if let Err(error) = stream.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        drop(stream);
        until("the handle is closed", || is_closed(&mut client, handle));
    });
}

#[test]
fn limits_of_the_agent_are_enforced() {
    bounded(60, || {
        let broker = broker();
        let agent = Agent::of(&broker);
        // Requests that the broker does not answer.
        let mut client = agent.client();
        let (handle, _peer) = connected(&mut client);
        broker.worker_stopped_during(|| {
            let params = json!({ "handle": handle, "want_fd": true });
            let ids: Vec<_> =
                (0..257).map(|_| client.send("channel.open", params.clone())).collect();
            let fault = client.answer(*ids.last().unwrap()).fault();
            assert_eq!(fault.kind(), (4002, "limit"));
            assert_eq!(fault.limit(), "agent_channels_waiting");
        });
        drop(client);
        // The last of more connections than the agent serves is closed.
        let connect = || {
            let stream = UnixStream::connect(agent.path()).unwrap();
            stream.set_read_timeout(Some(HANG)).unwrap();
            stream
        };
        let mut open: Vec<_> = (0..264).map(|_| connect()).collect();
        assert_eq!(open.pop().unwrap().read(&mut [0]).unwrap(), 0);
        drop(open);
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "socket.htons", "params": [1] });
        let request = LspClient::frame(&request.to_string(), None, 0);
        until("there is room again", || {
            let mut stream = connect();
            stream.write_all(&request).is_ok() && stream.read(&mut [0]).is_ok_and(|count| count > 0)
        });
    });
}

#[test]
fn rust_client_gets_descriptors_of_remote_streams() {
    bounded(20, || {
        let broker = broker();
        let agent = Agent::of(&broker);
        let endpoint = format!("unix:{}", agent.path().display()).parse().unwrap();
        let remote = blocking::Broker::connect_to(&endpoint).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ("127.0.0.1", listener.local_addr().unwrap().port());
        let mut stream = remote
            .create_connection(address)
            .unwrap()
            .into_owned_fd()
            .map(UnixStream::from)
            .unwrap();
        let mut peer = listener.accept().unwrap().0;
        stream.write_all(b"from Rust").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut peer), b"from Rust");
        peer.write_all(b"to Rust").unwrap();
        drop(peer);
        assert_eq!(rest(&mut stream), b"to Rust");
        let datagrams =
            blocking::Socket::new(&remote, Domain::IPV4, Type::DGRAM, Protocol::default()).unwrap();
        let refused = datagrams.into_owned_fd().unwrap_err();
        assert!(matches!(refused, Error::Descriptor { .. }), "{refused}");
    });
}

#[test]
fn channel_of_a_datagram_socket_has_frames() {
    bounded(20, || {
        let broker = broker();
        let agent = Agent::of(&broker);
        let mut client = agent.client();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(HANG)).unwrap();
        let to = json!(["127.0.0.1", peer.local_addr().unwrap().port()]);
        let params = json!({ "type": "SOCK_DGRAM" });
        let handle = client.call("socket.socket", params).handle();
        client.call("socket.connect", json!([handle, to])).result();
        // Bytes without boundaries are refused, and leave the socket free.
        let raw = json!({ "handle": handle, "want_fd": true, "framing": "raw" });
        let fault = client.call("channel.open", raw).fault();
        assert_eq!(fault.exception(), "ValueError");
        let mut stream = channel(&mut client, handle);
        let mut frames = Vec::new();
        for data in [&b"one"[..], b"", b"three"] {
            write_frame(&mut frames, ChannelFrame::Datagram { address: "", data }).unwrap();
        }
        stream.write_all(&frames).unwrap();
        let mut buffer = [0; 16];
        let mut from = peer.local_addr().unwrap();
        for wanted in [&b"one"[..], b"", b"three"] {
            let (length, sender) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], wanted);
            from = sender;
        }
        peer.send_to(b"back", from).unwrap();
        let mut bytes = vec![0; 4];
        stream.read_exact(&mut bytes).unwrap();
        bytes.resize(4 + usize::from(bytes[3]), 0);
        stream.read_exact(&mut bytes[4..]).unwrap();
        let frame = read_frame(&bytes).unwrap().unwrap().0;
        assert!(matches!(frame, ChannelFrame::Datagram { data: b"back", .. }), "{frame:?}");
        // A raw channel of a stream needs no boundaries; a socket that listens has no data.
        let (handle, mut peer) = connected(&mut client);
        let mut stream = local(
            &mut client,
            json!({ "handle": handle, "want_fd": true, "framing": "raw", "close": true }),
        );
        stream.write_all(b"raw").unwrap();
        drop(stream);
        assert_eq!(rest(&mut peer), b"raw");
        let listener = client.call("socket.socket", json!({})).handle();
        client.call("socket.listen", json!([listener])).result();
        for (method, params) in [
            ("channel.open", json!({ "handle": listener, "want_fd": true })),
            ("socket.fileno", json!([listener])),
        ] {
            let fault = client.call(method, params).fault();
            assert_eq!(fault.errno(), "EINVAL");
            assert!(fault.message.contains("listen"), "{fault:?}");
        }
    });
}

#[test]
fn other_descriptors_are_refused() {
    bounded(20, || {
        let broker = broker();
        let agent = Agent::of(&broker);
        let mut client = agent.client();
        let (own, _other) = UnixStream::pair().unwrap();
        let descriptors = [own.as_fd()];
        let parts = RequestParts::descriptors(&descriptors);
        let fault = client.call_with_parts("socket.fromfd", json!([0]), parts).fault();
        assert_eq!(fault.kind(), (4003, "descriptor"));
        let fault = client.call("socket.socket", json!({ "want_fd": true })).fault();
        assert_eq!(fault.kind(), (4003, "descriptor"));
        // Errors of the broker arrive, and tokens.
        let params = json!({ "handle": 1, "want_fd": true });
        assert_eq!(client.call("channel.open", params).fault().kind(), (4000, "handle"));
        let (left, _right) = client.pair();
        let opened = client.call("channel.open", json!([left]));
        assert!(opened.result()["token"].is_string(), "{}", opened.short());
        let busy = client.call("channel.open", json!([left, true]));
        assert_eq!(busy.fault().errno(), "EBUSY");
        // Only LSP framing.
        let mut line = UnixStream::connect(agent.path()).unwrap();
        line.write_all(b"{}\n").unwrap();
        let mut refused = String::new();
        BufReader::new(&line).read_line(&mut refused).unwrap();
        let refused: Value = serde_json::from_str(&refused).unwrap();
        assert!(refused["error"]["message"].as_str().unwrap().contains("LSP framing"));
        client.expect_service();
    });
}

#[test]
fn end_of_the_agent_ends_its_descriptors() {
    bounded(20, || {
        let broker = broker();
        let agent = Agent::of(&broker);
        let mut client = agent.client();
        let (handle, mut peer) = connected(&mut client);
        let mut stream = channel(&mut client, handle);
        stream.write_all(b"hi").unwrap();
        peer.read_exact(&mut [0; 2]).unwrap();
        let path = agent.path();
        drop(agent);
        assert_eq!(rest(&mut stream), b"");
        assert_eq!(rest(&mut peer), b"");
        assert!(!path.exists());
    });
}

#[test]
fn agent_ends_when_it_is_not_used() {
    bounded(20, || {
        let broker = broker();
        // Until the client is connected, another connection keeps the agent.
        let options = ["--idle", "1"];
        let (mut agent, first) = Agent::start_connected(&endpoint(&broker), &options, |_| {});
        let mut client = agent.client();
        client.expect_service();
        drop(first);
        let (handle, mut peer) = connected(&mut client);
        let stream = channel(&mut client, handle);
        drop(client);
        drop(OwnedFd::from(stream));
        assert_eq!(rest(&mut peer), b"");
        assert!(agent.process.wait().unwrap().success());
        assert!(!agent.path().exists());
    });
}

#[test]
fn second_agent_leaves_the_socket_to_the_first() {
    bounded(20, || {
        let broker = broker();
        let agent = Agent::of(&broker);
        let path = agent.path();
        let arguments =
            ["--broker", &endpoint(&broker), "agent", "--listen", path.to_str().unwrap()];
        let refused = run(&arguments);
        let text = refused.failure(71);
        assert!(text.contains("EADDRINUSE") && text.contains(path.to_str().unwrap()), "{text}");
        agent.client().expect_service();
        // A file that a killed agent has left is replaced.
        kill_process(agent.number());
        until("the agent has ended", || UnixStream::connect(&path).is_err());
        assert!(path.exists());
        let mut command = command(&arguments);
        let mut next = command.spawn().unwrap();
        until("the next agent listens", || UnixStream::connect(&path).is_ok());
        assert!(end(&mut next).success());
    });
}

#[test]
fn lock_of_another_program_does_not_delay_the_agent() {
    bounded(60, || {
        let broker = broker();
        let folder = Folder::new();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let lock = File::open(folder.path()).unwrap();
        lock.lock().unwrap();
        let path = folder.join("socket");
        let arguments =
            ["--broker", &endpoint(&broker), "agent", "--listen", path.to_str().unwrap()];
        let mut agent = command(&arguments).spawn().unwrap();
        until("the agent listens", || UnixStream::connect(&path).is_ok());
        // The file of the agent that has replaced this one stays.
        std::fs::remove_file(&path).unwrap();
        let mut next = command(&arguments).spawn().unwrap();
        until("the next agent listens", || UnixStream::connect(&path).is_ok());
        assert!(end(&mut agent).success());
        LspClient::connect(&path).expect_service();
        assert!(end(&mut next).success());
        assert!(!path.exists());
        // A lock file that others can open is refused.
        let lock_file = folder.join("socket.lock");
        assert_eq!(lock_file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&lock_file, Permissions::from_mode(0o644)).unwrap();
        let text = run(&arguments).failure(71);
        assert!(text.contains("socket.lock"), "{text}");
    });
}

#[test]
fn wrong_uses_are_refused() {
    let refused = run(&["--broker", "stdio:cat", "agent", "--listen", "/tmp/none/socket"]);
    assert!(refused.failure(69).contains("use unix:PATH, ssh://HOST or tls://HOST"));
    run(&["--private", "agent", "--listen", "/tmp/none/socket"]).failure(2);
}
