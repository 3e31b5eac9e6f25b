//! `sockbroker sniff` in a namespace; its files are read by the tools of Wireshark.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use sockbroker_test_support::skip::program_or_skip;
use sockbroker_test_support::{Folder, namespace};

use crate::program::{run, start};

/// Starts a sniffer that hears from now on.
pub(crate) fn listening(arguments: &[&str]) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = start(&[&["--private", "sniff"], arguments].concat());
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on "), "{line}");
    (child, said)
}

/// What it printed until its end.
fn printed(child: Child) -> String {
    let ran = child.wait_with_output().unwrap();
    assert!(ran.status.success(), "{:?}", ran.status);
    String::from_utf8(ran.stdout).unwrap()
}

pub(crate) fn ping(host: &str, size: &str) {
    run(&["--private", "ping", "-c", "2", "-i", "0.05", "-s", size, host]).done();
}

/// What a tool says of a file, without complaint.
fn tool(program: &str, arguments: &[&str], file: &Path) -> String {
    let mut command = Command::new(program);
    // Its remark about being root is none about the file.
    let ran =
        command.args(arguments).arg(file).env("WIRESHARK_QUIT_AFTER_CAPTURE", "").output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    let complaints: Vec<_> =
        said.lines().filter(|line| !line.starts_with("Running as user")).collect();
    assert!(ran.status.success() && complaints.is_empty(), "{program}: {complaints:?}");
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn packets_are_told_on_a_line_each() {
    namespace::inside("sniff::packets_are_told_on_a_line_each", || {
        let (child, mut said) = listening(&["lo", "--count", "4"]);
        ping("127.0.0.1", "56");
        let told = printed(child);
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 4, "{told}");
        for (line, what) in lines.iter().zip(["request", "reply", "request", "reply"]) {
            let part = format!(" lo in  127.0.0.1 > 127.0.0.1 ICMP echo {what} id ");
            assert!(line.contains(&part), "{line}");
        }
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "4 packets captured, 4 seen, 0 lost\n");
    });
}

#[test]
fn files_are_read_by_tshark_and_capinfos_without_complaint() {
    const TEST: &str = "sniff::files_are_read_by_tshark_and_capinfos_without_complaint";
    namespace::inside(TEST, || {
        if !program_or_skip("tshark", TEST) || !program_or_skip("capinfos", TEST) {
            return;
        }
        let folder = Folder::new();
        // By its own link header, and by the cooked one of all interfaces.
        for (interface, encapsulation) in
            [("lo", "Ethernet"), ("any", "Linux cooked-mode capture v2")]
        {
            let file = folder.join(interface);
            let name = file.to_str().unwrap();
            let (child, _said) = listening(&[interface, "--count", "8", "--write", name]);
            ping("127.0.0.1", "57");
            ping("::1", "1000");
            printed(child);
            let fields = ["-T", "fields", "-e", "frame.len", "-e", "_ws.col.Protocol", "-r"];
            let packets = tool("tshark", &fields, &file);
            let protocols: Vec<_> =
                packets.lines().map(|line| line.split('\t').nth(1).unwrap()).collect();
            assert_eq!(protocols, [["ICMP"; 4], ["ICMPv6"; 4]].concat(), "{packets}");
            let told = tool("capinfos", &[], &file);
            for part in [
                encapsulation,
                "nanoseconds (9)",
                "Number of packets:   8",
                "Strict time order:   True",
                "Capture application: sockbroker",
                &format!("Name = {interface}"),
                "Number of stat entries = 1",
            ] {
                assert!(told.contains(part), "{part} in {told}");
            }
        }
    });
}

#[test]
fn packets_are_cut_and_their_length_is_kept() {
    const TEST: &str = "sniff::packets_are_cut_and_their_length_is_kept";
    namespace::inside(TEST, || {
        let folder = Folder::new();
        let file = folder.join("cut");
        let arguments =
            ["lo", "--count", "4", "--snaplen", "64", "--json", "--write", file.to_str().unwrap()];
        let (child, _said) = listening(&arguments);
        ping("127.0.0.1", "1000");
        let told = printed(child);
        for line in told.lines() {
            let packet: Value = serde_json::from_str(line).unwrap();
            assert_eq!(packet["length"], 1042, "{line}");
            assert_eq!(packet["direction"], "unicast");
        }
        if program_or_skip("tshark", TEST) {
            let fields = ["-T", "fields", "-e", "frame.len", "-e", "frame.cap_len", "-r"];
            assert_eq!(tool("tshark", &fields, &file), "1042\t64\n".repeat(4));
        }
    });
}

#[test]
fn an_interrupt_ends_the_file_well() {
    const TEST: &str = "sniff::an_interrupt_ends_the_file_well";
    namespace::inside(TEST, || {
        let folder = Folder::new();
        let file = folder.join("interrupted");
        let (child, mut said) = listening(&["lo", "--write", file.to_str().unwrap()]);
        ping("127.0.0.1", "56");
        // It is run by timeout(1), which passes the signal on, twice.
        let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        child.wait_with_output().unwrap();
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "4 packets captured, 4 seen, 0 lost\n");
        if program_or_skip("capinfos", TEST) {
            let told = tool("capinfos", &[], &file);
            assert!(told.contains("Number of stat entries = 1"), "{told}");
        }
    });
}

#[test]
fn an_interface_that_is_not_there_is_told() {
    namespace::inside("sniff::an_interface_that_is_not_there_is_told", || {
        let line = run(&["--private", "sniff", "nowhere0"]).failed_with(1);
        assert!(line.contains("ENODEV") && line.contains("socket.if_nameindex"), "{line}");
    });
}

/// Two interfaces that are connected to each other, and send nothing by themselves.
pub(crate) fn pair(one: &str, other: &str) {
    ip(&["link", "add", one, "type", "veth", "peer", "name", other]);
    for name in [one, other] {
        ip(&["link", "set", name, "addrgenmode", "none"]);
        ip(&["link", "set", name, "up"]);
    }
}

/// Runs `ip`, which must succeed.
pub(crate) fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

/// Sends a frame with each of these tags on an interface.
const INJECT: &str = r#"
import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
s.bind((sys.argv[1], 0))
for tag in sys.argv[2:]:
    udp = struct.pack("!HHHH", 1000, 9, 28, 0) + b"y" * 20
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 48, 0, 0, 64, 17, 0, b"\x0a\x50\0\2", b"\x0a\x50\0\1")
    s.send(b"\xff" * 6 + s.getsockname()[4] + bytes.fromhex(tag) + b"\x08\0" + ip + udp)
"#;

#[test]
fn vlan_tags_are_kept_and_count_as_length() {
    const TEST: &str = "sniff::vlan_tags_are_kept_and_count_as_length";
    namespace::inside(TEST, || {
        if !program_or_skip("python3", TEST) {
            return;
        }
        pair("v0", "v1");
        for (interface, header) in [("v0", 14), ("any", 20)] {
            let (child, _said) = listening(&[interface, "--count", "4", "--json"]);
            let tags = ["", "81000064", "8100e007", "88a8006481000007"];
            let mut inject = Command::new("python3");
            inject.args(["-c", INJECT, "v1"]).args(tags).stdin(Stdio::null());
            if interface == "any" {
                // Each frame is seen as it leaves, too.
                inject.args(tags);
            }
            assert!(inject.status().unwrap().success());
            let output = printed(child);
            let arrived = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let arrived = arrived.filter(|packet| packet["interface"] == "v0");
            let shown: Vec<_> = arrived
                .map(|packet| {
                    let text = packet["packet"].as_str().unwrap();
                    let tags = text.split("10.80.0.2").next().unwrap().trim_end().to_owned();
                    (tags, packet["length"].as_u64().unwrap())
                })
                .collect();
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
fn a_capture_of_all_interfaces_tells_them_apart() {
    const TEST: &str = "sniff::a_capture_of_all_interfaces_tells_them_apart";
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
        let index = |name: &str| {
            run(&["--private", "call", "socket.if_nametoindex", &format!("if_name={name}")]).done()
        };
        // As it leaves by one, and as it arrives by the other.
        let expected = [index("v1"), index("v0")].concat();
        let shown = tool("tshark", &["-T", "fields", "-e", "sll.ifindex", "-r"], &file);
        assert_eq!(shown, expected);
        assert_ne!(index("v0"), index("v1"));
    });
}
