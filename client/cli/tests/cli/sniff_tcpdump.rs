//! Options of `sockbroker sniff` that mean what they mean for tcpdump, which is the oracle.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use sockbroker_pcapng::{Block, LinkType, PcapWriter, Reader};
use sockbroker_test_support::skip::program_or_skip;
use sockbroker_test_support::{Folder, bounded};

use crate::program::{run, run_with_input};
use crate::sniff::compiler_or_skip;

/// 2023-11-14, 22:13:20.
const TIME: u64 = 1_700_000_000_123_456_789;
const SECOND: u64 = 1_000_000_000;

/// An Ethernet frame with an IPv4 packet of this protocol.
fn frame(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let [f0, f1] = fragment.to_be_bytes();
    let ip = [0x45, 0, length[0], length[1], 0, 7, f0, f1, 64, protocol, 0, 0];
    let ends = [10, 0, 0, 1, 10, 0, 0, 2];
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0][..], &ip, &ends, payload].concat()
}

/// A datagram, a TCP SYN with options, a ping, and the first fragment of a datagram.
fn frames() -> Vec<Vec<u8>> {
    let udp = [3, 232, 7, 208, 0, 11, 0, 0, b'a', b'b', b'c'];
    let tcp = [3, 232, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0xA0, 2, 0xFA, 0xF0, 0, 0, 0, 0];
    let options = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7];
    let ping = [&[8, 0, 0, 0, 0, 7, 0, 1][..], &[0; 56]].concat();
    let first = [&[3, 232, 7, 208, 11, 192, 0, 0][..], &[0; 1472]].concat();
    vec![
        frame(17, 0x4000, &udp),
        frame(6, 0x4000, &[&tcp[..], &options].concat()),
        frame(1, 0x4000, &ping),
        frame(17, 0x2000, &first),
    ]
}

/// Writes packets to a pcap file, with at most this many bytes of each.
fn write(file: &Path, frames: &[Vec<u8>], snaplen: usize) {
    let mut bytes = Vec::new();
    let writer = PcapWriter::begin(LinkType::ETHERNET, 262_144, &mut bytes);
    let mut time = TIME;
    for frame in frames {
        let data = frame.get(..snaplen).unwrap_or(frame);
        let wire = u32::try_from(frame.len()).unwrap();
        writer.packet(time, &[data], wire, &mut bytes).unwrap();
        time += SECOND + 1_500_000;
    }
    std::fs::write(file, bytes).unwrap();
}

/// Runs `tcpdump -r`, in UTC.
fn tcpdump(file: &Path, options: &[&str]) -> String {
    let mut tcpdump = Command::new("tcpdump");
    // It changes its user, which cannot open the file.
    tcpdump.args(["-n", "-r", "-"]).args(options).stdin(File::open(file).unwrap()).env("TZ", "UTC");
    let output = tcpdump.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `sniff -r`.
fn sniff(file: &Path, options: &[&str]) -> String {
    run(&[&["sniff", "-r", file.to_str().unwrap()], options].concat()).success()
}

#[test]
fn times_and_numbers_are_those_of_tcpdump() {
    const TEST: &str = "sniff_tcpdump::times_and_numbers_are_those_of_tcpdump";
    bounded(60, || {
        if !program_or_skip("tcpdump", TEST) {
            return;
        }
        let folder = Folder::new();
        let file = folder.join("file");
        write(&file, &frames(), 262_144);
        for options in [
            &["-#"][..],
            &["--number", "-tt"],
            &["-t"],
            &["-tt"],
            &["-ttt"],
            &["-tttt"],
            &["-ttttt"],
            &["-t", "-t", "-t"],
        ] {
            // What precedes the addresses.
            let begins = |output: &str, mark: &str| -> Vec<String> {
                let begin = |line: &str| line.split_once(mark).unwrap().0.to_owned();
                output.lines().map(begin).collect()
            };
            let expected = begins(&tcpdump(&file, options), "IP 10.0.0.1");
            assert_eq!(begins(&sniff(&file, options), "10.0.0.1"), expected, "{options:?}");
        }
        assert_eq!(run(&["sniff", "-r", file.to_str().unwrap(), "-tttttt"]).code, 2);
    });
}

#[test]
fn bytes_in_hexadecimal_are_those_of_tcpdump() {
    const TEST: &str = "sniff_tcpdump::bytes_in_hexadecimal_are_those_of_tcpdump";
    bounded(60, || {
        if !program_or_skip("tcpdump", TEST) {
            return;
        }
        let folder = Folder::new();
        let file = folder.join("file");
        write(&file, &frames(), 262_144);
        for option in ["-x", "-xx"] {
            let of = |text: &str| -> Vec<String> {
                let lines = text.lines().filter(|line| line.starts_with("\t0x"));
                lines.map(str::to_owned).collect()
            };
            let expected = of(&tcpdump(&file, &[option]));
            assert!(expected.len() > 90, "{expected:?}");
            assert_eq!(of(&sniff(&file, &[option])), expected, "{option}");
        }
    });
}

/// The number behind the last word `length` of a line.
fn length(line: &str) -> Option<u32> {
    let (_, rest) = line.rsplit_once("length ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[test]
fn lengths_and_ports_of_cut_packets_are_those_of_tcpdump() {
    const TEST: &str = "sniff_tcpdump::lengths_and_ports_of_cut_packets_are_those_of_tcpdump";
    bounded(60, || {
        if !program_or_skip("tcpdump", TEST) {
            return;
        }
        let folder = Folder::new();
        let file = folder.join("file");
        for snaplen in [262_144, 96, 60, 42, 40, 36] {
            write(&file, &frames(), snaplen);
            let (ours, theirs) = (sniff(&file, &["-t"]), tcpdump(&file, &["-t"]));
            assert_eq!(ours.lines().count(), 4, "{ours}");
            for (our, their) in ours.lines().zip(theirs.lines()) {
                // tcpdump writes a port behind the fifth dot or fourth number.
                let end = |text: &str| text.replace("IP ", "").replace(':', ".");
                let (from, to) = our.split_once(" > ").unwrap();
                let to = to.split(' ').next().unwrap();
                let expected = format!("{}.", end(&format!("{from} > {to}")));
                let their = end(their).replace(". ", "..");
                assert!(their.starts_with(&expected), "{snaplen}: {our} and {their}");
                // Not where tcpdump prints none, because the packet is cut.
                if !their.contains("[|") {
                    assert_eq!(length(our), length(&their), "{snaplen}: {our} and {their}");
                }
            }
        }
        // Without addresses.
        write(&file, &frames(), 20);
        let line = "02:00:00:00:00:01 > 02:00:00:00:00:02 IPv4 cut off length";
        let lengths = [31, 60, 84, 1500].map(|length| format!("{line} {length}\n"));
        assert_eq!(sniff(&file, &["-t"]), lengths.concat());
    });
}

#[test]
fn short_lines_have_lengths() {
    bounded(60, || {
        let folder = Folder::new();
        let file = folder.join("file");
        write(&file, &frames(), 262_144);
        let output = sniff(&file, &["-q", "-t"]);
        let lines: Vec<_> = output.lines().collect();
        assert_eq!(lines[0], "10.0.0.1:1000 > 10.0.0.2:2000 UDP length 3");
        assert_eq!(lines[1], "10.0.0.1:1000 > 10.0.0.2:80 TCP length 0");
        assert_eq!(lines[2], "10.0.0.1 > 10.0.0.2 ICMP echo request id 7 seq 1 length 64");
        let line = "10.0.0.1:1000 > 10.0.0.2:2000 UDP length 3000 (first fragment)";
        assert_eq!(lines[3], line);
        let packet = sniff(&file, &["--json", "-c", "1"]);
        let packet: serde_json::Value = serde_json::from_str(&packet).unwrap();
        assert_eq!((&packet["source"], &packet["source_port"]), (&"10.0.0.1".into(), &1000.into()));
        assert_eq!((&packet["protocol"], &packet["captured"]), (&"UDP".into(), &45.into()));
        let line = run(&["--json", "sniff", "-r", file.to_str().unwrap(), "-t"]).failure(2);
        assert!(line.contains("--json"), "{line}");
    });
}

#[test]
fn programs_are_printed_as_tcpdump_prints_them() {
    const TEST: &str = "sniff_tcpdump::programs_are_printed_as_tcpdump_prints_them";
    bounded(60, || {
        if !program_or_skip("tcpdump", TEST) || !compiler_or_skip(TEST) {
            return;
        }
        let every = "udp port 67 or tcp[13] & 2 != 0 and len > 100 or vlan or ip[ip[0]:4] >= 5 or \
                     ip[5] * ip[7] / 3 % 7 ^ 5 = -ip[3] or ip[5] >> 3 | 4 == 2 or ip[2] << ip[1] - ip[3] > ip[4] + 1";
        for (types, expression) in [
            (&["EN10MB", "RAW", "LINUX_SLL", "LINUX_SLL2"][..], "udp port 67"),
            (&["EN10MB"], every),
            (&["EN10MB"], "inbound or ether broadcast or ip6 host ::1 or arp"),
            (&["RAW"], ""),
        ] {
            for (name, option) in
                types.iter().flat_map(|name| ["-d", "-dd", "-ddd"].map(|o| (name, o)))
            {
                let arguments = [option, "-y", name, expression];
                let output = Command::new("tcpdump").args(arguments).output().unwrap();
                let expected = String::from_utf8(output.stdout).unwrap();
                assert!(!expected.is_empty(), "{arguments:?}");
                let found = run(&[&["sniff"], &arguments[..]].concat()).success();
                // libpcap writes blanks behind an operation without an operand.
                let lines = |text: &str| -> Vec<_> {
                    text.lines().map(|l| l.trim_end().to_owned()).collect()
                };
                assert_eq!(lines(&found), lines(&expected), "{arguments:?}");
            }
        }
        let default = run(&["sniff", "-d", "udp", "port", "67"]).success();
        assert_eq!(default, run(&["sniff", "-d", "-y", "en10mb", "udp port 67"]).success());
        let line = run(&["sniff", "-d", "-y", "NETLINK", "udp"]).failure(2);
        assert!(line.contains("choose EN10MB, RAW"), "{line}");
    });
}

#[test]
fn expression_of_a_file_selects_packets() {
    const TEST: &str = "sniff_tcpdump::expression_of_a_file_selects_packets";
    bounded(60, || {
        if !compiler_or_skip(TEST) {
            return;
        }
        let folder = Folder::new();
        let file = folder.join("file");
        write(&file, &frames(), 262_144);
        folder.write("filter", "# datagrams\nudp # all\n and port 1000\n");
        let filter = folder.join("filter");
        let filter = filter.to_str().unwrap();
        let output = sniff(&file, &["-t", "-F", filter]);
        assert_eq!(output.matches(" UDP ").count(), 2, "{output}");
        let name = file.to_str().unwrap();
        let output = run_with_input(&["sniff", "-t", "-r", name, "-F", "-"], b"icmp").success();
        assert_eq!(output.lines().count(), 1, "{output}");
        let line = run(&["sniff", "-r", name, "-F", filter, "udp"]).failure(2);
        assert!(line.contains("leave out `udp`"), "{line}");
        let line = run(&["sniff", "-r", name, "-F", "/none"]).failure(74);
        assert!(line.contains("/none: ENOENT"), "{line}");
    });
}

#[test]
fn packets_of_a_file_are_written_to_another_one() {
    const TEST: &str = "sniff_tcpdump::packets_of_a_file_are_written_to_another_one";
    bounded(60, || {
        if !program_or_skip("tcpdump", TEST) || !compiler_or_skip(TEST) {
            return;
        }
        let folder = Folder::new();
        let [old, new, newer] =
            ["old.pcap", "new.pcap", "newer.pcapng"].map(|name| folder.join(name));
        write(&old, &frames(), 100);
        let name = |path: &Path| path.to_str().unwrap().to_owned();
        let copy = |from: &Path, to: &Path, expression: &str| {
            let outcome = run(&["sniff", "-r", &name(from), "-w", &name(to), expression]);
            assert_eq!((outcome.code, outcome.out.as_str()), (0, ""), "{outcome:?}");
            outcome.err
        };
        // From pcap, in which the first packets are.
        let reported = copy(&old, &new, "udp or icmp");
        assert!(reported.contains(&format!("writing pcapng to {}\n", new.display())), "{reported}");
        assert_eq!(tcpdump(&new, &[]), tcpdump(&old, &["udp or icmp"]));
        // From pcapng: its blocks are not changed.
        let reported = copy(&new, &newer, "");
        assert!(!reported.contains("pcapng to"), "{reported}");
        assert_eq!(std::fs::read(&newer).unwrap(), std::fs::read(&new).unwrap());
        copy(&new, &newer, "icmp");
        assert_eq!(tcpdump(&newer, &[]), tcpdump(&old, &["icmp"]));
        let bytes = std::fs::read(&newer).unwrap();
        let mut reader = Reader::new(&bytes[..]);
        let mut packets = 0;
        while let Some(block) = reader.next_block().unwrap() {
            if let Block::Packet(packet) = block {
                packets += 1;
                assert_eq!((packet.length, packet.data.len()), (98, 98));
                assert_eq!(packet.time.unwrap() % SECOND, 126_456_789);
            }
        }
        assert_eq!(packets, 1);
        let count = ["sniff", "-r", &name(&old), "-w", &name(&newer), "--print", "-c", "2"];
        assert_eq!(run(&count).success().lines().count(), 2);
        assert_eq!(tcpdump(&newer, &[]), tcpdump(&old, &["-c", "2"]));
        let line = run(&["sniff", "-r", &name(&old), "-w", &name(&old)]).failure(2);
        assert!(line.contains("is the file that is read"), "{line}");
        assert_eq!(tcpdump(&old, &[]).lines().count(), 4);
    });
}

#[test]
fn options_without_effect_are_accepted_and_others_are_explained() {
    bounded(60, || {
        let folder = Folder::new();
        let file = folder.join("file");
        write(&file, &frames(), 262_144);
        let options =
            ["-nn", "-l", "-U", "-K", "-S", "-O", "-Z", "nobody", "--immediate-mode", "--print"];
        assert_eq!(sniff(&file, &options), sniff(&file, &[]));
        let name = file.to_str().unwrap();
        for (option, part) in [
            ("-I", "sniff has no -I: the administrator puts the interface into monitor mode"),
            ("-j", "sniff has no -j: the kernel takes the times"),
            ("-z", "sniff has no -z: run the command"),
            ("-g", "sniff has no -g: `sockbroker sniff --help` lists its options"),
            ("--nano", "sniff has no --nano: files and --json have nanoseconds"),
        ] {
            let line = run(&["sniff", "-r", name, option]).failure(2);
            assert!(line.contains(part), "{line}");
            let line = run(&["sniff", &format!("-n{}", option.trim_start_matches('-')), "lo"]);
            assert_eq!(line.code, 2, "{line:?}");
        }
        // Of another subcommand.
        let outcome = run(&["info", "-x"]);
        assert!(outcome.err.contains("unexpected argument '-x'"), "{outcome:?}");
    });
}
