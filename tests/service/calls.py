"""Calls over newline-delimited JSON, on a connection that is not replaced when it ends."""

import json
import socket


class Broker:
    def __init__(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect("/run/sockbroker/socket")
        self.file = connection.makefile("rw")

    def send(self, method, *params):
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        print(json.dumps(request), file=self.file, flush=True)

    def receive(self):
        """Returns the result of a call, or raises its error."""
        line = self.file.readline()
        if not line:
            raise EOFError("the connection ended")
        answer = json.loads(line)
        if "error" in answer:
            raise OSError(answer["error"]["message"])
        return answer["result"]

    def call(self, method, *params):
        self.send(method, *params)
        return self.receive()

    def bound(self):
        """Returns the handle of a UDP socket that receives nothing."""
        handle = self.call("socket.socket", "AF_INET", "SOCK_DGRAM")["handle"]
        self.call("socket.bind", handle, ["127.0.0.1", 0])
        return handle
