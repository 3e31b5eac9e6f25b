//! `sockbroker ping` in a namespace, by both kinds of sockets.

use std::io::{BufRead as _, BufReader};
use std::process::Command;

use serde_json::Value;
use sockbroker_test_support::{bounded, namespace, pause};

use crate::program::{broker, endpoint, run, start};

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
