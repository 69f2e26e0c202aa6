"""Kill a run with SIGKILL at its N-th point, go on as cron would, and see what the receivers got.

Run as a process of its own, without threads, since every run is a fork. Prints one JSON object: for each kill
what both receivers have, where it was, and what is still noted; the last entry is of a life without a kill.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from small_world import World

from labctl.adapters import keepsake
from labctl.domain.health.terms import Level

LIFE = (Level.OK, Level.CRIT, Level.CRIT, Level.CRIT, Level.OK, Level.OK, Level.OK)
TELLS = (2, 5)  # the runs that have something to tell
_fsync, _replace = os.fsync, Path.replace


def numbered(world: World, death: int, where: Callable[[str], None]) -> None:
    """Have this process killed at the point with that number."""
    passed = 0

    def at(place: str) -> None:
        nonlocal passed
        passed += 1
        if passed == death:
            where(place)
            os.kill(os.getpid(), signal.SIGKILL)

    def fsync(handle: int) -> None:
        at("before fsync")
        _fsync(handle)

    def rename(self: Path, target: Path) -> Path:
        at(f"before rename of {target.name}")
        done = _replace(self, target)
        at(f"after rename of {target.name}")
        return done

    keepsake.os.fsync, Path.replace = fsync, rename  # type: ignore[attr-defined,method-assign,assignment]
    world.at = at


def forked(act: Callable[[], None]) -> bool:
    """Do something in a child; return whether it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("a run failed by itself")
    return os.WIFEXITED(status)


def one(folder: Path, number: int, death: int = 0) -> bool:
    """Do the run of that number, and die at that point of it unless it is 0; return whether it ended well."""

    def act() -> None:
        world = World(folder, now=1_800_000_000.0 + 300 * number)
        if death:
            numbered(world, death, lambda words: (folder / "where").write_text(words) and None)
        world.run(LIFE[number])

    return forked(act)


def life(folder: Path, killed: int, death: int) -> dict[str, Any]:
    """Go on from what the runs before left, die once, live on; return what was left."""
    ended = one(folder, killed, death)
    for number in range(killed + 1, len(LIFE)):
        one(folder, number)
    world, place = World(folder), folder / "where"
    state = json.loads((folder / "main" / "state.json").read_text())
    return {
        "run": killed,
        "where": place.read_text() if place.exists() else "",
        "died": not ended,
        "ntfy": world.ntfy.letters,
        "hook": world.hook.letters,
        "waiting": [name for name, box in state["boxes"].items() if box["sealed"] or box["waiting"]],
        "left": sorted(path.name for path in (folder / "main").iterdir()),
    }


def main() -> None:
    """Visit every point of both runs."""
    lives = []
    with tempfile.TemporaryDirectory() as place:
        before = Path(place, "before")
        before.mkdir()
        for killed in range(len(LIFE)):
            if killed in TELLS:
                for death in range(1, 200):
                    folder = Path(place, f"{killed}-{death}")
                    shutil.copytree(before, folder)
                    lives.append(life(folder, killed, death))
                    if not lives[-1]["died"]:
                        break
            one(before, killed)
    sys.stdout.write(json.dumps(lives))


if __name__ == "__main__":
    main()
