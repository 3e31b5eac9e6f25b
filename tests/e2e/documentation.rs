//! The examples of the documentation of Python's `socket` module, with real sockets in a namespace.

use std::net::UdpSocket;
use std::thread;

use serde_json::{Value, json};
use sockbroker_test_support::skip::skip;
use sockbroker_test_support::{LspClient, base64, namespace, until};

use crate::broker::broker;

const PORT: u16 = 50007;

/// The counterpart of Python's socket object: a handle and a connection to the broker.
struct Socket {
    client: LspClient,
    handle: u64,
}

impl Socket {
    fn new(mut client: LspClient, params: Value) -> Result<Self, LspClient> {
        let answer = client.call("socket.socket", params);
        if answer.is_fault() { Err(client) } else { Ok(Self { handle: answer.handle(), client }) }
    }

    fn try_call(&mut self, method: &str, rest: &[Value]) -> Result<Value, Value> {
        let params = [&[json!(self.handle)], rest].concat();
        let answer = self.client.call(&format!("socket.{method}"), params.into());
        answer.json.get("result").cloned().ok_or_else(|| answer.json["error"].clone())
    }

    fn call(&mut self, method: &str, rest: &[Value]) -> Value {
        self.try_call(method, rest).unwrap()
    }

    fn recv(&mut self, bufsize: u32) -> Vec<u8> {
        sockbroker_test_support::unbase64(&self.call("recv", &[json!(bufsize)])["data"])
    }

    /// `conn, addr = s.accept()`
    fn accept(mut self) -> (Self, Value) {
        let accepted = self.call("accept", &[]);
        let handle = accepted["handle"].as_u64().unwrap();
        (Self { client: self.client, handle }, accepted["address"].clone())
    }

    /// `with conn: while True: data = conn.recv(1024); if not data: break; conn.sendall(data)`
    fn echo(mut self, method: &str) {
        loop {
            let data = self.recv(1024);
            if data.is_empty() {
                break;
            }
            self.call(method, &[json!(base64(data))]);
        }
        self.call("close", &[]);
    }
}

#[test]
fn python_echo_server_and_client_for_ipv4() {
    namespace::inside("documentation::python_echo_server_and_client_for_ipv4", || {
        let broker = broker();
        let mut s = Socket::new(broker.lsp(), json!(["AF_INET", "SOCK_STREAM"]))
            .unwrap_or_else(|_| panic!());
        s.call("bind", &[json!(["", PORT])]);
        s.call("listen", &[json!(1)]);
        let server = thread::spawn(move || {
            let (conn, addr) = s.accept();
            conn.echo("sendall");
            addr
        });
        let mut s = Socket::new(broker.lsp(), json!(["AF_INET", "SOCK_STREAM"]))
            .unwrap_or_else(|_| panic!());
        s.call("connect", &[json!(["localhost", PORT])]);
        let own = s.call("getsockname", &[]);
        s.call("sendall", &[json!(base64("Hello, world"))]);
        assert_eq!(s.recv(1024), b"Hello, world");
        s.call("close", &[]);
        assert_eq!(server.join().unwrap(), own);
    });
}

/// `for res in socket.getaddrinfo(...)`: uses the first address that works.
fn first_working(mut client: LspClient, found: &Value, steps: &[(&str, Option<Value>)]) -> Socket {
    for res in found.as_array().unwrap() {
        let (af, socktype, proto, sa) = (&res[0], &res[1], &res[2], &res[4]);
        let mut s = match Socket::new(client, json!([af, socktype, proto])) {
            Ok(s) => s,
            Err(back) => {
                client = back;
                continue;
            }
        };
        let worked = steps.iter().all(|(method, argument)| {
            let argument = argument.clone().unwrap_or_else(|| sa.clone());
            s.try_call(method, &[argument]).is_ok()
        });
        if worked {
            return s;
        }
        s.call("close", &[]);
        client = s.client;
    }
    panic!("could not open socket");
}

#[test]
fn python_echo_server_and_client_for_ipv4_and_ipv6() {
    namespace::inside("documentation::python_echo_server_and_client_for_ipv4_and_ipv6", || {
        let broker = broker();
        for host in ["localhost", "127.0.0.1"] {
            let mut client = broker.lsp();
            let passive = json!([null, PORT, "AF_UNSPEC", "SOCK_STREAM", 0, "AI_PASSIVE"]);
            let found = client.call("socket.getaddrinfo", passive).result().clone();
            let s = first_working(client, &found, &[("bind", None), ("listen", Some(json!(1)))]);
            let server = thread::spawn(move || s.accept().0.echo("send"));
            let mut client = broker.lsp();
            let active = json!([host, PORT, "AF_UNSPEC", "SOCK_STREAM"]);
            let found = client.call("socket.getaddrinfo", active).result().clone();
            let mut s = first_working(client, &found, &[("connect", None)]);
            s.call("sendall", &[json!(base64("Hello, world"))]);
            assert_eq!(s.recv(1024), b"Hello, world");
            s.call("close", &[]);
            server.join().unwrap();
        }
    });
}

#[test]
fn python_create_server_and_create_connection() {
    namespace::inside("documentation::python_create_server_and_create_connection", || {
        let broker = broker();
        let mut client = broker.lsp();
        let dual = client.call("socket.has_dualstack_ipv6", Value::Null).result() == true;
        let params = json!({ "address": ["", PORT], "family": "AF_INET6", "dualstack_ipv6": dual });
        let params = if dual { params } else { json!({ "address": ["", PORT] }) };
        let handle = client.call("socket.create_server", params).handle();
        let s = Socket { client, handle };
        let server = thread::spawn(move || s.accept().0.echo("sendall"));
        let mut client = broker.lsp();
        let handle =
            client.call("socket.create_connection", json!([["localhost", PORT], 5])).handle();
        let mut s = Socket { client, handle };
        s.call("sendall", &[json!(base64("Hello, world"))]);
        assert_eq!(s.recv(1024), b"Hello, world");
        s.call("shutdown", &[json!("SHUT_WR")]);
        assert_eq!(s.recv(1024), b"");
        server.join().unwrap();
    });
}

/// Runs the network sniffer of the documentation on the interface with the address `host`. Returns the packet of
/// a datagram that `send` sends.
fn sniff(client: LspClient, host: &str, send: impl Fn()) -> (Vec<u8>, Value) {
    let mut s = Socket::new(client, json!(["AF_INET", "SOCK_RAW", "IPPROTO_IP"]))
        .unwrap_or_else(|_| panic!());
    s.call("bind", &[json!([host, 0])]);
    // It captures nothing before.
    send();
    s.call("setsockopt", &[json!("IPPROTO_IP"), json!("IP_HDRINCL"), json!(1)]);
    s.call("ioctl", &[json!("SIO_RCVALL"), json!("RCVALL_ON")]);
    send();
    s.call("settimeout", &[json!(3)]);
    let received = s.call("recvfrom", &[json!(65565)]);
    send();
    s.call("ioctl", &[json!("SIO_RCVALL"), json!("RCVALL_OFF")]);
    send();
    s.call("settimeout", &[json!(0.1)]);
    let after = s.try_call("recvfrom", &[json!(65565)]).unwrap_err();
    assert_eq!(after["data"]["kind"], "timeout", "RCVALL_OFF ends it");
    let packet = sockbroker_test_support::unbase64(&received["data"]);
    (packet, received["address"].clone())
}

#[test]
fn python_network_sniffer() {
    namespace::inside("documentation::python_network_sniffer", || {
        let broker = broker();
        let mut client = broker.lsp();
        // HOST = socket.gethostbyname(socket.gethostname()), if that is an address of this namespace.
        let name = client.call("socket.gethostname", Value::Null).result().clone();
        let host = client.call("socket.gethostbyname", json!([name]));
        let host = host.json["result"].as_str().filter(|host| host.starts_with("127."));
        let host = host.unwrap_or("127.0.0.1").to_owned();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(peer.local_addr().unwrap()).unwrap();
        let (packet, address) = sniff(client, &host, || {
            sender.send(b"seen by the sniffer").unwrap();
        });
        // A complete IP packet: version and header length, protocol, addresses, and the datagram.
        assert_eq!((packet[0], packet[9]), (0x45, 17), "{packet:02x?}");
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        assert_eq!((&packet[12..16], &packet[16..20]), (&[127, 0, 0, 1][..], &[127, 0, 0, 1][..]));
        assert_eq!(packet[28..], *b"seen by the sniffer");
        assert_eq!(address, json!(["127.0.0.1", 0]));
    });
}

#[test]
fn rcvall_captures_only_the_interface_of_its_address() {
    let test = "documentation::rcvall_captures_only_the_interface_of_its_address";
    namespace::inside(test, move || {
        let ip = |arguments: &str| {
            let mut command = std::process::Command::new("ip");
            command.args(arguments.split(' ')).output().is_ok_and(|output| output.status.success())
        };
        let made = ip("link add sniffed type veth peer name beyond")
            && ip("addr add 10.9.8.7/24 dev sniffed")
            && ip("link set sniffed up")
            && ip("link set beyond up")
            && ip("neigh add 10.9.8.99 lladdr 02:00:00:00:00:01 dev sniffed");
        if !made {
            return skip("no veth interfaces here", test);
        }
        // Until then the kernel discards what is sent.
        until("the interface is up", || {
            let shown = std::process::Command::new("ip")
                .args(["link", "show", "sniffed"])
                .output()
                .unwrap();
            String::from_utf8_lossy(&shown.stdout).contains("state UP")
        });
        let broker = broker();
        let (outside, inside) =
            (UdpSocket::bind("10.9.8.7:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (packet, address) = sniff(broker.lsp(), "10.9.8.7", || {
            inside.send_to(b"loopback", inside.local_addr().unwrap()).unwrap();
            outside.send_to(b"out there", "10.9.8.99:9").unwrap();
        });
        assert_eq!(packet[28..], *b"out there");
        assert_eq!(address, json!(["10.9.8.7", 0]));
        let mut other = Socket::new(broker.lsp(), json!(["AF_INET", "SOCK_RAW", "IPPROTO_IP"]))
            .unwrap_or_else(|_| panic!());
        let unowned = other.try_call("bind", &[json!(["10.9.8.8", 0])]).unwrap_err();
        assert_eq!(unowned["data"]["name"], "EADDRNOTAVAIL");
        let unbound =
            other.try_call("ioctl", &[json!("SIO_RCVALL"), json!("RCVALL_ON")]).unwrap_err();
        assert_eq!(unbound["data"]["name"], "EINVAL");
    });
}

#[test]
fn rcvall_accepts_any_local_address() {
    let test = "documentation::rcvall_accepts_any_local_address";
    namespace::inside(test, || {
        let broker = broker();
        let mut client = broker.lsp();
        // The hosts file of Debian maps the host name to 127.0.1.1, which is not listed on any interface.
        let plain = client.call("socket.socket", json!({ "type": "SOCK_DGRAM" })).handle();
        client.call("socket.bind", json!([plain, ["127.0.1.1", 0]])).result();
        let params = json!(["AF_INET", "SOCK_RAW", "IPPROTO_IP"]);
        let sniffer = client.call("socket.socket", params).handle();
        client.call("socket.bind", json!([sniffer, ["127.0.1.1", 0]])).result();
    });
}
