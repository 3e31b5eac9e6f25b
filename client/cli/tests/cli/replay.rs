//! `sockbroker replay` in a namespace with a pair of interfaces: what a capture on the other end has, and the output.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use sockbroker_pcapng::{Block, LinkType, PcapWriter, Reader};
use sockbroker_test_support::{Folder, namespace};

use crate::program::{command, run, run_with_input};
use crate::sniff::{ip, listening, pair, printed};

/// The destination, the source, and an experimental `EtherType` that no host sends.
const HEADER: [u8; 14] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
const HOUR: u64 = 3_600_000_000_000;

/// Runs a test in a namespace with the interfaces `v0` and `v1`, which are connected.
fn with_interfaces(test: &str, body: fn()) {
    namespace::inside(&format!("replay::{test}"), move || {
        pair("v0", "v1");
        body();
    });
}

fn frame(number: usize, length: usize) -> Vec<u8> {
    let mut frame = [&HEADER[..], &number.to_be_bytes()].concat();
    frame.resize(length, 0xaa);
    frame
}

/// A pcap file of frames with these times.
fn pcap(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    let writer = PcapWriter::begin(LinkType::ETHERNET, 65_535, &mut file);
    for (time, frame) in frames {
        let length = u32::try_from(frame.len()).unwrap();
        writer.packet(*time, &[frame], length, &mut file).unwrap();
    }
    file
}

fn write(folder: &Folder, frames: &[(u64, Vec<u8>)]) -> String {
    let path = folder.join("file.pcap");
    fs::write(&path, pcap(frames)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The frames of a file.
fn frames(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = Reader::new(fs::File::open(path).unwrap());
    let mut found = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        if let Block::Packet(packet) = block {
            found.push(packet.data.to_vec());
        }
    }
    found
}

/// What arrives on `v1` during a run: this many frames.
fn arrived(count: usize, during: impl FnOnce()) -> Vec<Vec<u8>> {
    let folder = Folder::new();
    let file = folder.join("arrived");
    let (count, name) = (count.to_string(), file.to_str().unwrap());
    let arguments = ["v1", "-Q", "in", "-c", &count, "-w", name, "ether", "proto", "0x88b5"];
    let (child, _stderr) = listening(&arguments);
    during();
    printed(child);
    frames(&file)
}

#[test]
fn packets_of_a_file_arrive_in_order_as_often_as_requested() {
    with_interfaces("packets_of_a_file_arrive_in_order_as_often_as_requested", || {
        let folder = Folder::new();
        let sent: Vec<_> = (0..30).map(|number| frame(number, 60 + number)).collect();
        let timed = (0..).zip(&sent).map(|(at, frame)| (HOUR + at * 1_000_000, frame.clone()));
        let file = write(&folder, &timed.collect::<Vec<_>>());
        for pace in [&["--speed", "2.5"][..], &["--top-speed"], &["--pps", "5000"]] {
            let found = arrived(70, || {
                let arguments =
                    ["--private", "replay", &file, "-i", "v0", "--loop", "3", "-L", "70"];
                let output = run(&[&arguments[..], pace].concat()).success();
                assert!(
                    output.starts_with("70 packets sent, 5115 bytes, 0 failed, in "),
                    "{output}"
                );
            });
            let all = [&sent[..], &sent, &sent[..10]].concat();
            assert_eq!(found, all, "{pace:?}");
        }
        let found = arrived(30, || {
            let input = fs::read(&file).unwrap();
            let arguments = ["--private", "replay", "-", "-i", "v0", "--json"];
            let json = run_with_input(&arguments, &input).json();
            assert_eq!((&json["packets"], &json["failed"]), (&30.into(), &0.into()));
        });
        assert_eq!(found, sent);
    });
}

#[test]
fn what_sniff_has_written_can_be_replayed() {
    with_interfaces("what_sniff_has_written_can_be_replayed", || {
        let folder = Folder::new();
        let file = write(&folder, &[(0, frame(1, 60)), (1000, frame(2, 1514))]);
        let replay = |file: &str| {
            let file = file.to_owned();
            move || drop(run(&["--private", "replay", &file, "-i", "v0"]).success())
        };
        let captured = folder.join("captured");
        let name = captured.to_str().unwrap();
        let (child, _stderr) = listening(&["v1", "-c", "2", "-w", name]);
        replay(&file)();
        printed(child);
        assert_eq!(arrived(2, replay(name)), [frame(1, 60), frame(2, 1514)]);
    });
}

#[test]
fn packets_that_cannot_be_sent_are_reported_by_number() {
    with_interfaces("packets_that_cannot_be_sent_are_reported_by_number", || {
        let folder = Folder::new();
        let file = write(&folder, &[(0, frame(1, 60)), (0, frame(2, 4000)), (0, frame(3, 60))]);
        let found = arrived(2, || {
            let outcome = run(&["--private", "replay", &file, "-i", "v0"]);
            assert_eq!(outcome.code, 1, "{outcome:?}");
            assert!(
                outcome.out.starts_with("2 packets sent, 120 bytes, 1 failed, in "),
                "{outcome:?}"
            );
            let line = format!(
                "{file}: packet 2: EMSGSIZE: its 4000 bytes are more than the MTU allows\n"
            );
            assert_eq!(outcome.err, line);
        });
        assert_eq!(found, [frame(1, 60), frame(3, 60)]);
        // What is before the damage is sent.
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        let found = arrived(1, || {
            let outcome = run(&["--private", "replay", &file, "-i", "v0", "--json"]);
            assert_eq!(outcome.code, 74, "{outcome:?}");
            let last = outcome.err.lines().last().unwrap();
            let start =
                format!("sockbroker: {file}: packet 3: the capture is malformed at byte 4116: ");
            assert!(last.starts_with(&start), "{last}");
        });
        assert_eq!(found, [frame(1, 60)]);
    });
}

#[test]
fn ctrl_c_ends_a_replay_with_the_counts() {
    with_interfaces("ctrl_c_ends_a_replay_with_the_counts", || {
        let folder = Folder::new();
        let file = write(&folder, &[(0, frame(1, 60)), (HOUR, frame(2, 60))]);
        for signal in ["-INT", "-TERM"] {
            let mut replay = None;
            let found = arrived(1, || {
                let arguments = ["--private", "replay", &file, "-i", "v0"];
                replay = Some(command(&arguments).stdin(Stdio::null()).spawn().unwrap());
            });
            assert_eq!(found, [frame(1, 60)]);
            let replay = replay.unwrap();
            let sent = Command::new("kill").args([signal, &replay.id().to_string()]).status();
            assert!(sent.unwrap().success());
            let output = replay.wait_with_output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.starts_with("1 packets sent, 60 bytes, 0 failed"), "{text}");
            assert_eq!(output.status.code(), Some(0));
        }
    });
}

#[test]
fn impossible_replays_fail_with_one_line() {
    with_interfaces("impossible_replays_fail_with_one_line", || {
        let folder = Folder::new();
        let file = write(&folder, &[(0, frame(1, 60))]);
        let fails = |arguments: &[&str], code, part: &str| {
            let line = run(&[&["--private", "replay"], arguments].concat()).failure(code);
            assert!(line.contains(part), "{line}");
        };
        fails(&[&file, "-i", "missing0"], 1, "ENODEV");
        fails(&["/missing.pcap", "-i", "v0"], 74, "/missing.pcap");
        fails(&["-", "-i", "v0", "--loop", "2"], 2, "--loop requires a file");
        let pipe = folder.join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let pipe = pipe.to_str().unwrap();
        fails(&[pipe, "-i", "v0", "--loop", "2"], 2, "--loop requires a file");
        let writing = thread::spawn({
            let (file, pipe) = (file.clone(), pipe.to_owned());
            move || fs::copy(file, pipe).unwrap()
        });
        run(&["--private", "replay", pipe, "-i", "v0"]).success();
        writing.join().unwrap();
        ip(&["link", "set", "v1", "down"]);
        ip(&["link", "set", "v0", "down"]);
        let outcome = run(&["--private", "replay", &file, "-i", "v0"]);
        assert!(
            outcome.code == 1 && outcome.err.contains("capture.replay: ENETDOWN"),
            "{outcome:?}"
        );
        for wrong in [&["--speed", "1", "--pps", "1"][..], &["--pps", "0"], &["--speed", "-1"], &[]]
        {
            let outcome = run(&[&["replay", &file, "--top-speed"], wrong].concat());
            assert_eq!(outcome.code, 2, "{outcome:?}");
        }
    });
}
