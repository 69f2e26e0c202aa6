"""Arming a card by a stand-in of ethtool that remembers, and lies where a card would."""

from __future__ import annotations

from pathlib import Path

import pytest
from ops_hosts import Here

from labctl.ops import wol

ETHTOOL = """\
state={state}
case $1 in
  -s) {accept} ;;
  *) printf 'Settings for %s:\\n\\tSupports Wake-on: pumbg\\n\\tWake-on: %s\\n' "$1" "$(cat $state)" ;;
esac
"""


@pytest.fixture
def mac() -> str:
    """The MAC of a network card of this machine."""
    for card in sorted(Path("/sys/class/net").iterdir()):
        if (card / "device").exists():
            return (card / "address").read_text().strip()
    pytest.skip("this machine has no network card")


def put_ethtool(here: Here, accept: str) -> Path:
    state = here.root / "armed"
    state.write_text("d\n")
    here.stand_in("ethtool", ETHTOOL.format(state=state, accept=accept))
    return state


def test_a_card_is_armed_and_then_left_alone(here: Here, mac: str) -> None:
    state = put_ethtool(here, 'echo "$4" > $state')
    (done,) = here.must(wol.armed, mac=mac)
    assert done.status == 0
    assert state.read_text() == "g\n"


def test_a_card_that_accepts_the_order_and_stays_deaf_fails(here: Here, mac: str) -> None:
    put_ethtool(here, ":")
    (done,) = here.apply(wol.armed, mac=mac)
    assert done.status == 1
    assert "does not report that it does" in done.stderr


def test_a_mac_in_capitals_is_found(here: Here, mac: str) -> None:
    put_ethtool(here, ":")
    assert len(here.plan(wol.armed, mac=mac.upper())) == 1
