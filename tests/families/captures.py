"""Captures on the kernel of the guest:  captures.py BROKER. Prints a line for each mode of a ring, and its delays.

The guest's lo carries nothing else. Without a filter expression, because the guest has no libpcap.
"""

import socket
import sys
import time

import sockbroker

PACKETS, SLOW = 200, 30
LONGEST_WAIT = 60


def delays(capture, sock):
    """The seconds from the sending of a packet until it is read, in ascending order."""
    found = []
    for number in range(SLOW):
        # No multiple of the age of a block.
        time.sleep(0.013)
        sent = time.monotonic()
        sock.sendto(b"slow %d" % number, ("127.0.0.1", 9))
        packet = capture.expect(lambda one: one.data[42:] == b"slow %d" % number, timeout=LONGEST_WAIT)
        assert packet.length == len(packet.data), packet
        found.append(time.monotonic() - sent)
    return sorted(found)


def main():
    """Captures in each mode."""
    client = sockbroker.connect(sys.argv[1])
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for mode in ("live", "bulk"):
            sock.sendto(b"before", ("127.0.0.1", 9))
            with client.capture("lo", mode=mode) as capture:
                sent = [b"packet %d" % number for number in range(PACKETS)]
                for data in sent:
                    sock.sendto(data, ("127.0.0.1", 9))
                stats = capture.stop()
            # The answers of ICMP that nobody receives at this port are also there.
            found = [packet.data[42:] for packet in capture.packets() if packet.data[23] == socket.IPPROTO_UDP]
            assert found == sent, (mode, len(found), stats)
            assert stats.dropped == 0 and stats.complete, (mode, stats)
            with client.capture("lo", mode=mode) as capture:
                slow = delays(capture, sock)
            milliseconds = [f"{1000 * slow[place]:.1f}" for place in (SLOW // 2, SLOW - 1)]
            print(f"captured: {mode}, {PACKETS} packets; delay in ms: median {milliseconds[0]}, longest {milliseconds[1]}")


if __name__ == "__main__":
    main()
