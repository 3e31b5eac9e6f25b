"""A client with LSP framing, raw attachments and descriptors.

Standard library only, and the plain `socket` module underneath: nothing here knows what a scenario is.
"""

import array
import base64
import collections
import json
import socket
import threading

_MAX_DESCRIPTORS = 253  # SCM_MAX_FD
_INLINE_FROM = 60       # a frame carries at most 64 attachments; more buffers than this go as base64

called = collections.Counter()
"""How often each method was called in this process."""

_socket, _rights = socket.socket, (socket.SOL_SOCKET, socket.SCM_RIGHTS)


only_base64 = False
"""Whether bytes are base64 in the JSON in both directions, as for a client without attachments."""


class RpcError(Exception):
    """An error object: `code`, the message, and `data` with its fixed fields."""

    def __init__(self, error):
        super().__init__(error.get("message", ""))
        self.code = error.get("code")
        self.message = error.get("message", "")
        self.data = error.get("data") or {}


class Lost(Exception):
    """The connection ended before the answer arrived."""


class Parts:
    """The attachments and descriptors of a request."""

    def __init__(self):
        self.attachments = []
        self.descriptors = []

    def data(self, value):
        """Bytes as a parameter: an attachment, or base64 where there are too many of them."""
        raw = bytes(value)
        if only_base64 or len(self.attachments) >= _INLINE_FROM:
            return base64.b64encode(raw).decode()
        self.attachments.append(raw)
        return {"attachment": len(self.attachments) - 1}

    def descriptor(self, number):
        """A descriptor as a parameter: its index among the descriptors of the frame."""
        self.descriptors.append(number)
        return len(self.descriptors) - 1


class Answer:
    """A result with its attachments and descriptors."""

    def __init__(self, value, attachments, descriptors):
        self.value = value
        self.attachments = attachments
        self.descriptors = descriptors

    def data(self, value):
        """Bytes of a result: an attachment of this frame, or base64."""
        if isinstance(value, dict):
            return self.attachments[value["attachment"]]
        return base64.b64decode(value, validate=True)


class Connection:
    """A connection for concurrent calls of several threads: a waiting thread reads the answers."""

    def __init__(self, stream):
        self._stream = stream
        stream.settimeout(None)  # never the module's default
        self._buffer = bytearray()
        self._descriptors = collections.deque()
        self._answers = {}
        self._next_id = 0
        self._reading = False
        self._lost = False
        self._send_lock = threading.Lock()
        self._state = threading.Condition()

    @classmethod
    def open(cls, path):
        """Connects to the broker's Unix socket."""
        stream = _socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            stream.settimeout(None)
            stream.connect(path)
        except BaseException:
            stream.close()
            raise
        return cls(stream)

    def close(self):
        """Ends the connection; the broker cancels its calls in flight."""
        self._stream.close()
        while self._descriptors:
            _close(self._descriptors.popleft())

    def request(self, method, params=None, parts=None):
        """Calls a method and waits for its answer."""
        parts = parts or Parts()
        called[method] += 1
        with self._send_lock:
            self._next_id += 1
            number = self._next_id
            body = {"jsonrpc": "2.0", "id": number, "method": method}
            if params is not None:
                body["params"] = params
            self._send(json.dumps(body).encode(), parts)
        message, attachments, descriptors = self._wait_for(number)
        if "error" in message:
            for descriptor in descriptors:
                _close(descriptor)
            raise RpcError(message["error"])
        return Answer(message["result"], attachments, descriptors)

    def _send(self, body, parts):
        head = f"Content-Length: {len(body)}\r\n"
        if not only_base64:
            head += f"Attachments: {','.join(str(len(part)) for part in parts.attachments)}\r\n"
        control = []
        if parts.descriptors:
            head += f"Fds: {len(parts.descriptors)}\r\n"
            control = [(*_rights, array.array("i", parts.descriptors))]
        frame = b"".join([head.encode(), b"\r\n", body, *parts.attachments])
        sent = self._stream.sendmsg([frame], control)
        self._stream.sendall(memoryview(frame)[sent:])

    def _wait_for(self, number):
        """Waits for an answer: one waiting thread reads for all, the others sleep until it has read their answers."""
        with self._state:
            while number not in self._answers:
                if self._lost:
                    raise Lost("the broker closed the connection")
                if self._reading:
                    self._state.wait()
                    continue
                self._reading = True
                self._state.release()
                frame = None
                try:
                    frame = self._read_frame()
                finally:
                    self._state.acquire()
                    self._reading = False
                    self._lost = self._lost or frame is None
                    self._state.notify_all()
                if frame is not None:
                    self._answers[frame[0].get("id")] = frame
            return self._answers.pop(number)

    def _read_frame(self):
        """The next frame, or `None` at the end of the stream."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if not self._fill():
                return None
        head = _fields(bytes(self._buffer[:end]))
        del self._buffer[:end + 4]
        lengths = [int(part) for part in head.get("attachments", "").split(",") if part]
        sizes = [int(head["content-length"]), *lengths]
        while len(self._buffer) < sum(sizes):
            if not self._fill():
                return None
        parts = []
        for size in sizes:
            parts.append(bytes(self._buffer[:size]))
            del self._buffer[:size]
        descriptors = [self._descriptors.popleft() for _ in range(int(head.get("fds", 0)))]
        return json.loads(parts[0]), parts[1:], descriptors

    def _fill(self):
        space = socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS)
        data, control, _, _ = self._stream.recvmsg(1 << 18, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, value in control:
            if (level, kind) == _rights:
                numbers = array.array("i")
                numbers.frombytes(value[:len(value) - len(value) % numbers.itemsize])
                self._descriptors.extend(numbers)
        self._buffer += data
        return bool(data)


def _fields(head):
    fields = {}
    for line in head.decode("ascii").split("\r\n"):
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    return fields


def _close(descriptor):
    try:
        socket.close(descriptor)
    except OSError:
        pass
