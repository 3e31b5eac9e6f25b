//! Configuration and policy: an error is reported with its position, and the running service keeps its valid policy.

use sockbroker_test_support::skip::skip;
use sockbroker_test_support::{HANG, happens_within};

use crate::environment::{installed_or_skip, take_role};
use crate::guest::Guest;

const PING: &str = "sockbroker ping --count 1 127.0.0.1";
/// The policy file that the tests change.
const LOCAL: &str = "/etc/sockbroker/policy.d/local.toml";

/// Allows alice to ping.
fn let_ping(guest: &Guest) {
    take_role(guest, "ping");
    guest.ok("usermod --append --groups sockbroker-ping alice");
    guest.ok_as("alice", PING);
}

on_each_system!(reload_of_an_invalid_policy_keeps_the_old_one);

fn reload_of_an_invalid_policy_keeps_the_old_one(guest: &Guest) {
    let_ping(guest);
    let process = guest.property("MainPID");
    guest.write(LOCAL, "version = 1\n\n[[rule]]\nname = \"nobody\"\nallows = [\"create\"]\n");
    // With systemctl, which fails; and with the signal alone, which the broker must handle.
    let reload = guest.run("systemctl reload sockbrokerd.service");
    assert_ne!(reload.code, Some(0), "{}", reload.output);
    let place = "local.toml: line 5, column 1";
    assert!(guest.log().contains(place), "{}", guest.log());
    guest.ok_as("alice", PING);
    let reported = guest.log().matches(place).count();
    guest.ok(&format!("kill -HUP {process}"));
    let is_reported = || guest.log().matches(place).count() > reported;
    assert!(happens_within(HANG, is_reported), "{}", guest.log());
    guest.ok_as("alice", PING);
    assert_eq!(guest.property("ActiveState"), "active");
    assert_eq!(guest.property("MainPID"), process);
}

on_each_system!(reload_of_a_valid_policy_applies_it);

fn reload_of_a_valid_policy_applies_it(guest: &Guest) {
    let_ping(guest);
    let process = guest.property("MainPID");
    guest.write(LOCAL, "version = 1\n\n[[rule]]\nname = \"no echo\"\ndeny = [\"send\"]\nremote = [\"127.0.0.0/8\"]\n");
    guest.ok("systemctl reload sockbrokerd.service");
    let refused = guest.run_as("alice", PING);
    assert!(refused.output.contains("no echo"), "{}", refused.output);
    guest.ok(&format!("rm {LOCAL}; systemctl reload sockbrokerd.service"));
    guest.ok_as("alice", PING);
    assert_eq!(guest.property("MainPID"), process);
}

#[test]
fn start_with_an_invalid_file_fails_and_reports_the_position() {
    let test = "start_with_an_invalid_file_fails_and_reports_the_position";
    let Some(guest) = installed_or_skip(test) else { return };
    guest.ok("systemctl stop sockbrokerd.service");
    for (file, name) in
        [(LOCAL, "local.toml"), ("/etc/sockbroker/sockbrokerd.toml", "sockbrokerd.toml")]
    {
        let before = guest.read(file).unwrap_or_default();
        guest.write(file, "sokcet = 1\n");
        let start = guest.run("systemctl start sockbrokerd.service");
        assert_ne!(start.code, Some(0), "{}", start.output);
        let log = guest.log();
        let mut lines = log.lines().filter(|line| line.contains(name));
        assert!(lines.any(|line| line.contains("line 1, column 1")), "{log}");
        // EX_CONFIG from `sockbrokerd --check` in ExecStartPre: the broker itself was not started.
        assert!(log.contains("Control process exited, code=exited, status=78/CONFIG"), "{log}");
        assert!(!log.contains("Main process exited"), "{log}");
        guest.write(file, if before.is_empty() { "version = 1\n" } else { &before });
        guest.ok("systemctl reset-failed; systemctl start sockbrokerd.service");
        guest.ok_as("alice", "sockbroker call socket.gethostname");
        guest.ok("systemctl stop sockbrokerd.service");
    }
}

#[test]
fn unit_rule_applies_only_to_that_unit() {
    let test = "unit_rule_applies_only_to_that_unit";
    if !kernel_names_units() {
        return skip("the kernel names no peer by a pidfd, before Linux 6.5", test);
    }
    let Some(guest) = installed_or_skip(test) else { return };
    guest.write(
        LOCAL,
        "version = 1\n\n[[rule]]\nname = \"prober\"\nsubject = { units = [\"prober.service\"] }\n\
         allow = [\"create\", \"bind\", \"connect\", \"send\", \"receive\", \"option\"]\n\
         family = [\"AF_INET\"]\ntype = [\"SOCK_DGRAM\"]\nprotocol = [\"IPPROTO_ICMP\"]\n",
    );
    guest.ok("systemctl restart sockbrokerd.service");
    let ping_in = |unit: &str| {
        guest.run(&format!(
            "systemd-run --quiet --pipe --wait --property User=alice --unit {unit} {PING}"
        ))
    };
    let pinged = ping_in("prober.service");
    assert_eq!(pinged.code, Some(0), "{}\n{}", pinged.output, guest.log());
    let refused = ping_in("other.service");
    assert!(refused.output.contains("no rule"), "{}", refused.output);
}

/// Whether this kernel has `SO_PEERPIDFD`, with which the broker finds the unit of a client.
fn kernel_names_units() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(5))
}
