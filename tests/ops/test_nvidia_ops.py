"""What holds, components and the driver's operations decide from what a host says, and what they do here."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from ops_hosts import Here, described
from pyinfra.api.exceptions import OperationValueError

from labctl.ops import components, holds, nvidia
from labctl.ops.command import Script
from labctl.ops.facts_gpu import Machine
from labctl.ops.facts_sources import Archives
from labctl.ops.facts_systemd import Units
from labctl.render import HEADER

Canned = Callable[..., Any]
CARD = "pci 0000:01:00.0 0x10de 0x2204"


def argv(commands: Any) -> list[list[str]]:
    return [[described(command)["script"], *described(command)["argv"]] for command in commands]


# Holds.


@pytest.mark.parametrize(
    ("status", "noted", "words"),
    [
        (["smi smi ii "], [], ["--", "smi", "--", "--"]),
        (["smi smi hi "], ["smi"], None),
        (["smi smi hi "], [], None),
        ([], [], None),
        (["smi smi ii ", "old old hi "], ["old"], ["--", "smi", "--", "old", "--"]),
        (["smi smi hi ", "old old ii "], ["old"], ["--", "--", "--"]),
        (["smi smi hi "], ["smi", "old"], ["--", "--", "--", "smi"]),
    ],
    ids=("free", "ours", "theirs", "absent", "another-before", "let-go-of-by-hand", "removed"),
)
def test_what_is_held_and_released(
    canned: Canned, status: list[str], noted: list[str], words: list[str] | None
) -> None:
    said = {"Packages": status, "Noted": noted}
    found = argv(canned(said, holds.held, {"owner": "nvidia", "names": ("smi",)}))
    assert found == ([] if words is None else [["holds", "/var/lib/labctl/holds/nvidia", "60", *words]])


def test_a_plan_holds_what_an_earlier_operation_will_install(canned: Canned) -> None:
    said: dict[str, list[str]] = {"Packages": [], "Noted": []}
    given = {"owner": "nvidia", "names": ("smi", "linux-image-amd64"), "will": ("smi",)}
    ((_, _, _, *words),) = argv(canned(said, holds.held, given))
    assert words == ["--", "smi", "--", "--"]


def test_another_drivers_holds_are_released_before_it_comes(canned: Canned) -> None:
    said = {"Packages": ["old old hi ", "kept kept hi "], "Noted": ["old", "kept"]}
    found = argv(canned(said, holds.released, {"owner": "nvidia", "keep": ("kept",)}))
    assert found == [["holds", "/var/lib/labctl/holds/nvidia", "60", "--", "--", "old", "--", "kept"]]
    assert canned(said, holds.released, {"owner": "nvidia", "keep": ("kept", "old")}) == []


def test_a_hold_is_noted_before_it_is_made(here: Here) -> None:
    note = here.root / "holds/nvidia"
    here.stand_in("apt-mark", f"cat {note} >{here.root}/seen; echo 'E: Sub-process failed' >&2; exit 100")
    here.stand_in("dpkg-query", "printf 'ii '")
    failed = here.run(Script("holds", str(note), "0", "--", "smi", "--", "--"))
    assert failed.status == 1
    assert (here.root / "seen").read_text() == "smi\n"
    assert note.read_text() == "smi\n", "a hold that may have been made is never forgotten"


def test_a_lock_is_waited_for_and_only_for_its_time(here: Here) -> None:
    here.stand_in("dpkg-query", "printf 'ii '")
    here.stand_in(
        "apt-mark",
        f"[ -e {here.root}/second ] || {{ touch {here.root}/second; echo 'dpkg frontend lock'; exit 1; }}",
    )
    script = Script("holds", f"{here.root}/holds/x", "30", "--", "smi", "--", "--")
    assert here.run(script).status == 0
    assert (here.root / "holds/x").read_text() == "smi\n"


# Components.


def entries(*lines: str) -> dict[str, list[str]]:
    return {"Archives": list(lines), "Paths": ["absent"]}


MAIN = "/etc/apt/sources.list|http://m/debian/|bookworm|main|/k.gpg"
SECURITY = "/etc/apt/sources.list|http://m/security/|bookworm-security|main|/k.gpg"
WANTED = {"codename": "bookworm", "names": ("contrib", "non-free")}


def test_components_are_added_from_where_main_comes(canned: Canned) -> None:
    (command,) = canned(entries(MAIN, SECURITY), components.components, WANTED)
    text = described(command)["stdin"]
    assert text.startswith(f"{HEADER}\nTypes: deb\nURIs: http://m/debian/\nSuites: bookworm\n")
    assert text.count("Components: contrib non-free\nSigned-By: /k.gpg\n") == 2


def test_components_that_are_there_are_left_to_who_put_them_there(canned: Canned) -> None:
    there = [MAIN.replace("|main|", f"|{name}|") for name in ("contrib", "non-free")]
    assert canned(entries(MAIN, *there), components.components, WANTED) == []
    (command,) = canned(entries(MAIN, there[0]), components.components, WANTED)
    assert "Components: non-free\n" in described(command)["stdin"]
    ours = [line.replace("/etc/apt/sources.list|", f"{components.FILE}|") for line in there]
    (command,) = canned(entries(MAIN, *ours), components.components, WANTED)
    assert "Components: contrib non-free\n" in described(command)["stdin"], "our own file is no reason"


def test_a_host_whose_apt_knows_no_archive_is_refused(canned: Canned) -> None:
    other = MAIN.replace("bookworm", "sid")
    with pytest.raises(OperationValueError, match="no archive of bookworm"):
        canned(entries(other), components.components, WANTED)
    assert canned(entries(other), components.components, {**WANTED, "names": ()}) == []


def test_why_apt_cannot_say_is_said_in_its_own_words(canned: Canned, here: Here) -> None:
    here.stand_in("apt-get", "echo 'E: Write error - write (28: No space left on device)' >&2; exit 100")
    said = here.get_fact(Archives)
    assert (said.entries, "No space left on device" in said.trouble) == ((), True)
    with pytest.raises(OperationValueError, match="No space left on device"):
        canned(entries(f"trouble {said.trouble}"), components.components, WANTED)


# The driver.


@pytest.mark.parametrize(
    ("lines", "reasons", "script"),
    [
        ([CARD], [], "nvidia-load"),
        ([CARD, "nouveau nouveau"], [], "reboot-note"),
        ([CARD, "nouveau nouveau"], [nvidia.NOUVEAU], None),
        ([CARD], [nvidia.OTHER_KERNEL], None),
        ([CARD, "nvidia_loaded 550.163.01"], [], None),
        ([CARD, "nvidia_answers yes"], [], None),
        ([CARD, "container yes"], [], None),
        (["kernel 6.1.0"], [], None),
    ],
)
def test_the_module_is_loaded_where_that_is_possible(
    canned: Canned, monkeypatch: pytest.MonkeyPatch, lines: list[str], reasons: list[str], script: str | None
) -> None:
    monkeypatch.setattr(nvidia, "host_reasons", lambda: tuple(reasons))
    assert [words[0] for words in argv(canned({"Machine": lines}, nvidia.loaded, {}))] == (
        [script] if script else []
    )


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        ("nvidia: Key was rejected by service", 1, "Secure Boot refused"),
        (
            "modprobe: FATAL: Module nvidia not found in directory",
            1,
            "no NVIDIA module for the running kernel",
        ),
        ("modprobe: ERROR: could not insert: No such device", 1, "journalctl -k"),
        ("", 0, ""),
    ],
)
def test_a_module_that_does_not_load_says_what_to_do(here: Here, said: str, status: int, words: str) -> None:
    here.stand_in("modprobe", f'[ "$1" = nvidia ] || exit 1; echo "{said}" >&2; exit {status}')
    done = here.run(Script("nvidia-load", str(here.root / "notes"), "note", "why"))
    assert done.status == status
    assert words in done.stderr
    assert not (here.root / "notes").exists()


@pytest.mark.parametrize(
    ("other", "module", "noted"),
    [
        ("999.1.0-amd64", "updates/dkms/nvidia-current.ko.xz", True),
        ("999.1.0-amd64", "kernel/nvidia-595/nvidia.ko", True),
        ("999.1.0-amd64", "updates/dkms/other.ko", False),
        ("0.1.0-amd64", "updates/dkms/nvidia.ko", False),
    ],
)
def test_a_module_for_the_kernel_that_the_next_boot_starts_waits_for_it(
    here: Here, monkeypatch: pytest.MonkeyPatch, other: str, module: str, *, noted: bool
) -> None:
    path = here.root / "lib/modules" / other / module
    path.parent.mkdir(parents=True)
    path.touch()
    (here.root / "boot").mkdir()
    for release in (other, os.uname().release):
        (here.root / "boot" / f"vmlinuz-{release}").touch()
    here.stand_in("modprobe", "echo 'modprobe: FATAL: Module nvidia not found in directory' >&2; exit 1")
    script = Script("nvidia-load", str(here.root / "notes"), "note", nvidia.OTHER_KERNEL)
    moved = (
        script.get_raw_value()
        .replace("/boot/v", f"{here.root}/boot/v")
        .replace("/lib/mod", f"{here.root}/lib/mod")
    )
    done = here.shell(moved)
    assert (done.status, (here.root / "notes/note").exists()) == (0 if noted else 1, noted), done.stderr


NEWEST = ("linux-image-amd64", "linux-headers-amd64")


@pytest.mark.parametrize(
    ("lines", "offered", "names"),
    [
        (["kernel 6.1.0-50-amd64", "headers yes"], [], None),
        (["kernel 6.1.0-50-amd64", "container yes"], [], None),
        (["kernel 6.1.0-50-amd64"], ["l | 6.1 | http://a bookworm/main"], ["linux-headers-6.1.0-50-amd64"]),
        (["kernel 6.1.0-40-amd64"], [], [*NEWEST]),
    ],
    ids=("there", "container", "offered", "offered-no-more"),
)
def test_a_kernel_whose_headers_are_gone_makes_room_for_one_that_has_them(
    canned: Canned, lines: list[str], offered: list[str], names: list[str] | None
) -> None:
    found = argv(canned({"Machine": lines, "Offered": offered}, nvidia.headers, {"newest": NEWEST}))
    assert [words[5:] for words in found] == ([] if names is None else [names])
    assert canned({"Machine": lines}, nvidia.headers, {"newest": ()}) == []


def unit(
    load: str = "loaded", active: str = "active", enabled: str = "enabled", stale: str = "fresh"
) -> list[str]:
    shown = (f"LoadState={load}", f"UnitFileState={enabled}", f"ActiveState={active}", "SubState=running")
    return ["absent", stale, *shown]


@pytest.mark.parametrize(
    ("lines", "state", "acts"),
    [
        (["nvidia_answers yes"], unit(active="inactive"), True),
        (["nvidia_answers yes"], unit(stale="stale"), True),
        (["nvidia_answers yes"], unit(), False),
        (["nvidia_answers yes"], unit(load="not-found", active="inactive"), False),
        (["kernel 6.1.0"], unit(active="inactive", stale="stale"), False),
    ],
)
def test_the_daemon_runs_where_a_driver_answers(
    canned: Canned, lines: list[str], state: list[str], *, acts: bool
) -> None:
    found = canned(
        {"Machine": lines, "Unit": state}, nvidia.persistent, {"unit": "nvidia-persistenced.service"}
    )
    assert bool(found) == acts


def test_units_that_the_driver_does_not_bring_are_not_missed(canned: Canned) -> None:
    def enabled(*states: str) -> list[list[str]]:
        shown = [line for state in states for line in (*state.split(), "")]
        return argv(canned({"Units": shown}, nvidia.enabled, {"units": ("a.service", "b.service")}))

    there, absent = "LoadState=loaded UnitFileState=enabled", "LoadState=not-found UnitFileState="
    off = "LoadState=loaded UnitFileState=disabled"
    assert enabled(there, absent) == enabled() == []
    assert enabled(off, absent) == [["enable", "a.service"]]
    assert enabled(there, off) == [["enable", "b.service"]]


def test_units_answer_in_the_order_in_which_they_were_asked_for(here: Here) -> None:
    # systemctl answers without a running systemd only with an error, so this is the form that it has.
    here.stand_in(
        "systemctl",
        'for u; do case $u in *.service) printf "LoadState=loaded\nUnitFileState=$u\n\n" ;; esac; done',
    )
    found = here.get_fact(Units, units=("a.service", "b.service"))
    assert [info.enabled for info in found] == ["a.service", "b.service"]


def test_the_file_system_of_a_path_that_is_not_there_yet_is_that_of_its_parent(here: Here) -> None:
    kind, free = here.get_fact(nvidia.Room, path=f"{here.root}/not/there")
    assert kind
    assert free > 0
    assert here.get_fact(nvidia.Room, path="/dev/shm/x")[0] == "tmpfs"


def test_a_host_that_says_nothing_is_left_alone(canned: Canned) -> None:
    assert Machine().process([]).cards("10de") == ()
    assert canned({"Machine": []}, nvidia.loaded, {}) == []
