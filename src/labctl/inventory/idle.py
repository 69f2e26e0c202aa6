"""When a host may sleep, how, and what must be true again before it serves.

``IdlePolicy`` is the wish, ``Signals`` are what counts as use, ``Gate`` is what is looked at after each wake
or boot. A signal that cannot be read counts as use; to be rid of one that never can be read on a host,
switch it off here, by name.
"""

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from labctl.inventory.fields import (
    BaseAddress,
    Duration,
    Flag,
    RemotePath,
    SecretFile,
    Text,
    Whole,
    duration,
    duration_text,
)
from labctl.inventory.spec import Spec

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = "|".join(_DAYS)
_WINDOW = re.compile(
    rf"(?:(?P<first>{_DAY})(?:-(?P<last>{_DAY}))? +)?"
    r"(?P<from>[0-2]?\d(?::[0-5]\d)?)-(?P<to>[0-2]?\d(?::[0-5]\d)?)",
    re.ASCII | re.IGNORECASE,
)
_FORM = 'must be a time such as "mon-fri 8-18", "sat 10:30-23" or "22-7"'


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes or 0)


def window_parts(text: str) -> tuple[frozenset[int], int, int]:
    """Return the days (0 is Monday) and the minutes of the day from and to of a window.

    Raises:
        ValueError: it is none.
    """
    match = _WINDOW.fullmatch(text.strip())
    if match is None:
        raise ValueError(_FORM)
    start, end = _minutes(match["from"]), _minutes(match["to"])
    if not (0 <= start < 1440 and 0 < end <= 1440) or start == end:
        raise ValueError(_FORM)
    if match["first"] is None:
        return frozenset(range(7)), start, end
    first = _DAYS.index(match["first"].lower())
    last = first if match["last"] is None else _DAYS.index(match["last"].lower())
    return frozenset((first + step) % 7 for step in range((last - first) % 7 + 1)), start, end


def _window(text: str) -> str:
    window_parts(text)
    return text.strip().lower()


def _maybe_none(value: Any) -> Any:
    """Accept "0s" where ``duration`` does not: no time at all."""
    return timedelta(0) if value in ("0s", timedelta(0)) else duration(value)


def _maybe_none_text(value: timedelta) -> str:
    return duration_text(value) or "0s"


TimeWindow = Annotated[Text, AfterValidator(_window)]
MaybeDuration = Annotated[
    timedelta,
    BeforeValidator(_maybe_none),
    PlainSerializer(_maybe_none_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "examples": ["0s", "10m", "1h"]}),
]


class Signals(Spec):
    """What counts as use of a host; each can be switched off, and numbers are what is still quiet."""

    sessions: Flag = Field(
        default=True, description="Somebody is logged in by SSH (labctl itself does not count)."
    )
    console: Flag = Field(default=True, description="Somebody is logged in at the screen or a serial line.")
    gpu: Flag = Field(
        default=True, description="A card computes, or a program holds a compute context on one."
    )
    gpu_percent: Whole = Field(default=5, description="Utilisation of a card in percent that is still quiet.")
    gpu_idle_programs: tuple[Text, ...] = Field(
        default=(), description="Names of programs that may hold a card and still be quiet, such as Xorg."
    )
    engines: Flag = Field(
        default=True, description="An engine of the rack file has a request running or waiting."
    )
    inhibitors: Flag = Field(default=True, description="A program blocks sleep (`systemd-inhibit --list`).")
    packages: Flag = Field(default=True, description="apt, dpkg or dnf is at work.")
    downloads: Flag = Field(default=True, description="labctl brings a model or an engine.")
    timers: Flag = Field(default=True, description="A systemd timer or cron job is due soon.")
    timers_within: Duration = Field(default=duration("10m"), description="How soon is soon.")
    timers_ignored: tuple[Text, ...] = Field(
        default=(
            "apt-daily.timer",
            "apt-daily-upgrade.timer",
            "dpkg-db-backup.timer",
            "e2scrub_all.timer",
            "fstrim.timer",
            "logrotate.timer",
            "man-db.timer",
            "motd-news.timer",
            "systemd-tmpfiles-clean.timer",
            "fwupd-refresh.timer",
            "update-notifier-download.timer",
            "update-notifier-motd.timer",
            "ua-timer.timer",
        ),
        description="Timers that may come later; systemd catches up on them after a wake.",
    )
    load: Flag = Field(default=True, description="The processors are at work.")
    load_percent: Whole = Field(
        default=25, description="Load of one minute in percent of the processors that is still quiet."
    )
    network: Flag = Field(default=True, description="Much goes over the network.")
    network_kb_s: Whole = Field(default=500, description="kB/s, both ways together, that are still quiet.")
    mounts: Flag = Field(default=True, description="Another machine has an NFS or SMB share of it in use.")
    holds: Flag = Field(default=True, description="A file lies in /run/labctl/holds or /etc/labctl/holds.")
    checks: Flag = Field(
        default=True, description="An executable in the folder below ends with other than 0."
    )
    checks_dir: RemotePath = Field(
        default="/etc/labctl/busy.d",
        description="Folder of your own checks; one line of output is the reason.",
    )


class IdlePolicy(Spec):
    """What happens to a host that nobody uses."""

    suspend: Flag = Field(default=False, description="Whether the host may be put to sleep.")
    after: Duration = Field(
        default=duration("30m"), description='How long it must be idle first, such as "30m".'
    )
    how: Literal["suspend", "hibernate", "power-off", "unload"] = Field(
        default="suspend",
        description='How it sleeps; "unload" only frees its cards, as for a host without proof.',
    )
    min_up: MaybeDuration = Field(
        default=duration("10m"), description="How long it stays up after each wake, whatever happens."
    )
    awake: tuple[TimeWindow, ...] = Field(
        default=(),
        description='When it is kept awake and woken for, such as "mon-fri 8-18", in the rack\'s zone.',
    )
    only_in: tuple[TimeWindow, ...] = Field(
        default=(), description='When alone it may fall asleep by itself, such as "22-7"; default: always.'
    )
    signals: Signals = Field(default=Signals(), description="What counts as use.")


class Gate(Spec):
    """What must be true after each wake or boot before a host serves again."""

    command: tuple[Text, ...] = Field(
        default=(),
        description="Your own test of the cards, run as root on the host; other than 0 is a failure. "
        "Default: the engine's own program lists its devices.",
    )
    decode: Flag = Field(
        default=True, description="Whether each engine with a model loaded at start has to answer one token."
    )
    timeout: Duration = Field(default=duration("3m"), description="How long engines may take to be ready.")
    reload_driver: Flag = Field(
        default=True, description="Whether nvidia_uvm may be reloaded, when nothing uses it, to mend a host."
    )
    reboot: Flag = Field(default=True, description="Whether the host may be rebooted to mend it.")
    power_cycle: Flag = Field(
        default=False,
        description="Whether its power may be cut to mend it, once it is drained or proven hung.",
    )


class Controller(Spec):
    """The process that wakes hosts and lets them sleep; it runs on one always-on host of the rack."""

    host: Text = Field(description="Name of the host that it runs on.")
    tick: Duration = Field(default=duration("10s"), description="How often it looks at every host.")
    store_url_file: SecretFile | None = Field(
        default=None,
        description="File with the address of a database, postgresql+psycopg://USER:PASSWORD@HOST/NAME; "
        "default: an SQLite file on the controller's host.",
    )
    python: RemotePath = Field(
        default="/usr/bin/python3", description="Python 3.11 or later on that host, which runs labctl there."
    )
    index: BaseAddress | None = Field(
        default=None, description="Package index that labctl's dependencies come from; default: pip's own."
    )
    wheels: BaseAddress | None = Field(
        default=None,
        description="Folder or page with the wheels instead, for racks without a way out: file:///... on the "
        "host, or http.",
    )
    operators: tuple[Text, ...] = Field(
        default=(), description="Users on that host who may give orders besides root."
    )
