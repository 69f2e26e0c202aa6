"""What the rack file says that this host should look at: ``/etc/labctl/agent.json``, by sections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .host import ROOT, document

PATH = "etc/labctl/agent.json"


class Unsaid(Exception):
    """The file is not there or cannot be believed, so nobody knows what this host may do."""


def settings(root: Path = ROOT) -> dict[str, Any]:
    """Return the whole of it.

    Raises:
        Unsaid: it cannot be read.
    """
    try:
        found = document(root / PATH)
    except FileNotFoundError:
        raise Unsaid(f"there is no /{PATH}: run labctl apply") from None
    except (OSError, ValueError) as error:
        raise Unsaid(f"/{PATH} cannot be read: {error}; run labctl apply") from None
    if not isinstance(found, dict):
        raise Unsaid(f"/{PATH} is no object: run labctl apply")
    return found
