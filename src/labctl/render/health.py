"""What looks after health by itself: a timer on the controller's host, as a user of its own.

It runs the labctl that ``deploys/controller.py`` put there, once every few minutes, with the rack as data.
Its user reads one folder: the rack, the pinned host keys, a copy of the controller's key (which opens the
agent's door and nothing else), and what it needs to tell people. It cannot read what switches power, nor
write the controller's store.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from labctl import render
from labctl.domain.problem import LabctlError
from labctl.inventory import Host, MailNotice, NtfyNotice, Rack, Secret
from labctl.inventory.controlling import KEY, KNOWN_HOSTS, python_of
from labctl.inventory.health import FOLDER, HOME, RACK, USER
from labctl.inventory.secrets import address_of, text_of, value_of
from labctl.render import controller

UNIT = "labctl-health.service"
TIMER = "labctl-health.timer"
UNITS = (UNIT, TIMER)


@dataclass(frozen=True, slots=True)
class Kept:
    """A secret that goes to the host: where it is read, and its name in the folder there."""

    secret: Secret
    name: str
    kind: Literal["address", "key", "text"]

    @property
    def dest(self) -> str:
        """Return where it lies there."""
        return f"{FOLDER}/{self.name}"

    def content(self, folder: Path, environment: Mapping[str, str]) -> str:
        """Return what it holds, checked; ``folder`` is the rack file's, ``environment`` labctl's own.

        Raises:
            LabctlError: it cannot be read, others may read it, or it is not what it should be.
        """
        read = {"address": address_of, "key": value_of, "text": text_of}[self.kind]
        return f"{read(self.secret, folder, environment)}\n"


def runs_on(rack: Rack, host: Host) -> bool:
    """Return whether health is looked after on that host."""
    return rack.health is not None and controller.runs_on(rack, host)


def kept(rack: Rack) -> tuple[Kept, ...]:
    """Return the secrets that it needs to tell people, without the key."""
    return tuple(_kept(rack))


def _kept(rack: Rack) -> Iterator[Kept]:
    assert rack.health is not None
    for one in rack.health.notify:
        if isinstance(one, MailNotice):
            if one.password is not None:
                yield Kept(one.password, f"notify.{one.name}.password", "text")
            continue
        yield Kept(one.address, f"notify.{one.name}.address", "address")
        if isinstance(one, NtfyNotice) and one.token is not None:
            yield Kept(one.token, f"notify.{one.name}.token", "key")
    if rack.health.ping is not None:
        yield Kept(rack.health.ping, "ping.address", "address")


def key_content(rack: Rack, folder: Path) -> bytes:
    """Return the controller's private key; ``folder`` is the rack file's.

    Raises:
        LabctlError: it cannot be read, or nobody there could use it.
    """
    for one in controller.copied(rack):
        if one.name == KEY:
            return controller.content_of(one, folder)
    raise LabctlError("the controller needs a key of its own")


def read(rack: Rack) -> tuple[str, ...]:
    """Return every file that it reads, as its host has it."""
    return (RACK, f"{FOLDER}/{KNOWN_HOSTS}", f"{FOLDER}/{KEY}", *(one.dest for one in kept(rack)))


def rack_json(rack: Rack) -> str:
    """Return the rack as it is read there: secrets by the names that they have there."""
    document = controller.document(rack, without={"gateway", "web"})
    shown: dict[str, Any] = document.setdefault("health", {})
    assert rack.health is not None
    for notice, one in zip(rack.health.notify, shown.get("notify", ()), strict=True):
        for field in ("address", "token", "password"):
            if one.get(field) is not None:
                one[field] = {"file": f"notify.{notice.name}.{field}"}
    if rack.health.ping is not None:
        shown["ping"] = {"file": "ping.address"}
    return f"{json.dumps(document, indent=1, sort_keys=True)}\n"


def unit(rack: Rack) -> str:
    """Return the service that looks once."""
    assert rack.health is not None
    textfile = rack.health.textfile
    return render.text(
        "health.service.j2",
        python=python_of(),
        rack=RACK,
        user=USER,
        home=PurePosixPath(HOME).name,
        writes=None if textfile is None else str(PurePosixPath(textfile).parent),
    )


def timer(rack: Rack) -> str:
    """Return the timer that starts it."""
    assert rack.health is not None
    return render.text("health.timer.j2", every_s=round(rack.health.every.total_seconds()), unit=UNIT)
