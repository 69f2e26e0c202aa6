"""Plugs switch a host's power, say what it draws, and fail in words without the password."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from devices import Shelly1, Shelly2, TasmotaPlug, serving

from labctl.adapters.power import web
from labctl.adapters.power.meter import Meter, meter_for
from labctl.adapters.power.outlet import Habits, Outlet
from labctl.adapters.power.shelly import Shelly
from labctl.adapters.power.tasmota import Tasmota
from labctl.inventory.wake import SmartPlug
from labctl.ports.power import Draw, PowerError

PASSWORD = "correct&horse=1"
KINDS = [(Shelly1, Shelly), (Shelly2, Shelly), (TasmotaPlug, Tasmota)]
METER = Meter(off_w=10, on_w=25)
Secret = Callable[[str, str], Path]


def outlet(
    kind: type[Outlet], port: int, folder: Path, habits: Habits | None = None, **fields: Any
) -> Outlet:
    driver = "tasmota" if kind is Tasmota else "shelly"
    plug = SmartPlug(driver=driver, address="127.0.0.1", port=port, **fields)
    return kind(plug, folder, habits or Habits(METER))


@pytest.mark.parametrize(("device", "kind"), KINDS)
@pytest.mark.parametrize("password", ["", PASSWORD])
def test_a_plug_is_switched_and_read(
    device: Any, kind: type[Outlet], password: str, tmp_path: Path, secret: Secret
) -> None:
    plug = device(password)
    login = {"user": "admin", "password_file": secret("plug", PASSWORD + "\n")} if password else {}
    with serving(plug) as served:
        switch = outlet(kind, served.port, tmp_path, may_cut=True, **login)
        assert switch.power() == "off"
        switch.wake()
        assert plug.on
        for watts, said in ((180, "on"), (17, "unclear"), (4.2, "off")):
            plug.watts = watts
            assert (switch.power(), switch.has_meter) == (said, True)
        switch.wake()
        assert plug.on, "waking one that is awake changes nothing"
        switch.cut()
        assert not plug.on


@pytest.mark.parametrize(("device", "kind"), KINDS)
def test_a_plug_without_a_meter_says_only_whether_power_flows(
    device: Any, kind: type[Outlet], tmp_path: Path
) -> None:
    with serving(device(on=True, watts=None)) as served:
        switch = outlet(kind, served.port, tmp_path)
        assert (switch.power(), switch.has_meter) == ("on", False)


@pytest.mark.parametrize(("device", "kind"), KINDS)
def test_a_plug_tells_what_it_gives_and_counts_it_where_it_counts_finely(
    device: Any, kind: type[Outlet], tmp_path: Path
) -> None:
    with serving(device(on=True, watts=87.5)) as served:
        said = outlet(kind, served.port, tmp_path).draw()
    assert said == Draw(87.5, 45000.0 if device is Shelly2 else None)
    with serving(device(on=True, watts=None)) as served:
        assert outlet(kind, served.port, tmp_path).draw() == Draw(None)


@pytest.mark.parametrize(("device", "kind"), KINDS)
@pytest.mark.parametrize("given", ["wrong", None])
def test_a_wrong_or_missing_password_is_said_and_not_shown(
    device: Any, kind: type[Outlet], given: str | None, tmp_path: Path, secret: Secret
) -> None:
    login = {} if given is None else {"user": "admin", "password_file": secret("plug", given + "-sesame")}
    with serving(device(PASSWORD)) as served:
        with pytest.raises(
            PowerError, match=r"the plug at 127\.0\.0\.1 refuses the user or password"
        ) as caught:
            outlet(kind, served.port, tmp_path, **login).wake()
    assert (caught.value.code, caught.value.transient) == ("auth", False)
    assert "sesame" not in str(caught.value) + caught.value.hint
    assert "password" in caught.value.hint


def test_before_version_8_2_3_tasmota_refuses_a_password_with_status_200(tmp_path: Path) -> None:
    with serving(TasmotaPlug(PASSWORD, old=True)) as served:
        with pytest.raises(PowerError) as caught:
            outlet(Tasmota, served.port, tmp_path).power()
    assert caught.value.code == "auth"


FAULTS = [
    ("500", "server-error", "answers 500"),
    ("half", "bad-answer", "ended the connection within its answer"),
    ("hang", "timeout", "does not answer in time"),
    ("drip", "timeout", "does not answer in time"),
    ("redirect", "bad-answer", "sends us elsewhere, which is not followed"),
    ("garbage", "bad-answer", "answers, but not as such a device does"),
    ("flood", "bad-answer", "answers with more than 1 MiB"),
]


@pytest.mark.parametrize(("device", "kind"), KINDS)
@pytest.mark.parametrize(("fault", "code", "words"), FAULTS)
@pytest.mark.parametrize("spare", ["", "/shelly"])
def test_each_fault_of_a_plug_has_its_words(
    device: Any, kind: type[Outlet], fault: str, code: str, words: str, spare: str, tmp_path: Path
) -> None:
    with serving(device()) as served:
        served.fault, served.spare = fault, spare
        switch = outlet(
            kind, served.port, tmp_path, Habits(METER, deadline_s=0.05 if fault in ("hang", "drip") else 8)
        )
        with pytest.raises(PowerError, match=words) as caught:
            switch.power()
    assert caught.value.code == code
    assert caught.value.transient == (code in ("server-error", "timeout") or fault == "half")


def test_a_plug_that_is_not_there_is_told_from_one_that_says_nothing(tmp_path: Path) -> None:
    with serving(Shelly1()) as served:
        port = served.port
    with pytest.raises(PowerError, match="refuses the connection") as caught:
        outlet(Shelly, port, tmp_path).power()
    assert (caught.value.code, caught.value.transient) == ("refused", True)


def test_a_name_that_nobody_resolves_in_time_costs_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def slow(*_: object, **__: object) -> list[object]:
        answered.wait(20)
        return []

    monkeypatch.setattr(web.socket, "getaddrinfo", slow)
    spec = SmartPlug(driver="shelly", address="plug.lan")
    with pytest.raises(PowerError, match="does not answer in time") as caught:
        Shelly(spec, tmp_path, Habits(METER, deadline_s=0.05)).power()
    assert (caught.value.code, answered.is_set()) == ("timeout", False)
    answered.set()


def test_of_several_addresses_the_first_that_takes_the_connection_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = socket.getaddrinfo

    def several(name: str, *how: Any, **more: Any) -> list[Any]:
        names = ("127.9.9.9", "127.0.0.1") if name == "plug.lan" else (name,)
        return [entry for one in names for entry in known(one, *how, **more)]

    with serving(Shelly1()) as served:
        monkeypatch.setattr(web.socket, "getaddrinfo", several)
        spec = SmartPlug(driver="shelly", address="plug.lan", port=served.port)
        assert Shelly(spec, tmp_path, Habits(METER)).power() == "off"


@pytest.mark.parametrize(("device", "kind"), KINDS)
def test_an_outlet_that_the_plug_does_not_have(device: Any, kind: type[Outlet], tmp_path: Path) -> None:
    with serving(device()) as served:
        with pytest.raises(PowerError) as caught:
            outlet(kind, served.port, tmp_path, outlet=3).wake()
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize(("device", "kind"), KINDS)
def test_power_is_cut_only_where_the_inventory_allows_it(
    device: Any, kind: type[Outlet], tmp_path: Path
) -> None:
    plug = device(on=True)
    with serving(plug) as served:
        switch = outlet(kind, served.port, tmp_path)
        assert not switch.can_cut
        with pytest.raises(PowerError, match="may only be switched on") as caught:
            switch.cut()
        assert (caught.value.code, "may_cut=True" in caught.value.hint) == ("unsupported", True)
        assert (plug.on, served.asked) == (True, [])


def test_a_plug_that_takes_the_order_and_does_not_switch_is_found_out(tmp_path: Path) -> None:
    with serving(Shelly1(on=True, stuck=True)) as served:
        with pytest.raises(PowerError, match="was told to switch off, and did not"):
            outlet(Shelly, served.port, tmp_path, may_cut=True).cut()


def test_which_generation_a_plug_is_is_asked_once(tmp_path: Path) -> None:
    with serving(Shelly2()) as served:
        switch = outlet(Shelly, served.port, tmp_path)
        switch.power()
        switch.power()
        assert [target for _, target in served.seen()].count("/shelly") == 1


def test_tasmota_with_several_outlets_has_a_meter_for_each(tmp_path: Path) -> None:
    with serving(TasmotaPlug(on=True, watts=[1.0, 200.0], outlets=2)) as served:
        assert outlet(Tasmota, served.port, tmp_path, outlet=1).power() == "on"
        assert outlet(Tasmota, served.port, tmp_path, outlet=0).power() == "off"


class Recorder:
    """Watches what an outlet does while power is away."""

    def __init__(self, plug: Shelly1) -> None:
        self.plug = plug
        self.pauses: list[tuple[float, bool]] = []

    def wait(self, seconds: float) -> None:
        self.pauses.append((seconds, self.plug.on))


def restarting(plug: Shelly1, **habits: Any) -> tuple[Habits, Recorder]:
    recorder = Recorder(plug)
    return Habits(METER, restarts=True, wait=recorder.wait, **habits), recorder


def test_a_host_that_went_down_on_an_outlet_that_is_on_gets_its_power_back_anew(tmp_path: Path) -> None:
    plug = Shelly1(on=True, watts=2.0)
    habits, recorder = restarting(plug, off_s=5)
    with serving(plug) as served:
        switch = outlet(Shelly, served.port, tmp_path, habits, may_cut=True)
        switch.wake()
        assert (recorder.pauses, plug.on) == ([(5, False)], True)
        switch.wake()
        assert len(recorder.pauses) == 1, "it may be starting: not cut again"


@pytest.mark.parametrize(
    ("watts", "may_cut", "restarts"),
    [(60.0, True, True), (17.0, True, True), (None, True, True), (2.0, False, True), (2.0, True, False)],
)
def test_without_all_of_its_reasons_waking_cuts_nothing(
    watts: float | None, may_cut: bool, restarts: bool, tmp_path: Path
) -> None:
    plug = Shelly1(on=True, watts=watts)
    recorder = Recorder(plug)
    habits = Habits(METER, restarts=restarts, wait=recorder.wait)
    with serving(plug) as served:
        outlet(Shelly, served.port, tmp_path, habits, may_cut=may_cut).wake()
        assert not any("turn=off" in target for _, target in served.seen())
    assert recorder.pauses == []


def test_power_returns_even_if_the_pause_is_broken_off(tmp_path: Path) -> None:
    plug = Shelly1(on=True, watts=2.0)

    def broken(_: float) -> None:
        raise KeyboardInterrupt

    with serving(plug) as served:
        switch = outlet(
            Shelly, served.port, tmp_path, Habits(METER, restarts=True, wait=broken), may_cut=True
        )
        with pytest.raises(KeyboardInterrupt):
            switch.wake()
    assert plug.on


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        ("secret", 0o644, "others may read the secret in"),
        ("\n", 0o600, "the password in .* is empty"),
        (None, 0, "cannot be read: No such file or directory"),
    ],
)
def test_a_password_file_that_cannot_be_used_is_named(
    content: str | None, mode: int, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "plug"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    with pytest.raises(PowerError, match=words) as caught:
        outlet(Shelly, 1, tmp_path, user="admin", password_file=Path("plug")).power()
    assert (caught.value.code, str(file) in str(caught.value)) == ("no-secret", True)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("base_w", "cards", "off_w"),
    [(None, True, 10), (None, False, 2), (40, False, 4), (15, False, 2), (200, True, 10), (60, True, 6)],
)
def test_what_counts_as_off_grows_with_the_machine(base_w: float | None, cards: bool, off_w: float) -> None:
    meter = meter_for(base_w, cards=cards)
    assert (meter.off_w, meter.on_w) == (off_w, off_w * 2.5)
    assert meter.says(off_w) == "off"
    assert meter.says(off_w + 0.1) == "unclear"
    assert meter.says(meter.on_w) == "on"
