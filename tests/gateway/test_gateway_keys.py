"""Who asks, and how much of it they may: each way in, and each refusal with its words."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path

import pytest
from access_world import SECRET, ask, key, refused, table

from labctl.domain.gateway.table import Key
from labctl.domain.problem import LabctlError
from labctl.gateway.access import keys as keys_module
from labctl.gateway.access.audit import AGAIN_S, Audit
from labctl.gateway.access.keys import Keys
from labctl.gateway.access.listening import is_loopback, refuse_open_door

Notes = list[tuple[str, str, str]]
BEARER = {b"authorization": b"Bearer " + SECRET.encode()}


def _keys(*known: Key) -> tuple[Keys, Notes]:
    notes: Notes = []
    return Keys(table(*known), lambda *line: notes.append(line)), notes


def _told(answer: object) -> dict[str, object]:
    told: dict[str, object] = json.loads(refused(answer).body)
    return told


# --- who ---


@pytest.mark.parametrize(
    "named",
    [
        BEARER,
        {b"authorization": b"bearer " + SECRET.encode()},
        {b"authorization": b"Bearer   " + SECRET.encode() + b" "},
        {b"x-api-key": SECRET.encode()},
        {b"authorization": b"Basic YTpi", b"x-api-key": SECRET.encode()},
        {**BEARER, b"x-api-key": b"another"},
    ],
)
def test_a_key_is_known_by_either_header(named: dict[bytes, bytes]) -> None:
    alice = key()
    keys, notes = _keys(alice, key("bob", "sk-bob"))
    assert keys.who(ask(named)) is alice
    assert notes == []


@pytest.mark.parametrize(
    ("named", "code", "words"),
    [
        ({}, "no-key", "no key was shown"),
        ({b"authorization": b"Bearer "}, "no-key", "no key was shown"),
        ({b"authorization": b"Basic YTpi"}, "no-key", "no key was shown"),
        ({b"x-api-key": b""}, "no-key", "no key was shown"),
        ({b"authorization": SECRET.encode()}, "no-key", "no key was shown"),
        ({b"x-api-key": b"sk-wrong"}, "unknown-key", "the key that was shown is not known here"),
        (
            {b"authorization": b"Bearer sk-wrong", b"x-api-key": SECRET.encode()},
            "unknown-key",
            "is not known",
        ),
        ({b"x-api-key": SECRET.upper().encode()}, "unknown-key", "is not known"),
        ({b"x-api-key": SECRET.encode() + b"\0"}, "unknown-key", "is not known"),
        ({b"x-api-key": hashlib.sha256(SECRET.encode()).hexdigest().encode()}, "unknown-key", "is not known"),
    ],
)
def test_whoever_shows_no_key_that_is_known_is_refused(
    named: dict[bytes, bytes], code: str, words: str
) -> None:
    keys, notes = _keys(key())
    answer = refused(keys.who(ask(named)))
    told = _told(answer)
    assert (answer.status, told["type"]) == (401, f"urn:labctl:problem:{code}")
    assert words in str(told["detail"])
    assert "Authorization: Bearer KEY" in str(told["hint"])
    assert ("WWW-Authenticate", 'Bearer realm="labctl"') in answer.headers
    assert b"sk-" not in answer.body
    assert notes == [("", "turned away", f"192.168.1.20 was turned away at the gateway: {told['detail']}")]


def test_a_key_of_monstrous_length_is_not_even_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, _ = _keys(key())
    monkeypatch.setattr(keys_module, "hashlib", None)
    assert refused(keys.who(ask({b"x-api-key": b"x" * 60_000}))).status == 401


def test_hashes_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, bytes]] = []

    def never(one: bytes, other: bytes) -> bool:
        seen.append((one, other))
        return False

    keys, _ = _keys(key())
    monkeypatch.setattr(keys_module, "compare_digest", never)
    assert refused(keys.who(ask(BEARER))).status == 401
    digest = hashlib.sha256(SECRET.encode()).digest()
    assert seen == [(digest, digest)]


@pytest.mark.parametrize("sha256", ["", "abcd", "x" * 64, "ab" * 33])
def test_a_table_with_an_unsound_hash_is_refused(sha256: str) -> None:
    with pytest.raises(LabctlError, match="the key carol has no sound hash"):
        _keys(key(), Key("carol", sha256))


def test_two_names_of_one_key_are_refused() -> None:
    with pytest.raises(LabctlError, match="the keys alice and carol are the same"):
        _keys(key(), key("carol"))


# --- without keys ---


@pytest.mark.parametrize(
    "named",
    [
        {},
        {b"host": b"127.0.0.1:8080"},
        {b"host": b"localhost:8080", b"origin": b"http://localhost:3000"},
        {b"host": b"[::1]:8080", b"authorization": b"Bearer whatever"},
    ],
)
def test_without_keys_programs_of_this_machine_are_served(named: dict[bytes, bytes]) -> None:
    keys, notes = _keys()
    for _ in range(2):
        assert keys.who(ask(named)) is table().anonymous
    assert notes == []


@pytest.mark.parametrize(
    "named",
    [
        {b"host": b"127.0.0.1:8080", b"origin": b"https://evil.example"},
        {b"host": b"127.0.0.1:8080", b"origin": b"null"},
        {b"host": b"rebound.evil.example:8080"},
        {b"host": b"rebound.evil.example", b"origin": b"http://rebound.evil.example"},
    ],
)
def test_without_keys_a_web_page_from_elsewhere_is_turned_away(named: dict[bytes, bytes]) -> None:
    keys, notes = _keys()
    for _ in range(3):
        answer = refused(keys.who(ask(named)))
        assert answer.status == 403
    told = _told(answer)
    assert told["type"] == "urn:labctl:problem:strange-page"
    assert "programs of its own machine only" in str(told["detail"])
    assert [kind for _, kind, _ in notes] == ["turned away"]


def test_what_is_remembered_of_pages_is_bounded() -> None:
    keys, _ = _keys()
    for port in range(1000):
        keys.who(ask({b"host": b"localhost:%d" % port}))
    assert len(keys._ours) <= 64


# --- how much ---


def test_requests_are_counted_in_and_out() -> None:
    alice = key(at_once=2)
    keys, _ = _keys(alice)
    assert keys.enter(alice, "qwen3-8b", 0.0) is None
    assert keys.enter(alice, "qwen3-8b", 0.0) is None
    assert keys.inside() == {"alice": 2}
    answer = refused(keys.enter(alice, "qwen3-8b", 0.0))
    assert (answer.status, answer.headers) == (429, (("Retry-After", "1"),))
    assert _told(answer)["detail"] == "the key alice has 2 requests under way, as many as it may"
    keys.leave(alice)
    assert keys.enter(alice, "qwen3-8b", 0.0) is None
    for _ in range(5):  # one that leaves too often wins nothing
        keys.leave(alice)
    assert keys.inside() == {"alice": 0}
    assert [keys.enter(alice, "qwen3-8b", 0.0) for _ in range(2)] == [None, None]
    assert refused(keys.enter(alice, "qwen3-8b", 0.0)).status == 429


def test_a_key_for_certain_models_asks_for_no_other() -> None:
    alice = key(models=("qwen3-8b",))
    keys, _ = _keys(alice, key("bob", "sk-bob"))
    assert keys.enter(alice, "qwen3-8b", 0.0) is None
    answer = refused(keys.enter(alice, "bge-m3", 0.0))
    assert answer.status == 403
    assert _told(answer)["detail"] == "the key alice may not ask for bge-m3"
    assert _told(answer)["hint"] == "it may ask for qwen3-8b"
    nameless = refused(keys.enter(alice, "", 0.0))
    assert _told(nameless)["detail"] == "the key alice may not ask without naming a model"


def test_a_key_has_its_rate_to_itself() -> None:
    alice, bob = key(per_minute=2), key("bob", "sk-bob", per_minute=2)
    keys, _ = _keys(alice, bob)
    assert [keys.enter(alice, "", 0.0) for _ in range(2)] == [None, None]
    answer = refused(keys.enter(alice, "", 0.5))
    assert (answer.status, answer.headers) == (429, (("Retry-After", "30"),))
    assert _told(answer)["detail"] == "the key alice may ask 2 times a minute, and has"
    assert _told(answer)["hint"] == "ask again in 30 s"
    assert keys.enter(bob, "", 0.5) is None
    assert keys.enter(alice, "", 30.0) is None


def test_a_request_that_is_refused_for_being_one_too_many_costs_no_rate() -> None:
    alice = key(per_minute=2, at_once=1)
    keys, _ = _keys(alice)
    assert keys.enter(alice, "", 0.0) is None
    for _ in range(10):
        refused(keys.enter(alice, "", 0.0))
    keys.leave(alice)
    assert keys.enter(alice, "", 0.0) is None


# --- wakes ---


def test_wakes_are_counted_within_the_hour_and_kept() -> None:
    alice = key(wakes_per_hour=2)
    keys, notes = _keys(alice)
    assert keys.may_wake(alice, "gpu-box", 0.0) is None
    assert keys.may_wake(alice, "tower", 600.0) is None
    answer = refused(keys.may_wake(alice, "gpu-box", 1200.0))
    told = _told(answer)
    assert (answer.status, answer.headers) == (429, (("Retry-After", "2400"),))
    assert told["detail"] == (
        "gpu-box is asleep, and the key alice has woken hosts 2 times within an hour, as often as it may"
    )
    assert told["hint"] == "ask again in 40 min, or for a model whose host is awake"
    assert told["host"] == "gpu-box"
    assert keys.may_wake(alice, "gpu-box", 3600.0) is None
    assert notes == [
        ("gpu-box", "woken", "woken for the key alice of the gateway (1 of 2 within an hour)"),
        ("tower", "woken", "woken for the key alice of the gateway (2 of 2 within an hour)"),
        ("gpu-box", "wake refused", "not woken for the key alice of the gateway: 2 wakes within an hour"),
        ("gpu-box", "woken", "woken for the key alice of the gateway (2 of 2 within an hour)"),
    ]


def test_a_key_that_wakes_nobody_is_told_so() -> None:
    guest = key("guest", wakes_per_hour=0)
    keys, notes = _keys(guest)
    for at in range(1000):
        answer = refused(keys.may_wake(guest, "gpu-box", at / 10))
    assert answer.status == 403
    assert _told(answer)["detail"] == "gpu-box is asleep, and the key guest may wake nobody"
    assert "labctl wake gpu-box" in str(_told(answer)["hint"])
    assert notes == [
        ("gpu-box", "wake refused", "not woken for the key guest of the gateway: it wakes nobody")
    ]


def test_a_key_without_a_limit_wakes_as_it_likes() -> None:
    alice = key()
    keys, notes = _keys(alice)
    assert all(keys.may_wake(alice, "gpu-box", 0.0) is None for _ in range(100))
    assert notes[0] == ("gpu-box", "woken", "woken for the key alice of the gateway (no limit)")


# --- the log that is kept ---


def test_the_same_refusal_is_kept_once_in_a_while_and_says_how_often_it_came() -> None:
    notes: Notes = []
    audit = Audit(lambda *line: notes.append(line))
    for at in range(10):
        audit.stranger("10.0.0.7", "no key was shown", float(at))
    audit.stranger("10.0.0.7", "no key was shown", AGAIN_S + 1)
    line = "10.0.0.7 was turned away at the gateway: no key was shown"
    assert [text for _, _, text in notes] == [line, f"{line} (9 more times meanwhile)"]


def test_a_storm_of_strangers_fills_neither_the_store_nor_the_memory() -> None:
    notes: Notes = []
    audit = Audit(lambda *line: notes.append(line))
    for number in range(20_000):
        audit.stranger(f"2001:db8::{number:x}", "no key was shown", number / 1000)
    assert len(notes) <= 8
    assert len(audit._refused) <= 256


# --- where ---


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("::ffff:192.168.1.2", False),
        ("fe80::1%eth0", False),
        ("hub", False),
        ("localhost.evil.example", False),
    ],
)
def test_only_loopback_is_loopback(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


def test_a_gateway_without_keys_listens_on_loopback_only(tmp_path: Path) -> None:
    with socket.socket() as here, socket.socket() as everywhere, socket.socket(socket.AF_UNIX) as file:
        here.bind(("127.0.0.1", 0))
        everywhere.bind(("0.0.0.0", 0))  # nobody is listened to
        file.bind(str(tmp_path / "gateway.sock"))
        refuse_open_door(table(), [here, file])
        refuse_open_door(table(key()), [here, everywhere, file])
        with pytest.raises(LabctlError, match=r"no keys and would listen on 0\.0\.0\.0") as caught:
            refuse_open_door(table(), [here, everywhere])
        assert "Gateway.keys" in caught.value.problems[0].hint
