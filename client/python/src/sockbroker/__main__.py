"""`python3 -m sockbroker`: see `launch.py`."""

import sys

from .launch import run

sys.exit(run(sys.argv[1:]))
