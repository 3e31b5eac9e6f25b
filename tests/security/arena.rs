//! The environment of an attack: a broker of root, a policy, and a connection of an unprivileged attacker.

use std::net::UdpSocket;

use serde_json::{Value, json};
use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::{Answer, Daemon, HANG, LspClient, Start, User, until};

/// The path of the program under attack.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_sockbrokerd");

/// The policy: grants for the attacker and for the neighbour, another unprivileged user.
pub(crate) const POLICY: &str = r#"
version = 1

[[rule]]
name = "tcp and udp"
subject = { uids = [4200001, 4200002] }
allow = ["create", "listen", "accept", "receive", "option"]
family = ["AF_INET", "AF_INET6"]
type = ["SOCK_STREAM", "SOCK_DGRAM"]
protocol = ["IPPROTO_TCP", "IPPROTO_UDP"]
option = ["ordinary"]

[[rule]]
name = "high ports"
subject = { uids = [4200001, 4200002] }
allow = ["bind"]
family = ["AF_INET", "AF_INET6"]
local = ["127.0.0.1", "::1", "::"]
local_ports = ["0", "1024-65535"]

[[rule]]
name = "port 80"
subject = { uids = [4200001, 4200002] }
allow = ["bind"]
local = ["0.0.0.0"]
local_ports = ["80"]

[[rule]]
name = "neighbourhood"
subject = { uids = [4200001, 4200002] }
allow = ["connect", "send"]
remote = ["127.0.0.0/8", "::1"]
remote_ports = ["1024-65535"]

[[rule]]
name = "not the vault"
deny = ["connect", "send"]
subject = { uids = [4200001, 4200002] }
remote = ["127.0.0.66"]

[[rule]]
name = "not the back door"
deny = ["connect", "send"]
subject = { uids = [4200001, 4200002] }
remote = ["127.0.0.1", "::1"]
remote_ports = ["9999"]

[[rule]]
name = "ping"
subject = { uids = [4200001, 4200002] }
allow = ["create", "connect", "send", "receive", "option"]
family = ["AF_INET", "AF_INET6"]
type = ["SOCK_DGRAM"]
protocol = ["IPPROTO_ICMP", "IPPROTO_ICMPV6"]
option = ["ordinary"]

[[rule]]
name = "unix"
subject = { uids = [4200001, 4200002] }
allow = ["create", "adopt", "bind", "listen", "accept", "connect", "send", "receive", "option", "handover"]
family = ["AF_UNIX"]
paths = "broker"

[[rule]]
name = "look at routes"
subject = { uids = [4200001] }
allow = ["create", "bind", "send", "receive"]
family = ["AF_NETLINK"]
protocol = ["NETLINK_ROUTE"]
netlink = ["get"]
"#;

/// The user who attacks.
pub(crate) fn attacker() -> User {
    User::unrelated(1)
}

/// Another user with nearly the same grants, whom the attacks must not affect.
pub(crate) fn neighbour() -> User {
    User::unrelated(2)
}

/// A broker of root, and a connection of the attacker.
pub(crate) struct Arena {
    pub(crate) broker: Daemon,
    pub(crate) attacker: LspClient,
}

/// Runs an attack in new namespaces; `test` is the path of the test function.
pub(crate) fn run(test: &str, attack: impl FnOnce(Arena) + Send + 'static) {
    run_with(test, |start| start, attack);
}

/// Like [`run`], with other options of the broker.
pub(crate) fn run_with(
    test: &str,
    prepare: impl FnOnce(Start) -> Start + Send + 'static,
    attack: impl FnOnce(Arena) + Send + 'static,
) {
    let (_, test) = test.split_once("::").unwrap();
    inside_with_users(test, move || {
        let broker = prepare(Start::new(PROGRAM).policy(POLICY)).start().open_to_all();
        let attacker = attacker().lsp(&broker);
        attack(Arena { broker, attacker });
    });
}

/// Connects as the user until the broker serves the connection.
pub(crate) fn served(broker: &Daemon, user: &User) -> LspClient {
    let mut client = None;
    until("the user is served", || {
        let mut tried = user.lsp(broker);
        let answered = tried.is_served();
        client = Some(tried);
        answered
    });
    client.unwrap()
}

/// The sum of a metric over its labels: of every sample whose line begins with this text.
pub(crate) fn metric(broker: &Daemon, metric: &str) -> u64 {
    let page = broker.http().request("GET /metrics", &[], b"").body;
    let page = String::from_utf8(page).unwrap();
    let samples = page.lines().filter(|line| line.starts_with(metric));
    samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

impl Arena {
    /// Creates a socket as the attacker.
    pub(crate) fn socket(&mut self, parameters: Value) -> u64 {
        self.attacker.call("socket.socket", parameters).handle()
    }

    pub(crate) fn tcp(&mut self) -> u64 {
        self.socket(json!(["AF_INET", "SOCK_STREAM"]))
    }

    pub(crate) fn udp(&mut self) -> u64 {
        self.socket(json!(["AF_INET", "SOCK_DGRAM"]))
    }

    pub(crate) fn udp6(&mut self) -> u64 {
        self.socket(json!(["AF_INET6", "SOCK_DGRAM"]))
    }

    /// Calls as the attacker. Fails unless the call is refused by this rule with this missing grant.
    pub(crate) fn denied(&mut self, method: &str, params: Value, rule: &str, lacks: &str) {
        let what = format!("{method} {params}");
        let answer = self.attacker.call(method, params);
        assert_denied(&answer, rule, lacks, &what);
    }
}

/// Fails unless an answer is a refusal by this rule whose missing grant contains `lacks`.
pub(crate) fn assert_denied(answer: &Answer, rule: &str, lacks: &str, what: &str) {
    let fault = answer.fault();
    assert_eq!(fault.kind(), (3000, "denied"), "{what}: {fault:?}");
    assert_eq!(fault.data.rule.as_deref(), Some(rule), "{what}: {fault:?}");
    let grant = fault.data.grant.unwrap_or_default();
    assert!(grant.contains(lacks), "{what}: {grant}");
    let errno = fault.data.name.unwrap_or_default();
    assert!(["EPERM", "EACCES"].contains(&errno.as_str()), "{what}: {errno}");
}

/// A socket that must not receive anything from the attacker.
pub(crate) struct Victim(UdpSocket);

impl Victim {
    /// Binds a UDP socket to an address and a port that the kernel chooses.
    pub(crate) fn at(host: &str) -> Self {
        Self(UdpSocket::bind((host, 0)).unwrap())
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Fails if a datagram has arrived. The loopback interface delivers before the send call returns.
    pub(crate) fn assert_received_nothing(&self) {
        self.0.set_nonblocking(true).unwrap();
        assert!(
            self.0.recv(&mut [0; 64]).is_err(),
            "the victim received a datagram of the attacker"
        );
    }

    /// Receives the next datagram.
    pub(crate) fn receive(&self) -> Vec<u8> {
        self.0.set_nonblocking(false).unwrap();
        self.0.set_read_timeout(Some(HANG)).unwrap();
        let mut data = vec![0; 64];
        let length = self.0.recv(&mut data).unwrap();
        data.truncate(length);
        data
    }
}
