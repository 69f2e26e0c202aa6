"""Each check of a host: what is wrong is found with its words and its cure, and is well again without it.

One table of faults, each a change of a host on which all is well. Beside the finding itself it is held that
nothing else is found, so that one fault has one name.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from health_cases import (
    LOOK_S,
    NOW,
    PATTERN,
    PCIS,
    UUIDS,
    card,
    declared,
    evidence,
    told,
    wanted,
    well,
    with_card,
)

from labctl.domain.capping import Declared
from labctl.domain.health.evidence import (
    Certificate,
    Clock,
    Driver,
    Gpu,
    Link,
    Memory,
    Mount,
    Rows,
    Smart,
    Upkeep,
    Xid,
)
from labctl.domain.health.expected import ExpectedGpu
from labctl.domain.health.judging import CHECKS, RACK_CHECKS, judge, withheld
from labctl.domain.health.terms import Case, Level, Result, Sleep
from labctl.domain.health.thresholds import DAY_S, Thresholds
from labctl.domain.health.xids import CATALOGUE, meaning
from labctl.domain.sleep.lifecycle import Mode

WARN, CRIT, UNKNOWN, OK = Level.WARN, Level.CRIT, Level.UNKNOWN, Level.OK
DOCS = Path(__file__).resolve().parents[2] / "docs" / "health.md"


def _dark(mode: Mode, lasts: float = 10.0, **more: object) -> Case:
    sleep = Sleep(mode, NOW - lasts, "nobody uses it", waking_usual_s=40.0, **more)  # type: ignore[arg-type]
    return well(evidence=None, sleep=sleep)


def _xid(code: int, text: str = "", *, age: float = 60.0, count: int = 1, pci: str = "0000:01:00") -> Case:
    return told(well(), xids=(Xid(pci, code, NOW - age, count, text),))


def _mount(**changes: object) -> Case:
    root, models = evidence().mounts or ()
    return told(well(), mounts=(root, replace(models, **changes)))  # type: ignore[arg-type]


def _disk(**changes: object) -> Case:
    return told(well(), smart=(replace(Smart("/dev/nvme0", True), **changes),))  # type: ignore[arg-type]


def _link(now: Link, before: int | None = None, **more: object) -> Case:
    case = with_card(well(), link=now, **more)
    past = evidence(at=NOW - LOOK_S, gpus=(card(0, link=replace(now, replays=before)), card(1)))
    return case if before is None else replace(case, earlier=past)


def _memory(**changes: object) -> Case:
    return told(well(), memory=replace(Memory(128_000, 100_000, 0, 0, 0.0, 2), **changes))  # type: ignore[arg-type]


def _ends(days: float) -> Case:
    return told(well(), certificates=(Certificate("/etc/gateway.pem", "CN=rack", NOW + days * DAY_S),))


# code, subject, level, words of the reason, words of the cure, the host
FAULTS: list[tuple[str, str, Level, str, str, Case]] = [
    ("reachable", "", CRIT, "has not come in 10 min", "labctl wake rig", _dark(Mode.WAKING, 601)),
    ("reachable", "", CRIT, "did not come back: nobody uses it", "console", _dark(Mode.FAILED)),
    ("reachable", "", WARN, "somebody wants it awake", "labctl explain rig", _dark(Mode.ASLEEP, wanted=True)),
    ("reachable", "", CRIT, "nobody put it to sleep (no route)", "power",
     replace(_dark(Mode.READY), unreachable="no route")),
    ("reachable", "", CRIT, "nobody put it to sleep (no route)", "power",
     replace(_dark(Mode.UNKNOWN), unreachable="no route")),
    ("reachable", "", CRIT, "nobody put it to sleep (no route)", "power",
     replace(_dark(Mode.SUSPENDING, 601), unreachable="no route")),
    ("reachable", "", UNKNOWN, "was not asked", "labctl health", _dark(Mode.DRAINING)),
    ("reachable", "", UNKNOWN, "nobody can say whether it sleeps", "labctl wake",
     well(evidence=None, sleep=None, unreachable="timed out")),
    ("reachable", "", CRIT, "does not answer: timed out", "cable",
     wanted(well(evidence=None, sleep=None, unreachable="timed out"), sleeps=False)),
    ("reachable", "", UNKNOWN, "it was not asked", "labctl health", well(evidence=None, sleep=None)),
    ("quarantined", "", CRIT, "set apart: 1 of 4 cards is gone", "labctl resume rig",
     well(sleep=Sleep(Mode.READY, NOW, "", quarantined="1 of 4 cards is gone"))),
    ("quarantined", "", CRIT, "answers, and does not serve: the gate failed", "labctl resume rig",
     well(sleep=Sleep(Mode.FAILED, NOW, "the gate failed"))),
    ("wake-proof", "", WARN, "the proof of rig is stale", "labctl sleep-test rig",
     well(sleep=Sleep(Mode.READY, NOW, "", proof="the proof of rig is stale"))),
    ("wol-armed", "", CRIT, "no packet would wake it", "BIOS", told(well(), wol_armed=False)),
    ("wol-armed", "", UNKNOWN, "not known: ethtool failed", "labctl bundle rig",
     told(well(), wol_armed=None, errors={"wol_armed": "ethtool failed"})),
    ("agent-old", "", WARN, "version 0.0.9, and labctl is 0.1.0", "labctl apply",
     told(well(), agent="0.0.9")),
    ("agent-old", "", UNKNOWN, "does not tell its version", "labctl apply", told(well(), agent="")),
    ("gpu-present", "slot0", CRIT, "the RTX 3090 is missing", "riser", told(well(), gpus=(card(1),))),
    ("gpu-present", "slot0", CRIT, "does not work: GPU is lost", "cut the host's power",
     with_card(well(), code="gpu-lost", errors={"card": "GPU is lost"})),
    ("gpu-present", "slot0", CRIT, "does not work: no answer in 5 s", "reboot",
     with_card(well(), uuid=None, code="hang", errors={"card": "no answer in 5 s"})),
    ("gpu-present", "undeclared", WARN, "not in the rack file: NVIDIA GeForce RTX 3090 at 0000:03:00.0",
     "add a Gpu(...)", told(well(), gpus=(card(0), card(1), card(2)))),
    ("driver-mismatch", "", CRIT, "580.1 is loaded and its library is 595.2", "reboot",
     told(well(), driver=Driver("580.1", "595.2", "595.2"))),
    ("driver-mismatch", "", WARN, "580.1 is loaded, and 595.2 is installed", "reboot",
     told(well(), driver=Driver("580.1", "595.2", "580.1"))),
    ("driver-mismatch", "", CRIT, "not loaded", "Secure Boot",
     told(well(), driver=Driver(None, "580.1", None))),
    ("driver-mismatch", "", UNKNOWN, "what is installed is not known", "modinfo",
     told(well(), driver=Driver("580.1", None, None))),
    ("driver-mismatch", "", UNKNOWN, "not known: /proc is odd", "labctl bundle",
     told(well(), driver=None, errors={"kernel": "/proc is odd"})),
    ("xid", "slot0", CRIT, "Xid 79: it has fallen off the bus, 60 s ago", "cut the host's power", _xid(79)),
    ("xid", "slot0", WARN, "Xid 79", "power", with_card(_xid(79, age=2 * DAY_S), recovery=None)),
    ("xid", "slot0", WARN, "Xid 13: a program's error on the card, 7 times", "program", _xid(13, count=7)),
    ("xid", "slot0", CRIT, "asks for a reboot", "reboot",
     _xid(154, "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)")),
    ("xid", "slot0", CRIT, "asks for something", "reset", _xid(154, "GPU recovery action changed")),
    ("xid", "slot0", WARN, "Xid 999: not in NVIDIA's catalogue", "number", _xid(999)),
    ("xid", "0000:0a:00", CRIT, "Xid 48", "have the card replaced", _xid(48, pci="0000:0a:00")),
    ("gpu-recovery", "slot0", CRIT, "asks for: reset", "nvidia-smi -r", with_card(well(), recovery="reset")),
    ("gpu-recovery", "slot0", CRIT, "asks for: system-reboot", "then reboot it",
     with_card(well(), recovery="system-reboot")),
    ("ecc", "slot0", CRIT, "2 new uncorrectable memory errors, 2 in all", "reset the card",
     with_card(well(), ecc_uncorrected=2)),
    ("ecc", "slot0", WARN, "2 uncorrectable memory errors were counted", "replaced",
     replace(with_card(well(), ecc_uncorrected=2), earlier=None)),
    ("ecc", "slot0", WARN, "240 corrected memory errors an hour", "fails soon",
     with_card(well(), ecc_corrected=20)),
    ("ecc", "slot0", UNKNOWN, "not known: no permission", "nvidia-smi",
     with_card(well(), ecc_uncorrected=None, errors={"ecc": "no permission"})),
    ("row-remap", "slot0", CRIT, "could not be replaced", "have the card replaced",
     with_card(well(), rows=Rows(1, 1, False, True))),
    ("row-remap", "slot0", WARN, "replaced at the next reset", "reset the card",
     with_card(well(), rows=Rows(0, 1, True, False))),
    ("row-remap", "slot0", WARN, "replaced at the next reset", "reset",
     with_card(well(), rows=None, retired_pending=True)),
    ("row-remap", "slot0", UNKNOWN, "does not tell", "ROW_REMAPPER",
     with_card(well(), rows=Rows(1, 1, None, None), retired_pending=None)),
    ("pcie-width", "slot0", WARN, "4 of 16 lanes", "pcie_width=4", _link(Link(4, 4, 4, 16, 3))),
    ("pcie-width", "slot0", WARN, "1 of 4 lanes", "riser",
     wanted(_link(Link(4, 1, 4, 1, 3)), gpus=(declared(0, width=4), declared(1)))),
    ("pcie-width", "slot0", UNKNOWN, "does not tell its width", "lspci", _link(Link(4, None, 4, 16, 3))),
    ("pcie-gen", "slot0", WARN, "generation 1 of 4 under load", "pcie_gen=1", _link(Link(1, 16, 4, 16, 3))),
    ("pcie-replays", "slot0", WARN, "repeated 997 packets", "riser", _link(Link(4, 16, 4, 16, 1000), 3)),
    ("temperature", "slot0", WARN, "it has 91 °C", "fans", with_card(well(), temperature_c=91.0)),
    ("temperature", "slot0", CRIT, "it has 95 °C", "fans", with_card(well(), temperature_c=95.0)),
    ("temperature", "slot0", CRIT, "it has 93 °C", "fans",
     with_card(well(), temperature_c=93.0, slowdown_c=None)),
    ("temperature", "slot0", CRIT, "its hottest spot has 109 °C", "fans", with_card(well(), hotspot_c=109.0)),
    ("temperature", "slot0", WARN, "its memory has 100 °C", "fans", with_card(well(), memory_c=100.0)),
    ("temperature", "slot0", UNKNOWN, "not known: NVML said no", "nvidia-smi",
     with_card(well(), temperature_c=None, hotspot_c=None, memory_c=None,
               errors={"temperature_c": "NVML said no"})),
    ("throttle", "slot0", CRIT, "its hardware slows it down for heat", "fans",
     with_card(well(), throttle=("power-cap", "hw-thermal"))),
    ("throttle", "slot0", CRIT, "its supply calls for less power", "power cables",
     with_card(well(), throttle=("power-brake",))),
    ("throttle", "slot0", WARN, "its driver slows it down for heat", "fans",
     with_card(well(), throttle=("sw-thermal",))),
    ("throttle", "slot0", UNKNOWN, "not known: timed out", "nvidia-smi",
     with_card(well(), throttle=None, errors={"throttle": "timed out"})),
    ("caps-drift", "slot0", WARN, "350 W, and should be 280 W", "labctl powercap --reset rig/slot0",
     with_card(well(), cap_w=350.0)),
    ("caps-drift", "slot0", UNKNOWN, "does not tell its cap", "nvidia-smi", with_card(well(), cap_w=None)),
    ("caps-drift", "slot0", WARN, "may draw 350 W, and the budget counts 300 W", "cap_w=300",
     told(wanted(with_card(well(), cap_w=350.0),
                 gpus=(declared(0, cap_w=None, counted_w=300.0), declared(1))), caps_wanted_w={})),
    ("disk-space", "/srv/models", WARN, "1 % or 39.1 GiB are left (models)", "labctl models gc rig",
     _mount(free_mib=40_000)),
    ("disk-space", "/srv/models", CRIT, "0.5 GiB are left", "make room", _mount(free_mib=500)),
    ("disk-space", "/srv/models", CRIT, "1 % of its inodes", "make room", _mount(inodes_free_percent=1.0)),
    ("disk-space", "/srv/models", UNKNOWN, "does not tell its size", "df", _mount(total_mib=0)),
    ("disk-space", "/srv/models", CRIT, "does not answer: timed out", "umount",
     told(well(), mounts=(evidence().mounts or ())[:1], errors={"mounts:/srv/models": "timed out"})),
    ("disk-space", "/", CRIT, "can only be read", "dmesg",
     told(well(), mounts=(Mount("/", "/dev/sda1", 500_000, 300_000, 80.0, True),))),
    ("disk-space", "", UNKNOWN, "its agent said nothing of it", "labctl apply", told(well(), mounts=None)),
    ("disk-smart", "/dev/nvme0", CRIT, "it says that it fails", "replaced", _disk(passed=False)),
    ("disk-smart", "/dev/nvme0", WARN, "94 % of its life", "replaced", _disk(wear_percent=94)),
    ("disk-smart", "/dev/nvme0", WARN, "3 errors of its medium", "replaced", _disk(media_errors=3)),
    ("disk-smart", "/dev/nvme0", WARN, "8 sectors", "replaced", _disk(pending_sectors=8)),
    ("disk-smart", "/dev/nvme0", WARN, "10 % of its spare blocks", "replaced", _disk(spare_percent=10)),
    ("disk-smart", "/dev/nvme0", WARN, "75 °C", "air", _disk(temperature_c=75.0)),
    ("disk-smart", "/dev/sdb", UNKNOWN, "does not answer: timed out", "smartctl",
     told(well(), errors={"smart:/dev/sdb": "timed out"})),
    ("disk-smart", "", UNKNOWN, "not known: no root", "labctl bundle",
     told(well(), smart=None, errors={"smart": "no root"})),
    ("memory", "", WARN, "4 % of its memory", "contexts", _memory(available_mib=5000)),
    ("memory", "", CRIT, "waited for memory 50 %", "ps aux", _memory(stall_percent=50.0)),
    ("memory", "", WARN, "1 programs were killed", "ps aux", _memory(oom_kills=3)),
    ("memory", "", UNKNOWN, "how much memory", "free", _memory(total_mib=0)),
    ("memory", "", UNKNOWN, "not known", "labctl apply", told(well(), memory=None)),
    ("clock", "", CRIT, "10 min ahead of", "timedatectl", told(well(), clock=Clock(NOW + 600, True))),
    ("clock", "", WARN, "100 s behind", "timedatectl", told(well(), clock=Clock(NOW - 100, True))),
    ("clock", "", WARN, "not synchronised", "ntp", told(well(), clock=Clock(NOW, False))),
    ("clock", "", WARN, "-3.0 s off", "ntp", told(well(), clock=Clock(NOW, True, -3.0))),
    ("clock", "", UNKNOWN, "not known", "labctl apply", told(well(), clock=None)),
    ("units", "", WARN, "failed: a.service and b.timer", "systemctl --failed",
     told(well(), failed_units=("a.service", "b.timer"))),
    ("units", "labctl-chat.service", CRIT, "has failed", "journalctl -u labctl-chat.service",
     told(well(), failed_units=("labctl-chat.service",))),
    ("units", "labctl-caps.service", CRIT, "has failed", "journalctl -u labctl-caps.service",
     told(well(), failed_units=("labctl-caps.service",))),
    ("units", "", UNKNOWN, "not known", "labctl apply", told(well(), failed_units=None)),
    ("reboot-required", "", WARN, "for linux-image", "--allow-reboot",
     told(well(), upkeep=Upkeep(True, ("linux-image",), 0, 0, 60.0))),
    ("reboot-required", "", UNKNOWN, "not known", "reboot-required",
     told(well(), upkeep=Upkeep(None, (), 0, 0, 60.0))),
    ("updates", "", WARN, "3 security updates to install", "apt upgrade",
     told(well(), upkeep=Upkeep(False, (), 3, 9, 60.0))),
    ("updates", "", WARN, "lists are 20 d old", "apt update",
     told(well(), upkeep=Upkeep(False, (), 0, 0, 20 * DAY_S))),
    ("updates", "", UNKNOWN, "how old", "apt update", told(well(), upkeep=Upkeep(False, (), 0, 0, None))),
    ("updates", "", UNKNOWN, "not known: no apt", "labctl bundle",
     told(well(), upkeep=Upkeep(False), errors={"updates": "no apt"})),
    ("certificates", "/etc/gateway.pem", WARN, "another 10 d", "renew it", _ends(10)),
    ("certificates", "/etc/gateway.pem", CRIT, "another 3 d", "renew it", _ends(3)),
    ("certificates", "/etc/gateway.pem", CRIT, "it ended 3 d ago", "renew it", _ends(-3)),
    ("certificates", "/etc/gateway.pem", UNKNOWN, "not known: no such file", "labctl bundle",
     told(well(), certificates=(), errors={"certificates:/etc/gateway.pem": "no such file"})),
]  # fmt: skip
FAULTS.append(
    ("certificates", "/etc/nas.pem", UNKNOWN, "not known: it is no certificate", "labctl bundle",
     told(well(), errors={"certificates:/etc/nas.pem": "it is no certificate"}))
)  # fmt: skip
# What else a fault is seen by, since it is the same thing.
ALSO = {"gpu-present": {"engine-placement"}}


def _found(case: Case) -> dict[tuple[str, str], Result]:
    return {(one.code, one.subject): one for one in judge(case)}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0]}-{fault[2].name}-{fault[3][:30]}")
def test_each_fault_has_its_name_its_reason_and_its_cure_and_is_well_without_it(
    fault: tuple[str, str, Level, str, str, Case],
) -> None:
    code, subject, level, reason, cure, case = fault
    found = _found(case)
    result = found[code, subject]
    assert result.level is level, result
    assert reason in result.reason and cure in result.cure
    assert result.host == "rig" and not result.informs
    others = {one.code for one in found.values() if one.level is not OK} - {code}
    assert others <= ALSO.get(code, set())
    assert all(one.level is OK for one in judge(well()))


def test_a_host_on_which_all_is_well_is_judged_by_every_check_and_each_says_so() -> None:
    results = judge(well())
    assert {one.level for one in results} == {OK}
    assert {one.code for one in results} == {check.code for check in CHECKS}
    assert all(one.reason and not one.cure for one in results)
    assert withheld(well()) == set()


ENGINES = {"engine-progress", "engine-placement", "swap-config"}  # their faults: test_health_serving
OTHERS = {"controller-works", "notify", "health-state"}  # of whoever runs the checks


def test_every_code_is_found_bad_by_the_table_above() -> None:
    assert {code for code, *_ in FAULTS} == {check.code for check in CHECKS} - ENGINES


def test_every_check_is_documented_with_its_code() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", DOCS.read_text(), re.MULTILINE)
    assert set(rows) == {check.code for check in (*CHECKS, *RACK_CHECKS)} | OTHERS
    assert len(rows) == len(set(rows))


def test_every_limit_is_documented_with_its_number() -> None:
    text, usual = DOCS.read_text(), Thresholds()
    missing = [name for name in Thresholds.__slots__ if f"`{name}`" not in text]
    assert missing == []
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| ([0-9.]+) ", text, re.MULTILINE))
    assert {name: float(told) for name, told in rows.items()} == {
        name: getattr(usual, name) for name in Thresholds.__slots__
    }


# --- what is no fault ---


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (_dark(Mode.ASLEEP, 7200.0), "it sleeps since 2 h: nobody uses it"),
        (_dark(Mode.WAKING, 100.0), "it wakes since 100 s"),
        (_dark(Mode.VERIFYING, 100.0), "it wakes since 100 s"),
        (_dark(Mode.SUSPENDING, 20.0), "it goes to sleep since 20 s: nobody uses it"),
    ],
)
def test_a_host_that_sleeps_or_wakes_on_purpose_is_not_down(case: Case, words: str) -> None:
    found = _found(case)
    assert found["reachable", ""].level is OK
    assert found["reachable", ""].reason == words
    assert {code for code, _ in found} == {"reachable", "quarantined", "wake-proof"}


def test_a_slow_host_may_take_twice_its_usual_time_to_wake() -> None:
    slow = Sleep(Mode.WAKING, NOW - 900, "", waking_usual_s=500.0)
    assert _found(well(evidence=None, sleep=slow))["reachable", ""].level is OK


@pytest.mark.parametrize(
    ("code", "subject", "words", "case"),
    [
        ("throttle", "slot0", "its declared cap of 280 W is reached, as intended",
         with_card(well(), throttle=("power-cap",))),
        ("caps-drift", "slot0", "200 W by order of a person, and declared are 280 W",
         told(with_card(well(), cap_w=200.0), caps_wanted_w={PCIS[0]: 200.0})),
        ("row-remap", "slot0", "2 bad rows of its memory were replaced",
         with_card(well(), rows=Rows(1, 1, False, False))),
        ("xid", "slot0", "Xid 31: a program used memory", _xid(31)),
        ("xid", "slot0", "Xid 79", _xid(79, age=2 * DAY_S)),
        ("xid", "slot0", "asks for nothing any more",
         _xid(154, "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)")),
        ("clock", "", "whether it is synchronised, it does not tell", told(well(), clock=Clock(NOW, None))),
        ("gpu-present", "slot0", "the RTX 3090 is there and sleeps",
         told(well(), gpus=(replace(card(0), uuid=None, name=None, asleep=True), card(1)))),
        ("disk-space", "/srv/models", "2 % or 97.7 GiB are left (models)", _mount(free_mib=100_000)),
        ("pcie-width", "slot0", "its PCIe link has 4 lanes",
         wanted(_link(Link(4, 4, 4, 16, 3)), gpus=(declared(0, width=4), declared(1)))),
        ("xid", "slot0", "reported nothing", _xid(61)),
        ("wol-armed", "", "listens", well()),
    ],
)  # fmt: skip
def test_what_is_intended_or_over_is_well(code: str, subject: str, words: str, case: Case) -> None:
    result = _found(case)[code, subject]
    assert result.level is OK
    assert words in result.reason and not result.cure


def test_a_card_without_a_name_is_known_by_its_pci_ids() -> None:
    strix = Declared("Radeon 8060S", slot="igpu", patterns=("1002:1586",))
    igpu = ExpectedGpu("igpu", None, "Radeon 8060S", "amd", None, linked=False, declared=strix)
    nameless = Gpu("amd", None, PCIS[2], None, device="1002:1586")
    found = _found(wanted(told(well(), gpus=(nameless,)), gpus=(igpu,)))
    assert found["gpu-present", "igpu"].level is OK
    assert ("gpu-present", "undeclared") not in found or found["gpu-present", "undeclared"].level is OK
    other = wanted(told(well(), gpus=(replace(nameless, device="1002:744c"),)), gpus=(igpu,))
    assert _found(other)["gpu-present", "igpu"].level is CRIT


def test_a_card_that_nothing_tells_apart_is_not_to_be_ordered_by_itself() -> None:
    alike = replace(declared(0), uuid=None, declared=Declared("RTX 3090", patterns=(PATTERN,), cap_w=280))
    found = _found(wanted(with_card(well(), cap_w=350.0), gpus=(alike, declared(1))))
    assert found["caps-drift", PCIS[0]].cure.startswith("labctl powercap --reset rig, ")


def test_the_generation_of_an_idle_link_says_nothing_and_takes_nothing_back() -> None:
    idle = _link(Link(1, 16, 4, 16, 3), busy_percent=0)
    assert ("pcie-gen", "slot0") not in _found(idle)
    assert ("pcie-gen", "rig", "slot0") in withheld(idle)


@pytest.mark.parametrize(
    "earlier",
    [
        None,
        evidence(at=NOW - LOOK_S, boot_id="another"),
        evidence(at=NOW + LOOK_S),
        evidence(at=NOW - LOOK_S, gpus=(card(0, link=Link(4, 16, 4, 16, 9999)), card(1))),
    ],
    ids=["no run before", "booted since", "a clock went back", "the driver was loaded anew"],
)
def test_a_counter_that_nothing_can_be_compared_with_says_nothing(earlier: object) -> None:
    case = well(earlier=earlier)
    assert ("pcie-replays", "slot0") not in _found(case)
    assert ("pcie-replays", "rig", "slot0") in withheld(case)


def test_the_link_of_a_card_that_is_built_in_is_not_judged() -> None:
    case = wanted(_link(Link(1, 1, 4, 16, 0)), gpus=(declared(0, linked=False), declared(1)))
    assert not [key for key in _found(case) if key[0].startswith("pcie") and key[1] == "slot0"]


def test_a_card_that_hangs_is_told_of_once() -> None:
    case = with_card(well(), code="hang", errors={"card": "no answer"})
    about = {code for code, subject in _found(case) if subject == "slot0"}
    assert about == {"gpu-present", "xid"}
    assert ("temperature", "rig", "slot0") in withheld(case)


@pytest.mark.parametrize("errors", [{"gpus": "NVML hangs"}, {"nvidia": "NVML hangs"}])
def test_cards_that_cannot_be_read_are_unknown_and_not_missing(errors: dict[str, str]) -> None:
    gpus = None if "gpus" in errors else ()
    found = _found(told(well(), gpus=gpus, errors=errors))
    for slot in ("slot0", "slot1"):
        assert found["gpu-present", slot].level is UNKNOWN
        assert "NVML hangs" in found["gpu-present", slot].reason
    assert not [key for key in found if key[0] in ("temperature", "ecc", "caps-drift")]


def test_cards_that_nothing_tells_apart_are_counted_and_none_is_blamed() -> None:
    alike = tuple(
        declared(n, uuid=None, declared=Declared("RTX 3090", patterns=(".*3090",), name=f"slot{n}"))
        for n in range(4)
    )
    case = wanted(told(well(), gpus=tuple(card(n) for n in range(3)), caps_wanted_w={}), gpus=alike)
    result = _found(case)["gpu-present", "RTX 3090"]
    assert (result.level, result.reason) == (CRIT, "3 of 4 RTX 3090 are there")
    assert "uuid=" in result.cure
    assert ("temperature", PCIS[0]) in _found(case)
    broken = told(case, gpus=(*(card(n) for n in range(3)), card(3, code="gpu-lost")))
    assert f"{PCIS[3]} (gpu-lost)" in _found(broken)["gpu-present", "RTX 3090"].reason


def test_a_card_that_was_replaced_at_its_address_is_told_of() -> None:
    there = declared(0, declared=Declared("RTX 3090", pci=PCIS[0], uuid=UUIDS[3], patterns=(".*3090",)))
    case = wanted(well(), gpus=(there, declared(1)))
    result = _found(case)["gpu-present", PCIS[0]]
    assert (result.level, UUIDS[0] in result.reason) == (WARN, True)


def test_a_host_without_cards_is_asked_for_none() -> None:
    case = told(wanted(well(), gpus=()), gpus=(), driver=None, xids=None, caps_wanted_w={})
    codes = {code for code, _ in _found(case)}
    assert not codes & {"driver-mismatch", "xid", "temperature"}


def test_without_a_controller_nothing_is_said_of_proofs_and_with_a_silent_one_nothing_is_taken_back() -> None:
    alone = wanted(well(sleep=None), controlled=False)
    assert not {code for code, _ in _found(alone)} & {"wake-proof", "quarantined"}
    assert withheld(alone) == set()
    assert withheld(well(sleep=None)) == {("quarantined", "rig", ""), ("wake-proof", "rig", "")}


def test_a_disk_that_says_nothing_of_itself_is_neither_well_nor_bad() -> None:
    case = told(well(), smart=(Smart("/dev/sdc", None),))
    assert ("disk-smart", "/dev/sdc") not in _found(case)
    assert ("disk-smart", "rig", "/dev/sdc") in withheld(case)


def test_the_limits_of_the_rack_file_count() -> None:
    case = wanted(with_card(well(), hotspot_c=80.0), thresholds=Thresholds(hotspot_warn_c=75.0))
    assert _found(case)["temperature", "slot0"].level is WARN


def test_a_temperature_carries_its_limits_for_plugins() -> None:
    figures = {one.label: one for one in _found(well())["temperature", "slot0"].figures}
    assert (figures["temperature"].value, figures["temperature"].unit) == (60.0, "C")
    assert (figures["temperature"].warn, figures["temperature"].crit) == (90.0, 95.0)


@pytest.mark.parametrize("code", CATALOGUE)
def test_the_catalogue_says_of_each_code_what_it_is_and_what_to_do(code: int) -> None:
    found = meaning(code, "")
    assert found is not None and found.what and found.cure


def test_an_xid_of_a_card_that_nobody_declared_is_told_under_its_address() -> None:
    case = told(well(), gpus=(card(0), card(1), card(2)), xids=(Xid("0000:03:00", 79, NOW, 1, ""),))
    assert _found(case)["xid", PCIS[2]].level is CRIT


def test_a_check_that_fails_is_unknown_and_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, case: Case) -> object:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(type(CHECKS[0]), "judge", fail)
    results = judge(well())
    assert results[0].level is UNKNOWN
    assert "ZeroDivisionError: by nought" in results[0].reason and "bug" in results[0].cure
    assert {one.code for one in results[1:]} >= {"temperature", "clock"}
