//! Installation: from `apt install` to the first packet.

use crate::environment::take_role;
use crate::guest::Guest;
use crate::roles::{NET_RAW, OF_MONITOR, capabilities};

on_each_system!(package_group_and_roles_are_enough_for_ping_and_sniff);

/// Follows all steps of an administrator and of a user.
fn package_group_and_roles_are_enough_for_ping_and_sniff(guest: &Guest) {
    let sniff = "timeout 300 sockbroker sniff lo --count 1";
    // Before that, alice can connect to the broker, but has no grants.
    for command in ["sockbroker ping --count 1 127.0.0.1", sniff, PACKET_SOCKET] {
        let ended = guest.run_as("alice", command);
        assert_ne!(ended.code, Some(0), "{command}: {}", ended.output);
        assert!(ended.output.contains("no rule"), "{command}: {}", ended.output);
    }
    take_role(guest, "ping");
    take_role(guest, "capture");
    guest.ok("usermod --append --groups sockbroker-ping,sockbroker-capture alice");

    let pinged = guest.ok_as("alice", "sockbroker ping --count 2 127.0.0.1");
    assert!(pinged.contains("2 received"), "{pinged}");
    let traffic = "while sleep 0.2; do sockbroker ping --count 1 127.0.0.1; done";
    let mut traffic = guest.start_as("alice", &format!("timeout 300 sh -c '{traffic}'"));
    let sniffed = guest.ok_as("alice", sniff);
    traffic.kill().unwrap();
    traffic.wait().unwrap();
    assert!(sniffed.contains("127.0.0.1"), "{sniffed}");
    wireshark_captures(guest);
    let made = guest.ok_as("alice", PACKET_SOCKET);
    assert!(made.contains("('lo', "), "{made}");
    assert_eq!(capabilities(guest), [NET_RAW | OF_MONITOR, NET_RAW | OF_MONITOR, 0]);
    // Workers run under the subordinate ids that the package has given to the service.
    let ids = guest.ok("grep '^sockbroker:' /etc/subuid; grep '^sockbroker:' /etc/subgid");
    let ids: Vec<&str> = ids.split_whitespace().collect();
    let first: u64 = ids[0].split(':').nth(1).unwrap().parse().unwrap();
    assert!(ids.len() == 2 && ids[0] == ids[1] && first >= 100_000, "{ids:?}");
    let info = guest.ok_as("alice", "sockbroker call broker.info");
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let uid = info["process"]["uid"].as_u64().unwrap();
    assert!((first..first + 65536).contains(&uid), "{info}");
    guest.ok("systemctl kill --signal=KILL sockbrokerd.service");
    guest.ok_as("alice", "sockbroker ping --count 1 127.0.0.1");
    // Other users have no access: the kernel does not allow them to connect.
    for command in ["sockbroker ping --count 1 127.0.0.1", sniff, PACKET_SOCKET] {
        let ended = guest.run_as("bob", command);
        assert_ne!(ended.code, Some(0), "{command}: {}", ended.output);
        assert!(
            ["EACCES", "Permission denied"].iter().any(|word| ended.output.contains(word)),
            "{command}: {}",
            ended.output
        );
    }
}

/// Wireshark's tools run the installed program as alice, a member of the role; a guest without them runs it as they do.
fn wireshark_captures(guest: &Guest) {
    let program = "/usr/lib/*/wireshark/extcap/sockbroker-extcap";
    let listed = guest.ok_as("alice", &format!("{program} --extcap-interfaces"));
    assert!(listed.contains("interface {value=sockbroker-lo}{display=sockbroker: lo}"), "{listed}");
    let traffic =
        "while sleep 0.2; do sockbroker ping --count 1 127.0.0.1; done >/dev/null 2>&1 & traffic=$!
        trap 'kill $traffic' EXIT";
    let (capture, expected) = if guest.run("command -v tshark").code == Some(0) {
        let tshark =
            "HOME=/tmp timeout 300 tshark -i sockbroker-lo -f icmp -c 1 -T fields -e ip.dst";
        (tshark.to_owned(), "127.0.0.1")
    } else {
        guest.report("extcap without tshark, which the guest does not have");
        // The addresses in the header of a packet.
        let capture = format!(
            "fifo=$(mktemp -u) && mkfifo $fifo
            {program} --capture --extcap-interface sockbroker-lo --fifo $fifo &
            timeout 300 head -c 600 $fifo | od -An -v -tx1 | tr -d ' \\n' | grep -o 7f0000017f000001 | head -n 1"
        );
        (capture, "7f0000017f000001")
    };
    let captured = guest.ok_as("alice", &format!("{traffic}\n{capture}"));
    assert!(captured.lines().any(|line| line == expected), "{captured}");
}

/// A Python program that uses the `socket` module, run through the broker.
const PACKET_SOCKET: &str = "cd / && printf '%s\\n' 'import socket' \
    's = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)' \
    's.bind((\"lo\", 3))' 'print(s.getsockname())' >/tmp/program.$$ && python3 -m sockbroker /tmp/program.$$";

on_each_system!(first_call_starts_the_service);

fn first_call_starts_the_service(guest: &Guest) {
    assert_eq!(guest.ok("systemctl is-enabled sockbrokerd.socket").trim(), "enabled");
    guest.ok("systemctl stop sockbrokerd.service sockbrokerd.socket");
    guest.ok("systemctl start sockbrokerd.socket");
    assert_eq!(guest.property("ActiveState"), "inactive");
    assert_eq!(
        guest.ok("stat --format '%U %G %a' /run/sockbroker/socket").trim(),
        "root sockbroker 660"
    );
    assert_eq!(guest.ok("stat --format '%U %G %a' /run/sockbroker").trim(), "root root 755");
    // The service is ready when it serves: the call is answered, and systemd has received READY=1.
    guest.ok_as("alice", "sockbroker call socket.gethostname");
    assert_eq!(guest.property("ActiveState"), "active");
    assert_eq!(guest.property("StatusText"), "serving");
    assert_eq!(guest.property("User"), "sockbroker");
    let process = guest.property("MainPID");
    let owner = guest.ok(&format!("stat --format '%U %G' /proc/{process}"));
    assert_eq!(owner.trim(), "sockbroker sockbroker");
}
