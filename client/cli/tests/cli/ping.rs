//! `sockbroker ping` in a namespace, by both kinds of sockets.

use std::io::{BufRead as _, BufReader};
use std::process::Command;

use serde_json::Value;
use sockbroker_test_support::{Start, bounded, namespace, pause};

use crate::program::{PROGRAM, Ran, broker, endpoint, run, start};
use crate::sniff::{listening, pair};

const GROUPS: &str = "/proc/sys/net/ipv4/ping_group_range";

#[test]
fn a_raw_socket_serves_where_datagram_sockets_are_not_allowed() {
    namespace::inside("ping::a_raw_socket_serves_where_datagram_sockets_are_not_allowed", || {
        // What a new network namespace begins with: no group at all.
        assert_ne!(std::fs::read_to_string(GROUPS).unwrap(), "0\t0\n");
        for (host, overhead) in [("127.0.0.1", 84), ("::1", 104)] {
            let told = run(&["--private", "ping", "-c", "2", "-i", "0.05", host]).done();
            let first = format!(
                "PING {host} ({host}) 56({overhead}) bytes of data, raw socket of a private broker"
            );
            assert_eq!(told.lines().next(), Some(first.as_str()));
            for part in [
                &format!("64 bytes from {host}: icmp_seq=1 ttl=64 time="),
                &format!("64 bytes from {host}: icmp_seq=2 ttl=64 time="),
                "2 packets transmitted, 2 received, 0% packet loss, time ",
                "rtt min/avg/max/mdev = ",
            ] {
                assert!(told.contains(part), "{part} in {told}");
            }
        }
    });
}

#[test]
fn a_datagram_socket_serves_where_it_is_allowed() {
    namespace::inside("ping::a_datagram_socket_serves_where_it_is_allowed", || {
        std::fs::write(GROUPS, "0 0").unwrap();
        for host in ["127.0.0.1", "::1"] {
            let told = run(&["--private", "ping", "-c", "1", host]).done();
            assert!(told.contains("datagram socket") && told.contains("1 received"), "{told}");
        }
    });
}

#[test]
fn every_line_is_json_where_that_is_asked() {
    namespace::inside("ping::every_line_is_json_where_that_is_asked", || {
        let told = run(&["--private", "--json", "ping", "-c", "2", "-i", "0", "127.0.0.1"]).done();
        let lines: Vec<Value> =
            told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [first, _, summary] = lines.as_slice() else { panic!("{told}") };
        assert_eq!((&first["sequence"], &first["ttl"]), (&1.into(), &64.into()));
        assert!(first["milliseconds"].as_f64().unwrap() > 0.0);
        assert_eq!((&summary["sent"], &summary["received"]), (&2.into(), &2.into()));
    });
}

#[test]
fn where_no_reply_comes_the_exit_code_says_so() {
    namespace::inside("ping::where_no_reply_comes_the_exit_code_says_so", || {
        // There is no way out of here.
        let ran = run(&["--private", "ping", "-c", "1", "-W", "0.2", "192.0.2.1"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.out.contains("ENETUNREACH") && ran.out.contains("100% packet loss"), "{ran:?}");
    });
}

#[test]
fn a_closed_group_range_is_named_with_the_command_that_opens_it() {
    const TEST: &str = "ping::a_closed_group_range_is_named_with_the_command_that_opens_it";
    namespace::inside(TEST, || {
        let script =
            "exec setpriv --bounding-set=-all --inh-caps=-all \"$0\" --private ping -c 1 ::1";
        let run = || Command::new("sh").args(["-c", script, PROGRAM]).output();
        let line = Ran::from(run().unwrap()).failed_with(2);
        // The refusal of the datagram socket, and not that of the raw one.
        for part in ["EACCES", "`sysctl -w net.ipv4.ping_group_range='0 2147483647'`"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains("CAP_NET_RAW"), "{line}");
        std::fs::write(GROUPS, "0 0").unwrap();
        assert!(Ran::from(run().unwrap()).done().contains("1 received"));
    });
}

#[test]
fn a_refusal_of_the_policy_is_that_of_the_smaller_grant() {
    namespace::inside("ping::a_refusal_of_the_policy_is_that_of_the_smaller_grant", || {
        let policy = "version = 1\n[[rule]]\nname = \"none\"\ndeny = [\"create\"]\n";
        let broker = Start::new(PROGRAM).shell("set -- broker \"$@\"").policy(policy);
        let broker = broker.start();
        let ran = run(&["--broker", &endpoint(&broker), "ping", "-c", "1", "127.0.0.1"]);
        let line = ran.failed_with(2);
        assert!(line.contains("SOCK_DGRAM") && !line.contains("SOCK_RAW"), "{line}");
        assert!(!line.contains("ping_group_range"), "{line}");
    });
}

#[test]
fn a_quiet_ping_prints_its_first_line_and_its_statistics() {
    namespace::inside("ping::a_quiet_ping_prints_its_first_line_and_its_statistics", || {
        let output =
            run(&["--private", "ping", "-q", "-n", "-c", "2", "-i", "0", "127.0.0.1"]).done();
        assert!(!output.contains("icmp_seq"), "{output}");
        assert!(output.starts_with("PING ") && output.contains("2 received"), "{output}");
        let output =
            run(&["--private", "--json", "ping", "-q", "-c", "2", "-i", "0", "::1"]).done();
        let summary: Value = serde_json::from_str(&output).unwrap();
        assert_eq!(summary["received"], 2);
    });
}

#[test]
fn the_time_to_live_is_that_of_the_packets() {
    namespace::inside("ping::the_time_to_live_is_that_of_the_packets", || {
        for host in ["127.0.0.1", "::1"] {
            let (child, _said) = listening(&["lo", "--count", "1", "--write", "-"]);
            run(&["--private", "ping", "-q", "-t", "7", "-c", "1", host]).done();
            let file = child.wait_with_output().unwrap().stdout;
            // In the block of the packet, after the Ethernet header: byte 8 of IPv4, byte 7 of IPv6.
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
fn an_interface_or_an_address_to_send_from_is_taken() {
    namespace::inside("ping::an_interface_or_an_address_to_send_from_is_taken", || {
        std::fs::write(GROUPS, "0 0").unwrap();
        for source in ["lo", "127.0.0.2"] {
            let ping = ["--private", "ping", "-c", "1", "-I", source, "127.0.0.1"];
            assert!(run(&ping).done().contains("1 received"), "{source}");
        }
        pair("v0", "v1");
        // By that one there is no way to the loopback.
        let ping = ["--private", "ping", "-c", "1", "-W", "0.3", "-I", "v0", "127.0.0.1"];
        assert_eq!(run(&ping).code, 1);
        let line = run(&["--private", "ping", "-I", "nowhere0", "127.0.0.1"]).failed_with(2);
        assert!(line.contains("ENODEV"), "{line}");
    });
}

#[test]
fn the_largest_request_is_answered() {
    namespace::inside("ping::the_largest_request_is_answered", || {
        for kind in ["raw socket", "datagram socket"] {
            let output = run(&["--private", "ping", "-c", "1", "-s", "65507", "127.0.0.1"]).done();
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
fn a_deadline_ends_it_and_counts_replies() {
    namespace::inside("ping::a_deadline_ends_it_and_counts_replies", || {
        let ping = |more: &[&str]| run(&[&["--private", "ping", "-i", "0.05"], more].concat());
        // It ends by itself, without a count and though a reply came.
        let output = ping(&["-w", "0.3", "127.0.0.1"]).done();
        assert!(output.contains(" 0% packet loss"), "{output}");
        assert!(ping(&["-w", "100", "-c", "2", "127.0.0.1"]).done().contains("2 received"));
        // Fewer replies than were asked for until then.
        assert_eq!(ping(&["-w", "0.2", "-c", "1000", "127.0.0.1"]).code, 1);
    });
}

#[test]
fn an_unknown_host_is_something_else_than_a_silent_one() {
    bounded(30, || {
        let line = run(&["--private", "ping", "-c", "1", "host.invalid."]).failed_with(2);
        assert!(line.contains("EAI_"), "{line}");
    });
}

#[test]
fn a_second_interrupt_ends_it_though_the_broker_hangs() {
    namespace::inside("ping::a_second_interrupt_ends_it_though_the_broker_hangs", || {
        let mut broker = broker();
        let mut child = start(&["--broker", &endpoint(&broker), "ping", "-i", "0.05", "127.0.0.1"]);
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(told.next().unwrap().unwrap().starts_with("PING"));
        let signal = |name: &str, process: u32| {
            let sent = Command::new("kill").args([name, &process.to_string()]).status().unwrap();
            assert!(sent.success(), "{name}");
        };
        signal("-STOP", broker.process().number());
        // The first finds a call that waits for ever.
        signal("-INT", child.id());
        pause(500);
        assert_eq!(child.try_wait().unwrap(), None);
        signal("-INT", child.id());
        assert!(!child.wait().unwrap().success());
    });
}
