"""A broker under the stand-in for systemd, for tests of clients: serve.py PROGRAM [SUBCOMMAND]

It prints the path of the socket. Each line of its input is a command, answered by a line when it is done: `crash` kills
the service and starts it, `restart` is that with SIGTERM, `down` kills it, and `up` starts it. It ends with its input.
"""

import os
import shlex
import sys
import tempfile

import harness


def serve(program):
    broker = harness.Broker(program, limits={"drain_seconds": 1})
    is_up = True
    try:
        print(broker.path, flush=True)
        for line in sys.stdin:
            command = line.strip()
            if command == "restart":
                broker.terminate()
            elif command in ("crash", "down"):
                broker.kill()
            is_up = command != "down"
            if is_up:
                broker.start()
            print(command, flush=True)
    finally:
        if is_up:
            broker.close()
        else:
            broker.store.drop()
            broker.folder.cleanup()


if __name__ == "__main__":
    harness.POLICY = harness.POLICY.replace('"persist"', '"persist", "handover", "resolve"')
    program, *subcommand = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        if subcommand:
            command = shlex.join([program, *subcommand])
            program = os.path.join(folder, "broker")
            with open(program, "w") as file:
                file.write(f'#!/bin/sh\nexec {command} "$@"\n')
            os.chmod(program, 0o755)
        serve(program)
