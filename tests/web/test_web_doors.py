"""Who may look and who may act: keys, names, forms, origins, and what every answer carries."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient

from labctl.domain.problem import ExitCode, LabctlError
from labctl.web import app
from labctl.web.sessions import LASTS_S, MOST, TRIES, WITHIN_S, Sessions
from labctl.web.stream import Streams, event
from scripted_service import NOON
from web_kit import ADMIN, KEYS, LOOKER, TELEMETRY, sources, table

LOOKS = ("/", "/stream", "/hosts/rig", "/metrics")
ORDERS = ("/hosts/rig/wake", "/hosts/rig/suspend", "/hosts/rig/hold", "/hosts/rig/release")


class Said:
    """Answers for the controller, and notes what it was asked to do."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, str, Mapping[str, Any]]] = []
        self.fails: LabctlError | None = None
        self.because = "round 1 was sent"
        self.lines: object = ["awake: <b>ann</b> is logged in"]

    def __call__(self, verb: str, by: str, fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        if self.fails is not None:
            raise self.fails
        if verb == "status":
            host = {"host": "rig", "mode": "ready", "since": 1.0, "because": self.because, "talking": True,
                    "telemetry": TELEMETRY, "holds": [], "wishes": []}  # fmt: skip
            return [{"done": True, "at": NOON, "hosts": [host], "leader": "nas"}]
        if verb == "events":
            return [{"done": True, "after": 0}]
        if verb == "explain":
            return [{"done": True, "hosts": [{"lines": self.lines}]}]
        if verb != "energy":
            self.orders.append((verb, by, fields))
        return [{"done": True, "hosts": {"rig": {"ok": None, "mode": "waking", "because": self.because}}}]


@pytest.fixture
def said() -> Said:
    return Said()


def page(said: Said, name: str = "localhost", scheme: str = "http", **changes: Any) -> TestClient:
    made = app.make(table(**changes), sources(said), Streams(every_s=0.0))
    return TestClient(made, base_url=f"{scheme}://{name}", follow_redirects=False)


@pytest.fixture
def client(said: Said) -> Iterator[TestClient]:
    with page(said) as found:
        yield found


def origin(client: TestClient) -> dict[str, str]:
    return {"Origin": str(client.base_url).rstrip("/")}


def enter(client: TestClient, key: str = ADMIN) -> str:
    """Open a session and return the token of its forms."""
    done = client.post("/session", data={"key": key}, headers=origin(client))
    assert done.status_code == 303, done.text
    found = re.search(r'name="token" value="([^"]+)"', client.get("/").text)
    assert found is not None
    return found[1]


# --- looking


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "localhost:8090", "rack.home"])
def test_on_loopback_anybody_looks(said: Said, name: str) -> None:
    client = page(said, name, names=("rack.home",))
    assert client.get("/").status_code == 200
    assert "labctl_host_state" in client.get("/metrics").text


def test_on_another_address_of_loopback_that_address_is_ours(said: Said) -> None:
    # Prometheus is told to ask there, without a key.
    assert page(said, "127.0.0.2:8090", listen="127.0.0.2").get("/metrics").status_code == 200
    assert page(said, "127.0.0.3", listen="127.0.0.2").get("/metrics").status_code == 401


@pytest.mark.parametrize("path", LOOKS)
@pytest.mark.parametrize(
    ("name", "listen"),
    [("attacker.example", "127.0.0.1"), ("localhost", "0.0.0.0"), ("10.0.0.5", "10.0.0.5")],
)
def test_under_another_name_and_beyond_loopback_nothing_is_shown_without_a_key(
    said: Said, path: str, name: str, listen: str
) -> None:
    answer = page(said, name, listen=listen).get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="labctl"'
    assert "rig" not in answer.text


def test_a_key_in_the_head_looks_and_a_wrong_one_does_not(said: Said) -> None:
    client = page(said, "10.0.0.5", listen="10.0.0.5")
    for key in (LOOKER, ADMIN):
        answer = client.get("/metrics", headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200
        assert 'labctl_gpu_power_watts{gpu="GPU-1",host="rig"} 248.4' in answer.text
    for wrong in ("Bearer nothing", f"Basic {ADMIN}", f"Bearer {KEYS[0].sha256}", "Bearer"):
        assert client.get("/metrics", headers={"Authorization": wrong}).status_code == 401


def test_every_answer_forbids_what_is_not_from_here(client: TestClient) -> None:
    for path in (*LOOKS[:1], *LOOKS[2:], "/session", "/nothing", "/assets/page.js", "/hosts/rig/wake"):
        head = client.get(path).headers
        policy = head["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert head["x-content-type-options"] == "nosniff"
        assert head["cache-control"] in ("no-store", "no-cache")
        assert "server" not in head


def test_a_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(client: TestClient) -> None:
    text = client.get("/").text
    assert re.findall(r"(?:src|href|action)=\"(?!/|#)[^\"]*\"", text) == []
    assert re.findall(r"<script(?![^>]*\ssrc=)", text) == []
    assert re.findall(r"\s(?:style|on[a-z]+)=", text) == []


def test_words_of_hosts_stay_words(said: Said, client: TestClient) -> None:
    said.because = '<script>alert(1)</script>" onload="x\u202egnp'
    text = client.get("/").text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;" in text
    assert "\u202e" not in text
    assert "&lt;b&gt;ann&lt;/b&gt;" in client.get("/hosts/rig").text


def test_an_explanation_of_another_kind_is_none(said: Said, client: TestClient) -> None:
    for said.lines in (5, None, {"a": 1}, [5]):
        assert "The controller says nothing of it" in client.get("/hosts/rig").text


def test_a_controller_that_is_away_is_said_and_nothing_else_is_shown(said: Said, client: TestClient) -> None:
    said.fails = LabctlError("the controller does not answer: no socket", code=ExitCode.UNREACHABLE)
    answer = client.get("/")
    assert answer.status_code == 200
    assert "The controller says nothing, so nothing is known of hosts" in answer.text
    assert "host-rig" not in answer.text
    assert client.get("/hosts/rig").status_code == 503
    assert "labctl_controller_up 0.0" in client.get("/metrics").text


# --- orders


def test_an_order_is_carried_out_for_the_key_that_was_shown(said: Said, client: TestClient) -> None:
    token = enter(client)
    assert client.get("/hosts/rig/wake").text.count(token) == 2
    assert said.orders == []
    fields = {"token": token, "why": " a  demo ", "hours": "2", "hold": "12"}
    for path in ORDERS:
        answer = client.post(path, data=fields, headers=origin(client))
        assert answer.status_code == 200, answer.text
    hosts = ["rig"]
    assert said.orders == [
        ("wake", "ann", {"hosts": hosts, "why": "a demo", "timeout_s": 2.0}),
        ("suspend", "ann", {"hosts": hosts, "why": "a demo", "when_idle": False, "timeout_s": 2.0}),
        ("hold", "ann", {"hosts": hosts, "why": "a demo", "for_s": 7200}),
        ("release", "ann", {"hosts": hosts, "hold": 12}),
    ]


@pytest.mark.parametrize(
    ("change", "status", "why"),
    [
        ({"Origin": "http://attacker.example"}, 403, "not sent by a page of ours"),
        ({"Origin": "null"}, 403, "not sent by a page of ours"),
        ({"Origin": "https://localhost"}, 403, "not sent by a page of ours"),
        ({"Origin": "http://localhost:81"}, 403, "not sent by a page of ours"),
        ({"Origin": None}, 403, "not sent by a page of ours"),
        ({"Origin": None, "Sec-Fetch-Site": "same-site"}, 403, "not sent by a page of ours"),
        ({"Content-Type": "text/plain"}, 415, "this is no form"),
    ],
)
def test_a_form_of_another_site_is_no_order(
    said: Said, client: TestClient, change: dict[str, str | None], status: int, why: str
) -> None:
    token = enter(client)
    headers = {name: value for name, value in {**origin(client), **change}.items() if value is not None}
    answer = client.post("/hosts/rig/wake", data={"token": token}, headers=headers)
    assert answer.status_code == status
    assert why in answer.text
    assert said.orders == []


def test_behind_a_proxy_that_speaks_tls_its_origin_is_ours(said: Said) -> None:
    client = page(said, "rack.home")
    shown = {"Origin": "https://rack.home"}
    assert client.post("/session", data={"key": ADMIN}, headers=shown).status_code == 303
    for stranger in ("https://rack.home:444", "https://attacker.example", "ftp://rack.home"):
        assert client.post("/session", data={"key": ADMIN}, headers={"Origin": stranger}).status_code == 403


@pytest.mark.parametrize("token", ["", "x", None])
def test_a_form_without_the_sessions_token_is_no_order(
    said: Said, client: TestClient, token: str | None
) -> None:
    enter(client)
    fields = {"why": "x"} | ({} if token is None else {"token": token})
    answer = client.post("/hosts/rig/wake", data=fields, headers=origin(client))
    assert answer.status_code == 403
    assert "from another session" in answer.text
    assert said.orders == []


def test_a_key_that_only_looks_gives_no_orders(said: Said, client: TestClient) -> None:
    token = enter(client, LOOKER)
    assert "/hosts/rig/wake" not in client.get("/").text
    for path in ORDERS:
        assert client.get(path).status_code == 403
        answer = client.post(path, data={"token": token, "why": "x"}, headers=origin(client))
        assert answer.status_code == 403
        assert "may only look" in answer.text
    assert said.orders == []


@pytest.mark.parametrize("headers", [{}, {"Authorization": f"Bearer {ADMIN}"}])
def test_without_a_session_there_are_no_orders(
    said: Said, client: TestClient, headers: dict[str, str]
) -> None:
    for path in ORDERS:
        assert client.get(path, headers=headers).status_code == 401
        answer = client.post(path, data={"token": "", "why": "x"}, headers={**origin(client), **headers})
        assert answer.status_code == 401
    assert said.orders == []


@pytest.mark.parametrize(
    ("path", "fields", "why"),
    [
        ("/hosts/rig/hold", {"hours": "2"}, "a hold needs a reason"),
        ("/hosts/rig/hold", {"hours": "9999", "why": "x"}, "a hold lasts one of 1, 2, 4, 8, 24, 72 hours"),
        ("/hosts/rig/release", {"hold": "12; all"}, "say which hold"),
        ("/hosts/rig/release", {}, "say which hold"),
        ("/hosts/rig/wake", {"why": "x" * 501}, "at most 500"),
        ("/hosts/rig/wake", {"why": "a\x1bb"}, "one line"),
    ],
)
def test_a_form_that_makes_no_sense_is_refused_in_words(
    said: Said, client: TestClient, path: str, fields: dict[str, str], why: str
) -> None:
    token = enter(client)
    answer = client.post(path, data={"token": token, **fields}, headers=origin(client))
    assert answer.status_code == 400
    assert why in answer.text
    assert said.orders == []


@pytest.mark.parametrize("path", ["/hosts/rig/poweroff", "/hosts/rig/pause", f"/hosts/{'x' * 64}/wake"])
def test_what_is_no_order_is_not_there(said: Said, client: TestClient, path: str) -> None:
    token = enter(client)
    assert client.post(path, data={"token": token}, headers=origin(client)).status_code == 404
    assert said.orders == []


def test_too_long_a_form_is_not_read(client: TestClient) -> None:
    answer = client.post("/session", data={"key": "x" * 9000}, headers=origin(client))
    assert answer.status_code == 413


def test_what_the_controller_refuses_is_shown_in_its_words(said: Said, client: TestClient) -> None:
    token = enter(client)
    client.get("/")
    said.fails = LabctlError("gpu-box is quarantined", hint="labctl resume gpu-box")
    answer = client.post(
        "/hosts/rig/wake", data={"token": token}, headers={**origin(client), "HX-Request": "true"}
    )
    assert answer.status_code == 409
    assert "gpu-box is quarantined" in answer.text
    assert "labctl resume gpu-box" in answer.text
    assert "<html" not in answer.text


# --- sessions


def test_the_cookie_is_for_this_page_alone(said: Said) -> None:
    for tls, name in ((False, "labctl="), (True, "__Host-labctl=")):
        names = {"certificate": "c.pem", "private_key": "k.pem"} if tls else {}
        client = page(said, scheme="https" if tls else "http", **names)
        cookie = client.post("/session", data={"key": ADMIN}, headers=origin(client)).headers["set-cookie"]
        assert cookie.startswith(name)
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Path=/" in cookie
        assert ("Secure" in cookie) is tls
        assert ADMIN not in cookie


def test_a_session_ends_when_it_is_left(client: TestClient) -> None:
    token = enter(client)
    kept = dict(client.cookies)
    assert client.post("/session/end", data={"token": "x"}, headers=origin(client)).status_code == 403
    assert client.post("/session/end", data={"token": token}, headers=origin(client)).status_code == 303
    client.cookies.update(kept)
    assert "Enter a key" in client.get("/").text


def test_wrong_keys_are_tried_a_few_times_only(client: TestClient) -> None:
    for _ in range(TRIES):
        answer = client.post("/session", data={"key": "guess"}, headers=origin(client))
        assert answer.status_code == 401
        assert "This is no key of this page." in answer.text
        assert "guess" not in answer.text
    assert client.post("/session", data={"key": ADMIN}, headers=origin(client)).status_code == 429
    bearer = {"Authorization": f"Bearer {ADMIN}"}
    assert client.get("/hosts/rig/wake", headers=bearer).status_code == 401


def test_sessions_and_tries_are_forgotten_in_time_and_never_too_many() -> None:
    now = [0.0]
    sessions = Sessions(KEYS, lambda: now[0])
    names = [sessions.open(KEYS[0]) for _ in range(MOST + 1)]
    assert sessions.find(names[0]) is None
    assert sessions.find(names[1]) is not None
    for address in range(3000):
        sessions.missed(str(address))
    for _ in range(TRIES):
        sessions.missed("a")
    assert not sessions.may_try("a")
    assert sessions.may_try("0")
    now[0] = WITHIN_S
    assert sessions.may_try("a")
    now[0] = LASTS_S
    assert sessions.find(names[1]) is None


# --- streams


def test_a_stream_says_what_changed_once_and_ends_with_its_session() -> None:
    said: Iterator[str | None] = iter(["one\ntwo", "one\ntwo", "three", None])

    async def now() -> str | None:
        return next(said)

    async def listen() -> list[bytes]:
        streams = Streams(every_s=0.0)
        found = [line async for line in streams.lines(now)]
        assert streams.open == 0
        return found

    assert asyncio.run(listen()) == [event("rack", "one\ntwo"), event("rack", "three")]
    assert event("rack", "one\ntwo") == b"event: rack\ndata: one\ndata: two\n\n"


def test_streams_end_when_the_process_does() -> None:
    async def now() -> str | None:
        return "same"

    async def listen() -> list[bytes]:
        streams = Streams(every_s=60.0)
        streams.stop()
        return [line async for line in streams.lines(now)]

    assert asyncio.run(listen()) == [event("rack", "same")]
