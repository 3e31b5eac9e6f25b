//! tshark, capinfos, editcap and tcpdump.

use sockbroker_test_support::skip::program_or_skip;

use super::program::{file, output};
use super::{read_interfaces, read_packets, sample, sample_packets};

#[test]
fn tshark_reads_packets_with_their_facts() {
    if !program_or_skip("tshark", "tshark_reads_packets_with_their_facts") {
        return;
    }
    let (_folder, path) = file(&sample::pcapng());
    let fields = [
        "frame.time_epoch",
        "frame.cap_len",
        "frame.len",
        "frame.interface_name",
        "frame.packet_flags_direction",
        "frame.packet_flags_reception_type",
        "frame.drop_count",
        "frame.comment",
        "vlan.id",
    ];
    let mut arguments = vec!["-T", "fields"];
    arguments.extend(fields.iter().flat_map(|field| ["-e", field]));
    arguments.push("-r");
    let text = output("tshark", &arguments, &path);
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let expected = [
        ["1700000000.123456789", "47", "47", "eth0", "0x00000002", "0", "", "", ""],
        ["1700000000.123456790", "52", "52", "eth0", "0x00000001", "1", "7", "", "100"],
        ["1700000001.123456796", "64", "242", "eth1", "0x00000001", "3", "", "cut off", ""],
    ];
    assert_eq!(rows, expected);
}

#[test]
fn capinfos_reads_section_interfaces_and_statistics() {
    if !program_or_skip("capinfos", "capinfos_reads_section_interfaces_and_statistics") {
        return;
    }
    let (_folder, path) = file(&sample::pcapng());
    let text = output("capinfos", &["-M"], &path);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let expected = [
        "Number of packets:   3",
        "Capture hardware:    x86_64",
        "Capture oper-sys:    Linux 6.1",
        "Capture application: sockbroker",
        "Capture comment:     a section",
        "Number of interfaces in file: 2",
        "Name = eth0",
        "Description = the first",
        "Hardware = veth",
        "Speed = 1000000000",
        "Capture length = 68",
        "Time resolution = 0x09",
        "Filter string = udp port 67",
        "Comment = an interface",
        "Name = eth1",
        "Number of stat entries = 1",
    ];
    for line in expected {
        assert!(lines.contains(&line), "{line} is not in\n{text}");
    }
    assert_eq!(lines.iter().filter(|line| **line == "Number of stat entries = 1").count(), 2);
}

#[test]
fn tcpdump_reads_both_formats() {
    if !program_or_skip("tcpdump", "tcpdump_reads_both_formats") {
        return;
    }
    for bytes in [sample::pcapng(), sample::pcap()] {
        let (_folder, path) = file(&bytes);
        let arguments = ["-nn", "-tt", "--time-stamp-precision=nano", "-r"];
        let text = output("tcpdump", &arguments, &path);
        let starts = [
            "1700000000.123456789 IP 10.0.0.1.4386 > 10.0.0.2.67: ",
            "1700000000.123456790 IP 10.0.0.1.4386 > 10.0.0.2.67: ",
            "1700000001.123456796 IP 10.0.0.1.4386 > 10.0.0.2.67: ",
        ];
        assert_eq!(text.lines().count(), 3, "{text}");
        for (line, start) in text.lines().zip(starts) {
            assert!(line.starts_with(start), "{line}");
        }
    }
}

#[test]
fn files_that_wireshark_and_tcpdump_rewrite_are_read() {
    let test = "files_that_wireshark_and_tcpdump_rewrite_are_read";
    let (folder, path) = file(&sample::pcapng());
    let target = folder.path().join("rewritten");
    let source = path.to_str().unwrap();
    let precise = "--time-stamp-precision=nano";
    let commands: [(&str, &[&str]); 5] = [
        ("tshark", &["-r", source, "-w"]),
        ("tshark", &["-r", source, "-F", "nsecpcap", "-w"]),
        ("editcap", &["-F", "pcapng", source]),
        ("editcap", &["-F", "nsecpcap", source]),
        ("tcpdump", &["-r", source, precise, "-w"]),
    ];
    for (program, arguments) in commands {
        if !program_or_skip(program, test) {
            return;
        }
        output(program, arguments, &target);
        let bytes = std::fs::read(&target).unwrap();
        assert_eq!(read_packets(&bytes), sample_packets(), "{program} {arguments:?}");
        let pcapng = bytes.starts_with(&[0x0A, 0x0D, 0x0D, 0x0A]);
        let names: &[&str] = if pcapng { &["eth0", "eth1"] } else { &[""] };
        assert_eq!(read_interfaces(&bytes), names, "{program} {arguments:?}");
    }
}
