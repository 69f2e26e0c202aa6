"""`labctl powercap`: what is refused early, what each host is told, what is shown, and the exit code."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from powercap_rack import (
    NO_CARDS,
    OFF,
    RACK,
    UUIDS,
    Asked,
    Bench,
    bench_in,
    card,
    fails,
    geforce,
    radeon,
    says,
)

from labctl import wiring
from labctl.cli.completion import complete_cards
from labctl.cli.powercap import powercap
from labctl.domain.failures import Failure
from labctl.ports import Said

RIG = (card("slot0", "changed"), card("slot1", "changed"))
AGENT = "/usr/local/lib/labctl/agent.pyz"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    return bench_in(tmp_path, monkeypatch, capsys)


# -- refused before any host is contacted


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("0",), "0 is no cap"),
        (("--", "-5"), "-5 is no cap"),
        (("1e9",), "1e9 is no cap"),
        (("200.5",), "200.5 is no cap"),
        (("999999",), "999999 is no cap"),
        (("200", "rgi"), "no host or group fits 'rgi' hint: did you mean rig"),
        (("200", "nas"), "nas: no card that labctl can cap"),
        (("200", "rig/slot7"), "it has no card 'slot7' hint: its cards: slot0 (RTX 3090), slot1 (RTX 3090)"),
        (("200", "rig/GPU-99999999-2222-3333-4444-555555555555"), "it has no card"),
        (("200", "rig/"), "it has no card ''"),
        (("200", ""), "'' names no host hint: leave it out"),
        (("200", "/slot0"), "'/slot0' names no host"),
        (("200", UUIDS[1]), f"hint: write the host in front of it: rig/{UUIDS[1]}"),
        (("200", "slot1"), "hint: write the host in front of it: rig/slot1"),
        (("rig", "200"), "the watts stand first hint: labctl powercap 200 rig"),
        (("--until", ""), "--until of what?"),
        (("200", "--local", "-i", "rack.py"), "--local and --inventory exclude each other"),
        (("200", "--override", "a\nb"), "no plain line of text"),
        (("200", "--override", "x" * 501), "at most 500 characters"),
        (("--reset", "rig", "--reason", "noise"), "--reset stands alone"),
        (("--until", "2h"), "--until of what?"),
        (("--dry-run",), "--dry-run of what?"),
        (("200", "--until", "2h", "--persist"), "exclude each other"),
        (("200", "--reset"), "--reset stands alone"),
        (("--reset", "--persist"), "--reset stands alone"),
        (("200", "--until", "yesterday"), "'yesterday' is no time"),
        (("200", "--until", "2020-01-01T10:00"), "is past"),
        (("200", "--until", "9999d"), "more than a year away"),
        (("200", "--until", "25:00"), "is no time"),
        (("200", "--override", " "), "needs words"),
        (("--lock-clocks", "1400"), "is no range"),
        (("--lock-clocks", "1400,210"), "is no range"),
        (("--lock-clocks", "210,1400", "--unlock-clocks"), "exclude each other"),
        (("200", "--reason", "fun"), "'fun' is not one of"),
    ],
)
def test_bad_input_is_named_and_no_host_is_contacted(bench: Bench, args: tuple[str, ...], words: str) -> None:
    done = bench.powercap(*args)
    assert done.code == 2
    assert words in done.words
    assert bench.hosts.asked == []


def test_a_card_outside_its_range_is_refused_with_the_range_and_another_way(bench: Bench) -> None:
    done = bench.powercap("300", "big")
    assert done.code == 2
    assert "host big: slot0: 300 W is too little: RTX 5090 takes 400 to 600 W" in done.err
    assert "--lock-clocks MIN,MAX" in done.err
    assert bench.hosts.asked == []


def test_one_card_out_of_range_keeps_the_whole_rack_as_it_is(bench: Bench) -> None:
    done = bench.powercap("200")
    assert done.code == 2
    assert "host big: slot0" in done.err
    assert bench.hosts.asked == []


def test_nothing_goes_above_a_cap_that_protects_a_circuit_without_words(bench: Bench) -> None:
    done = bench.powercap("300", "rig")
    assert done.code == 2
    assert "slot0, slot1: 300 W is above the 245 W that protect its circuit" in done.err
    assert "--override" in done.err
    assert bench.hosts.asked == []


def test_a_named_card_without_a_cap_is_an_error_and_an_unnamed_one_is_left_out(bench: Bench) -> None:
    assert "GB10 has no power cap" in (named := bench.powercap("200", "spark/soc")).err
    assert named.code == 2
    bench.hosts.plays["mix"] = says(radeon("changed"))
    done = bench.powercap("250", "mix", "spark")
    assert done.code == 0
    assert "mix/igpu: Radeon 8060S has no power cap" in done.err
    assert "spark/soc: GB10 has no power cap" in done.err
    assert bench.hosts.orders()["mix"]["cards"] == ["0000:03:00.0"]
    assert list(bench.hosts.orders()) == ["mix"]


def test_clocks_of_an_amd_card_are_not_locked(bench: Bench) -> None:
    done = bench.powercap("--lock-clocks", "210,1400", "mix/slot0")
    assert (done.code, bench.hosts.asked) == (2, [])
    assert "locks clocks on NVIDIA cards only, not on RX 7900 XTX" in done.err


def test_hosts_without_a_pinned_key_are_named_and_nobody_is_contacted(bench: Bench) -> None:
    (bench.folder / "inventory/known_hosts").write_text("")
    done = bench.powercap("200", "rig", "mix/slot0")
    assert done.code == 2
    assert "labctl enroll rig mix" in done.err
    assert bench.hosts.asked == []


# -- what a host is told


def test_each_host_gets_one_order_as_root_on_stdin(bench: Bench) -> None:
    bench.hosts.plays = {"rig": says(*RIG)}
    done = bench.powercap("200", "rig", "--persist", "--reason", "noise")
    assert done.code == 0
    (asked,) = bench.hosts.asked
    assert (asked.argv, asked.root) == ((AGENT, "caps", "--order"), True)
    assert asked.order == {
        "format": 1, "watts": 200, "clocks_mhz": None, "reset": False, "cards": None, "reason": "noise",
        "until": None, "persist": True, "override": None, "dry_run": False, "by": wiring.who(),
    }  # fmt: skip


@pytest.mark.parametrize("called", ["slot1", UUIDS[1], UUIDS[1].lower(), "0000:3b:00.0", "3B:00.0"])
def test_a_card_is_called_by_slot_uuid_or_address(bench: Bench, called: str) -> None:
    bench.hosts.plays = {"rig": says(card("slot1", "changed"))}
    assert bench.powercap("200", f"rig/{called}").code == 0
    assert bench.hosts.orders()["rig"]["cards"] == [UUIDS[1]]


def test_groups_and_patterns_name_hosts_and_a_host_includes_its_cards(bench: Bench) -> None:
    bench.hosts.plays = {"rig": says(*RIG), "big": says(geforce("changed"))}
    assert bench.powercap("450W", "gpu", "rig/slot0", "--override", "its own fuse").code == 0
    assert {host: order["cards"] for host, order in bench.hosts.orders().items()} == {
        "rig": None,
        "big": None,
    }


def test_words_take_an_order_above_a_protecting_cap_and_travel_with_it(bench: Bench) -> None:
    bench.hosts.plays = {"rig": says(card("slot0", "changed"))}
    assert bench.powercap("300", "rig/slot0", "--override", " new 20 A fuse ").code == 0
    assert bench.hosts.orders()["rig"]["override"] == "new 20 A fuse"


def test_a_time_is_sent_as_a_moment_and_shown_as_a_clock_shows_it(bench: Bench) -> None:
    bench.hosts.plays = {"rig": says(card("slot0", "changed"))}
    done = bench.powercap("200", "rig", "--until", "90m")
    until = datetime.fromtimestamp(bench.hosts.orders()["rig"]["until"], UTC)
    assert abs(until - datetime.now(UTC) - timedelta(minutes=90)) < timedelta(seconds=10)
    assert f"It holds until {until.astimezone():%Y-%m-%d %H:%M}" in done.out


def test_a_reset_and_clocks_are_orders_too(bench: Bench) -> None:
    bench.hosts.plays = {"rig": says(*RIG)}
    assert bench.powercap("--reset", "rig").code == 0
    assert bench.hosts.orders()["rig"]["reset"] is True
    assert bench.powercap("--lock-clocks", "210,1400", "rig").code == 0
    assert bench.hosts.orders()["rig"]["clocks_mhz"] == [210, 1400]
    assert bench.powercap("--unlock-clocks", "rig").code == 0
    assert bench.hosts.orders()["rig"]["clocks_mhz"] == "reset"


def test_a_dry_run_says_so_to_the_host_and_to_the_person(bench: Bench) -> None:
    bench.hosts.plays = {"rig": says(card("slot0", "would-change"))}
    done = bench.powercap("200", "rig/slot0", "--dry-run")
    assert done.code == 0
    assert bench.hosts.orders()["rig"]["dry_run"] is True
    assert "Dry run: 1 of 1 card would be as ordered" in done.out
    assert "It holds" not in done.out


# -- what is shown, and the exit code


def test_the_table_shows_before_and_after_of_every_card(bench: Bench) -> None:
    bench.hosts.plays = {"rig": says(card("slot0", "changed"), card("slot1", "unchanged", 200.0, 200.0))}
    done = bench.powercap("200", "rig")
    assert done.out.splitlines() == [
        "HOST  CARD   MODEL     WATTS         RESULT     WHY",
        "rig   slot0  RTX 3090  350 -> 200 W  changed",
        "rig   slot1  RTX 3090  200 W         unchanged",
        "Result: 2 of 2 cards as ordered",
        "It holds until the next boot or apply; --persist keeps it, --until T for a time.",
    ]
    assert done.err == ""


def test_every_other_card_is_done_when_one_fails_and_the_table_says_which(bench: Bench) -> None:
    bench.hosts.plays = {
        "rig": says(
            card("slot0", "changed"),
            card("slot1", "failed", 350, 350, why="it stays at 350 W", hint="look at dmesg"),
            status=1,
        )
    }
    done = bench.powercap("200", "rig", "mix/slot0")
    assert done.code == 4
    assert "rig   slot1  RTX 3090  350 W         failed       it stays at 350 W; look at dmesg" in done.out
    assert "mix                                  unreachable  10.0.0.9:22 did not answer" in done.out
    assert "Result: 1 of 2 cards as ordered; not done: rig/slot1, mix" in done.out
    assert "did not answer within 10 s; is it switched on?" in done.out


@pytest.mark.parametrize(
    ("plays", "code"),
    [
        ([card("slot0", "changed"), card("slot1", "missing", None, None)], 4),
        ([card("slot0", "missing", None, None)], 1),
        ([card("slot0", "failed")], 1),
        ([card("slot0", "refused"), card("slot1", "refused")], 2),
        ([card("slot0", "refused"), card("slot1", "failed")], 1),
        ([card("slot0", "unchanged"), card("slot1", "no-cap", None, None)], 0),
    ],
)
def test_the_exit_code_tells_what_became_of_the_cards(bench: Bench, plays: list[object], code: int) -> None:
    bench.hosts.plays = {"rig": says(*plays)}
    named = ["rig/slot0", "rig/slot1"] if len(plays) > 1 else ["rig/slot0"]
    assert bench.powercap("200", *named).code == code


def test_a_card_of_the_inventory_that_the_host_does_not_have_is_told(bench: Bench) -> None:
    bench.hosts.plays = {"rig": says(card("slot1", "changed"))}
    done = bench.powercap("200", "rig")
    assert done.code == 4
    assert "rig   slot0  RTX 3090                missing  the host has no such card" in done.out


def test_a_card_that_does_not_tell_its_name_may_be_the_one_that_is_looked_for(bench: Bench) -> None:
    dumb = {**card("slot0", "failed", None, None, why="it hangs"), "uuid": None, "name": None, "slot": None}
    bench.hosts.plays = {"rig": says(card("slot1", "changed"), dumb)}
    done = bench.powercap("200", "rig")
    assert done.code == 4
    assert "missing" not in done.out


def test_a_driver_that_does_not_work_is_a_failure_of_the_host(bench: Bench) -> None:
    found = {"what": "NVML does not work: Driver/library version mismatch", "hint": "reboot the host"}
    document = {"format": 1, "ok": False, "cards": [], "findings": [found]}
    bench.hosts.plays = {"rig": lambda asked: Said(1, json.dumps(document).encode(), "")}
    done = bench.powercap("200", "rig")
    assert done.code == 1
    assert "failed  NVML does not work: Driver/library version mismatch; reboot the host" in done.out


def test_an_order_that_could_not_be_recorded_is_not_all_right(bench: Bench) -> None:
    document = {
        "format": 1, "ok": False, "cards": list(RIG),
        "findings": [{"what": "no space", "hint": "make room", "code": "not-recorded"}] * 2,
    }  # fmt: skip
    bench.hosts.plays = {"rig": lambda asked: Said(1, json.dumps(document).encode(), "")}
    done = bench.powercap("200", "rig", "--persist")
    assert done.code == 4
    assert done.err.count("warning: host rig: no space") == 1
    assert "Result: 2 of 2 cards as ordered; not done: rig" in done.out
    assert "But not on rig, where it is not recorded: there it ends with the next boot" in done.out
    assert "But not" not in bench.powercap("200", "rig").out


def test_no_host_reached_is_3_and_a_failed_one_is_1(bench: Bench) -> None:
    assert bench.powercap("200", "rig", "mix/slot0").code == 3
    bench.hosts.plays = {"rig": lambda asked: Said(127, b"", "not found")}
    done = bench.powercap("200", "rig")
    assert done.code == 1
    assert "labctl's agent is not installed there" in done.words
    assert "; labctl apply --limit rig" in done.words


def test_an_older_agent_that_knows_no_orders_is_told_apart(bench: Bench) -> None:
    bench.hosts.plays = {"rig": lambda asked: Said(2, b"", "labctl-agent: what labctl runs on this host.")}
    done = bench.powercap("200", "rig")
    assert done.code == 1
    assert "labctl's agent there is older than this labctl; labctl apply --limit rig" in done.words


def test_an_order_that_a_host_refuses_as_a_whole_is_a_failure_with_its_words(bench: Bench) -> None:
    error = {"code": "busy", "what": "another run of caps does not end", "hint": "look at its cards"}
    answer = json.dumps({"format": 1, "error": error}).encode()
    bench.hosts.plays = {"rig": lambda asked: Said(1, answer, "")}
    done = bench.powercap("200", "rig")
    assert done.code == 1
    assert "failed  another run of caps does not end; look at its cards" in done.out


@pytest.mark.parametrize("answer", [{}, {"cards": [1]}, {"cards": [{"slot": "slot0"}]}, {"cards": "all"}])
def test_an_answer_in_another_form_is_no_success(bench: Bench, answer: object) -> None:
    bench.hosts.plays = {"rig": lambda asked: Said(0, json.dumps(answer).encode(), "")}
    done = bench.powercap("200", "rig")
    assert done.code == 1
    assert "in a way that this labctl does not know" in done.out


def test_findings_of_a_host_are_shown_as_warnings(bench: Bench) -> None:
    found = {"what": "slot1 (RTX 3090) is not there", "hint": "reseat it", "code": "missing"}
    bench.hosts.plays = {"rig": says(card("slot0", "changed"), findings=[found])}
    assert (
        "warning: host rig: slot1 (RTX 3090) is not there\n  hint: reseat it"
        in bench.powercap("200", "rig").err
    )


def test_a_finding_about_one_card_says_which(bench: Bench) -> None:
    found = [{"what": "it did not answer", "card": card} for card in ("0000:33:00.0", UUIDS[1])]
    bench.hosts.plays = {"rig": says(*RIG, findings=found)}
    done = bench.powercap("200", "rig")
    assert "warning: host rig: 0000:33:00.0: it did not answer" in done.err
    assert "warning: host rig: slot1: it did not answer" in done.err


@pytest.mark.parametrize("strange", [10**400, [1], {"a": 1}, True, 1e300, -1e300])
def test_a_host_that_says_nonsense_breaks_nothing(bench: Bench, strange: Any) -> None:
    keys = ("before_w", "after_w", "min_w", "max_w", "clocks_before", "uuid", "pci", "slot", "name", "why")
    row = {**dict.fromkeys(keys, strange), "status": "changed"}
    order = dict.fromkeys(("uuid", "pci", "watts", "clocks_mhz", "until", "by", "words"), strange)
    about = {**order, "uuid": UUIDS[0], "clocks_mhz": [strange, strange]}
    document = {
        "format": 1,
        "cards": [row, *RIG],
        "overrides": [order, about],
        "findings": [{"what": strange}],
    }
    bench.hosts.plays = {"rig": lambda asked: Said(0, json.dumps(document).encode(), "")}
    for args in (("rig",), ("rig/slot1",), ("rig", "--json"), ("200", "rig"), ("--unlock-clocks", "rig")):
        assert bench.powercap(*args).code == 0


def test_what_a_host_says_cannot_drive_the_terminal(bench: Bench) -> None:
    bench.hosts.plays = {
        "rig": says(
            card("slot0", "failed", why="\x1b[2Jgone\x07", hint="\x1b]0;x\x07"),
            findings=[{"what": "\x1b[31m"}],
        )
    }
    done = bench.powercap("200", "rig")
    assert "\x1b" not in done.out + done.err


def test_json_is_one_document_with_everything(bench: Bench) -> None:
    bench.hosts.plays = {"rig": says(card("slot0", "changed"))}
    done = bench.powercap("200", "rig/slot0", "mix/slot0", "--json")
    document = json.loads(done.out)
    assert (done.code, document["exit_code"], document["dry_run"]) == (4, 4, False)
    rig, mix = document["hosts"]
    assert (rig["status"], rig["cards"][0]["after_w"], rig["failure"]) == ("ok", 200, None)
    assert (mix["status"], mix["failure"]["reason"]) == ("unreachable", OFF.reason)


def test_a_ctrl_c_keeps_what_is_known_and_ends_with_130(bench: Bench) -> None:
    known = says(card("slot0", "changed"))

    def stuck(asked: Asked) -> Said:
        return fails(Failure("interrupted", "it was asked, and its answer not awaited"))(asked)

    bench.hosts.plays = {"rig": known, "mix": stuck}
    done = bench.powercap("200", "rig/slot0", "mix/slot0")
    assert done.code == 130
    assert "changed" in done.out
    assert "mix                                  interrupted  it was asked" in done.out
    assert "Result: interrupted; 1 of 1 card as ordered" in done.out


# -- only looking


def test_without_watts_the_caps_of_all_cards_are_shown(bench: Bench) -> None:
    held = card("slot0", "unchanged", 245, 245, declared_w=245, declared_reason="circuit")
    gone = card("slot1", "missing", None, None, name=None, declared_w=245, declared_reason="circuit")
    bench.hosts.plays = {"rig": says(held, gone)}
    done = bench.powercap("rig", "mix/slot0")
    assert done.code == 4
    lines = done.out.splitlines()
    assert lines[0] == "HOST  CARD   MODEL     CAP      RANGE         SET BY"
    assert lines[1] == "rig   slot0  RTX 3090  245 W    100 to 350 W  inventory: 245 W (circuit)"
    assert lines[2].split()[:3] == ["rig", "slot1", "missing"]
    assert "unreachable" in lines[3]
    assert {(one.argv[1:], one.stdin) for one in bench.hosts.asked} == {(("caps", "--show"), b"")}


def test_who_set_a_cap_by_hand_until_when_and_in_which_words_is_shown(bench: Bench) -> None:
    until = 1_900_000_000
    orders = [
        {"uuid": UUIDS[0], "pci": None, "watts": 300, "clocks_mhz": None, "reason": None, "until": until,
         "words": "new 20 A fuse", "by": "ann@desk pid 7"},
        {"uuid": UUIDS[1], "pci": None, "watts": None, "clocks_mhz": [210, 1400], "reason": "noise",
         "until": None, "words": None, "by": "bob@desk pid 8"},
    ]  # fmt: skip
    cards = [
        card("slot0", "unchanged", 300, 300, declared_w=245, declared_reason="circuit"),
        card("slot1", "would-change", 350, 245, declared_w=245, declared_reason="circuit"),
    ]
    document = {"format": 1, "ok": True, "cards": cards, "findings": [], "overrides": orders}
    bench.hosts.plays = {"rig": lambda asked: Said(0, json.dumps(document).encode(), "")}
    done = bench.powercap("rig")
    when = f"{datetime.fromtimestamp(until, UTC).astimezone():%Y-%m-%d %H:%M %Z}"
    assert f"inventory: 245 W (circuit); ann@desk: 300 W until {when} (new 20 A fuse)" in done.out
    assert "bob@desk: 210 to 1400 MHz for good (noise); 245 W again at the next boot or apply" in done.out
    assert json.loads(bench.powercap("rig", "--json").out)["hosts"][0]["overrides"] == orders


def test_only_the_named_card_is_shown_and_what_lasts_about_it(bench: Bench) -> None:
    cards = [card(f"slot{n}", "unchanged", 245, 245, uuid=UUIDS[n]) for n in range(2)]
    orders = [{"uuid": UUIDS[n], "pci": None, "watts": 245} for n in range(2)]
    steps = [{**order, "watts": 150, "because": f"gpu{n} wakes"} for n, order in enumerate(orders)]
    document = {"format": 1, "cards": cards, "overrides": orders, "steps": steps}
    bench.hosts.plays = {"rig": lambda asked: Said(0, json.dumps(document).encode(), "")}
    out = bench.powercap("rig/slot1").out
    assert "slot1" in out
    assert "slot0" not in out
    assert "stepped down to 150 W (gpu1 wakes)" in out and "gpu0" not in out
    (host,) = json.loads(bench.powercap("rig/slot1", "--json").out)["hosts"]
    assert (host["overrides"], host["steps"]) == (orders[1:], steps[1:])


def test_a_rack_without_cards_says_so_instead_of_nothing(bench: Bench) -> None:
    (bench.folder / "inventory/rack.py").write_text(NO_CARDS)
    done = bench.powercap()
    assert (done.code, done.out) == (0, "There is no graphics card here that labctl can cap.\n")


def test_clocks_that_run_free_again_are_shown_so(bench: Bench) -> None:
    bench.hosts.plays = {"rig": says(card("slot0", "changed", 200, 200, clocks_before=[210, 1400]))}
    assert "clocks 210 to 1400 MHz -> free" in bench.powercap("--unlock-clocks", "rig/slot0").out


def test_a_refusal_on_the_host_leaves_no_promise_about_how_long_it_holds(bench: Bench) -> None:
    bench.hosts.plays = {"rig": says(card("slot0", "refused", why="its own range is 100 to 190 W"))}
    done = bench.powercap("200", "rig")
    assert "its own range" in done.out
    assert "It holds" not in done.out


# -- completion


def complete(bench: Bench, *words: str) -> list[str]:
    context = powercap.make_context("powercap", list(words[:-1]), resilient_parsing=True)
    return [item.value for item in complete_cards(context, powercap.params[0], words[-1])]


def test_hosts_groups_and_behind_a_slash_cards_are_suggested_without_running_the_file(bench: Bench) -> None:
    (bench.folder / "inventory/rack.py").write_text(RACK + "raise SystemExit('this file was run')\n")
    assert complete(bench, "") == ["big", "gpu", "mix", "nas", "rig", "spark", "storage"]
    assert complete(bench, "200", "rig/") == ["rig/slot0", "rig/slot1"]
    assert complete(bench, "200", "rig/slot1", "rig/") == ["rig/slot0"]
    assert complete(bench, "mix/i") == ["mix/igpu"]


def test_cards_that_a_loop_made_are_suggested_after_the_first_use(bench: Bench) -> None:
    made = RACK.replace(
        'gpus=[Gpu(model="GB10", slot="soc")]', 'gpus=[Gpu(model="GB10", slot=f"s{n}") for n in (1,)]'
    )
    (bench.folder / "inventory/rack.py").write_text(made)
    assert complete(bench, "spark/") == []
    bench.powercap("spark")
    assert complete(bench, "spark/") == ["spark/s1"]
