"""The environment in which every Python interpreter, and those that it starts, has brokered sockets."""

from __future__ import annotations

import os
from collections.abc import Mapping

INHERITED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inherit")
"""The folder of the `sitecustomize` that installs the broker in every interpreter of the environment."""


def environment(variables: dict[str, str], present: Mapping[str, str] | None = None) -> dict[str, str]:
    """The present environment, by default of this process, with the variables added, and with the folder that every interpreter searches at its start."""
    made = {**(os.environ if present is None else present), **variables}
    paths = [path for path in made.get("PYTHONPATH", "").split(os.pathsep) if path and path != INHERITED]
    made["PYTHONPATH"] = os.pathsep.join([INHERITED, *paths])
    return made
