//! The options of `sockbroker sniff` that tcpdump has too.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sockbroker_pcapng::{Interface, LinkType, Packet, PcapWriter, Section, Writer};
use sockbroker_test_support::skip::program_or_skip;
use sockbroker_test_support::{Folder, Start, bounded, namespace, until};

use crate::program::{PROGRAM, endpoint, run, run_with_input};
use crate::sniff::{compiler_or_skip, complete, inject, listening, pair, ping, printed};

/// Captures these packets of `ping` on `lo` to a file: two requests, and two replies.
fn capture_pings(file: &Path) {
    let (child, _said) = listening(&["lo", "-c", "4", "-w", file.to_str().unwrap()]);
    ping("127.0.0.1", "56");
    assert_eq!(printed(child), "");
}

/// Runs `sniff -r` and returns what it prints.
fn read(file: &Path, options: &[&str]) -> String {
    let outcome = run(&[&["sniff", "-r", file.to_str().unwrap()], options].concat());
    assert_eq!(outcome.err, format!("reading from file {}\n", file.display()));
    outcome.success()
}

#[test]
fn several_interfaces_are_captured_together() {
    const TEST: &str = "sniff_options::several_interfaces_are_captured_together";
    namespace::inside(TEST, || {
        if !program_or_skip("python3", TEST) {
            return;
        }
        pair("v0", "v1");
        pair("v2", "v3");
        let (child, mut stderr) = listening(&["-i", "v0", "-i", "v1", "-c", "4"]);
        inject("v2", &[""]);
        inject("v1", &["", ""]);
        let output = printed(child);
        let mut shown: Vec<_> = output.lines().map(|line| line[16..23].to_owned()).collect();
        shown.sort();
        assert_eq!(shown, ["v0 in  ", "v0 in  ", "v1 out ", "v1 out "], "{output}");
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, complete(4));
        let line = run(&["--private", "sniff", "-i", "any", "-i", "v0"]).failure(2);
        assert!(line.contains("name no other"), "{line}");
        let line = run(&["--private", "sniff"]).failure(2);
        assert!(line.contains("name an interface"), "{line}");
    });
}

#[test]
fn packets_that_are_read_in_blocks_are_all_captured() {
    namespace::inside("sniff_options::packets_that_are_read_in_blocks_are_all_captured", || {
        let (child, mut stderr) = listening(&["--bulk", "lo", "-c", "4"]);
        ping("127.0.0.1", "56");
        assert_eq!(printed(child).lines().count(), 4);
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, complete(4));
        let refused = run(&["--private", "sniff", "--bulk", "--immediate", "lo"]);
        assert_eq!(refused.code, 2, "{refused:?}");
    });
}

#[test]
fn direction_selects_received_or_sent_packets() {
    const TEST: &str = "sniff_options::direction_selects_received_or_sent_packets";
    namespace::inside(TEST, || {
        if !program_or_skip("python3", TEST) {
            return;
        }
        pair("v0", "v1");
        for (direction, expected) in [("in", "v0 in "), ("out", "v0 out")] {
            let (child, _said) = listening(&["-i", "v0", "-Q", direction, "-c", "2"]);
            for _ in 0..2 {
                inject("v0", &[""]);
                inject("v1", &[""]);
            }
            let output = printed(child);
            assert_eq!(output.matches(expected).count(), 2, "{output}");
        }
    });
}

/// How many programs have made an interface promiscuous.
fn promiscuity(interface: &str) -> String {
    let outcome = Command::new("ip").args(["-d", "link", "show", interface]).output().unwrap();
    let text = String::from_utf8(outcome.stdout).unwrap();
    let (_, rest) = text.split_once("promiscuity ").unwrap();
    rest.split(' ').next().unwrap().to_owned()
}

#[test]
fn interface_is_promiscuous_without_p() {
    namespace::inside("sniff_options::interface_is_promiscuous_without_p", || {
        pair("v0", "v1");
        for (options, expected) in [(&["v0"][..], "1"), (&["-p", "v0"], "0")] {
            let (child, mut stderr) = listening(options);
            assert_eq!(promiscuity("v0"), expected, "{options:?}");
            let mut kill = Command::new("kill");
            assert!(kill.args(["-INT", &child.id().to_string()]).status().unwrap().success());
            let mut rest = String::new();
            stderr.read_to_string(&mut rest).unwrap();
            printed(child);
            until("the interface is as before", || promiscuity("v0") == "0");
        }
    });
}

#[test]
fn file_is_printed_as_the_capture_was() {
    const TEST: &str = "sniff_options::file_is_printed_as_the_capture_was";
    namespace::inside(TEST, || {
        let folder = Folder::new();
        let file = folder.join("capture");
        let options = ["lo", "-c", "4", "-n", "-l", "--immediate", "-B", "256", "--print", "-w"];
        let (child, _said) = listening(&[&options[..], &[file.to_str().unwrap()]].concat());
        ping("127.0.0.1", "56");
        let live = printed(child);
        assert_eq!(live.lines().count(), 4, "{live}");
        assert_eq!(read(&file, &[]), live);
        // Two lines, as many as wanted.
        let first: String = live.split_inclusive('\n').take(2).collect();
        assert_eq!(read(&file, &["-c", "2"]), first);
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(run_with_input(&["sniff", "-r", "-"], &bytes).success(), live);
        if compiler_or_skip(TEST) {
            let requests: String =
                live.split_inclusive('\n').filter(|line| line.contains("echo request")).collect();
            assert_eq!(read(&file, &["icmp[icmptype] ==", "icmp-echo"]), requests);
            assert_eq!(read(&file, &["udp"]), "");
            let file = file.to_str().unwrap();
            let line = run(&["sniff", "-r", file, "udp", "port"]).failure(2);
            assert!(line.contains("cannot compile the filter \"udp port\": "), "{line}");
            let line = run(&["sniff", "-r", file, "ip protochain 6"]).failure(2);
            assert!(line.contains("cannot run the filter"), "{line}");
        }
    });
}

/// An Ethernet frame with a UDP datagram of this length.
fn frame(length: u8) -> Vec<u8> {
    let ip = [0x45, 0, 0, 28 + length, 0, 7, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let udp = [0, 53, 4, 0, 0, 8 + length, 0, 0];
    let data: Vec<u8> = (0..length).map(|number| number.wrapping_mul(7)).collect();
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0][..], &ip, &udp, &data].concat()
}

const TIME: u64 = 1_700_000_000_123_456_789;

#[test]
fn file_without_interfaces_and_directions_is_printed() {
    bounded(60, || {
        let folder = Folder::new();
        let mut bytes = Vec::new();
        let writer = PcapWriter::begin(LinkType::ETHERNET, 1000, &mut bytes);
        writer.packet(TIME, &[&frame(3)], 45, &mut bytes).unwrap();
        writer.packet(TIME, &[&frame(100)[..50]], 142, &mut bytes).unwrap();
        let file = folder.join("old");
        std::fs::write(&file, bytes).unwrap();
        let line = "22:13:20.123456 10.0.0.1:53 > 10.0.0.2:1024 UDP length ";
        assert_eq!(read(&file, &[]), format!("{line}3\n{line}100\n"));
        let json = read(&file, &["--json"]);
        let packets: Vec<Value> =
            json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(packets[1]["length"], 142);
        assert_eq!(packets[1]["time"], "1700000000.123456789");
        assert_eq!(packets[1]["direction"], Value::Null);
        assert_eq!(packets[1]["captured"], 50);
    });
}

#[test]
fn bytes_are_printed_as_tcpdump_prints_them() {
    const TEST: &str = "sniff_options::bytes_are_printed_as_tcpdump_prints_them";
    bounded(60, || {
        if !program_or_skip("tcpdump", TEST) {
            return;
        }
        let folder = Folder::new();
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&Section::default(), &mut bytes).unwrap();
        let interface = Interface::new("eth7", LinkType::ETHERNET, 1000);
        let interface = writer.interface(&interface, &mut bytes).unwrap();
        let lengths = [4, 5, 6, 100, 201];
        for length in lengths {
            let frame = frame(length);
            let wire = u32::try_from(frame.len()).unwrap();
            writer.packet(&Packet::new(interface, TIME, &[&frame], wire), &mut bytes).unwrap();
        }
        let file = folder.join("capture");
        std::fs::write(&file, bytes).unwrap();
        for option in ["-X", "-XX"] {
            let mut tcpdump = Command::new("tcpdump");
            // It changes its user, which cannot open the file.
            tcpdump.args(["-n", option, "-r", "-"]).stdin(File::open(&file).unwrap());
            let output = tcpdump.output().unwrap();
            let expected = String::from_utf8(output.stdout).unwrap();
            let of = |text: &str| -> Vec<String> {
                let lines = text.lines().filter(|line| line.starts_with("\t0x"));
                lines.map(str::to_owned).collect()
            };
            assert!(of(&expected).len() > 30, "{expected}");
            assert_eq!(of(&read(&file, &[option])), of(&expected), "{option}");
        }
        for (option, begin) in [("-A", "E.."), ("-AA", "..............E..")] {
            let output = read(&file, &[option]);
            let begins = output.lines().filter(|line| line.starts_with(begin));
            assert_eq!(begins.count(), lengths.len(), "{output}");
        }
        let output = read(&file, &["-e", "-v", "-c", "1"]);
        let expected = "22:13:20.123456 eth7 02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype IPv4 (0x0800), \
                        length 46: 10.0.0.1:53 > 10.0.0.2:1024 UDP length 4 \
                        (tos 0x0, ttl 64, id 7, offset 0, flags [DF], length 32)\n";
        assert_eq!(output, expected);
    });
}

#[test]
fn file_that_cannot_be_read_is_reported() {
    bounded(60, || {
        let folder = Folder::new();
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let line = run(&["sniff", "-r", &path("none")]).failure(74);
        assert!(line.contains("/none: ENOENT"), "{line}");
        folder.write("text", "not a capture");
        let outcome = run(&["sniff", "-r", &path("text")]);
        assert_eq!((outcome.code, outcome.out.as_str()), (74, ""), "{outcome:?}");
        assert!(outcome.err.contains("neither pcapng nor pcap"), "{outcome:?}");
        for other in [&["-G", "1", "-w", "x"][..], &["-i", "lo"], &["-p"], &["-Q", "in"], &["-D"]] {
            let outcome = run(&[&["sniff", "-r", &path("text")], other].concat());
            assert_eq!(outcome.code, 2, "{outcome:?}");
        }
        let text = path("text");
        let line = run(&["--json", "sniff", "-r", &text, "-X"]).failure(2);
        assert!(line.contains("--json"), "{line}");
    });
}

#[test]
fn packets_before_the_cut_of_a_file_are_printed() {
    namespace::inside("sniff_options::packets_before_the_cut_of_a_file_are_printed", || {
        let folder = Folder::new();
        let file = folder.join("capture");
        capture_pings(&file);
        let bytes = std::fs::read(&file).unwrap();
        // Within the last packet, which precedes the statistics.
        let cut = folder.join("cut");
        std::fs::write(&cut, &bytes[..bytes.len() - 200]).unwrap();
        let outcome = run(&["sniff", "-r", cut.to_str().unwrap()]);
        assert_eq!(outcome.code, 74, "{outcome:?}");
        assert_eq!(outcome.out.lines().count(), 3, "{outcome:?}");
        assert!(outcome.err.contains("ends within a block"), "{outcome:?}");
    });
}

#[test]
fn interfaces_are_listed() {
    namespace::inside("sniff_options::interfaces_are_listed", || {
        pair("v0", "v1");
        let output = run(&["--private", "sniff", "-D"]).success();
        let names: Vec<_> =
            output.lines().map(|line| line.split('.').next_back().unwrap()).collect();
        assert_eq!(names[0], "lo", "{output}");
        assert!(names.contains(&"v0") && names.contains(&"v1"), "{output}");
        assert_eq!(names.last(), Some(&"any (all interfaces)"), "{output}");
        let json = run(&["--private", "--json", "sniff", "-D"]).json();
        assert_eq!(json[0]["name"], "lo", "{json}");
    });
}

#[test]
fn interfaces_are_selected_by_number_and_have_link_types() {
    const TEST: &str = "sniff_options::interfaces_are_selected_by_number_and_have_link_types";
    namespace::inside(TEST, || {
        pair("v0", "v1");
        let list = run(&["--private", "--json", "sniff", "-D"]).json();
        let named = |row: &&Value| row["name"] == "v1";
        let number = list.as_array().unwrap().iter().find(named).unwrap()["index"].to_string();
        let output = run(&["--private", "sniff", "-L", "-i", &number, "-i", "lo"]).success();
        let types = |name: &str| format!("Data link types for {name}:\n  EN10MB (Ethernet)\n");
        assert_eq!(output, types("v1") + &types("lo"));
        // A name goes before a number.
        pair("1", "7777");
        let output = run(&["--private", "sniff", "-L", "7777"]).success();
        assert_eq!(output, types("7777"));
        let output = run(&["--private", "sniff", "-L", "-i", "1"]).success();
        assert_eq!(output, types("1"));
        let line = run(&["--private", "sniff", "-i", "9999"]).failure(1);
        assert!(line.contains("the number 9999") && line.contains("sniff -D"), "{line}");
        let line = run(&["--private", "sniff", "-y", "RAW", "lo"]).failure(2);
        assert!(line.contains("lo has no link type RAW (Raw IP): it has EN10MB"), "{line}");
        let line = run(&["--private", "sniff", "-y", "none", "lo"]).failure(2);
        assert!(line.contains("there is no link type none"), "{line}");
        let (child, _said) = listening(&["-y", "EN10MB", "lo", "-c", "4"]);
        ping("127.0.0.1", "56");
        assert_eq!(printed(child).lines().count(), 4);
    });
}

/// Grants a capture of `lo`, without promiscuous mode.
const WITHOUT_PROMISCUOUS_MODE: &str = r#"
version = 1
[[rule]]
name = "lo"
subject = { uids = [65534] }
allow = ["capture"]
family = ["AF_PACKET"]
interface = ["lo"]
"#;

#[test]
fn hint_about_promiscuous_mode_is_shown_if_it_alone_is_not_granted() {
    const TEST: &str =
        "sniff_options::hint_about_promiscuous_mode_is_shown_if_it_alone_is_not_granted";
    namespace::inside_with_users(TEST, || {
        pair("v0", "v1");
        let start = Start::new(PROGRAM).shell("set -- broker \"$@\"");
        let broker = start.policy(WITHOUT_PROMISCUOUS_MODE).start().open_to_all();
        let folder = Folder::new();
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), all).unwrap();
        let program = folder.copy_program(Path::new(PROGRAM), "sockbroker");
        let refused = |options: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
            command.args(["--broker", &endpoint(&broker), "sniff"]).args(options);
            let output = command.stdin(std::process::Stdio::null()).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            String::from_utf8(output.stderr).unwrap()
        };
        let hint = "-p captures without promiscuous mode";
        let line = refused(&["lo"]);
        assert!(line.contains(hint) && line.contains("option = [\"packet\"]"), "{line}");
        for options in [&["v0"][..], &["none0"], &["--netns", "none", "lo"], &["-p", "v0"]] {
            let line = refused(options);
            assert!(!line.contains(hint), "{line}");
        }
    });
}
