"""Persistent sockets over the end of a worker and of the service:  recovery.py PROGRAM. Prints a line for each.

The sockets lie in lots, which lie in the lot that the stand-in for the service manager stores.
"""

import base64
import contextlib
import resource
import socket
import sys

from harness import HANG, Broker, Client, kill_worker

SOCKETS, PIPELINED = 1000, 50
OPEN_FILES = 65_536


def many(client, method, all_params):
    """Makes many calls, some at a time, and returns the results."""
    results = []
    for start in range(0, len(all_params), PIPELINED):
        some = all_params[start : start + PIPELINED]
        for params in some:
            client.send(method, params)
        results += [client.answer() for _ in some]
    return results


def recovered(broker, token, ports):
    """Returns the number of sockets that have their port, and the datagram that was sent while nobody served them."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for port in ports.values():
            sock.sendto(b"%d" % port, ("127.0.0.1", port))
    client = Client(broker)
    client.socket.settimeout(10 * HANG)
    client.attach(token)
    found = client.handles()
    same = [handle for handle, info in found.items() if info["local"] == ["127.0.0.1", ports.get(handle)]]
    datagrams = many(client, "socket.recv", [{"handle": handle, "bufsize": 100} for handle in same])
    good = [base64.b64decode(one["data"]) == b"%d" % ports[handle] for handle, one in zip(same, datagrams)]
    return client, sum(good) if len(found) == len(ports) else 0


def main():
    """Ends a worker, then the service."""
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    broker = Broker(sys.argv[1])
    try:
        client = Client(broker)
        assert (opened := client.open(linger=600))["persist"] == "service", opened
        handles = [made["handle"] for made in many(client, "socket.socket", [{"type": "SOCK_DGRAM"}] * SOCKETS)]
        many(client, "socket.bind", [{"handle": handle, "address": ["127.0.0.1", 0]} for handle in handles])
        names = many(client, "socket.getsockname", [{"handle": handle} for handle in handles])
        ports = {handle: name[1] for handle, name in zip(handles, names)}
        kill_worker(client)
        client, count = recovered(broker, opened["token"], ports)
        print(f"recovered: {count} of {SOCKETS} sockets by the next worker")
        client.close()
        broker.kill()
        broker.start()
        _, count = recovered(broker, opened["token"], ports)
        print(f"recovered: {count} of {SOCKETS} sockets by the next service")
    finally:
        broker.close()


if __name__ == "__main__":
    main()
