//! `sockbroker sniff` in a namespace: its output, and its files as the tools of Wireshark read them.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use sockbroker_pcapng::{Block, Reader};
use sockbroker_test_support::skip::{program_or_skip, skip};
use sockbroker_test_support::{Folder, namespace};

use crate::program::{run, start};

/// Starts a capture and waits until it listens.
pub(crate) fn listening(arguments: &[&str]) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = start(&[&["--private", "sniff"], arguments].concat());
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on "), "{line}");
    (child, stderr)
}

/// What the program reports at its end if it recorded everything.
pub(crate) fn complete(packets: u64) -> String {
    format!(
        "{packets} packets captured\n{packets} packets received by filter\n0 packets dropped by kernel\n"
    )
}

/// Returns the standard output of a capture, after its end.
pub(crate) fn printed(child: Child) -> String {
    let outcome = child.wait_with_output().unwrap();
    assert!(outcome.status.success(), "{:?}", outcome.status);
    String::from_utf8(outcome.stdout).unwrap()
}

pub(crate) fn ping(host: &str, size: &str) {
    run(&["--private", "ping", "-c", "2", "-i", "0.05", "-s", size, host]).success();
}

/// Runs a tool on a file and returns its output. Fails if the tool reports an error.
fn read_with(program: &str, arguments: &[&str], file: &Path) -> String {
    let mut command = Command::new(program);
    // The warning about running as root is not about the file.
    let outcome =
        command.args(arguments).arg(file).env("WIRESHARK_QUIT_AFTER_CAPTURE", "").output().unwrap();
    let stderr = String::from_utf8(outcome.stderr).unwrap();
    let errors: Vec<_> =
        stderr.lines().filter(|line| !line.starts_with("Running as user")).collect();
    assert!(outcome.status.success() && errors.is_empty(), "{program}: {errors:?}");
    String::from_utf8(outcome.stdout).unwrap()
}

#[test]
fn each_packet_is_printed_on_one_line() {
    namespace::inside("sniff::each_packet_is_printed_on_one_line", || {
        let (child, mut stderr) = listening(&["lo", "--count", "4"]);
        ping("127.0.0.1", "56");
        let output = printed(child);
        let lines: Vec<_> = output.lines().collect();
        assert_eq!(lines.len(), 4, "{output}");
        for (line, what) in lines.iter().zip(["request", "reply", "request", "reply"]) {
            let part = format!(" lo in  127.0.0.1 > 127.0.0.1 ICMP echo {what} id ");
            assert!(line.contains(&part), "{line}");
        }
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, complete(4));
    });
}

#[test]
fn tshark_and_capinfos_read_files_without_errors() {
    const TEST: &str = "sniff::tshark_and_capinfos_read_files_without_errors";
    namespace::inside(TEST, || {
        if !program_or_skip("tshark", TEST) || !program_or_skip("capinfos", TEST) {
            return;
        }
        let folder = Folder::new();
        for interface in ["lo", "any"] {
            let file = folder.join(interface);
            let name = file.to_str().unwrap();
            let (child, _said) = listening(&[interface, "--count", "8", "--write", name]);
            ping("127.0.0.1", "57");
            ping("::1", "1000");
            printed(child);
            let fields = ["-T", "fields", "-e", "frame.len", "-e", "_ws.col.Protocol", "-r"];
            let packets = read_with("tshark", &fields, &file);
            let protocols: Vec<_> =
                packets.lines().map(|line| line.split('\t').nth(1).unwrap()).collect();
            assert_eq!(protocols, [["ICMP"; 4], ["ICMPv6"; 4]].concat(), "{packets}");
            let output = read_with("capinfos", &[], &file);
            for part in [
                "Ethernet",
                "nanoseconds (9)",
                "Number of packets:   8",
                "Strict time order:   True",
                "Capture application: sockbroker",
                "Name = lo",
                "Number of stat entries = ",
            ] {
                assert!(output.contains(part), "{part} in {output}");
            }
        }
    });
}

#[test]
fn snaplen_truncates_packets_and_keeps_their_length() {
    const TEST: &str = "sniff::snaplen_truncates_packets_and_keeps_their_length";
    namespace::inside(TEST, || {
        let folder = Folder::new();
        let file = folder.join("cut");
        let arguments =
            ["lo", "-c", "4", "-s", "64", "--json", "--print", "--write", file.to_str().unwrap()];
        let (child, _said) = listening(&arguments);
        ping("127.0.0.1", "1000");
        let output = printed(child);
        for line in output.lines() {
            let packet: Value = serde_json::from_str(line).unwrap();
            assert_eq!(packet["length"], 1042, "{line}");
            assert_eq!(
                (&packet["direction"], &packet["reception"]),
                (&"in".into(), &"unicast".into())
            );
            assert_eq!((&packet["captured"], &packet["source"]), (&64.into(), &"127.0.0.1".into()));
            assert!(packet["packet"].as_str().unwrap().ends_with(" length 1008"), "{line}");
        }
        if program_or_skip("tshark", TEST) {
            let fields = ["-T", "fields", "-e", "frame.len", "-e", "frame.cap_len", "-r"];
            assert_eq!(read_with("tshark", &fields, &file), "1042\t64\n".repeat(4));
        }
    });
}

#[test]
fn interrupt_leaves_a_complete_file() {
    const TEST: &str = "sniff::interrupt_leaves_a_complete_file";
    namespace::inside(TEST, || {
        let folder = Folder::new();
        let file = folder.join("interrupted");
        let (child, mut stderr) = listening(&["lo", "--write", file.to_str().unwrap()]);
        ping("127.0.0.1", "56");
        // The program runs under timeout(1), which forwards the signal twice.
        let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        child.wait_with_output().unwrap();
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, complete(4));
        if program_or_skip("capinfos", TEST) {
            let output = read_with("capinfos", &[], &file);
            assert!(output.contains("Number of stat entries = "), "{output}");
        }
    });
}

/// Whether expressions can be compiled. If not, the test is skipped.
pub(crate) fn compiler_or_skip(test: &str) -> bool {
    let found = sockbroker_filter::Compiler::new().is_ok();
    if !found {
        skip("neither libpcap nor tcpdump is installed", test);
    }
    found
}

#[test]
fn only_packets_that_the_expression_selects_are_captured() {
    const TEST: &str = "sniff::only_packets_that_the_expression_selects_are_captured";
    namespace::inside(TEST, || {
        if !compiler_or_skip(TEST) {
            return;
        }
        let folder = Folder::new();
        let file = folder.join("filtered");
        let (child, mut stderr) = listening(&[
            "lo",
            "icmp[icmptype] ==",
            "icmp-echo",
            "--count",
            "4",
            "--print",
            "--write",
            file.to_str().unwrap(),
        ]);
        for _ in 0..2 {
            ping("127.0.0.1", "56");
        }
        let output = printed(child);
        assert_eq!(output.lines().count(), 4, "{output}");
        assert!(output.lines().all(|line| line.contains("ICMP echo request")), "{output}");
        // The replies are neither captured nor lost.
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, complete(4));
        let bytes = std::fs::read(&file).unwrap();
        let mut reader = Reader::new(&bytes[..]);
        reader.next_block().unwrap();
        let Ok(Some(Block::Interface(interface))) = reader.next_block() else {
            panic!("no interface")
        };
        assert_eq!(interface.filter, Some(&b"icmp[icmptype] == icmp-echo"[..]));
    });
}

#[test]
fn expressions_that_cannot_be_used_are_reported() {
    const TEST: &str = "sniff::expressions_that_cannot_be_used_are_reported";
    namespace::inside(TEST, || {
        if !compiler_or_skip(TEST) {
            return;
        }
        let line = run(&["--private", "sniff", "lo", "udp", "port"]).failure(2);
        assert!(line.contains("cannot compile the filter \"udp port\": "), "{line}");
        let line = run(&["--private", "sniff", "lo", "ip protochain 6"]).failure(2);
        assert!(line.contains("the kernel does not run loops"), "{line}");
    });
}

#[test]
fn expressions_select_packets_of_ethernet_and_of_ip_interfaces() {
    const TEST: &str = "sniff::expressions_select_packets_of_ethernet_and_of_ip_interfaces";
    namespace::inside(TEST, || {
        if !program_or_skip("python3", TEST) || !compiler_or_skip(TEST) {
            return;
        }
        if !tunnel_or_skip(TEST) {
            return;
        }
        let mut made = tunnel();
        let (child, mut stderr) = listening(&["any", "udp and dst port 7", "-c", "4", "--json"]);
        for (address, port) in [("10.81.0.2", 9), ("10.81.0.2", 7), ("127.0.0.1", 9)] {
            send(address, port);
        }
        for _ in 0..3 {
            send("127.0.0.1", 7);
        }
        let output = printed(child);
        let interfaces: Vec<_> = output
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|packet| packet["interface"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(interfaces, ["t0", "lo", "lo", "lo"], "{output}");
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, complete(4));
        let (child, _said) = listening(&["t0", "dst port 7", "-c", "1"]);
        send("10.81.0.2", 9);
        send("10.81.0.2", 7);
        let output = printed(child);
        assert!(output.contains(" t0 out 10.81.0.1:") && output.contains(":7 UDP"), "{output}");
        let line = run(&["--private", "sniff", "t0", "ether host 02:00:00:00:00:01"]).failure(2);
        assert!(line.contains("cannot compile the filter \"ether host"), "{line}");
        drop(made.stdin.take());
        made.wait().unwrap();
    });
}

/// A Python program that makes `t0`, whose packets begin with an IP header, until its input ends.
const TUNNEL: &str = r#"
import fcntl, struct, sys
device = open("/dev/net/tun", "r+b", buffering=0)
# TUNSETIFF with IFF_TUN and IFF_NO_PI.
fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"t0", 0x1001))
print("made", flush=True)
sys.stdin.read()
"#;

/// Whether tunnels can be created. If not, the test is skipped.
fn tunnel_or_skip(test: &str) -> bool {
    let is_open = File::options().read(true).write(true).open("/dev/net/tun").is_ok();
    if !is_open {
        skip("/dev/net/tun cannot be opened", test);
    }
    is_open
}

/// Creates `t0`, until the program has ended.
fn tunnel() -> Child {
    let mut python = Command::new("python3");
    python.args(["-c", TUNNEL]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "made\n");
    ip(&["address", "add", "10.81.0.1/24", "dev", "t0"]);
    ip(&["link", "set", "t0", "addrgenmode", "none"]);
    ip(&["link", "set", "t0", "up"]);
    child
}

/// Sends a datagram.
pub(crate) fn send(address: &str, port: u16) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.send_to(b"x", (address, port)).unwrap();
}

#[test]
fn unknown_interface_is_reported() {
    namespace::inside("sniff::unknown_interface_is_reported", || {
        let line = run(&["--private", "sniff", "nowhere0"]).failure(1);
        assert!(line.contains("ENODEV") && line.contains("`sockbroker sniff -D` lists"), "{line}");
    });
}

/// Creates two connected interfaces that send no packets on their own.
pub(crate) fn pair(one: &str, other: &str) {
    ip(&["link", "add", one, "type", "veth", "peer", "name", other]);
    for name in [one, other] {
        ip(&["link", "set", name, "addrgenmode", "none"]);
        ip(&["link", "set", name, "up"]);
    }
}

/// Runs `ip` and fails if it fails.
pub(crate) fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

/// A Python program that sends one frame with each of these VLAN tags on an interface.
const INJECT: &str = r#"
import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
s.bind((sys.argv[1], 0))
for tag in sys.argv[2:]:
    udp = struct.pack("!HHHH", 1000, 9, 28, 0) + b"y" * 20
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 48, 0, 0, 64, 17, 0, b"\x0a\x50\0\2", b"\x0a\x50\0\1")
    s.send(b"\xff" * 6 + s.getsockname()[4] + bytes.fromhex(tag) + b"\x08\0" + ip + udp)
"#;

/// Sends a frame with each of these VLAN tags on an interface.
pub(crate) fn inject(interface: &str, tags: &[&str]) {
    let mut program = Command::new("python3");
    program.args(["-c", INJECT, interface]).args(tags).stdin(Stdio::null());
    assert!(program.status().unwrap().success());
}

/// Without a tag, with number 100, with number 7 and a priority, and with 100 in front of 7.
const TAGS: [&str; 4] = ["", "81000064", "8100e007", "88a8006481000007"];

/// Returns the VLAN tags and the length of each packet that `v0` received, from the JSON output.
fn tags_and_lengths(output: &str) -> Vec<(String, u64)> {
    let packets = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let received = packets.filter(|packet| packet["interface"] == "v0");
    let shown = received.map(|packet| {
        let text = packet["packet"].as_str().unwrap();
        let tags = text.split("10.80.0.2").next().unwrap().trim_end().to_owned();
        (tags, packet["length"].as_u64().unwrap())
    });
    shown.collect()
}

#[test]
fn vlan_expressions_select_frames_whose_tags_the_kernel_has_removed() {
    const TEST: &str = "sniff::vlan_expressions_select_frames_whose_tags_the_kernel_has_removed";
    namespace::inside(TEST, || {
        if !program_or_skip("python3", TEST) || !compiler_or_skip(TEST) {
            return;
        }
        pair("v0", "v1");
        let cases: [(&str, &[&str]); 5] = [
            ("vlan 100", &["vlan 100", "vlan 100 vlan 7"]),
            ("vlan 7", &["vlan 7"]),
            ("vlan 100 and vlan 7", &["vlan 100 vlan 7"]),
            ("not vlan", &[""]),
            ("vlan and udp port 9", &["vlan 100", "vlan 7"]),
        ];
        for (expression, expected) in cases {
            // The frames twice: a frame that is wrongly selected appears in front of one that is expected.
            let count = (2 * expected.len()).to_string();
            let (child, _said) = listening(&["v0", expression, "--count", &count, "--json"]);
            let mut inject = Command::new("python3");
            inject.args(["-c", INJECT, "v1"]).args(TAGS).args(TAGS).stdin(Stdio::null());
            assert!(inject.status().unwrap().success());
            let output = printed(child);
            let shown: Vec<_> =
                tags_and_lengths(&output).into_iter().map(|(tags, _)| tags).collect();
            assert_eq!(shown, [expected, expected].concat(), "{expression}");
        }
    });
}

#[test]
fn vlan_tags_are_kept_and_counted() {
    const TEST: &str = "sniff::vlan_tags_are_kept_and_counted";
    namespace::inside(TEST, || {
        if !program_or_skip("python3", TEST) {
            return;
        }
        pair("v0", "v1");
        let header = 14;
        for interface in ["v0", "any"] {
            let (child, _said) = listening(&[interface, "--count", "4", "--json"]);
            let mut inject = Command::new("python3");
            inject.args(["-c", INJECT, "v1"]).args(TAGS).stdin(Stdio::null());
            if interface == "any" {
                // Each outgoing frame is captured too.
                inject.args(TAGS);
            }
            assert!(inject.status().unwrap().success());
            let output = printed(child);
            let shown = tags_and_lengths(&output);
            let expected = [
                (String::new(), header + 48),
                ("vlan 100".to_owned(), header + 52),
                ("vlan 7".to_owned(), header + 52),
                ("vlan 100 vlan 7".to_owned(), header + 56),
            ];
            assert!(shown.len() >= 2, "{output}");
            assert_eq!(shown, expected[..shown.len()], "{interface}: {output}");
        }
    });
}

#[test]
fn capture_of_all_interfaces_records_each_interface() {
    const TEST: &str = "sniff::capture_of_all_interfaces_records_each_interface";
    namespace::inside(TEST, || {
        if !program_or_skip("tshark", TEST) || !program_or_skip("python3", TEST) {
            return;
        }
        pair("v0", "v1");
        let folder = Folder::new();
        let file = folder.join("all");
        let (child, _said) = listening(&["any", "--count", "2", "--write", file.to_str().unwrap()]);
        let mut inject = Command::new("python3");
        assert!(inject.args(["-c", INJECT, "v1", ""]).status().unwrap().success());
        printed(child);
        // Outgoing on one interface, and incoming on the other.
        let fields = ["-T", "fields", "-e", "frame.interface_name", "-r"];
        assert_eq!(read_with("tshark", &fields, &file), "v1\nv0\n");
    });
}
