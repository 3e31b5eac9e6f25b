"""Installs brokered sockets in an interpreter that runs in the environment of `python3 -m sockbroker`.

It loads the package from the folder above this file, so that child processes with another search path find it
too. It runs a `sitecustomize` of the system afterwards.
"""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _package():
    """The package. Its folder is in the search path for this import alone: other modules must not come from there."""
    parent = os.path.dirname(os.path.dirname(_HERE))
    sys.path.insert(0, parent)
    try:
        import sockbroker
    finally:
        sys.path.remove(parent)
    return sockbroker


def _install():
    try:
        _package().install()
    except Exception as error:
        # Without this exit the program would use native sockets, and nobody would notice.
        sys.stderr.write(f"sockbroker: {error}\n")
        sys.stderr.flush()
        os._exit(69)


def _run_next():
    """Runs the `sitecustomize` that this one hides."""
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != _HERE]
    del sys.modules["sitecustomize"]
    try:
        import sitecustomize  # noqa: F401
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = _this


_this = sys.modules["sitecustomize"]
_install()
_run_next()
