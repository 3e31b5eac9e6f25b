"""The interpreter's own C module `_socket`, also when another module has its place in `sys.modules`.

The connections to the broker use it, and the classes of brokered sockets derive from its class.
"""

from __future__ import annotations

import _socket as _present

from .hints import Any

module: Any = getattr(_present, "native_module", _present)
"""The C module `_socket`."""

Socket: Any = module.socket
"""Its class `socket`. `ssl` reads the descriptor and the timeout from the C structure of its instances."""

# `socket.socket` overrides the attributes of these names with enumerations; these return the numbers.
family_of: Any = Socket.family.__get__
type_of: Any = Socket.type.__get__
protocol_of: Any = Socket.proto.__get__


def checked_timeout(timeout: Any) -> float | None:
    """A timeout in the precision of CPython, which raises its own exceptions for a wrong one."""
    unopened = Socket.__new__(Socket)
    try:
        unopened.settimeout(timeout)
    except OSError:
        pass  # it has no descriptor, but stores the timeout
    return unopened.gettimeout()  # type: ignore[no-any-return]
