"""Installs brokered sockets in an interpreter that was started in the environment of `python3 -m sockbroker`.

The package is loaded from where this file is, so that children with another search path have it too. A
`sitecustomize` of the system is run afterwards.
"""

import importlib.util
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _load():
    folder = os.path.dirname(_HERE)
    start = os.path.join(folder, "__init__.py")
    spec = importlib.util.spec_from_file_location("sockbroker", start, submodule_search_locations=[folder])
    package = importlib.util.module_from_spec(spec)
    sys.modules["sockbroker"] = package
    spec.loader.exec_module(package)
    return package


def _install():
    try:
        _load().install()
    except Exception as error:
        # An interpreter that went on would use native sockets unnoticed.
        sys.stderr.write(f"sockbroker: {error}\n")
        sys.stderr.flush()
        os._exit(69)


def _run_next():
    """The `sitecustomize` that this one stands before."""
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
