"""JSON-RPC: requests, and responses with their attachments and descriptors."""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable, Iterable, Sequence

from . import errors, frame
from .hints import Any


def _encoder() -> Callable[[Any], str]:
    """Encodes JSON without blanks; `ValueError` for infinite numbers and those that are none, which JSON lacks.

    `JSONEncoder.encode` would create its C encoder again for each call.
    """
    plain = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"))
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return plain.encode
    text = json.encoder.encode_basestring
    parts = make(None, plain.default, text, None, ":", ",", False, False, False)
    return lambda value: "".join(parts(value, 0))


encode = _encoder()
decode: Callable[[str, int], tuple[Any, int]] = (
    json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # frames have no blanks around their JSON
)


class Response:
    """A result or an error object, with the attachments and descriptors of its frame."""

    __slots__ = ("id", "value", "error", "attachments", "descriptors", "missing")

    def __init__(
        self, message: Any, attachments: Sequence[bytes] = (), descriptors: Iterable[int] = (), missing: int = 0
    ) -> None:
        self.id = message.get("id")
        self.error = message.get("error")
        self.value = message.get("result")
        self.attachments = attachments
        self.descriptors = [*descriptors]
        self.missing = missing
        """How many descriptors the kernel dropped because this process had no free number for them."""

    def data(self, value: Any) -> bytes:
        """Decodes bytes of the result: an attachment or base64."""
        if type(value) is dict:
            return self.attachments[value["attachment"]]
        return binascii.a2b_base64(value)

    def take_descriptor(self) -> int | None:
        """The next descriptor, which the caller owns from now on; `None` if there is none."""
        return self.descriptors.pop(0) if self.descriptors else None


class _ResponseWithDescriptors(Response):
    """Closes descriptors that nobody has taken. Most responses have none and do without this finalizer."""

    __slots__ = ()

    def __del__(self) -> None:
        frame.close_all(self.descriptors)


def checked(response: Response) -> Response:
    """Returns the response. Raises the exception that corresponds to its error object, if it has one."""
    if response.error is not None:
        raise errors.exception(response.error)
    return response


def encode_request(number: int | None, method: str, params: Any) -> bytes:
    """The JSON of a request, or of a notification if there is no number."""
    identifier = "" if number is None else '"id":%d,' % number
    return ('{"jsonrpc":"2.0",%s"method":"%s","params":%s}' % (identifier, method, encode(params))).encode()


def encode_notification(method: str, params: Any) -> bytes:
    """The frame of a notification."""
    text = encode_request(None, method, params)
    return frame.encode_header(len(text), (), 0) + text


def encode_cancellation(number: int) -> bytes:
    """The JSON of a notification that cancels a request."""
    return encode_request(None, "$/cancelRequest", {"id": number})


def decode_response(text: bytes, attachments: Sequence[bytes], received: Sequence[int], announced: int) -> Response:
    """The response in a frame that announced this number of descriptors."""
    message = decode(text.decode(), 0)[0]
    if announced:
        return _ResponseWithDescriptors(message, attachments, received, announced - len(received))
    return Response(message, attachments)
