"""``labctl energy``: its words, its JSON and its refusals; the controller behind the door is scripted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from powercap_rack import KEY, Done

from labctl.cli.main import main
from labctl.domain.energy.account import Account, Priced, account
from labctl.domain.energy.terms import Doing, Grain, Spent, SpentSum, Tokens

from scripted_service import NOON, Scripted, serving  # isort: skip

RACK = """\
from labctl.inventory import Controller, Host, Rack, Tariff, TariffWindow

rack = Rack(
    name="desk",
    controller=Controller(host="nas"),
    controller_key="keys/c.pub",
    tariff=Tariff(per_kwh=0.4, windows=[TariffWindow(when=["22-6"], per_kwh=0.2)]),
    hosts=[
        Host(name="gpu-box", address="10.0.0.1", roles=["gpu"]),
        Host(name="nas", address="10.0.0.2", roles=["always-on"]),
    ],
)
globals().update(rack.groups())
"""


def spent(
    doing: Doing, hours: float, watts: float, *, host: str = "gpu-box", guessed: bool = False
) -> SpentSum:
    seconds, joules = hours * 3600, hours * 3600 * watts
    told = (0.0, 0.0, joules) if guessed else (seconds, joules, 0.0)
    return SpentSum(host, doing, None, seconds, *told)


def answer(*sums: SpentSum, currency: str = "EUR", mean_price: bool = False) -> Account:
    prices = (0.4,) if currency else None
    tokens = [Tokens(0, "gpu-box", "qwen", 9, 3_000_000)]
    hosts, rack = account(("gpu-box", "nas"), [Priced(sums, prices)], tokens, ())
    return Account(NOON - 86400, NOON, currency, mean_price, hosts, rack)


FULL = answer(
    spent(Doing.BUSY, 10, 500),
    spent(Doing.LOADED, 100, 95),
    spent(Doing.CHANGING, 1, 150),
    spent(Doing.ASLEEP, 500, 3, guessed=True),
    spent(Doing.EMPTY, 600, 20, host="nas"),
)


@pytest.fixture
def service() -> Scripted:
    return Scripted(account=FULL)


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], service: Scripted
) -> Iterator[Callable[..., Done]]:
    (tmp_path / "rack.py").write_text(RACK)
    (tmp_path / "known_hosts").write_text(f"10.0.0.1 ssh-ed25519 {KEY}\n10.0.0.2 ssh-ed25519 {KEY}\n")
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"LABCTL_{name}", str(tmp_path / name))
    monkeypatch.setenv("LABCTL_INVENTORY", str(tmp_path / "rack.py"))
    monkeypatch.setenv("LABCTL_CONTROLLER", str(tmp_path / "controller.sock"))

    def run(*args: str) -> Done:
        code = main(args)
        said = capsys.readouterr()
        assert "bug in labctl" not in said.err, said.err
        return Done(code, said.out, said.err)

    with serving(tmp_path / "controller.sock", service):
        yield run


def test_each_thing_that_a_host_did_is_a_row_and_estimates_are_marked(
    call: Callable[..., Done], service: Scripted
) -> None:
    done = call("energy")
    assert done.code == 0, done.err
    rows = [" ".join(line.split()) for line in done.out.splitlines()]
    assert rows[0] == "HOST DOING TIME KWH MEAN W EUR"
    assert "gpu-box busy 10 h 5.00 500 2.00" in rows
    assert "awake, loaded, idle 4 days 9.50 95 3.80" in rows
    assert "asleep 21 days ~1.50 ~3 ~0.60" in rows
    assert "nas awake, nothing loaded, idle 25 days 12.00 20 4.80" in rows
    assert any(row.startswith("rack busy") for row in rows)
    at = rows.index("gpu-box: saved by sleeping ~45.85 kWh, ~18.34 EUR")
    assert rows[at + 1] == "awake and idle it draws 95 W, asleep 3 W, which is an estimate"
    assert "gpu-box: ~5.38 kWh, ~2.15 EUR for a million tokens (3,000,000 were answered)" in rows
    assert rows[-1] == "~ holds an estimate: not all of it was measured."
    assert service.called("energy") == [{"hosts": (), "for_s": 30 * 86400.0}]
    assert all(len(line) <= 80 for line in done.out.splitlines())


def test_a_host_of_which_nothing_tells_what_it_draws_is_not_said_to_draw_nothing(
    call: Callable[..., Done], service: Scripted
) -> None:
    service.account = answer(
        spent(Doing.EMPTY, 600, 0, host="nas"), spent(Doing.BUSY, 1, 100), spent(Doing.UNSEEN, 1, 0)
    )
    rows = [" ".join(line.split()) for line in call("energy").out.splitlines()]
    assert "nas awake, nothing loaded, idle 25 days ? ? ?" in rows
    assert "gpu-box busy 60 min 0.100 100 0.04" in rows
    assert "not seen 60 min ? ? ?" in rows
    assert "together 2 h ~0.100 ~50 ~0.04" in rows
    assert rows[-1].startswith("? nothing tells what it drew")


def test_hosts_and_times_reach_the_controller(call: Callable[..., Done], service: Scripted) -> None:
    assert call("energy", "--since", "12h", "--host", "gpu-box").code == 0
    assert service.called("energy") == [{"hosts": ("gpu-box",), "for_s": 43200.0}]


def test_without_a_tariff_no_money_is_shown(call: Callable[..., Done], service: Scripted) -> None:
    service.account = answer(spent(Doing.BUSY, 1, 100), currency="")
    done = call("energy")
    assert "EUR" not in done.out
    assert done.out.splitlines()[0].split() == ["HOST", "DOING", "TIME", "KWH", "MEAN", "W"]


def test_spans_come_first_where_they_are_wanted(call: Callable[..., Done], service: Scripted) -> None:
    service.spans = [Spent(int(NOON), "gpu-box", Doing.BUSY, 3600, 3600, 3.6e6, 0.0)]
    done = call("energy", "--by", "hour")
    assert done.out.splitlines()[1].split()[-4:] == ["60", "min", "1.00", "1000"]
    assert service.called("energy_spans")[0]["grain"] is Grain.HOUR
    said = json.loads(call("energy", "--by", "hour", "--json").out)
    assert said["spans"] == [
        {
            "at": int(NOON),
            "host": "gpu-box",
            "doing": "busy",
            "seconds": 3600,
            "kwh": 1.0,
            "estimated_kwh": 0.0,
        }
    ]


def test_json_has_what_the_controller_says_and_nothing_else(call: Callable[..., Done]) -> None:
    said = json.loads(call("energy", "--json").out)
    assert sorted(said) == ["currency", "hosts", "mean_price", "rack", "since", "until"]
    lines = {line["doing"]: line for line in said["hosts"][0]["lines"]}
    assert lines["loaded"]["kwh"] == pytest.approx(9.5)
    assert lines["asleep"]["estimated_kwh"] == pytest.approx(1.5)
    assert said["hosts"][0]["saved"]["idle_w"] == pytest.approx(95)


def test_what_is_not_known_is_said_in_words(call: Callable[..., Done], service: Scripted) -> None:
    service.account = answer(spent(Doing.ASLEEP, 9, 3, guessed=True), mean_price=True)
    out = call("energy").out
    assert (
        "gpu-box: what sleep saved is not known\n  it was not yet measured awake and idle for 10 min" in out
    )
    assert "Money is by the mean price of a week" in out
    service.account = answer()
    assert call("energy").out.startswith("Nothing was counted in that time")


REFUSALS = [
    ("no length of time", ("--since", "soon"), "'soon' is no length of time"),
    ("longer than a year", ("--since", "400d"), "'400d' is no length of time"),
    ("no such host", ("--host", "gpu-bux"), "gpu-bux"),
    ("no such span", ("--by", "week"), "'week' is not one of"),
]


@pytest.mark.parametrize(("args", "words"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_bad_input_is_refused_in_words(call: Callable[..., Done], args: tuple[str, ...], words: str) -> None:
    done = call("energy", *args)
    assert done.code == 2
    assert words in done.err
    assert done.out == ""
