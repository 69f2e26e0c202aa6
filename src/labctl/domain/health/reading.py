"""From the document of the agent's verb ``health`` to ``Evidence``, believed where it speaks plainly.

``labctl.agent.health`` has the form of the document. Nothing is refused as a whole and nothing is raised: a
section that is missing, null or of another kind is None, and ``errors`` says under its name why. A number
that is none (not finite, negative where that makes no sense, of another kind) is None. Words are cut, and
what is not printable in them is shown as "?". Of a list no more is read than a host can have.

Beside names of sections, ``errors`` has:

- ``gpus``: neither vendor's cards could be read. Where only one could not, its name (``nvidia``, ``amd``) has
  the reason, and the cards of the other one are there.
- ``mounts:/srv/models`` and ``smart:/dev/sda``: this one did not answer; the others are there.
- ``certificates:/etc/x.pem``: likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from .evidence import Certificate, Clock, Driver, Evidence, Gpu, Memory, Mount, Smart, Upkeep, Xid
from .told import LIST_MAX, Told, plain, rows_of, words_of
from .told_cards import engines_of, gpus_of

T = TypeVar("T")
_UNTOLD = "the host did not tell: its agent is older, labctl apply brings the new one"
_ODD = "what the host told is not understood"


def evidence_of(document: object) -> Evidence:
    """Return what a decoded document says; of something that is none, evidence in which all is unknown."""
    whole = Told(document)
    errors = _errors(whole)
    looking = _Looking(whole, errors)
    gpus = _gpus(looking)
    return Evidence(
        at=whole.number("at") or 0.0,
        agent=whole.inner("agent").text("version"),
        boot_id=whole.inner("system").text("boot_id"),
        gpus=gpus,
        driver=looking.one("kernel", _driver),
        xids=looking.many("xids", _xid),
        mounts=looking.parts("mounts", _mount),
        smart=looking.parts("smart", _smart),
        memory=looking.one("memory", _memory),
        clock=looking.one("clock", lambda row: _clock(row, whole)),
        upkeep=_upkeep(looking),
        failed_units=looking.words("failed_units"),
        certificates=looking.parts("certificates", _certificate),
        engines=looking.read("engines", lambda value: engines_of(value, whole)),
        caps_wanted_w=looking.read("caps_wanted_w", _caps),
        wol_armed=_wol(looking),
        errors=errors,
    )


class _Looking:
    """Reads sections, and notes why one is not there."""

    def __init__(self, whole: Told, errors: dict[str, str]) -> None:
        self.whole = whole
        self.errors = errors

    def read(self, name: str, make: Callable[[object], T | None]) -> T | None:
        """Return what ``make`` gets out of a section, None with a reason where there is none."""
        value = self.whole.get(name)
        if value is None:
            self.errors.setdefault(name, _UNTOLD)
            return None
        made = make(value)
        if made is None:
            self.errors[name] = _ODD
        return made

    def one(self, name: str, make: Callable[[Told], T | None]) -> T | None:
        """Return what a section that is an object says."""
        return self.read(name, lambda value: make(Told(value)) if isinstance(value, dict) else None)

    def many(self, name: str, make: Callable[[Told], T | None]) -> tuple[T, ...] | None:
        """Return what a section that is a list of objects says; one that is odd is left out."""

        def made(value: object) -> tuple[T, ...] | None:
            if not isinstance(value, list):
                return None
            return tuple(one for row in rows_of(value) if (one := make(row)) is not None)

        return self.read(name, made)

    def parts(self, name: str, make: Callable[[Told], T | None]) -> tuple[T, ...] | None:
        """Return what a list says whose entries may each have failed, and note those that did."""
        for row in rows_of(self.whole.get(name)):
            if row.text("error"):
                self.errors[f"{name}:{row.text('name')}"] = row.text("error")
        return self.many(name, lambda row: None if row.text("error") else make(row))

    def words(self, name: str) -> tuple[str, ...] | None:
        """Return a list of words."""

        def made(value: object) -> tuple[str, ...] | None:
            return words_of(value) if isinstance(value, list) else None

        return self.read(name, made)


def _errors(whole: Told) -> dict[str, str]:
    """Return what the agent says is wrong, as one line each: what, and what to do."""
    found = whole.inner("errors")
    return {plain(name): _said(found.inner(name)) for name in list(found.fields)[:LIST_MAX]}


def _said(error: Told) -> str:
    return "; ".join(part for part in (error.text("what"), error.text("hint")) if part) or _ODD


def _gpus(looking: _Looking) -> tuple[Gpu, ...] | None:
    nvidia = looking.read("nvidia", lambda section: gpus_of("nvidia", section))
    amd = looking.read("amd", lambda section: gpus_of("amd", section))
    if nvidia is None and amd is None:
        looking.errors["gpus"] = looking.errors["nvidia"]
        return None
    return (*(nvidia or ()), *(amd or ()))


def _driver(row: Told) -> Driver:
    return Driver(row.word("nvidia_module"), row.word("nvidia_on_disk"), row.word("nvidia_library"))


def _xid(row: Told) -> Xid | None:
    code, count = row.whole("code"), row.whole("count")
    if code is None or count is None:
        return None
    return Xid(row.text("pci"), code, row.number("last") or 0.0, count, row.text("text"))


def _mount(row: Told) -> Mount | None:
    total, free = row.whole("total_mib"), row.whole("free_mib")
    if total is None or free is None or not row.text("path"):
        return None
    return Mount(
        path=row.text("path"),
        device=row.text("device"),
        total_mib=total,
        free_mib=free,
        inodes_free_percent=row.number("inodes_free_percent"),
        read_only=row.flag("read_only") is True,
    )


def _smart(row: Told) -> Smart | None:
    if not row.text("device"):
        return None
    return Smart(
        device=row.text("device"),
        passed=row.flag("passed"),
        wear_percent=row.whole("wear_percent"),
        media_errors=row.whole("media_errors"),
        pending_sectors=row.whole("pending_sectors"),
        spare_percent=row.whole("spare_percent"),
        temperature_c=row.number("temperature_c"),
    )


def _memory(row: Told) -> Memory | None:
    total, available = row.whole("total_mib"), row.whole("available_mib")
    if total is None or available is None:
        return None
    return Memory(
        total_mib=total,
        available_mib=available,
        swap_total_mib=row.whole("swap_total_mib") or 0,
        swap_free_mib=row.whole("swap_free_mib") or 0,
        stall_percent=row.number("stall_percent"),
        oom_kills=row.whole("oom_kills"),
    )


def _clock(row: Told, whole: Told) -> Clock | None:
    wall = whole.number("at")
    return None if wall is None else Clock(wall, row.flag("synchronised"), row.signed("offset_s"))


def _certificate(row: Told) -> Certificate | None:
    until = row.number("not_after")
    return None if until is None else Certificate(row.text("path"), row.text("subject"), until)


def _upkeep(looking: _Looking) -> Upkeep | None:
    """Return what two sections say together: of the distribution's flag, and of apt."""
    updates = looking.one("updates", lambda row: row) or Told({})
    return looking.one(
        "upkeep",
        lambda row: Upkeep(
            reboot_required=row.flag("reboot_pending"),
            reboot_because=row.words("reboot_because"),
            security=updates.whole("security"),
            pending=updates.whole("pending"),
            age_s=updates.number("age_s"),
        ),
    )


def _wol(looking: _Looking) -> bool | None:
    """Return whether Wake-on-LAN is armed; that it cannot be told is no older agent's silence."""
    if "wol_armed" not in looking.whole.fields:
        looking.errors.setdefault("wol_armed", _UNTOLD)
    return looking.whole.flag("wol_armed")


def _caps(value: object) -> Mapping[str, float] | None:
    if not isinstance(value, dict):
        return None
    row = Told(value)
    return {plain(name): watts for name in list(value)[:LIST_MAX] if (watts := row.number(name)) is not None}
