"""`makefile` in remote mode: files that read more at a time, because each read is a round trip."""

from __future__ import annotations

import functools

from .hints import TYPE_CHECKING, Any
from .settings import REMOTE

if TYPE_CHECKING:
    from .client import Client

_BYTES = 1 << 18
"""The buffer of a file whose program has not chosen one. The standard library's is made for reads without a round trip."""
_READING = ("r", "rb")


def enlarge(module: dict[str, Any], client: Client) -> None:
    """Replaces the method in the class of a module of sockets, in remote mode."""
    if client.settings.mode != REMOTE:
        return
    standard = module["socket"].makefile

    @functools.wraps(standard)
    def makefile(self: Any, mode: Any = "r", buffering: Any = None, **options: Any) -> Any:
        is_default = buffering is None or (isinstance(buffering, int) and buffering < 0)
        return standard(self, mode, _BYTES if is_default and mode in _READING else buffering, **options)

    module["socket"].makefile = makefile
