//! `sockbroker agent`: descriptors for the sockets of a broker that passes none.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use serde_json::{Value, json};
use sockbroker_test_support::daemon::terminate_process;
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::sshd::installed_or_skip;
use sockbroker_test_support::{Daemon, Folder, HANG, LspClient, Sshd, bounded, until};

use crate::program::{PROGRAM, broker, command, endpoint, run};

/// A running agent.
struct Agent {
    process: Child,
    folder: Folder,
}

impl Agent {
    fn start(url: &str, idle: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let folder = Folder::new();
        let path = folder.join("agents/one");
        let mut arguments = vec!["--broker", url, "agent", "--listen", path.to_str().unwrap()];
        arguments.extend(idle);
        let mut command = command(&arguments);
        prepare(&mut command);
        let process = command.spawn().unwrap();
        let agent = Self { process, folder };
        until("the agent listens", || UnixStream::connect(agent.path()).is_ok());
        agent
    }

    fn of(broker: &Daemon) -> Self {
        Self::start(&endpoint(broker), &[], |_| {})
    }

    fn path(&self) -> PathBuf {
        self.folder.join("agents/one")
    }

    fn client(&self) -> LspClient {
        LspClient::connect(&self.path())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            // timeout(1) passes SIGTERM on.
            terminate_process(self.process.id());
            self.process.wait().unwrap();
        }
    }
}

/// A connected handle and its peer.
fn connected(client: &mut LspClient) -> (u64, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let handle = client.call("socket.create_connection", json!([["127.0.0.1", port]])).handle();
    let peer = listener.accept().unwrap().0;
    peer.set_read_timeout(Some(HANG)).unwrap();
    (handle, peer)
}

fn channel(client: &mut LspClient, handle: u64) -> UnixStream {
    let params = json!({ "handle": handle, "want_fd": true, "close": true });
    let mut answer = client.call("channel.open", params);
    assert_eq!(*answer.result(), json!({ "fd": true }));
    let stream = UnixStream::from(answer.descriptors.remove(0));
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

fn rest(stream: &mut impl std::io::Read) -> Vec<u8> {
    let mut data = Vec::new();
    stream.read_to_end(&mut data).unwrap();
    data
}

fn is_closed(client: &mut LspClient, handle: u64) -> bool {
    client.call("socket.attributes", json!([handle])).is_fault()
}

/// What a descriptor of a remote socket does.
fn check(agent: &Agent) {
    let mut client = agent.client();
    // Half-close, and the answer after it.
    let (handle, mut peer) = connected(&mut client);
    let mut stream = channel(&mut client, handle);
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut peer), b"question");
    peer.write_all(b"answer").unwrap();
    drop(peer);
    assert_eq!(rest(&mut stream), b"answer");
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
        let refused: Value = serde_json::from_slice(&rest(&mut line)).unwrap();
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
        let mut agent = Agent::start(&endpoint(&broker), &["--idle", "1"], |_| {});
        let mut client = agent.client();
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
fn wrong_uses_are_refused() {
    let refused = run(&["--broker", "stdio:cat", "agent", "--listen", "/tmp/none/socket"]);
    assert!(refused.failure(69).contains("use unix:PATH or ssh://HOST"));
    run(&["--private", "agent", "--listen", "/tmp/none/socket"]).failure(2);
}
