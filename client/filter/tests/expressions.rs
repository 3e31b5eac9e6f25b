//! Expressions by libpcap, compared with `tcpdump -ddd` and with the Python package, and what they select.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sockbroker_filter::{Compiler, FilterError, LinkLayer, Program};
use sockbroker_test_support::bpf::{Frame, run};
use sockbroker_test_support::program;
use sockbroker_test_support::skip::skip;

/// Expressions that need no name server.
const EXPRESSIONS: &[&str] = &[
    "",
    "ip",
    "ip6",
    "arp",
    "rarp",
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "igmp",
    "sctp",
    "esp",
    "ah",
    "vrrp",
    "port 53",
    "port http",
    "udp port 67",
    "udp port 67 or port 68",
    "tcp port 80 and host 10.0.0.1",
    "src host 10.0.0.1",
    "dst host 10.0.0.1",
    "host 10.0.0.1 and not port 22",
    "net 10.0.0.0/8",
    "src net 192.168.0.0/16 or dst net 172.16.0.0/12",
    "net 10.0.0.0 mask 255.255.255.0",
    "ip6 host 2001:db8::1",
    "ip6 net 2001:db8::/32",
    "ip6 and udp port 53",
    "portrange 1024-2048",
    "tcp src portrange 1-1023",
    "ip proto 47",
    "ip6 proto 58",
    "proto 17",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "tcp[13] & 2 != 0",
    "tcp[tcpflags] == tcp-syn",
    "ip[2:2] > 100",
    "ip[6:2] & 0x1fff = 0",
    "icmp[icmptype] == icmp-echo",
    "icmp6[icmp6type] == icmp6-echo",
    "udp[8:4] = 0x01020304",
    "ip[0] & 0xf != 5",
    "len > 100",
    "greater 100",
    "less 64",
    "len >= 60 and len <= 70",
    "ip multicast",
    "ip6 multicast",
    "not ip",
    "not (tcp or udp)",
    "tcp and (port 80 or port 443) and not src net 10.0.0.0/8",
    "host 10.0.0.1 or host 10.0.0.2 or host 10.0.0.3",
    "tcp port 22 and (tcp[((tcp[12]&0xf0)>>2):4] = 0x5353482d)",
    "ip proto \\tcp",
    "udp and ip[8] < 10",
    "ip6[6] = 17",
    "(ip or ip6) and len % 2 = 0",
    "ip and not dst net 224.0.0.0/4",
    "tcp[2:2] - tcp[0:2] = 0",
    // Refused by the kernel, not by libpcap.
    "ip protochain 6",
    // For Ethernet only.
    "ether host 02:00:00:00:00:01",
    "ether src 02:00:00:00:00:01 and ether dst ff:ff:ff:ff:ff:ff",
    "ether broadcast",
    "ether multicast",
    "ether proto 0x88cc",
    "ether proto \\arp",
    "ether[12:2] = 0x0806",
    "vlan",
    "vlan 100",
    "vlan 100 and udp port 67",
    "vlan 200 and vlan 100",
    "not vlan",
    "mpls",
    "pppoes",
    "stp",
    "ether[0] & 1 = 1 and not arp",
    "lldp",
    // Errors.
    "udp port",
    "host",
    "and",
    "port 99999",
    "vlan 5000",
    "net 10.0.0.1/8",
    "ip6 host 10.0.0.1",
    "tcp[",
    "foo bar",
    "proto 300000000000",
];

/// Returns the compiler. If it is not installed, the test is skipped.
fn required(found: Option<Compiler>, name: &str, test: &str) -> Option<Compiler> {
    if found.is_none() {
        skip(&format!("{name} is not installed"), test);
    }
    found
}

#[test]
fn libpcap_and_tcpdump_have_the_same_programs_and_messages() {
    let test = "libpcap_and_tcpdump_have_the_same_programs_and_messages";
    let Some(library) = required(Compiler::libpcap(), "libpcap", test) else { return };
    let Some(tcpdump) = required(Compiler::tcpdump(), "tcpdump", test) else { return };
    assert!(library.description().contains("libpcap version"), "{}", library.description());
    let (mut compiled, mut refused) = (0, 0);
    for link in LinkLayer::ALL {
        for expression in EXPRESSIONS {
            let both = [&library, &tcpdump].map(|way| way.compile_for_file(expression, link));
            match both {
                [Ok(ours), Ok(theirs)] => {
                    assert_eq!(ours.to_string(), theirs.to_string(), "{expression} on {link:?}");
                    compiled += 1;
                }
                [Err(ours), Err(theirs)] => {
                    assert_eq!(ours.to_string(), theirs.to_string(), "{expression} on {link:?}");
                    refused += 1;
                }
                other => panic!("{expression} on {link:?}: {other:?}"),
            }
        }
    }
    assert!(compiled >= 240 && refused >= 40, "{compiled} compiled, {refused} refused");
}

#[test]
fn errors_have_the_message_of_libpcap_and_the_expression() {
    let test = "errors_have_the_message_of_libpcap_and_the_expression";
    let Some(compiler) = required(Compiler::libpcap(), "libpcap", test) else { return };
    for (expression, part) in [
        ("udp port", "syntax error"),
        ("port 99999", "illegal port number 99999 > 65535"),
        ("vlan 5000", "VLAN tag 5000 greater than maximum 4095"),
        ("net 10.0.0.1/8", "non-network bits set in \"10.0.0.1/8\""),
        ("ip6 host 10.0.0.1", "'ip6' modifier applied to ip host"),
        ("ip broadcast", "netmask not known, so 'ip broadcast' not supported"),
    ] {
        match compiler.compile(expression, LinkLayer::Ethernet) {
            Err(error @ FilterError::Refused { .. }) => {
                let text = error.to_string();
                assert!(text.contains(part) && text.contains(&format!("{expression:?}")), "{text}");
            }
            other => panic!("{expression}: {other:?}"),
        }
    }
}

#[test]
fn programs_that_the_kernel_cannot_run_are_refused_before_it_sees_them() {
    let test = "programs_that_the_kernel_cannot_run_are_refused_before_it_sees_them";
    let Some(compiler) = required(Compiler::libpcap(), "libpcap", test) else { return };
    let error = compiler.compile("ip protochain 6", LinkLayer::Ethernet).unwrap_err();
    assert!(matches!(error, FilterError::Kernel { .. }), "{error}");
    assert!(error.to_string().contains("the kernel does not run loops"), "{error}");
    let error = compiler.compile("vlan and ether[13] = 1", LinkLayer::Ethernet).unwrap_err();
    assert!(matches!(error, FilterError::Vlan { .. }), "{error}");
    let long = format!("udp{}", " ".repeat(64 << 10));
    let error = compiler.compile(&long, LinkLayer::Ethernet).unwrap_err();
    assert!(matches!(error, FilterError::TooLong { bytes: 65_539 }), "{error}");
    assert!(compiler.compile(&long[..64 << 10], LinkLayer::Ethernet).is_ok());
    let error = compiler.compile("udp\0", LinkLayer::Ethernet).unwrap_err();
    assert!(matches!(error, FilterError::NullByte), "{error}");
}

#[test]
fn threads_compile_at_the_same_time() {
    let test = "threads_compile_at_the_same_time";
    let Some(first) = required(Compiler::libpcap(), "libpcap", test) else { return };
    let expressions = &EXPRESSIONS[..40];
    let expected: Vec<_> = expressions
        .iter()
        .map(|expression| first.compile(expression, LinkLayer::Ethernet).ok())
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                // A compiler of its own and a shared one.
                let own = Compiler::new().unwrap();
                for _ in 0..25 {
                    for (expression, expected) in expressions.iter().zip(&expected) {
                        for compiler in [&own, &first] {
                            let found = compiler.compile(expression, LinkLayer::Ethernet).ok();
                            assert_eq!(found, *expected, "{expression}");
                        }
                    }
                }
            });
        }
    });
}

/// Frames with up to three tags of each protocol, and payloads of UDP, TCP and ARP.
fn frames() -> Vec<Vec<u8>> {
    let tags: [&[u16]; 10] = [
        &[],
        &[0x8100, 100],
        &[0x8100, 0xA064],
        &[0x8100, 200],
        &[0x88A8, 200, 0x8100, 100],
        &[0x8100, 200, 0x8100, 100],
        &[0x8100, 1, 0x8100, 200, 0x8100, 100],
        &[0x9100, 100],
        &[0x8100, 0],
        &[0x88A8, 100],
    ];
    let ip = |protocol: u8, port: u8| {
        let header = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        [&[8, 0][..], &header, &[0, port, 0, 67, 0, 20, 0, 0], &[0; 12]].concat()
    };
    let arp = [&[8, 6][..], &[0; 44]].concat();
    let payloads = [ip(17, 67), ip(17, 68), ip(6, 80), arp, vec![8, 0, 0x45]];
    let mut frames = Vec::new();
    for tag in tags {
        let tag: Vec<u8> = tag.iter().flat_map(|word| word.to_be_bytes()).collect();
        for payload in &payloads {
            frames.push([&[2; 12][..], &tag, payload].concat());
        }
    }
    frames
}

#[test]
fn vlan_expressions_select_the_same_frames_live_and_in_a_file() {
    let test = "vlan_expressions_select_the_same_frames_live_and_in_a_file";
    let Some(compiler) = required(Compiler::libpcap(), "libpcap", test) else { return };
    let expressions = [
        "vlan",
        "vlan 100",
        "vlan 100 and udp port 67",
        "vlan 0",
        "not vlan",
        "vlan 200 and vlan 100",
        "vlan and vlan and vlan",
        "vlan 100 and greater 62",
        "vlan and less 61",
        "vlan and arp",
        "vlan 100 and tcp",
        "vlan and ip host 10.0.0.1",
        "vlan 200 and ether src 02:02:02:02:02:02",
        "vlan 200 and vlan 100 and ip",
    ];
    for expression in expressions {
        let whole = compiler.compile_for_file(expression, LinkLayer::Ethernet).unwrap();
        let live = compiler.compile(expression, LinkLayer::Ethernet).unwrap();
        let mut selected = 0;
        for frame in frames() {
            let in_file = run(&whole, Frame { data: &frame, ..Frame::default() });
            let protocol = u16::from_be_bytes([frame[12], frame[13]]);
            // The kernel does not remove tags of 0x9100.
            let found = if [0x8100, 0x88A8].contains(&protocol) {
                let tag = Some((protocol, u16::from_be_bytes([frame[14], frame[15]])));
                let data = [&frame[..12], &frame[16..]].concat();
                run(&live, Frame { data: &data, tag, ..Frame::default() })
            } else {
                run(&live, Frame { data: &frame, ..Frame::default() })
            };
            assert_eq!(found, in_file, "{expression}: {frame:x?}");
            selected += usize::from(found != 0);
        }
        assert!(selected > 0 && selected < frames().len(), "{expression}: {selected}");
    }
}

#[test]
fn packets_of_files_are_selected_as_the_kernel_selects_them() {
    let test = "packets_of_files_are_selected_as_the_kernel_selects_them";
    let Some(compiler) = required(Compiler::libpcap(), "libpcap", test) else { return };
    let mut compared = 0;
    for expression in EXPRESSIONS {
        let Ok(program) = compiler.compile_for_file(expression, LinkLayer::Ethernet) else {
            continue;
        };
        for frame in frames() {
            for length in [frame.len(), 20, 0] {
                let data = &frame[..length.min(frame.len())];
                let expected = run(&program, Frame { data, ..Frame::default() }) > 0;
                let length = u32::try_from(data.len()).unwrap();
                assert_eq!(program.selects(data, length), expected, "{expression}: {data:x?}");
                compared += 1;
            }
        }
    }
    assert!(compared > 9000, "{compared}");
    // The length on the wire counts, and bytes that were not captured select nothing.
    let greater = compiler.compile_for_file("greater 100", LinkLayer::Ethernet).unwrap();
    assert!(greater.selects(&[0; 14], 100) && !greater.selects(&[0; 14], 99));
    let port = compiler.compile_for_file("udp dst port 67", LinkLayer::Ethernet).unwrap();
    let frame = &frames()[0];
    assert!(port.selects(frame, 54) && !port.selects(&frame[..36], 54));
}

#[test]
fn program_for_any_interface_selects_by_what_packets_begin_with() {
    const TEST: &str = "program_for_any_interface_selects_by_what_packets_begin_with";
    let Ok(compiler) = Compiler::new() else {
        skip("neither libpcap nor tcpdump is installed", TEST);
        return;
    };
    let ip = [
        &[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2][..],
        &[0, 7, 0, 9, 0, 8, 0, 0],
    ]
    .concat();
    let frame = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &ip].concat();
    let selects = |expression: &str, data: &[u8], hardware: u32| {
        let program = compiler.compile_for_any(expression).unwrap();
        run(&program, Frame { data, hardware, ..Frame::default() }) > 0
    };
    for (expression, ethernet, raw) in [
        ("udp port 9", true, true),
        ("udp port 8", false, false),
        ("host 10.0.0.2", true, true),
        // These are about frames.
        ("ether host 02:00:00:00:00:02", true, false),
        ("not vlan", true, false),
    ] {
        assert_eq!(selects(expression, &frame, 1), ethernet, "{expression}");
        assert_eq!(selects(expression, &frame, 772), ethernet, "{expression}");
        assert_eq!(selects(expression, &ip, 0xFFFE), raw, "{expression}");
        // IEEE 802.11.
        assert!(!selects(expression, &frame, 801), "{expression}");
    }
    assert!(matches!(compiler.compile_for_any("udp port"), Err(FilterError::Refused { .. })));
}

/// For each expression and link type: the program for a file and the one for a socket, or the error, and the frames that
/// the first selects.
const PYTHON: &str = r"
import sys
from sockbroker import bpf, bpf_run, packet_filter
frames = [bytes.fromhex(frame) for frame in sys.argv[1].split()]
for expression in sys.argv[2].split('\n'):
    for link in (1, 101, 113, 276):
        for compiled in (packet_filter.compile_for_file, packet_filter.compile_for_socket):
            try:
                program = compiled(expression, link)
                print(bpf.encode(program).hex())
            except packet_filter.FilterError as error:
                print(error)
                program = None
            if program and link == 1 and compiled == packet_filter.compile_for_file and 'chain' not in expression:
                print(*[int(bpf_run.run(program, frame, len(frame)) > 0) for frame in frames], sep='')
";

#[test]
fn python_package_has_the_same_programs_and_messages() {
    let test = "python_package_has_the_same_programs_and_messages";
    let Some(compiler) = required(Compiler::libpcap(), "libpcap", test) else { return };
    let hex =
        |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let frames = frames();
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python/src");
    let mut python = Command::new("python3");
    python.args(["-c", PYTHON]).env("PYTHONPATH", package).env("PYTHONDONTWRITEBYTECODE", "1");
    python.arg(frames.iter().map(|frame| hex(frame)).collect::<Vec<_>>().join(" "));
    python.arg(EXPRESSIONS.join("\n"));
    let ended = program::run(&mut python, Duration::from_mins(5));
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    let mut lines = ended.output.lines();
    let shown = |compiled: Result<Program, FilterError>| match compiled {
        Ok(program) => hex(&program.encode()),
        Err(error) => error.to_string(),
    };
    for expression in EXPRESSIONS {
        for link in LinkLayer::ALL {
            let in_file = compiler.compile_for_file(expression, link);
            let selected = in_file.as_ref().ok().map(|program| {
                let is_selected =
                    |frame: &Vec<u8>| run(program, Frame { data: frame, ..Frame::default() }) != 0;
                frames.iter().map(|frame| if is_selected(frame) { '1' } else { '0' }).collect()
            });
            let selected = selected
                .filter(|_: &String| link == LinkLayer::Ethernet && !expression.contains("chain"));
            for expected in
                [Some(shown(in_file)), selected, Some(shown(compiler.compile(expression, link)))]
            {
                let Some(expected) = expected else { continue };
                assert_eq!(lines.next(), Some(&*expected), "{expression} on {link:?}");
            }
        }
    }
    assert_eq!(lines.next(), None);
}
