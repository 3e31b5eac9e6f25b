"""Measures an HTTP GET through a broker of another machine: part of the suite `remote` of the benchmark.

    remote_get.py --broker URL --server HOST --port PORT --rounds COUNT

Prints a JSON object: the seconds of round trips (TCP connections without a broker), and of GETs in mode `remote` on a
connection to the broker that exists.
"""

import argparse
import http.client
import json
import socket
import time

import sockbroker


def seconds(action):
    """Returns the duration of an action."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    arguments = parser.parse_args()
    place = (arguments.server, arguments.port)

    def trip():
        socket.create_connection(place).close()

    with sockbroker.connect(arguments.broker, mode="remote") as broker:

        def get():
            connection = http.client.HTTPConnection(*place, timeout=20)
            connection._create_connection = broker.socket.create_connection
            connection.request("GET", "/")
            body = connection.getresponse().read()
            connection.close()
            if len(body) != 300_000:
                raise SystemExit(f"the body has {len(body)} bytes")

        get()
        trips, gets = [], []
        for _ in range(arguments.rounds):
            trips.append(seconds(trip))
            gets.append(seconds(get))
    print(json.dumps({"trip": trips, "get": gets}))


main()
