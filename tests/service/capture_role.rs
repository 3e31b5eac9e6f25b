//! A member of the shipped role captures: by the command line, in Python, and with scapy.

use crate::roles::member_or_skip;

/// Captures a datagram that it sends.
const PYTHON: &str = r#"
import socket, sockbroker
with sockbroker.capture("lo", "udp port 9999") as capture, socket.socket(type=socket.SOCK_DGRAM) as sender:
    sender.sendto(b"hello", ("127.0.0.1", 9999))
    packet = capture.expect(timeout=120)
print(packet.data[42:], capture.stats().captured, capture.stats().dropped)
"#;

/// The same with scapy, by the sockets of the package. The role does not let it send.
const SCAPY: &str = r#"
import socket
from scapy.all import Ether, sendp, sniff
import sockbroker.scapy

sockbroker.scapy.install()

def send():
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", ("127.0.0.1", 9999))

found = sniff(iface="lo", filter="udp port 9999", count=1, timeout=120, started_callback=send)
print(bytes(found[0])[42:])
try:
    sendp(Ether(dst="ff:ff:ff:ff:ff:ff") / b"x", iface="lo", verbose=0)
except sockbroker.Denied as denied:
    print("inject" in denied.grant)
"#;

#[test]
fn capture_role_captures_by_the_command_line_in_python_and_with_scapy() {
    let test = "capture_role_captures_by_the_command_line_in_python_and_with_scapy";
    let Some(guest) = member_or_skip("capture", test) else { return };
    let printed = guest.ok_as(
        "alice",
        r#"cd $(mktemp -d)
        sockbroker sniff lo -c 1 -w trace.pcapng udp port 9999 2>log & sniff=$!
        until grep -q '^listening' log; do kill -0 $sniff || exec cat log; sleep 0.1; done
        python3 -c 'import socket; socket.socket(type=2).sendto(b"x", ("127.0.0.1", 9999))'
        wait $sniff
        cat log
        sockbroker sniff -r trace.pcapng"#,
    );
    assert!(printed.contains("\n1 packet captured\n"), "{printed}");
    assert!(printed.contains("> 127.0.0.1:9999 UDP length 1"), "{printed}");
    let run =
        |program: &str| guest.ok_as("alice", &format!("cd / && python3 - <<'.'\n{program}.\n"));
    assert_eq!(run(PYTHON).trim(), "b'hello' 1 0");
    let printed = run(SCAPY);
    assert!(printed.ends_with("b'hello'\nTrue\n"), "{printed}");
    // The journal has who captured what.
    let recorded = guest.ok("journalctl --no-pager --output cat SOCKBROKER_AUDIT=capture");
    for part in [") captures packets of lo\n", ") captured 1 packets of lo, 0 were dropped"] {
        assert!(recorded.contains(part), "{recorded}");
    }
}
