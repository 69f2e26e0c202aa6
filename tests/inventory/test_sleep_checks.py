# ruff: noqa: E501 - one case a line reads best
"""Sleep and wake in a rack file: what cannot be meant is told, and the rest becomes a policy in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from rack_texts import loaded, problems, rack_text, write

from labctl.domain.sleep.terms import How, Window
from labctl.inventory.sleeping import policy_of
from labctl.inventory.wake import (
    Ipmi,
    NoWake,
    Redfish,
    SmartPlug,
    WakeCommand,
    WakeOnLan,
    Webhook,
    cuts,
    meters,
)

SOUND = """\
rack = Rack(name="r", timezone="Europe/Berlin",
    controller=Controller(host="hub", tick="5s"),
    controller_key="keys/controller.pub",
    hosts=[
        Host(name="hub", address="10.0.0.1", roles=["always-on"]),
        Host(name="a", address="10.0.0.2", gpus=[Gpu(model="RTX 3090", slot="s0")], priority=5,
            wake=WakeOnLan(mac="52:54:00:00:00:01", relay="hub"),
            power=SmartPlug(driver="shelly", address="10.0.1.1", may_cut=True),
            gate=Gate(power_cycle=True),
            idle=IdlePolicy(suspend=True, after="20m", min_up="0s", awake=["mon-fri 8-18"], only_in=["22-7"])),
        Host(name="b", address="10.0.0.3", depends_on=["a"],
            wake=SmartPlug(driver="tasmota", address="10.0.1.2"),
            idle=IdlePolicy(suspend=True, how="power-off")),
        Host(name="c", address="10.0.0.4", idle=IdlePolicy(suspend=True, how="unload")),
        Host(name="d", address="10.0.0.5", wake=Webhook(on_file="keys/on"), power=WakeCommand(argv=["/bin/on"])),
    ])
"""

CASES = [
    ("a controller on nobody", 'host="hub", tick', 'host="hup", tick', 6, "", "controller.host", "no host called 'hup'"),
    ("a controller that looks too rarely", 'tick="5s"', 'tick="1m"', 6, "", "controller.tick", 'soon taken for gone'),
    ("a broadcast of a kind that is none", 'relay="hub"', 'broadcast="ff02::1"', 11, "a", "wake.broadcast", "IPv6 knows no broadcast"),
    ("a controller that may sleep", 'host="hub", tick', 'host="a", tick', 6, "", "controller.host", "a has not the role always-on"),
    ("a controller without a key", '    controller_key="keys/controller.pub",\n', "\n", 6, "", "controller", "no key to ask the hosts with"),
    ("a cut by a plug that may not", ", may_cut=True", "", 13, "a", "gate.power_cycle", "nothing may cut the power"),
    ("a cut by a packet", '            power=SmartPlug(driver="shelly", address="10.0.1.1", may_cut=True),\n', "\n", 13, "a", "gate.power_cycle", "nothing may cut the power"),
    ("a plug for a host that sleeps to memory", ', how="power-off"', "", 17, "b", "idle.how", "a plug wakes no host that is suspended"),
    ("sleep without a way to wake", ', how="unload"', "", 18, "c", "idle.suspend", "nothing could wake this host"),
    ("awake all week, in one", '["mon-fri 8-18"], only_in=["22-7"]', '["0-24"]', 14, "a", "idle.awake", "kept awake all week"),
    ("awake all week, in two", '["mon-fri 8-18"], only_in=["22-7"]', '["8-20", "20-8"]', 14, "a", "idle.awake", "kept awake all week"),
    ("asleep only while it is kept awake", '["22-7"]', '["tue 9-17"]', 14, "a", "idle.only_in", "`awake` keeps it awake"),
    ("asleep only past a midnight of which it is kept awake", 'awake=["mon-fri 8-18"], only_in=["22-7"]', 'awake=["21-8"], only_in=["sun 22-7"]', 14, "a", "idle.only_in", "`awake` keeps it awake"),
    ("when alone to sleep, for none that does", 'suspend=True, how="unload"', 'only_in=["22-7"]', 18, "c", "idle.only_in", "never falls asleep by itself"),
    ("awake times that nothing wakes for", 'how="unload"', 'how="unload", awake=["8-18"]', 18, "c", "idle.awake", "nothing could wake this host for it"),
    ("a relay that is not there", 'relay="hub"', 'relay="hup"', 11, "a", "wake.relay", "no host called 'hup'"),
    ("a host that needs itself by its relay", 'relay="hub"', 'relay="b"', 11, "a", "wake.relay", "a needs b (wake.relay), b needs a (depends_on)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "line", "host", "field", "reason"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_what_cannot_be_meant_is_told(
    old: str, new: str, line: int, host: str, field: str, reason: str, tmp_path: Path
) -> None:
    assert SOUND.count(old) == 1
    found = problems(write(tmp_path, rack_text(SOUND.replace(old, new))))
    told = {(p.line, p.host, p.field): p.reason for p in found}
    assert reason in told.get((line, host, field), ""), found
    assert len(found) == 1


def test_a_rack_becomes_a_policy_in_seconds_and_watts(tmp_path: Path) -> None:
    policy = policy_of(loaded(tmp_path, SOUND).rack)
    assert (policy.zone, policy.tick_s, list(policy.hosts)) == (
        "Europe/Berlin",
        5.0,
        ["hub", "a", "b", "c", "d"],
    )
    assert [host.name for host in policy.watts.hosts] == list(policy.hosts)
    a = policy.hosts["a"]
    assert (a.wakeable, a.sleeps, a.how, a.quiet_s, a.min_up_s) == (True, True, How.SUSPEND, 1200.0, 0.0)
    assert a.awake == (Window(frozenset(range(5)), 480, 1080),)
    assert a.only_in == (Window(frozenset(range(7)), 1320, 420),)
    assert (a.relay, a.depends_on, a.priority, a.boot_s) == ("hub", (), 5, 180.0)
    assert (a.can_cut, a.has_meter, a.may_reboot, a.may_reload) == (True, True, True, True)
    b = policy.hosts["b"]
    assert (b.how, b.depends_on, b.can_cut, b.has_meter, b.boot_s) == (
        How.POWER_OFF,
        ("a",),
        False,
        True,
        300.0,
    )
    assert not b.may_reload  # it has no card of which a driver could be loaded again
    assert (policy.hosts["c"].wakeable, policy.hosts["c"].how) == (False, How.UNLOAD)
    assert (policy.hosts["d"].wakeable, policy.hosts["d"].sleeps) == (True, False)
    assert not policy.hosts["hub"].sleeps


def test_a_rack_without_a_controller_is_looked_at_every_ten_seconds(tmp_path: Path) -> None:
    body = 'rack = Rack(name="r", hosts=[Host(name="a", address="10.0.0.1")])\n'
    assert policy_of(loaded(tmp_path, body).rack).tick_s == 10.0


_BMC = {"address": "10.0.1.3", "user": "u", "password_file": Path("p")}
SWITCHES = [
    (NoWake(), False, False),
    (WakeOnLan(mac="52:54:00:00:00:01"), False, False),
    (Ipmi(**_BMC), True, True),  # type: ignore[arg-type]
    (Redfish(**_BMC), True, True),  # type: ignore[arg-type]
    (SmartPlug(driver="shelly", address="10.0.1.1"), False, True),
    (SmartPlug(driver="shelly", address="10.0.1.1", may_cut=True), True, True),
    (Webhook(on_file=Path("on")), False, False),
    (Webhook(on_file=Path("on"), off_file=Path("off")), True, False),
    (WakeCommand(argv=("/bin/on",)), False, False),
    (WakeCommand(argv=("/bin/on",), off_argv=("/bin/off",)), True, False),
]


@pytest.mark.parametrize(
    ("switch", "may_cut", "has_meter"), SWITCHES, ids=[str(n) for n in range(len(SWITCHES))]
)
def test_what_a_back_end_can_do_is_known_from_its_fields(
    switch: object, may_cut: bool, has_meter: bool
) -> None:
    assert (cuts(switch), meters(switch)) == (may_cut, has_meter)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ('on_file="keys/on"', 'on_file="https://ha.lan/api/webhook/hunter2"'),
        ('host="hub", ', 'host="hub", store_url_file="postgresql+psycopg://u:hunter2@db/x", '),
        ('mac="52:54:00:00:00:01"', 'mac="52:54:00:00:00:01", secureon_file="hunter2\\nx"'),
    ],
)
def test_a_secret_in_place_of_its_file_is_refused_and_not_shown(
    tmp_path: Path, text: str, other: str
) -> None:
    assert text in SOUND
    (found,) = problems(write(tmp_path, rack_text(SOUND.replace(text, other))))
    assert "must name a file that holds the password or address" in found.reason
    assert found.line
    assert "hunter2" not in str(found)
