"""What a host says is read exactly or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.domain.sleep.terms import Fingerprint, How, OrderWord, Reading, Report, Said
from labctl.domain.sleep.words import NotAReport, report_of

NONCE = "0123456789abcdef0123456789abcdef"
BOOT = "0b6a5b0e-3f0e-4c3f-9d59-1a2b3c4d5e6f"
LINE: dict[str, Any] = {
    "format": 1,
    "watch": "a1b2",
    "n": 17,
    "boot_id": BOOT,
    "resumes": 2,
    "up_s": 812.5,
    "readings": [
        {"signal": "sessions", "busy": True, "because": "alice is logged in from 10.0.0.9"},
        {"signal": "gpu", "busy": None, "because": "the driver does not answer"},
        {"signal": "timers", "busy": False, "because": "nothing is due within 10 min"},
    ],
    "order": {"nonce": NONCE, "said": "refused", "because": "alice came"},
    "fingerprint": {"kernel": "6.1", "driver": "", "nic": "m r8169", "how": "suspend", "mem_sleep": "deep"},
    "wol_armed": None,
}
MISSING = object()


def changed(path: str, value: Any) -> Any:
    """Return the good line with one value replaced, or taken out."""
    line: Any = json.loads(json.dumps(LINE))
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = line
    for step in way:
        place = place[step]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return line


def test_a_whole_line_is_a_report() -> None:
    assert report_of(LINE, 5.0) == Report(
        at=5.0,
        boot_id=BOOT,
        resumes=2,
        up_s=812.5,
        readings=(
            Reading("sessions", True, "alice is logged in from 10.0.0.9"),
            Reading("gpu", None, "the driver does not answer"),
            Reading("timers", False, "nothing is due within 10 min"),
        ),
        order=OrderWord(NONCE, Said.REFUSED, "alice came"),
        fingerprint=Fingerprint("6.1", "", "m r8169", How.SUSPEND, "deep"),
        wol_armed=None,
        watch="a1b2",
    )


def test_what_a_newer_agent_says_besides_is_passed_over() -> None:
    more: Any = changed("mood", "fine")
    more["readings"][0]["since"] = 3
    assert report_of(more, 1.0) == report_of(LINE, 1.0)


def test_a_host_without_an_order_and_a_fingerprint_says_null() -> None:
    line = {**LINE, "order": None, "fingerprint": None, "wol_armed": True}
    found = report_of(line, 0.0)
    assert (found.order, found.fingerprint, found.wol_armed) == (None, None, True)


def test_a_letter_that_only_the_hosts_newer_python_knows_is_no_reason_to_refuse_the_line() -> None:
    unassigned = "\U0003fffd"  # as any emoji once was
    found = report_of(changed("readings.0.because", f"bob's check says {unassigned}"), 0.0)
    assert found.readings[0].because == "bob's check says ?"


@pytest.mark.parametrize("more", [{}, {"mem_sleeps": None}])
def test_an_older_agent_does_not_tell_what_its_kernel_offers(more: dict[str, Any]) -> None:
    assert report_of({**LINE, **more}, 0.0).mem_sleeps == ()
    assert report_of({**LINE, "mem_sleeps": ["s2idle", "deep"]}, 0.0).mem_sleeps == ("s2idle", "deep")


REFUSED = [
    ("format", 2, "not of format 1"),
    ("format", True, "not of format 1"),
    ("format", MISSING, "has no format"),
    ("watch", "", "watch does not have its form"),
    ("watch", 7, "watch does not have its form"),
    ("n", "17", "n is not a whole number"),
    ("n", True, "n is not a whole number"),
    ("n", -1, "n is not a whole number"),
    ("boot_id", None, "boot_id does not have its form"),
    ("boot_id", BOOT + "\n", "boot_id does not have its form"),
    ("resumes", 1.0, "resumes is not a whole number"),
    ("resumes", MISSING, "has no resumes"),
    ("up_s", float("nan"), "up_s is not a number of seconds"),
    ("up_s", float("inf"), "up_s is not a number of seconds"),
    ("up_s", False, "up_s is not a number of seconds"),
    ("up_s", "9", "up_s is not a number of seconds"),
    ("readings", [], "readings has 0 entries"),
    ("readings", {}, "readings is not a list"),
    ("readings", [LINE["readings"][0]] * 65, "readings has 65 entries"),
    ("readings.0", "busy", r"readings\[0\] is not a JSON object"),
    ("readings.0.busy", 0, r"readings\[0\].busy is neither true, false nor null"),
    ("readings.0.busy", "false", r"readings\[0\].busy is neither true, false nor null"),
    ("readings.0.busy", MISSING, r"readings\[0\] has no busy"),
    ("readings.1.because", "two\nlines", r"readings\[1\].because is not one line"),
    ("readings.1.because", "x" * 301, r"readings\[1\].because is not one line"),
    ("readings.2.signal", "Timers!", r"readings\[2\].signal does not have its form"),
    ("order", MISSING, "has no order"),
    ("order", [], "order is not a JSON object"),
    ("order.nonce", NONCE.upper(), "order.nonce does not have its form"),
    ("order.said", "slept", "order.said is none of going, refused, failed"),
    ("order.said", ["going"], "order.said is not one line"),
    ("fingerprint.how", "nap", "fingerprint.how is none of"),
    ("fingerprint.kernel", "", "fingerprint.kernel is empty"),
    ("fingerprint.driver", None, "fingerprint.driver is not one line"),
    ("wol_armed", "yes", "wol_armed is neither true, false nor null"),
    ("wol_armed", MISSING, "has no wol_armed"),
    ("caps", [], "caps is not a JSON object"),
    ("caps", {"n": 1}, "caps has no caps_w"),
    ("caps", {"caps_w": {}}, "caps has no n"),
    ("caps", {"n": True, "caps_w": {}}, "caps.n is not a whole number from 0"),
    ("caps", {"n": 1, "caps_w": {"slot0": 1.5}}, "caps.caps_w.slot0 is not a whole number from 0"),
    ("caps", {"n": 1, "caps_w": {"two\nlines": 1}}, "caps.caps_w does not name cards"),
    ("caps", {"n": 1, "caps_w": {str(n): n for n in range(257)}}, "caps.caps_w does not name cards"),
    ("mem_sleeps", "s2idle", "mem_sleeps is not a list of at most 16"),
    ("mem_sleeps", ["s2idle"] * 17, "mem_sleeps is not a list of at most 16"),
    ("mem_sleeps", ["s2idle", "[deep]"], "mem_sleeps has what is no plain word"),
    ("mem_sleeps", [1], "mem_sleeps has what is no plain word"),
]


@pytest.mark.parametrize(("path", "value", "reason"), REFUSED)
def test_a_line_with_one_wrong_value_is_refused_whole_with_its_place(
    path: str, value: Any, reason: str
) -> None:
    with pytest.raises(NotAReport, match=reason):
        report_of(changed(path, value), 0.0)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
PATHS = st.sampled_from(sorted({path for path, _, _ in REFUSED}))


def read(document: Any) -> None:
    try:
        found = report_of(document, 1.5)
    except NotAReport as refused:
        assert str(refused).isprintable()
    else:
        assert isinstance(found, Report)
        assert found.readings and all(one.busy in (True, False, None) for one in found.readings)


@given(VALUES)
def test_any_value_is_a_report_or_one_named_error(value: Any) -> None:
    read(value)


@given(PATHS, VALUES)
def test_a_good_line_with_any_value_somewhere_is_a_report_or_one_named_error(path: str, value: Any) -> None:
    read(changed(path, value))


@given(st.binary(max_size=60) | st.binary(max_size=30).map(lambda tail: json.dumps(LINE).encode() + tail))
def test_any_bytes_are_a_report_or_one_named_error(data: bytes) -> None:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    read(document)
