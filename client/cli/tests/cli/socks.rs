//! `sockbroker agent --socks`: programs that make their sockets in C, here curl, and the protocol itself.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::thread;

use sockbroker_client::{Domain, Protocol, Type, blocking};
use sockbroker_test_support::channel::{exact, expect_half_close, expect_reset_after_data, rest};
use sockbroker_test_support::daemon::kill_process;
use sockbroker_test_support::sshd::installed_or_skip;
use sockbroker_test_support::user::other_users_or_skip;
use sockbroker_test_support::{Daemon, HANG, Sshd, Start, User, bounded, namespace, skip, until};

use crate::program::{PROGRAM, broker, command, end, endpoint, run};
use crate::remote::Lab;

/// All but the addresses that no test uses otherwise.
const POLICY: &str = r#"version = 1
[[rule]]
name = "the lab"
subject = { everyone = true }
allow = ["session", "create", "connect", "send", "receive", "inspect", "resolve"]
[[rule]]
name = "not there"
subject = { everyone = true }
deny = ["connect"]
remote = ["127.9.9.9"]
"#;
/// The answer to a greeting that offers to use no authentication.
const METHOD: [u8; 2] = [5, 0];

/// An agent with a proxy.
struct Proxy {
    process: Child,
    port: u16,
}

impl Proxy {
    fn start(url: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(&["--broker", url, "agent", "--socks", "0"]);
        prepare(&mut command);
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("socks5h://127.0.0.1:").expect("the URL of the proxy");
        Self { process, port: port.parse().unwrap() }
    }

    fn of(broker: &Daemon) -> Self {
        Self::start(&endpoint(broker), |_| {})
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream
    }

    /// Sends a request, and returns the code of the reply.
    fn request(&self, request: &[u8]) -> (TcpStream, u8) {
        let mut stream = self.connect();
        stream.write_all(&[5, 1, 0]).unwrap();
        assert_eq!(exact(&mut stream, 2), METHOD);
        stream.write_all(request).unwrap();
        let reply = exact(&mut stream, 10);
        assert_eq!((reply[0], &reply[2..]), (5, &[0, 1, 0, 0, 0, 0, 0, 0][..]));
        (stream, reply[1])
    }

    /// A connection to a port of this machine.
    fn to(&self, port: u16) -> TcpStream {
        let (stream, code) = self.request(&of_address(Ipv4Addr::LOCALHOST, port));
        assert_eq!(code, 0);
        stream
    }

    /// The exit code of curl, and what it prints.
    fn curl(&self, url: &str) -> (i32, String) {
        let proxy = format!("127.0.0.1:{}", self.port);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "100", "--noproxy", ""]);
        let output = curl.args(["--socks5-hostname", &proxy, url]).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

fn of_address(host: Ipv4Addr, port: u16) -> Vec<u8> {
    [&[5, 1, 0, 1][..], &host.octets(), &port.to_be_bytes()].concat()
}

fn of_name(host: &str, port: u16) -> Vec<u8> {
    let length = u8::try_from(host.len()).unwrap();
    [&[5, 1, 0, 3, length][..], host.as_bytes(), &port.to_be_bytes()].concat()
}

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A server of HTTP for one request, and its URL by an address.
fn serve_once() -> (thread::JoinHandle<()>, String) {
    let (listener, port) = listen();
    let serving = thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        let body = "x".repeat(300_000);
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.get_mut().write_all([head, body].concat().as_bytes()).unwrap();
    });
    (serving, format!("http://127.0.0.1:{port}/"))
}

/// What curl gets by a proxy to a broker that can connect here.
fn check_curl(proxy: &Proxy) {
    let (serving, url) = serve_once();
    assert_eq!(proxy.curl(&url), (0, "x".repeat(300_000)));
    serving.join().unwrap();
}

#[test]
fn curl_uses_a_broker_by_tls() {
    if !skip::program_or_skip("curl", "socks::curl_uses_a_broker_by_tls") {
        return;
    }
    bounded(60, || {
        let lab = Lab::start();
        let alice = lab.alice();
        let proxy = Proxy::start(&lab.endpoint(), |command| {
            command.env("XDG_CONFIG_HOME", alice.path()).env_remove("SOCKBROKER_TOKEN");
        });
        check_curl(&proxy);
        // A program that writes and ends loses nothing.
        let (listener, port) = listen();
        let mut stream = proxy.to(port);
        stream.write_all(&vec![7; 1_000_000]).unwrap();
        drop(stream);
        assert_eq!(rest(&mut listener.accept().unwrap().0).len(), 1_000_000);
    });
}

#[test]
fn curl_uses_a_broker_by_ssh() {
    let test = "socks::curl_uses_a_broker_by_ssh";
    if !skip::program_or_skip("curl", test) || !installed_or_skip(test) {
        return;
    }
    bounded(60, || {
        let broker = broker();
        let sshd = Sshd::start(PROGRAM, "");
        let mut proxy = Proxy::start(&sshd.url(None, broker.socket()), |command| {
            command.envs(sshd.variables());
        });
        check_curl(&proxy);
        // The end of ssh ends the connections and the agent.
        let (listener, port) = listen();
        let mut stream = proxy.to(port);
        let mut peer = listener.accept().unwrap().0;
        sshd.clients().into_iter().for_each(kill_process);
        // Without the end of the data, its end is a reset.
        match stream.read(&mut [0]) {
            Ok(read) => assert_eq!(read, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        assert_eq!(rest(&mut peer), b"");
        assert!(proxy.process.wait().unwrap().success());
    });
}

#[test]
fn refusals_of_the_policy_are_replies() {
    const TEST: &str = "socks::refusals_of_the_policy_are_replies";
    if !skip::program_or_skip("curl", TEST) {
        return;
    }
    namespace::inside(TEST, || {
        let without_names =
            POLICY.replace(r#"["connect"]"#, r#"["resolve"]"#).replace("remote =", "# remote =");
        let start = || Start::new(PROGRAM).shell("set -- broker \"$@\"");
        let broker = start().policy(POLICY).start();
        let proxy = Proxy::of(&broker);
        let (listener, port) = listen();
        let code = |request: &[u8]| proxy.request(request).1;
        assert_eq!(code(&of_address(Ipv4Addr::new(127, 9, 9, 9), port)), 2);
        let (status, text) = proxy.curl(&format!("http://127.9.9.9:{port}/"));
        assert_eq!(status, 97, "{text}");
        // Errors of the connection and of the look-up.
        drop(listener);
        assert_eq!(code(&of_address(Ipv4Addr::LOCALHOST, port)), 5);
        assert_eq!(code(&of_address(Ipv4Addr::new(192, 0, 2, 1), 7)), 3);
        assert_eq!(code(&of_name("name.invalid", 7)), 4);
        assert_eq!(code(&of_name("", 7)), 1);
        // BIND and UDP ASSOCIATE, and an unknown kind of address.
        assert_eq!(code(&[5, 2, 0, 1, 127, 0, 0, 1, 0, 7]), 7);
        assert_eq!(code(&[5, 3, 0, 1, 127, 0, 0, 1, 0, 7]), 7);
        assert_eq!(code(&[5, 1, 0, 9, 0, 0]), 8);
        // The broker looks up names: its policy decides that too.
        let (listener, port) = listen();
        assert_eq!(code(&of_name("localhost", port)), 0);
        let without_names = start().policy(&without_names).start();
        assert_eq!(Proxy::of(&without_names).request(&of_name("localhost", port)).1, 2);
        drop(listener);
    });
}

#[test]
fn connections_are_those_of_the_broker() {
    namespace::inside("socks::connections_are_those_of_the_broker", || {
        let broker = broker();
        let proxy = Proxy::of(&broker);
        let six = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let port = six.local_addr().unwrap().port();
        let request =
            [&[5, 1, 0, 4][..], &Ipv6Addr::LOCALHOST.octets(), &port.to_be_bytes()].concat();
        let (mut stream, code) = proxy.request(&request);
        assert_eq!(code, 0);
        // Half-close, and the answer after it.
        expect_half_close(&mut stream, six.accept().unwrap().0);
        // A reset is a reset.
        let (listener, port) = listen();
        let mut stream = proxy.to(port);
        expect_reset_after_data(&mut stream, listener.accept().unwrap().0);
        // Data that does not wait for the reply.
        let mut stream = proxy.connect();
        stream
            .write_all(&[&[5, 1, 0][..], &of_address(Ipv4Addr::LOCALHOST, port), b"early"].concat())
            .unwrap();
        let mut peer = listener.accept().unwrap().0;
        assert_eq!(exact(&mut peer, 5), b"early");
        // The client that closes while the peer sends.
        drop(stream);
        until("the peer gets an error", || peer.write(&[0; 4096]).is_err());
        // The next connection works when the broker has ended the session of the proxy.
        let local = blocking::Broker::connect_to(&endpoint(&broker).parse().unwrap()).unwrap();
        drop(
            blocking::Socket::new(&local, Domain::IPV4, Type::STREAM, Protocol::default()).unwrap(),
        );
        kill_process(broker.worker());
        until("there is another session", || {
            proxy.request(&of_address(Ipv4Addr::LOCALHOST, port)).1 == 0
        });
    });
}

#[test]
fn other_protocols_get_no_connection() {
    bounded(20, || {
        let broker = broker();
        let proxy = Proxy::of(&broker);
        for greeting in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[4, 1, 0, 7, 127, 0, 0, 1, 0]] {
            let mut stream = proxy.connect();
            stream.write_all(greeting).unwrap();
            // What it has not read resets the connection.
            assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        }
        // A client that wants to authenticate itself.
        let mut stream = proxy.connect();
        stream.write_all(&[5, 1, 2]).unwrap();
        assert_eq!(rest(&mut stream), [5, 0xff]);
        let mut stream = proxy.connect();
        stream.write_all(&[5, 1, 0]).unwrap();
        assert_eq!(exact(&mut stream, 2), METHOD);
        stream.write_all(&[4, 1, 0, 1]).unwrap();
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    });
}

#[test]
fn other_users_get_no_connection() {
    let test = "socks::other_users_get_no_connection";
    if !other_users_or_skip(test) {
        return;
    }
    bounded(20, || {
        let broker = broker();
        let proxy = Proxy::of(&broker);
        let port = proxy.port;
        let greet = move || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            stream.set_read_timeout(Some(HANG)).unwrap();
            drop(stream.write_all(&[5, 1, 0]));
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer));
            answer
        };
        assert_eq!(User::nobody().run(greet), b"");
        let mut own = proxy.connect();
        own.write_all(&[5, 1, 0]).unwrap();
        assert_eq!(exact(&mut own, 2), METHOD);
    });
}

#[test]
fn number_of_connections_is_limited() {
    bounded(60, || {
        let broker = broker();
        let proxy = Proxy::of(&broker);
        let greet = || {
            let mut stream = proxy.connect();
            let sent = stream.write_all(&[5, 1, 0]);
            let mut answer = [0; 2];
            (sent.is_ok() && stream.read_exact(&mut answer).is_ok()).then_some(stream)
        };
        let (listener, port) = listen();
        // On a slow machine the first ones end before the last one begins: they send no request in time.
        let mut open = Vec::new();
        until("one is refused", || {
            let greeted = greet();
            let is_refused = greeted.is_none();
            open.extend(greeted);
            is_refused
        });
        assert!(open.len() >= 256, "{}", open.len());
        let mut used = open.pop().unwrap();
        drop(open);
        used.write_all(&of_address(Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_eq!(exact(&mut used, 10)[1], 0);
        drop(listener);
        until("there is room again", || greet().is_some());
    });
}

#[test]
fn wrong_uses_are_refused() {
    let (_listener, port) = listen();
    let port = port.to_string();
    let taken = run(&["--broker", "unix:/tmp/none/socket", "agent", "--socks", &port]);
    let text = taken.failure(71);
    assert!(text.contains("EADDRINUSE") && text.contains(&format!("127.0.0.1:{port}")), "{text}");
    let neither = run(&["agent"]);
    assert_eq!(neither.code, 2);
    assert!(neither.err.contains("--listen"), "{neither:?}");
}
