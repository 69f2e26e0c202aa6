"""``python -m labctl``: the same as ``labctl``, for where the script is not on the path."""

from __future__ import annotations

import sys

from labctl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
