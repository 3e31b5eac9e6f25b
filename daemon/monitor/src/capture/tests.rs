//! Captures on the loopback of a network namespace.

mod file;

use std::fs::File;
use std::io::Read as _;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::process::Command as Program;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use sockbroker_policy::capture_scope::CaptureScope;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::{interface, message, namespace, socket};
use sockbroker_test_support::skip::skip;

use super::*;
use file::{Found, Pcapng, word};

/// Everything on the loopback.
pub(crate) fn order() -> Order {
    Order {
        interfaces: vec!["lo".to_owned()],
        program: Vec::new(),
        snaplen: 262_144,
        direction: Direction::Both,
        promiscuous: false,
        duplicates: false,
        bulk: false,
        buffer_bytes: 1 << 20,
        format: Format::Pcapng,
        text: None,
        packets: None,
        bytes: None,
        milliseconds: None,
    }
}

/// The scopes of a capture that is allowed to see all packets, of at most two interfaces.
pub(crate) fn everything() -> [CaptureScope; 2] {
    [CaptureScope::default(), CaptureScope::default()]
}

/// How long an event may take.
const HANG: Duration = Duration::from_mins(1);

/// Runs a test on a thread in a new network namespace, in which the loopback is up.
fn in_namespace(test: &str, body: impl FnOnce() + Send + 'static) {
    let test = test.to_owned();
    let thread = thread::spawn(move || match namespace::enter_network() {
        Ok(()) => {
            interface::bring_up("lo").unwrap();
            body();
        }
        Err(_) => skip("needs CAP_SYS_ADMIN for a network namespace", &test),
    });
    thread.join().unwrap();
}

/// A capture, and what it reports.
struct Capture {
    captures: Captures,
    events: Receiver<Event>,
    stream: Option<File>,
    live: Live,
    interfaces: Vec<Interface>,
}

impl Capture {
    fn begin(order: Order) -> Self {
        let (sender, events) = channel();
        let captures = Captures::new(Arc::new(move |event| sender.send(event).unwrap_or_default()));
        let (socket, opened) = open(order, &everything()).unwrap();
        let interfaces = opened.interfaces();
        captures.start(1, opened, socket);
        match events.recv_timeout(HANG).unwrap() {
            Event::Live { capture: 1, live, stream } => {
                Self { captures, events, stream: Some(File::from(stream)), live, interfaces }
            }
            other => panic!("{other:?}"),
        }
    }

    fn counts(&self) -> Counts {
        self.captures.command(1, Command::Counts { request: 7 });
        match self.events.recv_timeout(HANG).unwrap() {
            Event::Counts { request: 7, counts } => counts.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn stop(&self) {
        self.captures.command(1, Command::Stop { linger: 0 });
    }

    fn ended(&self) -> Ended {
        let ended = match self.events.recv_timeout(HANG).unwrap() {
            Event::Ended { capture: 1, ended } => ended,
            other => panic!("{other:?}"),
        };
        assert!(matches!(self.events.recv_timeout(HANG), Ok(Event::Closed { capture: 1 })));
        assert_eq!(self.captures.running(), 0);
        let Counts { seen, captured, dropped, unread, .. } = ended.counts;
        assert_eq!(captured + dropped + unread, seen);
        ended
    }

    /// Reads the stream to its end.
    fn read(&mut self) -> Pcapng {
        let mut bytes = Vec::new();
        self.stream.as_mut().unwrap().read_to_end(&mut bytes).unwrap();
        Pcapng::parse(&bytes)
    }
}

/// Sends datagrams over the loopback.
struct Sender(UdpSocket);

impl Sender {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(socket.local_addr().unwrap()).unwrap();
        Self(socket)
    }

    fn send(&self, data: &[u8]) {
        self.0.send(data).unwrap();
    }
}

/// The data of the datagrams in a file.
fn datagrams(file: &Pcapng) -> Vec<Vec<u8>> {
    file.packets().into_iter().map(|packet| packet.data[42..].to_vec()).collect()
}

fn ip(arguments: &str) {
    let status = Program::new("ip").args(arguments.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

#[test]
fn a_capture_has_every_packet_from_its_start_to_its_stop() {
    in_namespace("capture", || {
        for bulk in [false, true] {
            let sender = Sender::new();
            for number in 0..20_u32 {
                sender.send(b"before");
                let mut capture = Capture::begin(Order { bulk, ..order() });
                assert!(capture.live.bind_began <= capture.live.started);
                assert_eq!(capture.live.interfaces[0].name, "lo");
                for part in 0..100_u32 {
                    sender.send(&(number * 100 + part).to_le_bytes());
                }
                capture.stop();
                let ended = capture.ended();
                sender.send(b"after");
                let file = capture.read();
                let expected: Vec<_> =
                    (0..100).map(|part| (number * 100 + part).to_le_bytes().to_vec()).collect();
                assert_eq!(datagrams(&file), expected);
                assert_eq!((ended.reason, ended.complete), (Reason::Stopped, true));
                assert_eq!((ended.counts.seen, ended.counts.bytes), (100, 4600));
                assert_eq!(file.statistics(), ([100, 0, 100], "stopped".to_owned()));
                let flags: Vec<_> = file.packets().iter().map(|packet| packet.flags).collect();
                assert_eq!(flags, [0b101; 100], "inbound, unicast");
            }
        }
    });
}

#[test]
fn packets_are_in_the_stream_before_the_capture_ends() {
    in_namespace("capture", || {
        let mut capture = Capture::begin(order());
        let sender = Sender::new();
        let mut bytes: Vec<u8> = Vec::new();
        for number in 0..50_u8 {
            sender.send(&[number; 8]);
            while !bytes.windows(8).any(|part| part == [number; 8]) {
                let mut part = [0; 4096];
                let length = capture.stream.as_mut().unwrap().read(&mut part).unwrap();
                bytes.extend(&part[..length]);
            }
        }
        assert_eq!(capture.counts().captured, 50);
        capture.stop();
        assert_eq!(capture.ended().counts.captured, 50);
    });
}

#[test]
fn a_client_that_does_not_read_loses_packets_which_are_counted() {
    in_namespace("capture", || {
        for bulk in [false, true] {
            let buffer_bytes = 4 << 20;
            let mut capture = Capture::begin(Order { bulk, buffer_bytes, ..order() });
            let sender = Sender::new();
            for _ in 0..10_000 {
                sender.send(&[7; 1000]);
            }
            let counts = capture.counts();
            assert_eq!(counts.seen, 10_000);
            assert!(counts.dropped > 0 && counts.unread > 0, "{counts:?}");
            capture.stop();
            let ended = capture.ended();
            assert!(!ended.complete && ended.counts.seen == 10_000, "{ended:?}");
            let packets = capture.read().packets().len() as u64;
            assert_eq!(packets, ended.counts.captured);
        }
    });
}

#[test]
fn drops_are_reported_at_the_packets_after_them() {
    in_namespace("capture", || {
        for bulk in [false, true] {
            let mut capture = Capture::begin(Order { bulk, buffer_bytes: 256 << 10, ..order() });
            let sender = Sender::new();
            for _ in 0..10_000 {
                sender.send(&[7; 1000]);
            }
            let stream = capture.stream.take().unwrap();
            let reader = thread::spawn(move || {
                let (mut stream, mut bytes) = (stream, Vec::new());
                stream.read_to_end(&mut bytes).unwrap();
                Pcapng::parse(&bytes)
            });
            // Until what was in the ring is read.
            while capture.counts().unread > 0 {
                thread::yield_now();
            }
            for _ in 0..10 {
                sender.send(&[8; 1000]);
                thread::yield_now();
            }
            capture.stop();
            let ended = capture.ended();
            let file = reader.join().unwrap();
            let (packets, counts) = (file.packets(), ended.counts);
            assert!(ended.complete && counts.unread == 0 && counts.seen == 10_010, "{ended:?}");
            assert_eq!(packets.len() as u64, counts.captured);
            let dropped: u64 = packets.iter().map(|packet| packet.dropped).sum();
            assert_eq!(dropped, counts.dropped);
            assert!(dropped > 0);
            let counted = [counts.seen, counts.dropped, counts.captured];
            assert_eq!(file.statistics(), (counted, "stopped".to_owned()));
        }
    });
}

#[test]
fn a_client_that_closes_the_stream_ends_the_capture() {
    in_namespace("capture", || {
        let mut capture = Capture::begin(order());
        drop(capture.stream.take());
        let ended = capture.ended();
        assert_eq!((ended.reason, ended.counts.seen), (Reason::Unread, 0));
        capture.captures.command(1, Command::Counts { request: 9 });
        let late = capture.events.recv_timeout(HANG).unwrap();
        assert!(matches!(late, Event::Counts { request: 9, counts: None }), "{late:?}");
    });
}

#[test]
fn limits_on_packets_bytes_and_time_end_the_capture() {
    in_namespace("capture", || {
        let sender = Sender::new();
        let mut capture = Capture::begin(Order { packets: Some(3), ..order() });
        for _ in 0..10 {
            sender.send(b"x");
        }
        let ended = capture.ended();
        assert_eq!((ended.reason, ended.complete), (Reason::Limit, true));
        assert_eq!(ended.counts.captured, 3);
        let file = capture.read();
        assert_eq!((file.packets().len(), file.statistics().1), (3, "limit".to_owned()));

        let mut capture = Capture::begin(Order { bytes: Some(100), ..order() });
        for _ in 0..10 {
            sender.send(&[7; 8]);
        }
        // 50 bytes each.
        assert_eq!(capture.ended().counts.captured, 2);
        assert_eq!(capture.read().packets().len(), 2);

        let mut capture = Capture::begin(Order { milliseconds: Some(1), ..order() });
        assert_eq!(capture.ended().reason, Reason::Limit);
        assert_eq!(capture.read().statistics().0, [0; 3]);
    });
}

#[test]
fn a_linger_captures_what_comes_meanwhile() {
    in_namespace("capture", || {
        let sender = Sender::new();
        // On a machine that is slow, the packet can come too late: then one that lingers longer.
        for linger in [20, 200, 2000, 20_000, 200_000] {
            let capture = Capture::begin(order());
            let began = Instant::now();
            capture.captures.command(1, Command::Stop { linger });
            sender.send(b"x");
            let took = began.elapsed();
            let ended = capture.ended();
            assert_eq!(ended.reason, Reason::Stopped);
            if ended.counts.captured == 1 {
                return;
            }
            assert!(took >= Duration::from_millis(linger.into()), "{took:?}");
        }
        panic!("no packet came in time");
    });
}

#[test]
fn a_new_filter_holds_after_its_answer() {
    in_namespace("capture", || {
        // Returns the length 0 or 262144 whatever the packet is.
        let program = |length: u32| [&[6, 0, 0, 0][..], &length.to_ne_bytes()].concat();
        let mut capture = Capture::begin(Order { program: program(0), ..order() });
        let sender = Sender::new();
        sender.send(b"excluded");
        for (round, length) in [262_144, 0, 262_144].into_iter().enumerate() {
            let order = Order { program: program(length), ..order() };
            let program = joined(&order, &capture.interfaces, &everything()).unwrap();
            capture.captures.command(1, Command::SetFilter { request: 5, program });
            let answer = capture.events.recv_timeout(HANG).unwrap();
            let Event::Filter { request: 5, result: Some(Ok((before, after))) } = answer else {
                panic!("{answer:?}");
            };
            assert!(before <= after && before >= capture.live.started);
            sender.send(&[u8::try_from(round).unwrap()]);
        }
        let invalid = Command::SetFilter { request: 6, program: vec![0xff; 8] };
        capture.captures.command(1, invalid);
        let answer = capture.events.recv_timeout(HANG).unwrap();
        let refused = Event::Filter { request: 6, result: Some(Err(Failure(libc::EINVAL))) };
        assert_eq!(format!("{answer:?}"), format!("{refused:?}"));
        capture.stop();
        capture.ended();
        assert_eq!(datagrams(&capture.read()), [[0], [2]]);
    });
}

#[test]
fn the_loopback_shows_each_packet_once_and_directions_select() {
    in_namespace("capture", || {
        let count = |order: Order| {
            let capture = Capture::begin(order);
            Sender::new().send(b"x");
            capture.stop();
            capture.ended().counts.captured
        };
        let direction = |direction| Order { direction, ..order() };
        assert_eq!(count(order()), 1);
        assert_eq!(count(Order { duplicates: true, ..order() }), 2);
        assert_eq!(count(direction(Direction::In)), 1);
        assert_eq!(count(direction(Direction::Out)), 1);
        assert_eq!(count(Order { interfaces: Vec::new(), ..order() }), 1);
    });
}

fn frame(tags: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], tags, &[0x88, 0xb5], &[9; 60]].concat()
}

/// Waits until the pair of interfaces transmits.
fn until_up() {
    let is_up = |name| {
        let shown = Program::new("ip").args(["-o", "link", "show", name]).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).contains("state UP")
    };
    while !(is_up("v0") && is_up("v1")) {
        thread::yield_now();
    }
}

/// A pair of interfaces that transmit to each other.
fn make_pair() {
    ip("link add v0 type veth peer name v1");
    ip("link set v0 up");
    ip("link set v1 up");
    until_up();
}

/// Sends a frame on an interface.
fn transmit(name: &str, frame: &[u8]) {
    let sender = socket::create(libc::AF_PACKET, libc::SOCK_RAW, 0).unwrap();
    let ifindex = interface::index_of(name).unwrap();
    let (protocol, pkttype, hatype, addr) = (3, 0, 0, Vec::new());
    let address =
        sockbroker_proto::address::Address::Packet { ifindex, protocol, pkttype, hatype, addr };
    socket::bind(sender.as_fd(), &RawAddress::encode(&address)).unwrap();
    message::send(sender.as_fd(), frame, 0).unwrap();
}

#[test]
fn tags_stand_in_their_place() {
    in_namespace("capture", || {
        make_pair();
        let tags: [&[u8]; 6] = [
            &[],
            &[0x81, 0, 0, 100],
            &[0x81, 0, 0xb0, 100],
            &[0x88, 0xa8, 0, 200, 0x81, 0, 0, 100],
            &[0x81, 0, 0, 200, 0x81, 0, 0, 100],
            &[0x81, 0, 0, 0],
        ];
        for name in ["v0", "v1"] {
            // Frames of this type alone: the kernel sends some by itself.
            let mut capture =
                Capture::begin(Order { interfaces: vec![name.to_owned()], ..order() });
            for tags in tags {
                transmit("v0", &frame(tags));
            }
            capture.stop();
            capture.ended();
            let packets = capture.read().packets();
            let own = packets.into_iter().filter(|one| one.data.ends_with(&[9; 60]));
            let found: Vec<_> = own.map(|one| (one.length as usize, one.data)).collect();
            let sent: Vec<_> = tags.iter().map(|tags| frame(tags)).collect();
            let expected: Vec<_> = sent.into_iter().map(|sent| (sent.len(), sent)).collect();
            assert_eq!(found, expected, "{name}");
        }
    });
}

#[test]
fn a_snaplen_cuts_packets_and_keeps_their_lengths() {
    in_namespace("capture", || {
        for bulk in [false, true] {
            let mut capture = Capture::begin(Order { snaplen: 64, bulk, ..order() });
            Sender::new().send(&vec![7; 60_000]);
            transmit("lo", &frame(&[0x81, 0, 0, 100]));
            capture.stop();
            capture.ended();
            let packets = capture.read().packets();
            let lengths: Vec<_> = packets.iter().map(|one| (one.data.len(), one.length)).collect();
            assert_eq!(lengths, [(64, 60_042), (68, 78)]);
        }
        let mut capture = Capture::begin(order());
        Sender::new().send(&vec![7; 60_000]);
        capture.stop();
        capture.ended();
        assert_eq!(capture.read().packets()[0].data.len(), 60_042);
    });
}

#[test]
fn all_interfaces_have_a_block_each_also_those_that_come_later() {
    in_namespace("capture", || {
        let mut capture = Capture::begin(Order { interfaces: Vec::new(), ..order() });
        Sender::new().send(b"x");
        make_pair();
        transmit("v0", &frame(&[]));
        capture.stop();
        capture.ended();
        let file = capture.read();
        let names = file.interfaces();
        assert_eq!(names[0], "lo");
        for name in ["v0", "v1"] {
            let number = names.iter().position(|found| found == name).unwrap();
            let is_own = |one: &&Found| one.data == frame(&[]) && one.interface as usize == number;
            assert_eq!(file.packets().iter().filter(is_own).count(), 1, "{name}");
        }
    });
}

#[test]
fn several_interfaces_exclude_the_others() {
    in_namespace("capture", || {
        make_pair();
        let interfaces = vec!["lo".to_owned(), "v1".to_owned()];
        let mut capture = Capture::begin(Order { interfaces, ..order() });
        Sender::new().send(b"x");
        transmit("v0", &frame(&[]));
        capture.stop();
        capture.ended();
        let file = capture.read();
        assert_eq!(file.interfaces(), ["lo", "v1"]);
        let own = file.packets().into_iter().filter(|one| one.data == frame(&[]));
        assert_eq!(own.map(|one| one.interface).collect::<Vec<_>>(), [1]);
    });
}

#[test]
fn an_interface_that_goes_down_stays_and_one_that_is_removed_ends_the_capture() {
    in_namespace("capture", || {
        ip("link add v0 type veth peer name v1");
        let interfaces = vec!["v1".to_owned()];
        // It is down at the start.
        let mut capture = Capture::begin(Order { interfaces, ..order() });
        ip("link set v0 up");
        ip("link set v1 up");
        until_up();
        transmit("v0", &frame(&[]));
        ip("link set v1 down");
        ip("link set v1 up");
        until_up();
        transmit("v0", &frame(&[0x81, 0, 0, 1]));
        ip("link del v0");
        let ended = capture.ended();
        assert_eq!((ended.reason, ended.complete), (Reason::InterfaceGone, true));
        let file = capture.read();
        let own = file.packets().into_iter().filter(|one| one.data.ends_with(&[9; 60]));
        assert_eq!(own.count(), 2);
        assert_eq!(file.statistics().1, "interface");
    });
}

#[test]
fn pcap_is_written_for_one_interface() {
    in_namespace("capture", || {
        let mut capture = Capture::begin(Order { format: Format::Pcap, ..order() });
        Sender::new().send(b"x");
        capture.stop();
        capture.ended();
        let mut bytes = Vec::new();
        capture.stream.take().unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!((word(&bytes, 0), word(&bytes, 20)), (0xa1b2_3c4d, 1));
        assert_eq!((bytes.len(), word(&bytes, 32), word(&bytes, 36)), (24 + 16 + 43, 43, 43));
        assert!(
            !Order { format: Format::Pcap, interfaces: Vec::new(), ..order() }.is_within_limits()
        );
    });
}

#[test]
fn orders_that_no_socket_can_serve_fail() {
    in_namespace("capture", || {
        let failed = |order| open(order, &everything()).unwrap_err().raw_os_error();
        let interfaces = vec!["nonexistent0".to_owned()];
        assert_eq!(failed(Order { interfaces, ..order() }), Some(libc::ENODEV));
        assert_eq!(failed(Order { program: vec![0xff; 8], ..order() }), None);
        assert_eq!(failed(Order { program: vec![0; 7], ..order() }), None);
        assert_eq!(failed(Order { buffer_bytes: 1, ..order() }), None);
    });
}

#[test]
fn a_socket_without_a_ring_does_not_begin() {
    in_namespace("capture", || {
        let (sender, events) = channel();
        let captures = Captures::new(Arc::new(move |event| sender.send(event).unwrap()));
        let (socket, opened) = open(order(), &everything()).unwrap();
        drop(socket);
        let other = socket::create(libc::AF_PACKET, libc::SOCK_RAW, 0).unwrap();
        captures.start(3, opened, other);
        let event = events.recv_timeout(HANG).unwrap();
        assert!(matches!(event, Event::NotLive { capture: 3, .. }), "{event:?}");
        assert!(matches!(events.recv_timeout(HANG), Ok(Event::Closed { capture: 3 })));
    });
}
