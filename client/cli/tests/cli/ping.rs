//! `sockbroker ping` in a namespace, with datagram sockets and with raw sockets.

use std::io::{BufRead as _, BufReader};
use std::process::Command;

use serde_json::Value;
use sockbroker_test_support::{Start, bounded, namespace, pause, until};

use crate::program::{Outcome, PROGRAM, broker, endpoint, run, start};
use crate::sniff::{listening, pair};

const GROUPS: &str = "/proc/sys/net/ipv4/ping_group_range";

#[test]
fn raw_socket_is_used_if_datagram_sockets_are_refused() {
    namespace::inside("ping::raw_socket_is_used_if_datagram_sockets_are_refused", || {
        // A new network namespace allows no group.
        assert_ne!(std::fs::read_to_string(GROUPS).unwrap(), "0\t0\n");
        for (host, overhead) in [("127.0.0.1", 84), ("::1", 104)] {
            let output = run(&["--private", "ping", "-c", "2", "-i", "0.05", host]).success();
            let first = format!(
                "PING {host} ({host}) 56({overhead}) bytes of data, raw socket of a private broker"
            );
            assert_eq!(output.lines().next(), Some(first.as_str()));
            for part in [
                &format!("64 bytes from {host}: icmp_seq=1 ttl=64 time="),
                &format!("64 bytes from {host}: icmp_seq=2 ttl=64 time="),
                "2 packets transmitted, 2 received, 0% packet loss, time ",
                "rtt min/avg/max/mdev = ",
            ] {
                assert!(output.contains(part), "{part} in {output}");
            }
        }
    });
}

#[test]
fn datagram_socket_is_used_if_allowed() {
    namespace::inside("ping::datagram_socket_is_used_if_allowed", || {
        std::fs::write(GROUPS, "0 0").unwrap();
        for host in ["127.0.0.1", "::1"] {
            let output = run(&["--private", "ping", "-c", "1", host]).success();
            assert!(
                output.contains("datagram socket") && output.contains("1 received"),
                "{output}"
            );
        }
    });
}

#[test]
fn json_option_prints_json_lines() {
    namespace::inside("ping::json_option_prints_json_lines", || {
        let output =
            run(&["--private", "--json", "ping", "-c", "2", "-i", "0", "127.0.0.1"]).success();
        let lines: Vec<Value> =
            output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [first, _, summary] = lines.as_slice() else { panic!("{output}") };
        assert_eq!((&first["sequence"], &first["ttl"]), (&1.into(), &64.into()));
        assert!(first["milliseconds"].as_f64().unwrap() > 0.0);
        assert_eq!((&summary["sent"], &summary["received"]), (&2.into(), &2.into()));
    });
}

#[test]
fn missing_reply_exits_with_1() {
    namespace::inside("ping::missing_reply_exits_with_1", || {
        // This namespace has no route to the address.
        let outcome = run(&["--private", "ping", "-c", "1", "-W", "0.2", "192.0.2.1"]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(
            outcome.out.contains("ENETUNREACH") && outcome.out.contains("100% packet loss"),
            "{outcome:?}"
        );
    });
}

#[test]
fn closed_group_range_error_names_the_sysctl() {
    const TEST: &str = "ping::closed_group_range_error_names_the_sysctl";
    namespace::inside(TEST, || {
        let script =
            "exec setpriv --bounding-set=-all --inh-caps=-all \"$0\" --private ping -c 1 ::1";
        let run = || Command::new("sh").args(["-c", script, PROGRAM]).output();
        let line = Outcome::from(run().unwrap()).failure(2);
        // The refusal of the datagram socket, not of the raw socket.
        for part in ["EACCES", "`sysctl -w net.ipv4.ping_group_range='0 2147483647'`"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains("CAP_NET_RAW"), "{line}");
        std::fs::write(GROUPS, "0 0").unwrap();
        assert!(Outcome::from(run().unwrap()).success().contains("1 received"));
    });
}

#[test]
fn policy_refusal_is_about_the_datagram_socket() {
    namespace::inside("ping::policy_refusal_is_about_the_datagram_socket", || {
        let policy = "version = 1\n[[rule]]\nname = \"none\"\ndeny = [\"create\"]\n";
        let broker = Start::new(PROGRAM).shell("set -- broker \"$@\"").policy(policy);
        let broker = broker.start();
        let outcome = run(&["--broker", &endpoint(&broker), "ping", "-c", "1", "127.0.0.1"]);
        let line = outcome.failure(2);
        assert!(line.contains("SOCK_DGRAM") && !line.contains("SOCK_RAW"), "{line}");
        assert!(!line.contains("ping_group_range"), "{line}");
    });
}

#[test]
fn quiet_prints_only_first_line_and_statistics() {
    namespace::inside("ping::quiet_prints_only_first_line_and_statistics", || {
        let output =
            run(&["--private", "ping", "-q", "-n", "-c", "2", "-i", "0", "127.0.0.1"]).success();
        assert!(!output.contains("icmp_seq"), "{output}");
        assert!(output.starts_with("PING ") && output.contains("2 received"), "{output}");
        let output =
            run(&["--private", "--json", "ping", "-q", "-c", "2", "-i", "0", "::1"]).success();
        let summary: Value = serde_json::from_str(&output).unwrap();
        assert_eq!(summary["received"], 2);
    });
}

#[test]
fn ttl_option_sets_the_ttl_of_packets() {
    namespace::inside("ping::ttl_option_sets_the_ttl_of_packets", || {
        for host in ["127.0.0.1", "::1"] {
            let (child, _said) = listening(&["lo", "--count", "1", "--write", "-"]);
            run(&["--private", "ping", "-q", "-t", "7", "-c", "1", host]).success();
            let file = child.wait_with_output().unwrap().stdout;
            // The packet block, after the Ethernet header: byte 8 of IPv4, byte 7 of IPv6.
            let mut block = file.as_slice();
            while block[..4] != 6u32.to_ne_bytes() {
                let length = u32::from_ne_bytes(block[4..8].try_into().unwrap());
                block = &block[length as usize..];
            }
            let at = if host == "::1" { 7 } else { 8 };
            assert_eq!(block[28 + 14 + at], 7, "{host}");
        }
        assert_eq!(run(&["--private", "ping", "-t", "0", "127.0.0.1"]).code, 2);
    });
}

#[test]
fn source_option_accepts_an_interface_or_an_address() {
    namespace::inside("ping::source_option_accepts_an_interface_or_an_address", || {
        std::fs::write(GROUPS, "0 0").unwrap();
        for source in ["lo", "127.0.0.2"] {
            let ping = ["--private", "ping", "-c", "1", "-I", source, "127.0.0.1"];
            assert!(run(&ping).success().contains("1 received"), "{source}");
        }
        pair("v0", "v1");
        // That interface has no route to the loopback address.
        let ping = ["--private", "ping", "-c", "1", "-W", "0.3", "-I", "v0", "127.0.0.1"];
        assert_eq!(run(&ping).code, 1);
        let line = run(&["--private", "ping", "-I", "nowhere0", "127.0.0.1"]).failure(2);
        assert!(line.contains("ENODEV"), "{line}");
    });
}

#[test]
fn largest_request_is_answered() {
    namespace::inside("ping::largest_request_is_answered", || {
        for kind in ["raw socket", "datagram socket"] {
            let output =
                run(&["--private", "ping", "-c", "1", "-s", "65507", "127.0.0.1"]).success();
            assert!(
                output.contains("65515 bytes from 127.0.0.1") && output.contains(kind),
                "{output}"
            );
            std::fs::write(GROUPS, "0 0").unwrap();
        }
        assert_eq!(run(&["--private", "ping", "-s", "65508", "127.0.0.1"]).code, 2);
    });
}

#[test]
fn deadline_ends_the_ping_and_counts_replies() {
    namespace::inside("ping::deadline_ends_the_ping_and_counts_replies", || {
        let ping = |more: &[&str]| run(&[&["--private", "ping", "-i", "0.05"], more].concat());
        // It ends at the deadline, without a count and although a reply arrived.
        let output = ping(&["-w", "1", "127.0.0.1"]).success();
        assert!(output.contains(" 0% packet loss"), "{output}");
        assert!(ping(&["-w", "100", "-c", "2", "127.0.0.1"]).success().contains("2 received"));
        // Fewer replies than --count at the deadline.
        assert_eq!(ping(&["-w", "0.2", "-c", "1000", "127.0.0.1"]).code, 1);
    });
}

#[test]
fn unknown_host_exits_with_2() {
    bounded(30, || {
        let line = run(&["--private", "ping", "-c", "1", "host.invalid."]).failure(2);
        assert!(line.contains("EAI_"), "{line}");
    });
}

#[test]
fn second_interrupt_ends_ping_if_the_broker_hangs() {
    namespace::inside("ping::second_interrupt_ends_ping_if_the_broker_hangs", || {
        let broker = broker();
        let mut child = start(&["--broker", &endpoint(&broker), "ping", "-i", "0.05", "127.0.0.1"]);
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(output.next().unwrap().unwrap().starts_with("PING"));
        let signal = |name: &str, process: u32| {
            let sent = Command::new("kill").args([name, &process.to_string()]).status().unwrap();
            assert!(sent.success(), "{name}");
        };
        signal("-STOP", broker.worker());
        // The first interrupt arrives while a call waits for ever.
        signal("-INT", child.id());
        pause(500);
        assert_eq!(child.try_wait().unwrap(), None);
        // One that comes soon after the first counts as the same, and the first can be late.
        until("a later interrupt ends it", || {
            let ended = child.try_wait().unwrap().is_some();
            if !ended {
                signal("-INT", child.id());
                pause(400);
            }
            ended
        });
        assert!(!child.wait().unwrap().success());
    });
}
