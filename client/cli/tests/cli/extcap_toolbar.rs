//! The toolbar of Wireshark: messages through two FIFOs change the filter and the interface of a capture.

use std::fs::File;
use std::io::{Read as _, Write as _};

use sockbroker_test_support::namespace;

use crate::extcap::{Extcap, fifo};
use crate::extcap_capture::{Capture, ended_quietly};
use crate::program::broker;
use crate::sniff::{compiler_or_skip, ip, send};
use crate::sniff_end::signal;

/// The numbers of controls and commands, from `wsdg_capture.adoc` of Wireshark.
const INTERFACE: u8 = 0;
const FILTER: u8 = 1;
const LOG: u8 = 2;
const NONE: u8 = 255;
const INITIALIZED: u8 = 0;
const SET: u8 = 1;
const ADD: u8 = 2;
const STATUS: u8 = 6;
const ERROR: u8 = 9;

/// The toolbar's ends of the FIFOs.
struct Toolbar {
    to: File,
    from: File,
}

impl Toolbar {
    /// Starts a capture with a toolbar.
    fn start(broker: &sockbroker_test_support::Daemon, arguments: &[&str]) -> (Capture, Self) {
        let extcap = Extcap::new();
        let [to, from] = ["in", "out"].map(|name| extcap.folder().join(name));
        fifo(&to);
        fifo(&from);
        let controls = ["--extcap-control-in", to.to_str().unwrap(), "--extcap-control-out"];
        let words = [&controls[..], &[from.to_str().unwrap()], arguments].concat();
        let capture = Capture::start_with(extcap, broker, "sockbroker-lo@env", &words);
        // Wireshark opens them in this order, and waits for each.
        let to = File::options().write(true).open(to).unwrap();
        let from = File::open(from).unwrap();
        (capture, Self { to, from })
    }

    fn send(&mut self, control: u8, command: u8, payload: &str) {
        let length = u32::try_from(payload.len() + 2).unwrap().to_be_bytes();
        let header = [b'T', length[1], length[2], length[3], control, command];
        self.to.write_all(&[&header, payload.as_bytes()].concat()).unwrap();
    }

    fn receive(&mut self) -> (u8, u8, String) {
        let mut header = [0; 6];
        self.from.read_exact(&mut header).unwrap();
        let [sync, high, middle, low, control, command] = header;
        assert_eq!(sync, b'T');
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        let mut payload = vec![0; length - 2];
        self.from.read_exact(&mut payload).unwrap();
        (control, command, String::from_utf8(payload).unwrap())
    }

    /// Waits for the answer that a change is in force.
    fn changed(&mut self) -> String {
        let (control, command, text) = self.receive();
        assert_eq!((control, command), (NONE, STATUS), "{text}");
        assert_eq!(self.receive(), (LOG, ADD, format!("{text}\n")));
        text
    }

    /// Waits for the answer that nothing was changed.
    fn refused(&mut self) -> String {
        let (control, command, text) = self.receive();
        assert_eq!((control, command), (LOG, ADD), "{text}");
        let text = text.trim_end().to_owned();
        assert_eq!(self.receive(), (NONE, ERROR, text.clone()));
        text
    }
}

#[test]
fn filter_is_replaced_during_the_capture() {
    const TEST: &str = "extcap_toolbar::filter_is_replaced_during_the_capture";
    namespace::inside(TEST, || {
        if !compiler_or_skip(TEST) {
            return;
        }
        let broker = broker();
        let (mut capture, mut toolbar) =
            Toolbar::start(&broker, &["--extcap-capture-filter", "udp dst port 7"]);
        capture.wait_until_live();
        toolbar.send(NONE, INITIALIZED, "");
        // The interfaces, the selected one, and the filter.
        for expected in [
            (INTERFACE, ADD, "lo\0lo"),
            (INTERFACE, ADD, "any\0all interfaces"),
            (INTERFACE, SET, "lo"),
            (FILTER, SET, "udp dst port 7"),
        ] {
            let (control, command, text) = toolbar.receive();
            assert_eq!((control, command, text.as_str()), expected);
        }
        let send_all = || [7, 8, 9].into_iter().for_each(|port| send("127.0.0.1", port));
        send_all();
        assert_eq!(capture.packet().1, 7);
        toolbar.send(FILTER, SET, "udp dst port 8");
        assert!(toolbar.changed().contains("\"udp dst port 8\""));
        send_all();
        assert_eq!(capture.packet().1, 8);
        toolbar.send(FILTER, SET, "udp dst port");
        let text = toolbar.refused();
        assert!(text.contains("cannot compile the filter \"udp dst port\": "), "{text}");
        send_all();
        assert_eq!(capture.packet().1, 8);
        toolbar.send(FILTER, SET, "");
        assert_eq!(toolbar.changed(), "all packets are captured");
        send("127.0.0.1", 9);
        // Nothing listens at the ports: answers of ICMP follow, whose bytes here are those of the datagram's header.
        assert_eq!(capture.packet().1, 9);
        signal(&capture.child, "TERM");
        assert_eq!(capture.rest().0, 0);
        ended_quietly(&capture.outcome().0);
    });
}

#[test]
fn capture_continues_on_another_interface() {
    const TEST: &str = "extcap_toolbar::capture_continues_on_another_interface";
    namespace::inside(TEST, || {
        if !compiler_or_skip(TEST) {
            return;
        }
        ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
        for (name, address) in [("v0", "10.80.0.1/24"), ("v1", "10.80.1.1/24")] {
            ip(&["link", "set", name, "addrgenmode", "none"]);
            ip(&["link", "set", name, "up"]);
            ip(&["address", "add", address, "dev", name]);
        }
        ip(&["neighbour", "add", "10.80.0.9", "lladdr", "02:00:00:00:00:09", "dev", "v0"]);
        let broker = broker();
        let (mut capture, mut toolbar) =
            Toolbar::start(&broker, &["--extcap-capture-filter", "udp"]);
        capture.wait_until_live();
        let send_all = || {
            send("127.0.0.1", 7);
            send("10.80.0.9", 8);
        };
        send_all();
        assert_eq!(capture.packet(), ("lo".to_owned(), 7));
        toolbar.send(INTERFACE, SET, "v0");
        assert_eq!(toolbar.changed(), "packets of v0 are captured");
        send_all();
        assert_eq!(capture.packet(), ("v0".to_owned(), 8));
        toolbar.send(INTERFACE, SET, "nowhere0");
        let text = toolbar.refused();
        assert!(text.contains("capture.open: ENODEV: ") && text.contains("nowhere0"), "{text}");
        send_all();
        assert_eq!(capture.packet(), ("v0".to_owned(), 8));
        // The filter stays in force, and a further one is that of the new interface.
        toolbar.send(FILTER, SET, "udp dst port 9");
        toolbar.changed();
        toolbar.send(INTERFACE, SET, "any");
        assert_eq!(toolbar.changed(), "packets of any are captured");
        send_all();
        send("127.0.0.1", 9);
        send("10.80.0.9", 9);
        let mut packets = [capture.packet(), capture.packet()];
        packets.sort();
        assert_eq!(packets, [("lo".to_owned(), 9), ("v0".to_owned(), 9)]);
        signal(&capture.child, "TERM");
        // One section, however many captures.
        assert_eq!(capture.rest().0, 0);
        ended_quietly(&capture.outcome().0);
    });
}

#[test]
fn capture_continues_without_its_toolbar() {
    const TEST: &str = "extcap_toolbar::capture_continues_without_its_toolbar";
    namespace::inside(TEST, || {
        let broker = broker();
        let (mut capture, toolbar) = Toolbar::start(&broker, &[]);
        capture.wait_until_live();
        drop(toolbar);
        send("127.0.0.1", 7);
        assert_eq!(capture.packet().1, 7);
        let (mut broken, mut toolbar) = Toolbar::start(&broker, &[]);
        broken.wait_until_live();
        // Not a message.
        toolbar.to.write_all(b"X\0\0\x02\0\0").unwrap();
        send("127.0.0.1", 7);
        assert_eq!(broken.packet().1, 7);
        for capture in [capture, broken] {
            signal(&capture.child, "TERM");
            ended_quietly(&capture.outcome().0);
        }
    });
}
