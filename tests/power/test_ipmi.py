"""The real ipmitool, against a BMC on loopback that speaks IPMI 2.0; and what is said where it is missing."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ipmi_bmc import IpmiBmc, bmc_on_loopback

from labctl.adapters.power import ipmi
from labctl.adapters.power.ipmi import IpmiSwitch
from labctl.adapters.power.programs import PATH
from labctl.inventory.wake import Ipmi
from labctl.ports.power import PowerError

PASSWORD = "it's #1 & 2 long!"
Reach = Callable[..., IpmiSwitch]

needs_ipmitool = pytest.mark.skipif(
    shutil.which("ipmitool", path=PATH) is None, reason="ipmitool is not installed; `sudo ./lab test` does it"
)


@pytest.fixture
def reach(tmp_path: Path, secret: Callable[[str, str], Path]) -> Reach:
    def switch(port: int, *, password: str = PASSWORD, user: str = "ops", **how: Any) -> IpmiSwitch:
        file = secret("bmc", password + "\nnot this line\n")
        spec = Ipmi(address="127.0.0.1", port=port, user=user, password_file=file)
        return IpmiSwitch(spec, tmp_path, **{"deadline_s": 30, **how})

    return switch


@needs_ipmitool
@pytest.mark.parametrize(("suites", "used"), [((3, 17), 17), ((3,), 3)])
def test_ipmitool_logs_in_and_switches(suites: tuple[int, ...], used: int, reach: Reach) -> None:
    bmc = IpmiBmc(PASSWORD, suites=suites)
    with bmc_on_loopback(bmc) as port:
        switch = reach(port)
        assert switch.power() == "off"
        switch.wake()
        assert switch.power() == "on"
        switch.cut()
    assert (bmc.controls, bmc.on, bmc.suite_used, bmc.closed) == ([1, 0], False, used, 4)


@needs_ipmitool
@pytest.mark.parametrize(
    ("bmc", "asked", "words"),
    [
        ({}, {"password": "sesame-street"}, "refuses the user or password"),
        ({}, {"user": "sesame-street"}, "refuses the user or password"),
        ({"privilege": 2}, {"password": PASSWORD}, "does not allow ops to switch power"),
        ({"suites": ()}, {}, "does not allow ops to switch power"),
    ],
)
def test_a_bmc_that_lets_us_not_in_is_told_from_one_that_is_silent(
    bmc: dict[str, Any], asked: dict[str, Any], words: str, reach: Reach
) -> None:
    fake = IpmiBmc(PASSWORD, **bmc)
    with bmc_on_loopback(fake) as port:
        with pytest.raises(PowerError, match=rf"the BMC at 127\.0\.0\.1 {words}") as caught:
            reach(port, **asked).wake()
    assert (caught.value.code, caught.value.transient, fake.controls) == ("auth", False, [])
    assert caught.value.hint
    assert "sesame" not in str(caught.value) + caught.value.hint


@needs_ipmitool
def test_a_bmc_that_fails_a_command_is_quoted(reach: Reach) -> None:
    with bmc_on_loopback(IpmiBmc(PASSWORD, fault="busy")) as port:
        with pytest.raises(PowerError, match=r"does not do it: .*failed: Node busy") as caught:
            reach(port).wake()
    assert (caught.value.code, caught.value.transient) == ("server-error", True)


@needs_ipmitool
def test_half_an_answer_is_none(reach: Reach, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipmi, "_STEP_S", 1)
    monkeypatch.setattr(ipmi, "_TRIES", 1)
    with bmc_on_loopback(IpmiBmc(PASSWORD, fault="half")) as port:
        with pytest.raises(PowerError, match="answers in a way that cannot be believed") as caught:
            reach(port).power()
    assert (caught.value.code, caught.value.transient) == ("bad-answer", True)


@needs_ipmitool
@pytest.mark.parametrize("fault", ["hang", "deaf"])
def test_a_bmc_that_says_nothing_costs_the_deadline(fault: str, reach: Reach) -> None:
    bmc = IpmiBmc(PASSWORD, fault=fault)
    with bmc_on_loopback(bmc) as port:
        with pytest.raises(PowerError, match="does not answer in time") as caught:
            reach(port, deadline_s=0.4).power()
    assert (caught.value.code, caught.value.transient) == ("timeout", True)


def fake_program(folder: Path, body: str) -> str:
    path = folder / "ipmitool"
    path.write_text(f"#!{sys.executable}\nimport os, sys, pathlib\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_nobody_can_read_the_password_in_a_command_line_or_an_environment(
    reach: Reach, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    body = (
        "words = sys.argv + [f'{k}={v}' for k, v in os.environ.items()]\n"
        "file = open(sys.argv[sys.argv.index('-f') + 1]).read()\n"
        f"pathlib.Path({str(seen)!r}).write_text(repr((words, file)))\n"
        "print('Chassis Power is on')"
    )
    assert reach(1, program=fake_program(tmp_path, body)).power() == "on"
    words, file = eval(seen.read_text())
    assert file == PASSWORD + "\n"
    assert not [word for word in words if PASSWORD in word or str(tmp_path / "bmc") in word]
    assert {word.partition("=")[0] for word in words[words.index("status") + 1 :]} <= {
        "PATH",
        "LC_ALL",
        "LC_CTYPE",
    }


@pytest.mark.parametrize(
    ("said", "status", "code", "words"),
    [
        ("Error: Unable to establish IPMI v2 / RMCP+ session", 1, "timeout", "does not answer"),
        ("Address lookup for bmc.lan failed", 1, "no-route", "has a name that is not known"),
        ("Set Session Privilege Level to OPERATOR failed: Unknown (0x81)", 1, "auth", "does not allow ops"),
        ("Set Chassis Power Control to Up/On failed: Out of space", 1, "refused", "failed: Out of space"),
        ("password is SECRET, sorry", 1, "refused", r"\*\*\*, sorry"),
        ("", 1, "refused", "does not do it$"),
        ("Chassis is fine", 0, "bad-answer", "does not say whether it is on"),
    ],
)
def test_what_ipmitool_says_is_understood(
    said: str, status: int, code: str, words: str, reach: Reach, tmp_path: Path
) -> None:
    program = fake_program(tmp_path, f"print({said.replace('SECRET', PASSWORD)!r}); sys.exit({status})")
    with pytest.raises(PowerError, match=words) as caught:
        reach(1, program=program).power()
    assert caught.value.code == code
    assert PASSWORD not in str(caught.value)


def test_where_ipmitool_is_missing_the_hint_installs_it(reach: Reach) -> None:
    with pytest.raises(PowerError, match="ipmitool is not installed") as caught:
        reach(1, program="/nowhere/ipmitool").wake()
    assert (caught.value.code, caught.value.hint) == ("no-program", "apt-get install ipmitool")


def test_a_password_that_ipmi_cannot_hold_is_refused(reach: Reach) -> None:
    with pytest.raises(PowerError, match="longer than 20 bytes") as caught:
        reach(1, password="x" * 21).wake()
    assert caught.value.code == "no-secret"
