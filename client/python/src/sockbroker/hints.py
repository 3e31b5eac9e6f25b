"""Names for annotations, which cost nothing when a program runs.

No annotation of this package is evaluated. Importing `typing` for them would add about 5 ms to the start of
every program.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any as Any
else:
    Any = object
