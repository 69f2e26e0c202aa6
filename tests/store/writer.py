"""A process that changes a store without end, and says each time what was committed, until it is killed."""

from __future__ import annotations

import sys
from itertools import cycle
from pathlib import Path


def say(line: str) -> None:
    """Say a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(address: str) -> None:
    """Say ``hold ID`` and ``mode MODE`` for what the store promised."""
    from lives import NOW, ORDER

    from labctl.adapters.store import open_store
    from labctl.domain.sleep.lifecycle import Event, Mode

    store = open_store(address, create=False)
    leadership = store.leading()
    assert leadership is not None
    term = leadership.term
    way = {
        Mode.READY: Event.WENT_QUIET,
        Mode.SUSPENDING: Event.DARK,
        Mode.ASLEEP: Event.CAME_BACK,
        Mode.VERIFYING: Event.PASSED,
    }
    for _ in cycle([None]):
        host = store.known(now=NOW).hosts["box"]
        if host.mode is Mode.DRAINING:
            store.order("box", ORDER, "", version=host.version, term=term, now=NOW)
            mode = Mode.SUSPENDING
        else:
            mode = store.move("box", way[host.mode], "", version=host.version, term=term, now=NOW)
        say(f"mode {mode}")
        hold = store.hold("other", "x" * 300, "ann", until=NOW + 9, now=NOW)
        say(f"hold {hold.id}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(sys.argv[1])
