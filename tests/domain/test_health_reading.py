"""A host's document is believed where it speaks plainly; what it does not say is never taken for well."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.domain.health.evidence import Evidence, Link, Rows
from labctl.domain.health.reading import evidence_of
from labctl.domain.sleep.telemetry_words import telemetry_of

CARD = {
    "uuid": "GPU-1",
    "pci": "0000:01:00.0",
    "name": "RTX 3090",
    "asleep": False,
    "code": None,
    "errors": {"memory": "Unknown Error"},
    "power_w": 27.5,
    "pcie": {"gen": 1, "width": 8, "gen_max": 4, "width_max": 16},
    "ecc": {"uncorrected_volatile": 2, "corrected_volatile": 9},
    "health": {
        "throttle": ["power-cap"],
        "replays": 4,
        "rows": {"corrected": 1, "uncorrected": 0, "pending": True, "failed": False},
        "recovery": "reset",
        "processes": [
            {"pid": 8, "mib": 100, "unit": "labctl-chat.service"},
            {"pid": 9, "mib": 50, "unit": ""},
        ],
    },
}
WHOLE: dict[str, Any] = {
    "at": 1764400000.5,
    "agent": {"version": "1.2"},
    "system": {"boot_id": "b"},
    "nvidia": {"gpus": [CARD]},
    "amd": {"gpus": []},
    "kernel": {"nvidia_module": "580", "nvidia_on_disk": None, "nvidia_library": "580"},
    "xids": [{"pci": "0000:01:00.0", "code": 79, "last": 5.0, "count": 2, "text": "gone\x1b[31m"}],
    "memory": {"total_mib": 100, "available_mib": 50, "stall_percent": 0.5},
    "mounts": [
        {"path": "/", "device": "/dev/sda1", "total_mib": 10, "free_mib": 5, "read_only": False},
        {"name": "/mnt/dead", "error": "did not answer within 19 s"},
    ],
    "smart": [{"device": "/dev/sda", "passed": False}],
    "clock": {"synchronised": True, "offset_s": -0.25},
    "failed_units": ["a.service", 3],
    "upkeep": {"reboot_pending": True, "reboot_because": ["linux-base"]},
    "updates": {"pending": 3, "security": 1, "age_s": 60},
    "certificates": [{"path": "/etc/x.pem", "subject": "CN=x", "not_after": 1.0}],
    "wol_armed": None,
    "caps_wanted_w": {"GPU-1": 280.0},
    "engines": [
        {"service": "chat", "unit": "labctl-chat.service", "kind": "vllm", "active": "active", "answer": 200},
        {"service": "other", "unit": "labctl-other.service", "kind": "vllm", "active": "active"},
    ],
    "errors": {},
}
FIELDS = {
    "kernel": "driver",
    "upkeep": "upkeep",
    **{
        name: name
        for name in (
            *("xids", "memory", "mounts", "smart", "clock", "failed_units", "certificates", "engines"),
            "caps_wanted_w",
        )
    },
}


def test_a_whole_document_is_read() -> None:
    seen = evidence_of(WHOLE)
    assert (seen.at, seen.agent, seen.boot_id) == (1764400000.5, "1.2", "b")
    assert seen.gpus is not None and seen.driver is not None and seen.xids is not None
    gpu = seen.gpus[0]
    assert (gpu.code, gpu.power_w, gpu.throttle, gpu.recovery) == ("", 27.5, ("power-cap",), "reset")
    assert gpu.link == Link(1, 8, 4, 16, replays=4)
    assert gpu.rows == Rows(1, 0, pending=True, failed=False)
    assert (gpu.ecc_uncorrected, gpu.errors) == (2, {"memory": "Unknown Error"})
    assert seen.xids[0].text == "gone?[31m"
    assert seen.mounts is not None and [one.path for one in seen.mounts] == ["/"]
    assert seen.errors == {"mounts:/mnt/dead": "did not answer within 19 s"}
    assert seen.clock is not None and (seen.clock.wall, seen.clock.offset_s) == (seen.at, -0.25)
    assert seen.upkeep is not None and (seen.upkeep.security, seen.upkeep.reboot_required) == (1, True)
    assert seen.failed_units == ("a.service",)
    assert seen.engines is not None
    assert [(one.gpus, one.gpu_mib) for one in seen.engines] == [(("GPU-1",), 100), ((), 0)]


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", ["missing", None, "words", 3, True])
def test_a_section_that_is_missing_or_odd_is_unknown_and_says_why(name: str, value: object) -> None:
    document = {key: one for key, one in WHOLE.items() if key != name or value != "missing"}
    if value != "missing":
        document[name] = value
    seen = evidence_of(document)
    assert getattr(seen, FIELDS[name]) is None
    assert "its agent is older" in seen.errors[name] or "not understood" in seen.errors[name]


def test_what_the_host_says_is_wrong_goes_before_our_guess() -> None:
    errors = {"xids": {"what": "no journal", "hint": "look"}, "odd": 3}
    seen = evidence_of({**WHOLE, "xids": None, "errors": errors})
    assert (seen.xids, seen.errors["xids"]) == (None, "no journal; look")


def test_one_makers_cards_are_known_where_the_others_are_not() -> None:
    seen = evidence_of({**WHOLE, "nvidia": None, "errors": {"nvidia": {"what": "NVML does not work"}}})
    assert (seen.gpus, seen.errors["nvidia"]) == ((), "NVML does not work")
    neither = evidence_of({**WHOLE, "nvidia": None, "amd": 3})
    assert neither.gpus is None and neither.errors["gpus"] == neither.errors["nvidia"]


def test_who_holds_a_card_is_unknown_while_one_that_is_awake_does_not_tell() -> None:
    silent = {**CARD, "health": {"processes": None}}
    seen = evidence_of({**WHOLE, "nvidia": {"gpus": [CARD, silent]}})
    assert seen.engines is not None and [one.gpus for one in seen.engines] == [None, None]
    asleep = {"uuid": None, "asleep": True}
    seen = evidence_of({**WHOLE, "nvidia": {"gpus": [CARD, asleep]}})
    assert seen.engines is not None and seen.engines[0].gpus == ("GPU-1",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*WHOLE, *CARD, "gpus", "error", "name", "path"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(JSON, st.dictionaries(st.sampled_from(list(WHOLE)), JSON, max_size=5))
def test_nothing_that_a_host_says_raises_and_no_section_is_well_by_silence(
    one: object, changed: dict[str, Any]
) -> None:
    for document in (one, {**WHOLE, **changed}, {**WHOLE, "nvidia": {"gpus": [one]}}):
        seen = evidence_of(document)
        assert isinstance(seen, Evidence)
        for section, field in FIELDS.items():
            assert getattr(seen, field) is not None or seen.errors[section]
        assert all(key.isprintable() and words.isprintable() for key, words in seen.errors.items())


def test_a_card_of_amd_without_a_name_tells_its_pci_ids() -> None:
    seen = evidence_of({**WHOLE, "amd": {"gpus": [{"pci": "0000:03:00.0", "device_id": "0x1586"}]}})
    assert [(gpu.name, gpu.device) for gpu in seen.gpus or () if gpu.vendor == "amd"] == [(None, "1002:1586")]


# --- telemetry ---

LINE = {
    "wall": 5.5,
    "gpus": [{"uuid": "GPU-1", "pci": "0000:01:00.0", "name": "n", "asleep": False, "power_w": 20.0}, 3],
    "rapl_uj": {"package-0": 7, "odd": "x"},
    "rapl_max_uj": {"package-0": 9},
    "engines": [{"service": "chat", "kind": "vllm", "active": True, "models": ["q"], "tokens": 5}],
}


def test_telemetry_is_read() -> None:
    found = telemetry_of(json.loads(json.dumps(LINE)))
    assert found is not None
    assert [gpu.power_w for gpu in found.gpus] == [20.0]
    assert (found.wall, dict(found.rapl_uj)) == (5.5, {"package-0": 7})
    assert (found.engines[0].models, found.engines[0].tokens) == (("q",), 5.0)


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_telemetry_that_is_none_is_none_and_never_raises(value: Any) -> None:
    found = telemetry_of(value)
    assert found is None or found.wall >= 0
    assert telemetry_of({**LINE, "gpus": value, "engines": value}) is not None
