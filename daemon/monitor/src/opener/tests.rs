//! The opener in a thread, with a test in place of the monitor and of the workers.

use std::fs::File;
use std::io::{self, IoSlice};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sockbroker_policy::Policy;
use sockbroker_policy::file::{Directory, read};
use sockbroker_proto::address::Address;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::credentials::{self, Credentials};
use sockbroker_sys::events::Events;
use sockbroker_sys::{message, option, process, record, sealed, socket, stream};
use sockbroker_test_support::namespace;

use super::*;
use crate::channel::{AskError, Channel};
use crate::message::{Build, Description, FromOpener, ToOpener, WorkerPeer};
use crate::request::{Answer, Control, DATA_MAX, OpenerChannel, OpenerRequest, Request, Value};

/// Allows everything to the user of the tests, who can be one that `everyone` leaves out.
const ALL: &str = "[[rule]]\nname = \"all\"\nsubject = { users = [\"tester\"] }\n\
                   allow = [\"create\", \"bind\", \"connect\", \"send\", \"option\", \"sethostname\"]\n";
/// Refuses what [`ALL`] allows, also to root.
const NONE: &str = "[[rule]]\nname = \"none\"\nsubject = { everyone = true }\n\
                    deny = [\"create\", \"bind\", \"connect\", \"send\", \"option\", \"sethostname\"]\n";
const LONGEST: Duration = Duration::from_mins(3);

struct TestHost;

impl Directory for TestHost {
    fn user(&self, name: &str) -> Option<u32> {
        (name == "tester").then(process::effective_uid)
    }

    fn group(&self, _: &str) -> Option<u32> {
        None
    }
}

impl Host for TestHost {
    fn capture_limits(&self) -> CaptureLimits {
        CaptureLimits { of_user: 2, in_all: 3, bytes_of_user: 3 << 20, bytes_in_all: 4 << 20 }
    }

    fn policy(&mut self, memory: OwnedFd) -> Result<Policy, String> {
        let text = sealed::read(memory.as_fd(), 1 << 20).map_err(|error| error.to_string())?;
        let text = format!("version = 1\n{}", String::from_utf8_lossy(&text));
        let rules = read("p", &text, self).map_err(|error| error.to_string())?.rules;
        Ok(Policy::new(970, rules.into_iter().map(|(rule, _)| rule).collect(), false))
    }

    fn confine(&mut self, _: OwnedFd, _: &Policy) -> Result<Description, String> {
        Ok(Description(vec![7]))
    }

    fn network_folders(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn replaced(&mut self, _: &Policy) {}
}

/// The monitor's side.
struct Monitor {
    channel: Channel<ToOpener, FromOpener>,
    thread: JoinHandle<Result<(), RunError>>,
}

impl Monitor {
    fn start(rules: &str) -> Self {
        let (channel, other) = Channel::<ToOpener, FromOpener>::pair().unwrap();
        let thread = std::thread::spawn(move || run(other, TestHost));
        channel.send(&ToOpener::Hello(Build::OWN), &[]).unwrap();
        let [configuration, policy] = ["", rules].map(memory);
        let begin = ToOpener::Begin { generation: 1 };
        channel.send(&begin, &[configuration.as_fd(), policy.as_fd()]).unwrap();
        let monitor = Self { channel, thread };
        assert_eq!(monitor.next(), FromOpener::Hello(Build::OWN));
        assert_eq!(monitor.next(), FromOpener::Ready(Description(vec![7])));
        monitor
    }

    fn next(&self) -> FromOpener {
        let mut events = Events::new().unwrap();
        events.add(self.channel.as_fd(), 0).unwrap();
        assert!(!events.wait(Some(LONGEST)).unwrap().is_empty(), "no message");
        self.channel.receive().unwrap().0
    }

    fn has_message(&self) -> bool {
        let mut events = Events::new().unwrap();
        events.add(self.channel.as_fd(), 0).unwrap();
        !events.wait(Some(Duration::ZERO)).unwrap().is_empty()
    }

    fn send(&self, message: &ToOpener) {
        self.channel.send(message, &[]).unwrap();
    }

    /// The socket of a new worker of this process's user, for prompt requests.
    fn worker_socket(&self, worker: u64) -> OwnedFd {
        let [prompt, _slow] = self.worker_sockets(worker);
        prompt
    }

    /// Both sockets.
    fn worker_sockets(&self, worker: u64) -> [OwnedFd; 2] {
        let (one, _other) = UnixStream::pair().unwrap();
        let Credentials { uid, gid, groups, network } = credentials::of_peer(one.as_fd()).unwrap();
        let peer = WorkerPeer { uid, account: uid, gid, groups, network, remote: None };
        let ((prompt, of_prompt), (slow, of_slow)) =
            (record::pair().unwrap(), record::pair().unwrap());
        let peer = sealed::create("peer", &postcard::to_stdvec(&peer).unwrap()).unwrap();
        let descriptors = [of_prompt.as_fd(), of_slow.as_fd(), peer.as_fd()];
        self.channel.send(&ToOpener::Worker { worker }, &descriptors).unwrap();
        [prompt, slow]
    }

    fn worker(&self, worker: u64) -> OpenerChannel {
        OpenerChannel::over(self.worker_socket(worker), LONGEST).unwrap()
    }

    /// A connection that was passed to a worker, and the client's end.
    fn connection(&self, worker: u64) -> (UnixStream, UnixStream) {
        let (own, client) = UnixStream::pair().unwrap();
        let cookie = socket::cookie(own.as_fd()).unwrap();
        self.send(&ToOpener::Accepted { worker, cookie });
        (own, client)
    }

    fn expect_nonsense(&self, worker: u64) {
        assert_eq!(self.next(), FromOpener::Nonsense { worker });
    }

    fn end(self) {
        drop(self.channel);
        self.thread.join().unwrap().unwrap();
    }
}

fn memory(text: &str) -> OwnedFd {
    sealed::create("test", text.as_bytes()).unwrap()
}

/// What comes of a request.
fn ask(
    asker: &OpenerChannel,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<Answer> {
    ask_for_socket(asker, request, descriptors).map(|(answer, _)| answer)
}

/// The same with the socket that comes before the answer.
fn ask_for_socket(
    asker: &OpenerChannel,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<(Answer, Option<OwnedFd>)> {
    let failed = |error: AskError<Answer>| io::Error::other(error.to_string());
    let (answer, made) = asker.ask(&request.clone().into(), descriptors).map_err(failed)?;
    if answer != Answer::Made {
        return Ok((answer, None));
    }
    let (answer, _) = asker.answer().map_err(failed)?;
    Ok((answer, made.into_iter().next()))
}

/// A request that no capability is needed for.
const NETLINK: Request =
    Request::Create { domain: libc::AF_NETLINK, ty: libc::SOCK_RAW, protocol: 0 };

fn mark(value: i32) -> Request {
    let value = Value::Bytes(value.to_ne_bytes().to_vec());
    Request::SetOption { level: libc::SOL_SOCKET, name: libc::SO_MARK, value }
}

fn raw_address(address: &Address) -> Vec<u8> {
    RawAddress::encode(address).as_bytes().to_vec()
}

fn inet(port: u16) -> Vec<u8> {
    raw_address(&Address::Inet { host: [127, 0, 0, 1].into(), port })
}

/// Whether this process has the capabilities of the network.
fn is_privileged() -> bool {
    socket::create(libc::AF_PACKET, libc::SOCK_RAW, 0).is_ok()
}

#[test]
fn sockets_are_made_and_changed_for_a_connection() {
    let monitor = Monitor::start(ALL);
    let worker = monitor.worker(16);
    let (connection, _client) = monitor.connection(16);
    let (answer, made) = ask_for_socket(&worker, &NETLINK, &[connection.as_fd()]).unwrap();
    assert_eq!(answer, Answer::Socket);
    let spec = socket::spec_of(made.unwrap().as_fd()).unwrap();
    assert_eq!((spec.domain, spec.protocol), (libc::AF_NETLINK, libc::NETLINK_ROUTE));
    let raw = Request::Create { domain: libc::AF_INET, ty: libc::SOCK_RAW, protocol: 1 };
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = socket::create(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    let bind = Request::Bind { address: inet(81) };
    let answers = [
        ask(&worker, &raw, &[connection.as_fd()]).unwrap(),
        ask(&worker, &mark(7), &[connection.as_fd(), udp.as_fd()]).unwrap(),
        ask(&worker, &bind, &[connection.as_fd(), tcp.as_fd()]).unwrap(),
    ];
    if is_privileged() {
        assert_eq!(answers, [Answer::Socket, Answer::Done, Answer::Done]);
        assert_eq!(option::get_int(udp.as_fd(), libc::SOL_SOCKET, libc::SO_MARK).unwrap(), 7);
        let again = ask(&worker, &bind, &[connection.as_fd(), tcp.as_fd()]).unwrap();
        assert_eq!(again, Answer::Failed(libc::EINVAL));
    } else {
        let [eperm, eacces] = [libc::EPERM, libc::EACCES].map(Answer::Failed);
        assert_eq!(answers, [eperm.clone(), eperm, eacces]);
    }
    monitor.end();
}

#[test]
fn the_socket_for_sio_rcvall_drops_everything() {
    if !is_privileged() {
        return;
    }
    let monitor = Monitor::start(ALL);
    let worker = monitor.worker(16);
    let (connection, _client) = monitor.connection(16);
    let rcvall = Request::Create { domain: libc::AF_INET, ty: libc::SOCK_RAW, protocol: 0 };
    let (answer, made) = ask_for_socket(&worker, &rcvall, &[connection.as_fd()]).unwrap();
    let made = made.unwrap();
    assert_eq!(answer, Answer::Socket);
    assert_eq!(socket::spec_of(made.as_fd()).unwrap().domain, libc::AF_PACKET);
    let everything =
        Address::Packet { ifindex: 1, protocol: 3, pkttype: 0, hatype: 0, addr: Vec::new() };
    socket::bind(made.as_fd(), &RawAddress::encode(&everything)).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.send_to(b"x", udp.local_addr().unwrap()).unwrap();
    udp.recv(&mut [0; 2]).unwrap();
    assert!(message::receive(made.as_fd(), 100, libc::MSG_DONTWAIT).is_err());
    monitor.end();
}

#[test]
fn a_message_with_a_mark_is_sent() {
    let monitor = Monitor::start(ALL);
    let worker = monitor.worker(16);
    let (connection, _client) = monitor.connection(16);
    let (udp, to) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let item = Control {
        level: libc::SOL_SOCKET,
        kind: libc::SO_MARK,
        data: 7_i32.to_ne_bytes().to_vec(),
    };
    let send = |destination, control: &[Control]| Request::Send {
        destination: Some(destination),
        flags: 0,
        control: control.to_vec(),
        data: b"marked".to_vec(),
    };
    let port = to.local_addr().unwrap().port();
    let descriptors = [connection.as_fd(), udp.as_fd()];
    let sent = ask(&worker, &send(inet(port), std::slice::from_ref(&item)), &descriptors).unwrap();
    if is_privileged() {
        assert_eq!(sent, Answer::Sent(6));
        let mut received = [0; 9];
        assert_eq!(to.recv(&mut received).unwrap(), 6);
    } else {
        assert_eq!(sent, Answer::Failed(libc::EPERM));
    }
    // No capability is needed, or the ids of the opener would count.
    assert_eq!(ask(&worker, &send(inet(port), &[]), &descriptors).unwrap(), Answer::NotServed);
    let forged = Control { kind: libc::SCM_CREDENTIALS, data: vec![0; 12], ..item.clone() };
    let forged = send(inet(port), &[item.clone(), forged]);
    assert_eq!(ask(&worker, &forged, &descriptors).unwrap(), Answer::NotServed);
    // The kernel would choose another destination than the one that was judged.
    let unspecified = raw_address(&Address::Inet { host: [0; 4].into(), port });
    let unspecified = send(unspecified, &[item]);
    let refused = Answer::Failed(libc::EACCES);
    assert_eq!(ask(&worker, &unspecified, &descriptors).unwrap(), refused);
    monitor.end();
}

#[test]
fn the_worker_has_the_only_copies_once_a_request_is_answered() {
    // Alone: a process that another test starts has copies of all descriptors until it executes its program.
    let test = "opener::tests::the_worker_has_the_only_copies_once_a_request_is_answered";
    namespace::inside(test, || {
        let monitor = Monitor::start(ALL);
        let worker = monitor.worker(16);
        let (connection, _client) = monitor.connection(16);
        // The kernel gives a port to one socket at a time. By itself it chooses process ids and negative numbers.
        let pid = 1_000_000_000 + std::process::id();
        let port = RawAddress::encode(&Address::Netlink { pid, groups: 0 });
        for _ in 0..1000 {
            let (answer, made) = ask_for_socket(&worker, &NETLINK, &[connection.as_fd()]).unwrap();
            assert_eq!(answer, Answer::Socket);
            let made = made.unwrap();
            socket::bind(made.as_fd(), &port).unwrap();
            drop(made);
            let next = socket::create(libc::AF_NETLINK, libc::SOCK_RAW, 0).unwrap();
            socket::bind(next.as_fd(), &port).expect("the opener has no copy of what it made");
            let (left, right) = UnixStream::pair().unwrap();
            ask(&worker, &mark(7), &[connection.as_fd(), left.as_fd()]).unwrap();
            drop(left);
            let sent = message::send(right.as_fd(), b"to a closed peer", 0);
            assert_eq!(sent.unwrap_err().raw_os_error(), Some(libc::EPIPE));
        }
        monitor.end();
    });
}

#[test]
fn a_type_with_flags_is_not_served() {
    // libc marks it as deprecated, and the kernel serves it.
    const SOCK_PACKET: i32 = 10;
    let monitor = Monitor::start(ALL);
    let worker = monitor.worker(16);
    let (connection, _client) = monitor.connection(16);
    // The kernel makes a packet socket of each, and rules name neither type.
    for (domain, ty) in [(libc::AF_INET, SOCK_PACKET), (libc::AF_PACKET, libc::SOCK_RAW)] {
        let flagged = Request::Create { domain, ty: ty | libc::SOCK_NONBLOCK, protocol: 0 };
        let answer = ask(&worker, &flagged, &[connection.as_fd()]).unwrap();
        assert_eq!(answer, Answer::Failed(libc::EINVAL));
    }
    monitor.end();
}

#[test]
fn the_policy_of_the_opener_refuses_and_can_be_replaced() {
    let monitor = Monitor::start(NONE);
    let worker = monitor.worker(16);
    let (connection, _client) = monitor.connection(16);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let both = [connection.as_fd(), udp.as_fd()];
    let name = || Request::SetHostname { name: "mine".to_owned() };
    let bind = Request::Bind { address: inet(81) };
    for (request, count) in [(NETLINK, 1), (name(), 1), (bind, 2), (mark(7), 2)] {
        let answer = ask(&worker, &request, &both[..count]).unwrap();
        assert!(matches!(answer, Answer::Refused(_)), "{request:?} {answer:?}");
    }
    let policy = ToOpener::Policy { generation: 2 };
    monitor.channel.send(&policy, &[memory(ALL).as_fd()]).unwrap();
    assert_eq!(monitor.next(), FromOpener::InForce { generation: 2 });
    assert_eq!(ask(&worker, &NETLINK, &both[..1]).unwrap(), Answer::Socket);
    monitor.end();
}

#[test]
fn a_client_that_has_closed_its_connection_lends_its_name_to_nobody() {
    let monitor = Monitor::start(ALL);
    let worker = monitor.worker(16);
    let (connection, client) = monitor.connection(16);
    drop(client);
    assert_eq!(ask(&worker, &NETLINK, &[connection.as_fd()]).unwrap(), Answer::HungUp);
    monitor.end();
}

#[test]
fn only_connections_of_the_worker_count() {
    let monitor = Monitor::start(ALL);
    let (worker, other) = (monitor.worker(16), monitor.worker(17));
    let (connection, _client) = monitor.connection(16);
    let (ended, _client_of_ended) = monitor.connection(16);
    let cookie = socket::cookie(ended.as_fd()).unwrap();
    monitor.send(&ToOpener::Closed { worker: 16, cookie });
    assert_eq!(ask(&worker, &NETLINK, &[ended.as_fd()]).unwrap(), Answer::HungUp);
    // Once can be a race, twice is an attack.
    assert_eq!(ask(&other, &NETLINK, &[connection.as_fd()]).unwrap(), Answer::HungUp);
    assert!(ask(&other, &NETLINK, &[connection.as_fd()]).is_err());
    monitor.expect_nonsense(17);
    assert_eq!(ask(&worker, &NETLINK, &[connection.as_fd()]).unwrap(), Answer::Socket);
    monitor.send(&ToOpener::Ended { worker: 16 });
    assert_eq!(monitor.next(), FromOpener::Forgotten);
    assert!(ask(&worker, &NETLINK, &[connection.as_fd()]).is_err());
    monitor.end();
}

#[test]
fn what_no_capability_makes_possible_is_left_to_the_worker() {
    let monitor = Monitor::start(ALL);
    let worker = monitor.worker(16);
    let (connection, _client) = monitor.connection(16);
    let tcp = socket::create(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    let both = [connection.as_fd(), tcp.as_fd()];
    let create = Request::Create { domain: libc::AF_INET, ty: libc::SOCK_STREAM, protocol: 0 };
    let reuse = Request::SetOption {
        level: libc::SOL_SOCKET,
        name: libc::SO_REUSEADDR,
        value: Value::Bytes(vec![1, 0, 0, 0]),
    };
    let connect = Request::Connect { address: inet(80) };
    for (request, count) in [(create, 1), (reuse, 2), (connect, 2)] {
        let answer = ask(&worker, &request, &both[..count]).unwrap();
        assert_eq!(answer, Answer::NotServed, "{request:?}");
    }
    // The facts of the socket count, whatever the worker takes it for.
    let unix = socket::create(libc::AF_UNIX, libc::SOCK_STREAM, 0).unwrap();
    let bind = Request::Bind { address: inet(81) };
    let on_unix = ask(&worker, &bind, &[connection.as_fd(), unix.as_fd()]).unwrap();
    assert_eq!(on_unix, Answer::NotServed);
    let host = std::net::Ipv6Addr::LOCALHOST;
    let six = raw_address(&Address::Inet6 { host, port: 81, flowinfo: 0, scope_id: 0 });
    let other_family = ask(&worker, &Request::Bind { address: six }, &both).unwrap();
    assert_eq!(other_family, Answer::Failed(libc::EAFNOSUPPORT));
    monitor.end();
}

#[test]
fn nonsense_ends_the_worker_and_no_other() {
    let monitor = Monitor::start(ALL);
    let other = monitor.worker(1000);
    let (others, _client_of_other) = monitor.connection(1000);
    let file = File::open("/dev/null").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let long = Request::Send {
        destination: None,
        flags: 0,
        control: Vec::new(),
        data: vec![0; DATA_MAX + 1],
    };
    let pointer = Request::SetOption {
        level: libc::SOL_SOCKET,
        name: libc::SO_ATTACH_FILTER,
        value: Value::Bytes(vec![0; 16]),
    };
    let encode =
        |request: &Request| postcard::to_stdvec(&OpenerRequest::from(request.clone())).unwrap();
    let cases: [(Vec<u8>, usize, Option<BorrowedFd<'_>>); 8] = [
        (vec![200], 1, None),
        (encode(&NETLINK), 0, None),
        (encode(&NETLINK), 1, Some(udp.as_fd())),
        (encode(&mark(1)), 1, None),
        (encode(&mark(1)), 1, Some(file.as_fd())),
        (encode(&long), 1, Some(udp.as_fd())),
        (encode(&pointer), 1, Some(udp.as_fd())),
        ([encode(&NETLINK), vec![0]].concat(), 1, None),
    ];
    for (number, (bytes, connections, further)) in (16..).zip(cases) {
        let worker = monitor.worker_socket(number);
        let (connection, _client) = monitor.connection(number);
        let mut descriptors = vec![connection.as_fd(); connections];
        descriptors.extend(further);
        record::send(worker.as_fd(), &bytes, &descriptors).unwrap();
        monitor.expect_nonsense(number);
        assert_eq!(ask(&other, &NETLINK, &[others.as_fd()]).unwrap(), Answer::Socket);
    }
    monitor.end();
}

/// Whether a thread serves a worker.
fn has_thread(worker: u64) -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // One that ends meanwhile has no name.
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.into_iter().any(|name| name.trim() == format!("worker {worker}"))
}

/// The opener closes the copy of a connection without a timer, because the worker has another one.
#[test]
fn a_connection_whose_last_close_waits_holds_no_thread_longer_than_its_worker_lives() {
    const WORKER: u64 = 4711;
    let monitor = Monitor::start(ALL);
    let worker = monitor.worker_socket(WORKER);
    let (connection, client) = monitor.connection(WORKER);
    let (lingering, _peer) = lingering();
    stream::send_stream(client.as_fd(), &[IoSlice::new(b"x")], &[lingering.as_fd()]).unwrap();
    let bytes = postcard::to_stdvec(&OpenerRequest::from(NETLINK)).unwrap();
    record::send(worker.as_fd(), &bytes, &[connection.as_fd()]).unwrap();
    // The opener has the last copy of both, unless it was quicker.
    std::thread::spawn(move || drop((connection, lingering)));
    let began = Instant::now();
    monitor.send(&ToOpener::Ended { worker: WORKER });
    while has_thread(WORKER) {
        assert!(began.elapsed() < LONGEST, "it waits for the peer");
        std::thread::yield_now();
    }
    monitor.end();
}

/// A socket whose close waits an hour for its peer, and the peer.
fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let lingering = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    let linger = [1_i32.to_ne_bytes(), 3600_i32.to_ne_bytes()].concat();
    option::set_bytes(lingering.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
    while message::send(lingering.as_fd(), &[0; 10_000], libc::MSG_DONTWAIT).is_ok() {}
    (lingering, peer)
}

#[test]
fn a_socket_that_lingers_does_not_delay_others() {
    let monitor = Monitor::start(ALL);
    let worker = monitor.worker_socket(16);
    let other = monitor.worker(17);
    let (connection, _client) = monitor.connection(16);
    let (others, _client_of_other) = monitor.connection(17);
    let (lingering, _peer) = lingering();
    // The last descriptors are those of the opener, in a request and in a channel that it closes.
    let bytes = postcard::to_stdvec(&OpenerRequest::from(mark(1))).unwrap();
    let both = [connection.as_fd(), lingering.as_fd()];
    record::send(worker.as_fd(), &bytes, &both).unwrap();
    record::send(worker.as_fd(), &bytes, &both).unwrap();
    let began = Instant::now();
    // In a thread, because this copy can be the last one after all.
    std::thread::spawn(move || drop(lingering));
    monitor.send(&ToOpener::Ended { worker: 16 });
    assert_eq!(ask(&other, &NETLINK, &[others.as_fd()]).unwrap(), Answer::Socket);
    assert!(began.elapsed() < LONGEST, "{:?}", began.elapsed());
    monitor.end();
}

#[test]
fn requests_on_one_channel_do_not_wait_for_those_on_the_other() {
    let monitor = Monitor::start(ALL);
    let [prompt, slow] = monitor.worker_sockets(16);
    let (connection, _client) = monitor.connection(16);
    let prompt = OpenerChannel::over(prompt, LONGEST).unwrap();
    let request = postcard::to_stdvec(&OpenerRequest::from(NETLINK)).unwrap();
    let both = [connection.as_fd()];
    // Nobody receives the answers to these.
    for _ in 0..64 {
        record::send(slow.as_fd(), &request, &both).unwrap();
        assert_eq!(ask(&prompt, &NETLINK, &both).unwrap(), Answer::Socket);
    }
    monitor.end();
}

#[test]
fn a_worker_that_does_not_read_its_answers_ends_on_both_channels() {
    let monitor = Monitor::start(ALL);
    let [prompt, slow] = monitor.worker_sockets(16);
    let (connection, _client) = monitor.connection(16);
    let request = postcard::to_stdvec(&OpenerRequest::from(NETLINK)).unwrap();
    // Until there is no room for a further answer. Now and then there is none for a request.
    while !monitor.has_message() {
        record::send(slow.as_fd(), &request, &[connection.as_fd()]).ok();
    }
    monitor.expect_nonsense(16);
    let prompt = OpenerChannel::over(prompt, LONGEST).unwrap();
    assert!(ask(&prompt, &NETLINK, &[connection.as_fd()]).is_err());
    monitor.end();
}

#[test]
fn another_build_is_refused() {
    let (channel, other) = Channel::<ToOpener, FromOpener>::pair().unwrap();
    channel.send(&ToOpener::Ended { worker: 1 }, &[]).unwrap();
    assert!(matches!(run(other, TestHost), Err(RunError::Monitor(_))));
}
