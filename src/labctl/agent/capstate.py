"""What a host keeps about caps, in four files below ``/var/lib/labctl/caps`` that only root writes.

- ``overrides.json`` (600): what persons ordered and what lasts, by time or for good; it survives a reboot.
- ``set.json`` (600): what labctl itself set last on each card. So it can undo what it did when nobody wants
  it any more, and leaves alone what another tool set. Clocks count only for the boot in which they were
  locked, since no driver tells whether they are.
- ``steps.json`` (644): which cards stepped down for other hosts; it counts for the boot and the wake in which
  it was written. Its number rises with each change, so that who hears of two knows which one is newer.
- ``outcome.json`` (644): how the last run ended, for the report.

What the inventory declares lies in ``/etc/labctl/caps.json``. Files are replaced whole, so that a power cut
leaves the old one or the new one. One run at a time: a second waits, but not for ever.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..domain import cap_json
from ..domain.capping import FORMAT, Declared, Override
from ..domain.capstep import Step
from . import vitals
from .host import CAPS_OUTCOME, document, text
from .sections import Finding

DECLARED = "etc/labctl/caps.json"
_LOCK_FOR_S = 30.0
_POLL_S = 0.1
_APPLY = "run labctl apply"
NOT_RECORDED = "not-recorded"


class Refused(Exception):
    """Nothing was done, and why: the whole order or the whole host, not one card."""

    def __init__(self, what: str, hint: str = "", code: str = "refused") -> None:
        super().__init__(what)
        self.hint = hint
        self.code = code

    def as_json(self) -> dict[str, Any]:
        """Return the answer that stands for the refusal."""
        return {"format": FORMAT, "error": {"code": self.code, "what": str(self), "hint": self.hint}}


Notes = list[dict[str, Any]]
"""Findings as answers show them, collected while a run goes on."""


def note(finding: Finding, card: str | None = None) -> dict[str, Any]:
    """Return a finding as answers show it; ``card`` is the UUID or address of the one that it is about."""
    return {"code": finding.code, "what": str(finding), "hint": finding.hint, "card": card}


class Kept(NamedTuple):
    """What labctl set last on a card; None is what it did not set."""

    watts: float | None = None
    clocks_mhz: tuple[int, int] | None = None


class Steps(NamedTuple):
    """The steps in force, and the number of the last change."""

    number: int
    steps: tuple[Step, ...]


class State:
    """The files of one host; ``root`` is where its file system begins."""

    def __init__(self, root: Path) -> None:
        self.declared_at = root / DECLARED
        self.outcome_at = root / CAPS_OUTCOME
        self.folder = self.outcome_at.parent
        self.overrides_at = self.folder / "overrides.json"
        self.set_at = self.folder / "set.json"
        self.steps_at = root / vitals.STEPS
        self._root = root
        self.boot_id = text(root / "proc/sys/kernel/random/boot_id") or ""

    @contextlib.contextmanager
    def locked(self, notes: Notes) -> Iterator[None]:
        """Keep other runs out, or note it where the place for the lock cannot be written.

        Raises:
            Refused: this is not root, or another run does not end.
        """
        try:
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
                raise Refused("changing caps needs root", "ask again by sudo", "no-permission") from None
            # A full or read-only disk is no reason to leave cards without their caps.
            notes.append(_not_written(error))
            yield
            return
        try:
            _take(lock)
            yield
        finally:
            os.close(lock)

    def declared(self) -> tuple[Declared, ...]:
        """Return the declared cards; none where there is no such file.

        Raises:
            Refused: the file is there and cannot be believed, so nobody knows what protects a circuit.
        """
        try:
            return cap_json.declared(document(self.declared_at))
        except FileNotFoundError:
            return ()
        except (OSError, ValueError) as error:
            raise Refused(f"{self.declared_at} cannot be read: {error}", _APPLY, "bad-file") from None

    def overrides(self) -> tuple[Override, ...]:
        """Return what lasts.

        Raises:
            Finding: the file is there and cannot be believed, or read by this user.
        """
        try:
            return cap_json.overrides(document(self.overrides_at))
        except FileNotFoundError:
            return ()
        except PermissionError:
            raise Finding("overrides are for root to see", "ask again by sudo", "no-permission") from None
        except (OSError, ValueError) as error:
            raise Finding(f"overrides are lost: {error}", "give the orders again", "bad-file") from None

    def steps(self) -> Steps:
        """Return the steps of this boot and wake; none where a sleep came after them.

        Raises:
            Finding: the file is there and cannot be believed.
        """
        try:
            found = document(self.steps_at)
            number, wake = found["n"], (found["boot_id"], found["resumes"])
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                raise ValueError("n is no number")
            steps = cap_json.steps(found["steps"])
        except FileNotFoundError:
            return Steps(0, ())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Finding(f"steps are lost: {error!r}"[:200], "", "bad-file") from None
        return Steps(number, steps if self.boot_id and wake == (self.boot_id, self._resumes()) else ())

    def save_steps(self, steps: tuple[Step, ...], before: tuple[Step, ...], notes: Notes) -> int:
        """Replace the steps where they differ from those before; return the number of the last change."""
        try:
            number = self.steps().number
        except Finding:
            number = 0
        if steps == before:
            return number
        shown = {"format": FORMAT, "n": number + 1, "boot_id": self.boot_id, "resumes": self._resumes()}
        with writing(notes):
            _write(self.steps_at, {**shown, "steps": cap_json.steps_document(steps)}, 0o644)
            number += 1
        return number

    def _resumes(self) -> int:
        return vitals.resumes(self._root, vitals.clocks())

    def kept(self) -> dict[str, Kept]:
        """Return what labctl set last, by card; a file that cannot be believed is none."""
        try:
            found = document(self.set_at)
            this_boot = bool(self.boot_id) and found["boot_id"] == self.boot_id
            return {
                str(key): Kept(
                    None if card["watts"] is None else float(card["watts"]),
                    tuple(map(int, card["clocks_mhz"])) if card["clocks_mhz"] and this_boot else None,  # type: ignore[arg-type]
                )
                for key, card in found["cards"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def outcome(self) -> dict[str, Any]:
        """Return the last outcome; a file that cannot be believed is none."""
        try:
            found = document(self.outcome_at)
            return found if isinstance(found, dict) and isinstance(found.get("cards"), list) else {}
        except (OSError, ValueError):
            return {}

    def save_overrides(self, overrides: Iterable[Override]) -> None:
        """Replace the overrides."""
        _write(self.overrides_at, cap_json.overrides_document(overrides), 0o600)

    def save_kept(self, kept: dict[str, Kept]) -> None:
        """Replace what labctl set last."""
        cards = {
            key: {"watts": one.watts, "clocks_mhz": list(one.clocks_mhz) if one.clocks_mhz else None}
            for key, one in kept.items()
            if one != Kept()
        }
        _write(self.set_at, {"format": FORMAT, "boot_id": self.boot_id, "cards": cards}, 0o600)

    def save_outcome(self, outcome: dict[str, Any]) -> None:
        """Replace the outcome."""
        _write(self.outcome_at, outcome, 0o644)


@contextlib.contextmanager
def writing(notes: Notes) -> Iterator[None]:
    """Turn a file that cannot be written into a finding: the cards have their caps all the same."""
    try:
        yield
    except OSError as error:
        notes.append(_not_written(error))


def _not_written(error: OSError) -> dict[str, Any]:
    what = f"nothing could be recorded: {error}"
    return note(Finding(what, "free or repair the disk below /var/lib/labctl", NOT_RECORDED))


def _take(lock: int) -> None:
    until = time.monotonic() + _LOCK_FOR_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise Refused(
                    f"another run has been at work on the caps for {_LOCK_FOR_S:g} s",
                    "systemctl status labctl-caps.service",
                    "busy",
                ) from None
            time.sleep(_POLL_S)
        else:
            return


def _write(path: Path, document: dict[str, Any], mode: int) -> None:
    """Replace a file whole; what was there stays until the new one is safe on the disk."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(handle, mode)
            json.dump(document, file)
            file.write("\n")
            file.flush()
            os.fsync(handle)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
