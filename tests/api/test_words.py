"""What is a request and what is not: every line is one or the other, and is told so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labctl.controller.api import LONGEST_LINE, words
from labctl.controller.api.words import Request, SaidError


def said(**fields: Any) -> bytes:
    return json.dumps({"v": 1, **fields}).encode()


def refused(line: bytes) -> SaidError:
    with pytest.raises(SaidError) as caught:
        words.request(line)
    return caught.value


def test_what_is_left_out_has_its_usual_value() -> None:
    assert words.request(said(do="wake", hosts=["gpu-box"])) == Request(
        "wake", {"hosts": ["gpu-box"], "why": "", "wait": True, "timeout_s": 600}, ""
    )


def test_who_asks_is_kept() -> None:
    assert words.request(said(do="status", by="ann@desk")).by == "ann@desk"


@pytest.mark.parametrize(
    ("line", "code", "reason"),
    [
        (b"", "not-json", "one JSON object a line"),
        (b"wake gpu-box", "not-json", "one JSON object a line"),
        (b"[]", "not-json", "no object"),
        (b"\xff\xfe{}", "not-json", "no text in UTF-8"),
        (b'{"v": 1, "v": 1}', "not-json", "twice"),
        (b'{"v": NaN}', "not-json", "no number of JSON"),
        (b'{"v": 1, "do": "status", "by": "\\ud800"}', "not-json", "no text in UTF-8"),
        (b"[" * 50_000, "not-json", "nested too deeply"),
        (b'{"v": ' + b"9" * 5000 + b"}", "not-json", "one JSON object a line"),
        (b"x" * LONGEST_LINE, "too-long", str(LONGEST_LINE)),
        (b'{"do": "status"}', "version", "speaks version 1"),
        (b'{"v": 2, "do": "status"}', "version", "speaks version 1"),
        (b'{"v": true, "do": "status"}', "version", "speaks version 1"),
        (said(), "unknown-verb", "must name a verb"),
        (said(do=["wake"]), "unknown-verb", "must name a verb"),
        (said(do="reboot"), "unknown-verb", "must name a verb"),
        (said(do="wake"), "bad-field", 'wake needs "hosts"'),
        (said(do="wake", hosts=[]), "bad-field", "at least one"),
        (said(do="wake", hosts="gpu-box"), "bad-field", "a list of host names"),
        (said(do="wake", hosts=["a b"]), "bad-field", "a list of host names"),
        (said(do="wake", hosts=[1]), "bad-field", "a list of host names"),
        (said(do="wake", hosts=["a"] * 1001), "bad-field", "a list of host names"),
        (said(do="wake", hosts=["a"], timeout_s=0), "bad-field", "more than 0"),
        (said(do="wake", hosts=["a"], timeout_s=True), "bad-field", "more than 0"),
        (said(do="wake", hosts=["a"], timeout_s=1e300), "bad-field", "more than 0"),
        (said(do="wake", hosts=["a"], wait=1), "bad-field", "true or false"),
        (said(do="wake", hosts=["a"], why="a\nb"), "bad-field", "one line of text"),
        (said(do="wake", hosts=["a"], why="x" * 501), "bad-field", "one line of text"),
        (said(do="wake", hosts=["a"], by="\x1b[2J"), "bad-field", '"by" must be one line'),
        (said(do="hold", hosts=["a"], for_s=60, why=" "), "bad-field", "not empty"),
        (said(do="release", hosts=["a"], hold=0), "bad-field", "number of a hold"),
        (said(do="events", most=0), "bad-field", "from 1 to 1000"),
        (said(do="sleep-test", hosts=["a", "b"]), "bad-field", "one host name"),
    ],
)
def test_what_is_no_request_is_refused_with_its_reason(line: bytes, code: str, reason: str) -> None:
    found = refused(line)
    assert (found.code, reason in found.reason) == (code, True), found.reason


def test_a_misspelt_field_is_never_skipped_and_the_likely_one_is_named() -> None:
    found = refused(said(do="suspend", hosts=["a"], when_idl=True))
    assert (found.code, found.hint) == ("bad-field", "did you mean when_idle?")
    assert "its fields: hosts" in refused(said(do="suspend", hosts=["a"], zzz=1)).hint


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_NEAR = st.fixed_dictionaries(
    {"v": st.just(1), "do": st.sampled_from(sorted(words.VERBS))},
    optional={
        name: _JSON | st.just(["gpu-box"]) | st.booleans() | st.integers()
        for name in sorted({field for fields in words.VERBS.values() for field in fields} | {"by"})
    },
)
LINES = st.binary(max_size=300) | _JSON.map(lambda value: json.dumps(value).encode()) | _NEAR.map(
    lambda value: json.dumps(value).encode()
)  # fmt: skip


@settings(max_examples=1000)
@given(LINES)
@example(b'{"v":1,"do":"status","by":"\\u0000"}')
@example(b"{" * 3000)
def test_whatever_the_bytes_a_line_is_a_request_or_is_refused_in_words(line: bytes) -> None:
    try:
        found = words.request(line)
    except SaidError as refusal:
        sent = words.encode(words.error(refusal))
        assert refusal.reason
        assert (sent.count(b"\n"), sent.isascii()) == (1, True)
    else:
        assert found.fields.keys() == words.VERBS[found.do].keys()
