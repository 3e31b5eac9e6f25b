"""The interpreter's own `_socket`, whatever stands in its place.

The connection to the broker, and the class that brokered sockets derive from, need the real one.
"""

from __future__ import annotations

from typing import Any

import _socket as _present

module: Any = getattr(_present, "native_module", _present)
"""The C module `_socket`."""

Socket: Any = module.socket
"""Its class `socket`, which `ssl` recognises by the layout of its instances."""
