//! `sockbroker-extcap --capture`: what it writes, and its end on every cause.

use std::fs::File;
use std::io::Read as _;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Child;

use sockbroker_pcapng::{Block, Reader};
use sockbroker_test_support::{Daemon, Folder, Start, bounded, namespace};

use crate::extcap::{Extcap, failure, fifo};
use crate::program::{Outcome, PROGRAM, broker};
use crate::sniff::{compiler_or_skip, ip, pair, ping, send};
use crate::sniff_end::{signal, wait_until_signals_are_caught};

#[test]
fn fifo_is_opened_before_any_failure() {
    bounded(60, || {
        let extcap = Extcap::new();
        let path = extcap.folder().join("fifo");
        fifo(&path);
        for (arguments, part) in [
            (&["--extcap-interface", "sockbroker-lo@env"][..], "SOCKBROKER is not set"),
            (&["--extcap-interface", "sockbroker", "--broker", "nowhere:x"], "nowhere"),
            (&["--extcap-interface", "eth0"], "cannot use the interface"),
            (&["--extcap-interface", "sockbroker-lo", "--snaplen", "x"], "invalid value"),
            (&["--extcap-interface", "sockbroker-lo", "--log-file", "/none/x"], "/none/x: ENOENT"),
        ] {
            let capture = ["--capture", "--fifo", path.to_str().unwrap()];
            let child = extcap.command(&[arguments, &capture].concat()).spawn().unwrap();
            // dumpcap can open the FIFO later than the program fails: this waits until it has a writer.
            let mut reader = File::open(&path).unwrap();
            assert_eq!(reader.read(&mut [0]).unwrap(), 0);
            let outcome = Outcome::from(child.wait_with_output().unwrap());
            assert!(outcome.code != 0 && outcome.out.is_empty(), "{outcome:?}");
            assert_eq!(outcome.err.matches(part).count(), 1, "{outcome:?}");
        }
    });
}

/// A capture, and the FIFO that it is written to.
pub(crate) struct Capture {
    pub(crate) child: Child,
    pub(crate) reader: Reader<File>,
    extcap: Extcap,
    /// The names of the interfaces so far.
    interfaces: Vec<String>,
    /// The packets of each interface so far, by the counters.
    counted: Vec<u64>,
}

impl Capture {
    /// Starts a capture and opens its FIFO.
    pub(crate) fn start(broker: &Daemon, interface: &str, arguments: &[&str]) -> Self {
        Self::start_with(Extcap::new(), broker, interface, arguments)
    }

    pub(crate) fn start_with(
        extcap: Extcap,
        broker: &Daemon,
        interface: &str,
        arguments: &[&str],
    ) -> Self {
        let path = extcap.folder().join("fifo");
        fifo(&path);
        let child = start(&extcap, broker, interface, &path, arguments);
        let reader = Reader::new(File::open(path).unwrap());
        Self { child, reader, extcap, interfaces: Vec::new(), counted: Vec::new() }
    }

    /// Waits until the capture is live: it begins with the interface.
    pub(crate) fn wait_until_live(&mut self) {
        while self.interfaces.is_empty() {
            assert!(self.next().is_none(), "a packet before its interface");
        }
    }

    /// Reads a block: the interface and the destination port of a packet of UDP.
    #[expect(clippy::unwrap_in_result, reason = "the tests fail by panics")]
    fn next(&mut self) -> Option<(String, u16)> {
        match self.reader.next_block().unwrap().expect("the capture has ended") {
            Block::Interface(interface) => {
                assert_eq!(interface.number as usize, self.interfaces.len());
                let name = String::from_utf8(interface.name.unwrap().to_vec()).unwrap();
                self.interfaces.push(name);
                self.counted.push(0);
                None
            }
            Block::Packet(packet) => {
                // Ethernet, IPv4 without options, UDP.
                let port =
                    packet.data.get(36..38).map(|port| u16::from_be_bytes([port[0], port[1]]));
                self.counted[packet.interface as usize] += 1;
                Some((self.interfaces[packet.interface as usize].clone(), port.unwrap()))
            }
            Block::Statistics(statistics) => {
                assert!((statistics.interface as usize) < self.interfaces.len());
                None
            }
            Block::Section(_) | Block::Other { .. } => None,
        }
    }

    /// Waits for a packet.
    pub(crate) fn packet(&mut self) -> (String, u16) {
        loop {
            if let Some(packet) = self.next() {
                return packet;
            }
        }
    }

    /// Reads to the end of the file, which must be complete. Returns how many sections and packets follow.
    pub(crate) fn rest(&mut self) -> (usize, usize) {
        let (mut sections, mut packets) = (0, 0);
        while let Some(block) = self.reader.next_block().unwrap() {
            match block {
                Block::Section(_) => sections += 1,
                Block::Packet(_) => packets += 1,
                Block::Interface(_) | Block::Statistics(_) | Block::Other { .. } => {}
            }
        }
        (sections, packets)
    }

    /// Waits for the end of the program, while the FIFO stays open.
    pub(crate) fn outcome(self) -> (Outcome, Extcap) {
        (self.child.wait_with_output().unwrap().into(), self.extcap)
    }
}

/// Starts a capture to a FIFO.
pub(crate) fn start(
    extcap: &Extcap,
    broker: &Daemon,
    interface: &str,
    fifo: &Path,
    arguments: &[&str],
) -> Child {
    let fifo = fifo.to_str().unwrap();
    let words = ["--capture", "--extcap-interface", interface, "--fifo", fifo];
    extcap.command_at(broker, &[&words[..], arguments].concat()).spawn().unwrap()
}

/// Fails if the program has not ended with success and without a message.
pub(crate) fn ended_quietly(outcome: &Outcome) {
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (0, "", ""));
}

#[test]
fn signal_ends_the_capture_with_a_complete_file() {
    namespace::inside("extcap_capture::signal_ends_the_capture_with_a_complete_file", || {
        let broker = broker();
        for name in ["TERM", "INT"] {
            let mut capture = Capture::start(&broker, "sockbroker-lo@env", &["--snaplen", "64"]);
            capture.wait_until_live();
            ping("127.0.0.1", "56");
            signal(&capture.child, name);
            assert_eq!(capture.rest(), (0, 4), "{name}");
            ended_quietly(&capture.outcome().0);
        }
    });
}

#[test]
fn all_interfaces_and_a_chosen_broker_are_captured() {
    namespace::inside("extcap_capture::all_interfaces_and_a_chosen_broker_are_captured", || {
        let broker = broker();
        let endpoint = crate::program::endpoint(&broker);
        let mut chosen = Capture::start(
            &broker,
            "sockbroker",
            &["--broker", &endpoint, "--interface", "lo", "--promiscuous"],
        );
        chosen.wait_until_live();
        // It describes an interface at its first packet.
        let mut all = Capture::start(&broker, "sockbroker-any@env", &["--promiscuous"]);
        assert!(matches!(all.reader.next_block().unwrap(), Some(Block::Section(_))));
        send("127.0.0.1", 7);
        for capture in [&mut chosen, &mut all] {
            assert_eq!(capture.packet(), ("lo".to_owned(), 7));
            signal(&capture.child, "TERM");
        }
        for capture in [chosen, all] {
            ended_quietly(&capture.outcome().0);
        }
    });
}

#[test]
fn only_packets_of_both_filters_are_captured() {
    const TEST: &str = "extcap_capture::only_packets_of_both_filters_are_captured";
    namespace::inside(TEST, || {
        if !compiler_or_skip(TEST) {
            return;
        }
        let (broker, log) = (broker(), Folder::new());
        let log = log.join("log");
        let filters = [
            "--extcap-capture-filter",
            "udp or icmp",
            "--filter",
            "dst port 7 or dst port 9",
            "--log-file",
            log.to_str().unwrap(),
        ];
        let mut capture = Capture::start(&broker, "sockbroker-lo@env", &filters);
        capture.wait_until_live();
        for port in [8, 7, 8, 9] {
            send("127.0.0.1", port);
        }
        assert_eq!([capture.packet().1, capture.packet().1], [7, 9]);
        signal(&capture.child, "TERM");
        assert_eq!(capture.rest(), (0, 0));
        ended_quietly(&capture.outcome().0);
        let log = std::fs::read_to_string(log).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        assert!(lines[0].starts_with("sockbroker-extcap: the capture of unix:/"), "{log}");
        assert_eq!(lines[1..], ["sockbroker-extcap: the capture has ended"]);
    });
}

#[test]
fn closed_fifo_ends_the_capture_quietly() {
    namespace::inside("extcap_capture::closed_fifo_ends_the_capture_quietly", || {
        let broker = broker();
        // Without a packet, and with one.
        for packets in [0, 1] {
            let mut capture = Capture::start(&broker, "sockbroker-lo@env", &[]);
            capture.wait_until_live();
            let Capture { child, reader, .. } = capture;
            drop(reader);
            (0..packets).for_each(|_| send("127.0.0.1", 7));
            ended_quietly(&child.wait_with_output().unwrap().into());
        }
    });
}

#[test]
fn blocked_fifo_does_not_delay_the_end() {
    namespace::inside("extcap_capture::blocked_fifo_does_not_delay_the_end", || {
        let broker = broker();
        // No reader at all.
        let extcap = Extcap::new();
        let path = extcap.folder().join("fifo");
        fifo(&path);
        let child = start(&extcap, &broker, "sockbroker-lo@env", &path, &[]);
        wait_until_signals_are_caught(&child);
        signal(&child, "TERM");
        ended_quietly(&child.wait_with_output().unwrap().into());
        // A reader that does not read.
        let mut capture = Capture::start(&broker, "sockbroker-lo@env", &[]);
        capture.wait_until_live();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..400 {
            // More than the FIFO and the stream can hold.
            sender.send_to(&vec![7; 65_000], "127.0.0.1:9").ok();
        }
        signal(&capture.child, "TERM");
        ended_quietly(&capture.outcome().0);
    });
}

/// Refuses promiscuous captures, and captures of `v0`.
const POLICY: &str = r#"
version = 1

[[rule]]
name = "not v0"
subject = { everyone = true }
deny = ["capture"]
interface = ["v0"]

[[rule]]
name = "not promiscuous"
subject = { everyone = true }
deny = ["option"]
family = ["AF_PACKET"]
option = ["packet"]
"#;

#[test]
fn refused_captures_are_reported_with_the_way_out() {
    namespace::inside("extcap_capture::refused_captures_are_reported_with_the_way_out", || {
        pair("v0", "v1");
        let extcap = Extcap::new();
        let broker = Start::new(PROGRAM).shell("set -- broker \"$@\"").policy(POLICY).start();
        let path = extcap.folder().join("fifo");
        fifo(&path);
        let failing = |broker: &Daemon, interface: &str, arguments: &[&str], code: i32| {
            let child = start(&extcap, broker, interface, &path, arguments);
            assert_eq!(std::fs::read(&path).unwrap(), b"", "the reader sees the end");
            failure(&child.wait_with_output().unwrap().into(), code)
        };
        let refused = |interface: &str, arguments: &[&str], code: i32| {
            failing(&broker, interface, arguments, code)
        };
        let line = refused("sockbroker-v0@env", &[], 1);
        assert!(line.contains("capture.open: EPERM: ") && line.contains("v0"), "{line}");
        let line = refused("sockbroker-lo@env", &["--promiscuous"], 1);
        for part in ["capture.open: EPERM: ", "; switch the option \"Promiscuous mode\""] {
            assert!(line.contains(part), "{line}");
        }
        if compiler_or_skip("extcap_capture::refused_captures_are_reported_with_the_way_out") {
            let line = refused("sockbroker-lo@env", &["--extcap-capture-filter", "udp port"], 2);
            assert!(line.contains("cannot compile the filter \"udp port\": "), "{line}");
        }
        let broker = crate::program::broker();
        let line = failing(&broker, "sockbroker-nowhere0@env", &[], 1);
        for part in ["capture.open: ENODEV: ", "nowhere0", "sniff -D` lists"] {
            assert!(line.contains(part), "{line}");
        }
        // Wireshark has removed the FIFO.
        let missing = extcap.folder().join("missing");
        let child = start(&extcap, &broker, "sockbroker-lo@env", &missing, &[]);
        let line = failure(&child.wait_with_output().unwrap().into(), 74);
        assert!(line.contains("missing: ENOENT"), "{line}");
    });
}

#[test]
fn removed_interface_ends_the_capture_with_the_reason() {
    const TEST: &str = "extcap_capture::removed_interface_ends_the_capture_with_the_reason";
    namespace::inside(TEST, || {
        pair("v0", "v1");
        let broker = broker();
        let mut capture = Capture::start(&broker, "sockbroker-v0@env", &[]);
        capture.wait_until_live();
        ip(&["link", "del", "v0"]);
        assert_eq!(capture.rest(), (0, 0));
        let line = failure(&capture.outcome().0, 1);
        assert!(line.ends_with("cannot capture on v0: the interface was removed"), "{line}");
    });
}
