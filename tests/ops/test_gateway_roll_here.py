"""How instances of the gateway follow each other, against a systemctl that keeps what it is told in files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ops_hosts import Diffs, Done, Here, described

from labctl.ops import gateway
from labctl.ops.command import Script
from labctl.render import HEADER

SOCKET = "labctl-gateway.socket"
PATTERN = "labctl-gateway@*.service"
LISTEN = "127.0.0.1:8000"
SS = """\
[ ! -e "${0%ss}systemctl.d/up/labctl-gateway.socket" ] || read -r listen <"${0%ss}systemctl.d/listen"
echo 'LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("systemd",pid=1,fd=9))'
echo "LISTEN 0 128 $listen 0.0.0.0:* users:((\\"systemd\\",pid=1,fd=10))"
echo 'LISTEN 0 128 10.0.0.1:9 0.0.0.0:* users:(("python",pid=10,fd=10))'
"""
OLD, NEW, MORE = (f"labctl-gateway@{name}.service" for name in ("aaaa-1", "bbbb-1", "bbbb-2"))
# Units that are up are files in up/, those that start at boot in boot/; `listen` is where the socket listens,
# `wanted` where its file says that it shall, and those in broken/ do not start.
SYSTEMCTL = """\
cd "$0.d"
verb=
units=
for word in "$@"; do case $word in -*) ;; *) if [ -z "$verb" ]; then verb=$word; else unit=$word units="$units $word"; fi ;; esac; done
case $verb in
  list-units) for one in up/labctl-gateway@*; do [ ! -e "$one" ] || echo "${one#up/} loaded active running x"; done ;;
  is-active) if [ -e "up/$unit" ]; then echo active; else echo inactive; exit 3; fi ;;
  show) if [ -e "up/$unit" ]; then echo active; else echo inactive; fi ;;
  enable) : >"boot/$unit" ;;
  disable) rm -f "boot/$unit" ;;
  start)
    [ ! -e "broken/$unit" ] || exit 1
    [ "$unit" != labctl-gateway.socket ] || [ -e "up/$unit" ] || cat wanted >listen
    : >"up/$unit" ;;
  stop) for one in $units; do rm -f "up/$one"; done ;;
  status) echo "it crashed here" ;;
esac
case $verb in start | stop | enable | disable | daemon-reload) echo "$verb $unit" >>log ;; esac
"""  # noqa: E501


class Host:
    """A host with systemd, as far as the scripts ask it."""

    def __init__(self, here: Here) -> None:
        self.here = here
        here.stand_in("systemctl", SYSTEMCTL)
        here.stand_in("ss", SS)
        here.stand_in("sleep", ":")
        here.stand_in("journalctl", "echo 'its last words'")
        self.folder = here.bin / "systemctl.d"
        for name in ("up", "boot", "broken"):
            (self.folder / name).mkdir(parents=True)
        self.listens(LISTEN)

    def listens(self, wanted: str) -> None:
        (self.folder / "wanted").write_text(f"{wanted}\n")

    def has(self, *units: str) -> None:
        """Have the socket and these instances run."""
        (self.folder / "listen").write_text((self.folder / "wanted").read_text())
        for unit in (SOCKET, *units):
            (self.folder / "up" / unit).touch()
            (self.folder / "boot" / unit).touch()

    def breaks(self, unit: str) -> None:
        (self.folder / "broken" / unit).touch()

    def roll(self, *wanted: str, listen: str = LISTEN) -> Done:
        return self.here.run(Script("gateway-roll", SOCKET, PATTERN, listen, *wanted))

    def names(self, what: str) -> list[str]:
        return sorted(path.name for path in (self.folder / what).iterdir())

    @property
    def log(self) -> list[str]:
        lines = (self.folder / "log").read_text().splitlines()
        return [line for line in lines if not line.startswith(("daemon-reload", "enable", "disable"))]


@pytest.fixture
def there(here: Here) -> Host:
    return Host(here)


def test_the_first_instances_come_with_their_socket_before_them(there: Host) -> None:
    assert there.roll(NEW, MORE).status == 0
    assert there.log[-3:] == [f"start {SOCKET}", f"start {NEW}", f"start {MORE}"]
    assert there.names("boot") == [SOCKET, NEW, MORE]


def test_an_old_instance_goes_only_when_the_new_ones_serve(there: Host) -> None:
    there.has(OLD)
    assert there.roll(NEW, MORE).status == 0
    assert there.log == [f"start {SOCKET}", f"start {NEW}", f"start {MORE}", f"stop {OLD}"]
    assert there.names("up") == [SOCKET, NEW, MORE]


def test_new_ones_that_do_not_start_leave_the_old_ones_alone(there: Host) -> None:
    there.has(OLD)
    there.breaks(MORE)
    done = there.roll(NEW, MORE)
    assert done.status == 1
    assert f"{MORE} does not start; the old ones serve on" in done.stderr
    assert "it crashed here" in done.stderr
    assert there.names("up") == [SOCKET, OLD]
    assert OLD in there.names("boot")


def test_where_the_address_changes_the_old_ones_let_go_of_it_first(there: Host) -> None:
    there.has(OLD)
    there.listens("0.0.0.0:8000")
    assert there.roll(NEW, listen="0.0.0.0:8000").status == 0
    assert there.log[0] == f"stop {OLD}"
    assert there.log[1].startswith("stop ")
    assert there.log[2:] == [f"start {SOCKET}", f"start {NEW}", f"stop {OLD}"]
    assert (there.folder / "listen").read_text() == "0.0.0.0:8000\n"


def test_an_address_that_somebody_else_has_is_said(there: Host) -> None:
    there.breaks(SOCKET)
    done = there.roll(NEW)
    assert done.status == 1
    assert f"{SOCKET} cannot listen on {LISTEN}" in done.stderr
    assert there.names("up") == []


def test_rolling_again_changes_nothing_that_serves(there: Host) -> None:
    there.has(NEW)
    assert there.roll(NEW).status == 0
    assert there.names("up") == [SOCKET, NEW]
    assert f"stop {NEW}" not in there.log


def test_a_gateway_that_moved_away_leaves_nothing(there: Host) -> None:
    there.has(OLD, NEW)
    file = there.here.root / SOCKET
    file.write_text(f"{HEADER}\n[Socket]\n")
    assert there.here.run(Script("gateway-gone", HEADER, SOCKET, PATTERN, str(file))).status == 0
    assert there.log == [f"stop {SOCKET}", f"stop {OLD}", f"stop {NEW}"]
    assert not file.exists()


def test_a_unit_that_is_not_ours_is_left_alone(there: Host) -> None:
    there.has(OLD)
    file = there.here.root / SOCKET
    file.write_text("[Socket]\n")
    done = there.here.run(Script("gateway-gone", HEADER, SOCKET, PATTERN, str(file)))
    assert done.status == 1
    assert "no longer carries the header" in done.stderr
    assert there.names("up") == [SOCKET, OLD]


# --- what an operation makes of what it sees --------------------------------------------------------------


def rolled(canned: Callable[..., Any], lines: list[str], *wanted: str, listens: str = LISTEN) -> list[Any]:
    given = {"wanted": wanted, "socket": SOCKET, "pattern": PATTERN, "listens": listens}
    return [described(one) for one in canned({"Instances": lines}, gateway.rolled, given)]


SERVES = [
    "socket active yes",
    f"instance {NEW} active",
    f"instance {OLD} deactivating",
    f"enabled {NEW}",
]


def test_what_serves_already_is_left_alone_while_the_one_before_drains(
    canned: Callable[..., Any], diffs: Diffs
) -> None:
    assert rolled(canned, SERVES, NEW) == []
    assert diffs.texts == []


@pytest.mark.parametrize(
    ("lines", "listens", "said"),
    [
        ([], LISTEN, [f"{NEW} starts", f"listens on {LISTEN}"]),
        (["socket active no", *SERVES[1:]], "*:8000", ["listens on *:8000"]),
        (SERVES[:-1], LISTEN, ["starts at boot"]),
        ([*SERVES, f"instance {MORE} active"], LISTEN, [f"{MORE} serves what it has, and ends"]),
        ([*SERVES, f"enabled {OLD}"], LISTEN, [f"{OLD} serves what it has, and ends"]),
        ([SERVES[0], f"instance {NEW} failed", f"enabled {NEW}"], LISTEN, [f"{NEW} starts"]),
        (["socket inactive no", *SERVES[1:]], LISTEN, [f"listens on {LISTEN}"]),
    ],
)
def test_whatever_differs_is_said_and_rolled(
    canned: Callable[..., Any], diffs: Diffs, lines: list[str], listens: str, said: list[str]
) -> None:
    (command,) = rolled(canned, lines, NEW, listens=listens)
    assert command["script"] == "gateway-roll"
    assert command["argv"] == [SOCKET, PATTERN, listens, NEW]
    shown = "\n".join(diffs.texts)
    for line in said:
        assert line in shown


def test_the_look_tells_states_addresses_and_what_starts_at_boot(there: Host) -> None:
    there.has(OLD)
    for listen, held in ((LISTEN, True), ("10.0.0.1:9", False)):
        done = there.here.run(Script("gateway-facts", SOCKET, PATTERN, listen))
        seen = gateway.Instances().process(done.stdout.splitlines())
        assert (seen.socket, seen.listens, seen.running) == ("active", held, (OLD,))


def test_without_a_gateway_there_is_nothing_to_remove(canned: Callable[..., Any]) -> None:
    given = {"socket": SOCKET, "pattern": PATTERN, "paths": (f"/etc/systemd/system/{SOCKET}",)}
    assert canned({"OwnFiles": []}, gateway.gone, given) == []
    (command,) = canned({"OwnFiles": [f"/etc/systemd/system/{SOCKET}"]}, gateway.gone, given)
    assert described(command)["argv"] == [HEADER, SOCKET, PATTERN, f"/etc/systemd/system/{SOCKET}"]
