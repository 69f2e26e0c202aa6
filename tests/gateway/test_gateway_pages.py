"""The gateway's own pages: what they tell, to whom, and that looking never wakes, writes or asks."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pages_kit import PEOPLE, TABLE, Site, host

from labctl.domain.sleep.lifecycle import Mode
from labctl.gateway import pages
from labctl.gateway.access.origins import foreign_because
from labctl.gateway.terms import Answer, Ask, HostNow, Reading

LOOKS = (
    ("GET", "/"),
    ("HEAD", "/"),
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/qwen"),
    ("GET", "/v1/models/nothing"),
    ("GET", "/labctl/v1/status"),
    ("GET", "/labctl/v1/openapi.json"),
    ("GET", "/labctl/v1/prewake"),
    ("OPTIONS", "/v1/chat/completions"),
)


def _told(answer: Answer, status: int = 200) -> Any:
    assert answer.status == status, answer.body
    return json.loads(answer.body)


def _header(answer: Answer, name: str) -> str | None:
    return dict(answer.headers).get(name)


def _model(site: Site, name: str = "qwen") -> Any:
    return _told(site.ask("GET", f"/v1/models/{name}"))["labctl"]


# --- what is ours


@pytest.mark.parametrize("method,path", LOOKS)
def test_a_path_of_ours_is_answered_and_its_body_thrown_away(method: str, path: str) -> None:
    ask = Ask("1", method, path, path, "", "1.1", (), {}, "", 0.0)
    assert Site().pages.page(ask) is Reading.NONE


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/hosts/rig/slots", "/v1/models/", "//", "/Health", "/v1/modelsx"]
)
def test_any_other_path_is_not_ours(path: str) -> None:
    assert Site().pages.page(Ask("1", "GET", path, path, "", "1.1", (), {}, "", 0.0)) is None


def test_ten_thousand_looks_wish_nothing_and_write_nothing() -> None:
    site = Site()
    site.see(host("rig", Mode.ASLEEP), host("box", Mode.ASLEEP))
    for at in range(10_000):
        site.ask(*LOOKS[at % len(LOOKS)])
    # The doubles of the books and of the meters fail whatever leases, notes or counts.
    assert site.books.wishes == [] and site.access.entered == [] and site.meters.woken == []


# --- models


READY, AWAKE, WAKING, ASLEEP = "ready", "awake", "waking", "asleep"


@pytest.mark.parametrize(
    "rig,loaded,state,expected_s",
    [
        (host("rig", Mode.READY), ("qwen",), READY, 0.0),
        (host("rig", Mode.DRAINING), ("qwen",), READY, 0.0),
        (host("rig", Mode.READY), ("embed-q8",), AWAKE, 20.0),
        (host("rig", Mode.WAKING, left_s=12.0), (), WAKING, 32.0),
        (host("rig", Mode.VERIFYING, left_s=-3.0), (), WAKING, 20.0),
        (host("rig", Mode.ASLEEP), (), ASLEEP, 50.0),
        (host("rig", Mode.SUSPENDING), ("qwen",), ASLEEP, 50.0),
        (host("rig", Mode.UNKNOWN), (), "unknown", 50.0),
        (host("rig", Mode.FAILED), (), "unavailable", 50.0),
        (host("rig", Mode.ASLEEP, refused="it is paused: a new fan"), (), "unavailable", None),
    ],
)
def test_a_model_is_as_near_as_its_host(
    rig: HostNow, loaded: tuple[str, ...], state: str, expected_s: float | None
) -> None:
    site = Site(loaded={"rig/llama": loaded})
    site.see(rig, host("box", Mode.ASLEEP, refused="quarantined"))
    told = _model(site)
    assert (told["state"], told["expected_s"]) == (state, expected_s)
    assert told["loaded"] == (["rig"] if state == READY else [])


def test_a_model_is_as_near_as_the_nearest_of_its_hosts() -> None:
    site = Site()
    site.see(host("rig", Mode.WAKING), host("box", Mode.READY))
    told = _model(site)
    # vLLM has its model loaded whenever its host is ready.
    assert told["state"] == READY and told["loaded"] == ["box"] and told["hosts"] == ["box", "rig"]


def test_a_host_that_nobody_has_seen_is_unknown_and_takes_a_whole_boot() -> None:
    assert _model(Site()) == {
        "state": "unknown",
        "expected_s": 110.0,
        "kind": "chat",
        "hosts": ["rig", "box"],
        "loaded": [],
        "aliases": ["coder", "org/Qwen 3"],
        "context": 32768,
    }


def test_the_list_has_what_the_inventory_lists_and_others_are_found_by_name() -> None:
    site = Site()
    told = _told(site.ask("GET", "/v1/models"))
    assert told["object"] == "list"
    assert [model["id"] for model in told["data"]] == ["qwen", "embed", "cloudy"]
    assert {model["object"] for model in told["data"]} == {"model"}
    assert {(model["owned_by"], model["created"]) for model in told["data"]} == {("home", 60)}
    assert _told(site.ask("GET", "/v1/models/secret"))["id"] == "secret"
    assert told["data"][2]["labctl"]["state"] == "outside"


@pytest.mark.parametrize("path", ["coder", "org/Qwen%203", "org%2FQwen%203"])
def test_a_model_is_found_by_an_alias_under_the_name_that_was_asked_for(path: str) -> None:
    told = _told(Site().ask("GET", f"/v1/models/{path}"))
    assert told["id"] in ("coder", "org/Qwen 3") and told["labctl"]["context"] == 32768


def test_anthropics_clients_get_the_list_that_they_know() -> None:
    site = Site()
    told = _told(site.ask("GET", "/v1/models", anthropic_version="2023-06-01"))
    assert (told["first_id"], told["last_id"], told["has_more"]) == ("qwen", "cloudy", False)
    assert told["data"][0]["type"] == "model" and told["data"][0]["created_at"] == "1970-01-01T00:01:00Z"
    one = _told(site.ask("GET", "/v1/models/qwen", anthropic_version="2023-06-01"))
    assert one == told["data"][0]
    none = site.ask("GET", "/v1/models", key=replace(PEOPLE, models=("x",)), anthropic_version="1")
    assert _told(none) == {"data": [], "first_id": None, "last_id": None, "has_more": False}


def test_a_key_sees_the_models_that_it_may_ask_for_and_no_other_exists() -> None:
    site = Site()
    few = replace(PEOPLE, models=("embed",))
    assert [m["id"] for m in _told(site.ask("GET", "/v1/models", key=few))["data"]] == ["embed"]
    refused = _told(site.ask("GET", "/v1/models/qwen", key=few), 404)
    assert refused["detail"] == "no model is called 'qwen' here"
    assert "GET /v1/models" in refused["hint"] and refused["error"]["code"] == "no-such-model"
    status = _told(site.ask("GET", "/labctl/v1/status", key=few))
    assert [m["id"] for m in status["models"]] == ["embed"]
    assert {model for at in status["hosts"] for model in at["models"]} == {"embed"}


# --- status, health, metrics


def test_the_status_tells_each_host_with_its_reason() -> None:
    site = Site()
    site.see(host("rig", Mode.WAKING, left_s=4.0, leases=1), host("box", Mode.ASLEEP, refused="paused"))
    told = _told(site.ask("GET", "/labctl/v1/status"))
    assert (told["rack"], told["at"], told["seen_s"], told["draining"]) == ("home", 60.0, 10.0, False)
    rig, box = told["hosts"]
    assert (rig["mode"], rig["because"], rig["since"]) == ("waking", "it is waking", 1000.0)
    assert (rig["expected_s"], rig["leases"], rig["models"]) == (4.0, 1, ["qwen", "embed"])
    assert (box["expected_s"], box["refused"]) == (None, "paused")


def test_the_status_tells_that_what_it_shows_is_old() -> None:
    site = Site()
    site.books.trouble, site.books.paused = "database is locked", "a move"
    told = _told(site.ask("GET", "/labctl/v1/status"))
    assert (told["trouble"], told["paused"]) == ("database is locked", "a move")
    # What never sleeps is served on, and counts so.
    calm = Site(replace(TABLE, hosts=tuple(replace(one, sleeps=False) for one in TABLE.hosts)))
    calm.books.trouble = "database is locked"
    assert _model(calm)["state"] == "ready"


def test_health_is_for_all_and_says_no_word_of_the_store() -> None:
    site = Site()
    assert _told(site.ask("GET", "/health", key=None)) == {"status": "ok", "store": "ok"}
    site.books.trouble = "unable to open /var/lib/labctl/store.db"
    assert _told(site.ask("GET", "/health", key=None)) == {"status": "ok", "store": "unusable"}
    site.draining = True
    assert _told(site.ask("GET", "/health", key=None), 503)["status"] == "draining"


def test_metrics_have_the_modes_of_hosts_and_the_numbers_of_the_desk() -> None:
    site = Site()
    site.see(host("rig", Mode.READY, leases=2))
    answer = site.ask("GET", "/metrics")
    assert answer.body == b"# counted\n" and answer.content_type.startswith("text/plain; version=0.0.4")
    assert site.meters.gauges == {
        "host_mode": {'host="rig",mode="ready"': 1.0, 'host="box",mode="unknown"': 1.0},
        "host_leases": {'host="rig"': 2.0, 'host="box"': 0.0},
        "store_usable": {"": 1.0},
        "draining": {"": 0.0},
        "waiting": {'host="rig"': 2.0},
    }


@pytest.mark.parametrize("path", ["/metrics", "/labctl/v1/status"])
def test_a_key_that_may_not_see_hosts_is_told_so(path: str) -> None:
    refused = _told(Site().ask("GET", path, key=replace(PEOPLE, sees=False)), 403)
    assert refused["detail"] == "The key people may not see the state of hosts"


def test_the_page_for_people_runs_what_stands_in_it_and_nothing_else() -> None:
    answer = Site().ask("GET", "/", key=None)
    html = answer.body.decode()
    assert answer.content_type == "text/html; charset=utf-8"
    policy = _header(answer, "Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
    assert len(re.findall("sha256-", policy)) == len(re.findall("<script>|<style>", html)) == 2
    # No attribute runs or loads anything, and nothing that was told becomes markup.
    assert not re.search(r"\son\w+=|src=|innerHTML|insertAdjacent|document\.write|eval\(", html)
    assert "home" not in html and "qwen" not in html
    assert re.findall(r'fetch\("([^"]*)"', html) == ["labctl/v1/status"]


# --- methods and browsers


@pytest.mark.parametrize(
    "method,path,allow",
    [
        ("POST", "/v1/models", "GET, HEAD, OPTIONS"),
        ("DELETE", "/v1/models/qwen", "GET, HEAD, OPTIONS"),
        ("PUT", "/health", "GET, HEAD, OPTIONS"),
        ("GET", "/labctl/v1/prewake", "POST, OPTIONS"),
        ("TRACE", "/", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_is_told_which_are_right(method: str, path: str, allow: str) -> None:
    answer = Site().ask(method, path)
    assert _told(answer, 405)["error"]["code"] == "wrong-method"
    assert _header(answer, "Allow") == allow


def test_a_browser_is_told_what_it_may_send() -> None:
    answer = Site().ask("OPTIONS", "/v1/chat/completions", key=None, origin="https://chat.example")
    assert answer.status == 200 and answer.body == b""
    assert "POST" in (_header(answer, "Access-Control-Allow-Methods") or "")
    assert "Authorization" in (_header(answer, "Access-Control-Allow-Headers") or "")
    assert _header(answer, "Access-Control-Allow-Credentials") is None
    theirs = (
        "authorization,x-stainless-lang,x-stainless-retry-count"  # as the openai client for browsers asks
    )
    answer = Site().ask("OPTIONS", "/v1/models", key=None, access_control_request_headers=theirs)
    assert _header(answer, "Access-Control-Allow-Headers") == theirs


@pytest.mark.parametrize(
    "origin,name,is_foreign",
    [
        ("", "", False),
        ("", "localhost", False),
        ("", "localhost:8080", False),
        ("", "127.1.2.3:1", False),
        ("", "[::1]:80", False),
        ("http://app.localhost:5173", "localhost", False),
        ("https://[::1]", "", False),
        ("", "192.168.1.2", True),
        ("", "localhost.evil.example", True),
        ("", "[::1", True),
        ("null", "localhost", True),
        ("file://", "", True),
        ("http://localhost@evil.example", "", True),
        ("http://127.0.0.1.evil.example", "", True),
        ("chrome-extension://localhost", "", True),
    ],
)
def test_a_page_is_of_this_machine_by_its_origin_and_by_the_name_it_uses(
    origin: str, name: str, is_foreign: bool
) -> None:
    assert bool(foreign_because(origin, name)) is is_foreign


# --- prewake


def _prewake(site: Site, document: object, key: Any = PEOPLE) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return site.ask("POST", "/labctl/v1/prewake", body, key, content_type="application/json; charset=utf-8")


def test_a_prewake_is_answered_at_once_and_the_wish_is_held_until_the_host_is_ready() -> None:
    async def run() -> None:
        site = Site()
        site.see(host("rig", Mode.ASLEEP), host("box", Mode.ASLEEP, comes_s=200.0))
        assert _told(_prewake(site, {"model": "coder"}), 202) == {
            "host": "rig",
            "state": "waking",
            "expected_s": 50.0,
            "because": "rig is being woken",
        }
        assert site.books.wishes == [("rig", "gateway people", "qwen was asked for in advance", 180.0)]
        await asyncio.sleep(0)
        assert site.books.asked_for_changes == [120.0]
        site.now += 30
        site.books.changes.put_nowait(host("rig", Mode.WAKING))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert site.books.asked_for_changes == [120.0, 90.0] and site.books.waiting == {"rig": 1}
        site.books.changes.put_nowait(host("rig", Mode.READY))
        for _ in range(4):
            await asyncio.sleep(0)
        assert site.books.waiting == {"rig": 0}
        assert site.meters.woken == [("rig", "people", 30.0, True)]
        assert site.access.inside == 0 and site.access.entered == ["qwen"] and site.wanted == {}

    asyncio.run(run())


@pytest.mark.parametrize(
    "news,after_s,came",
    [
        ([Mode.ASLEEP], 120.0, False),
        ([Mode.WAKING, Mode.FAILED], 1.0, False),
        ([Mode.FAILED], 1.0, False),
        ([Mode.VERIFYING, Mode.READY], 1.0, True),
    ],
)
def test_the_wish_ends_when_the_host_does_not_come(news: list[Mode], after_s: float, came: bool) -> None:
    async def run() -> None:
        site = Site()
        site.see(host("rig", Mode.ASLEEP))
        _prewake(site, {"model": "embed"})
        await asyncio.sleep(0)
        for mode in news:
            assert site.books.waiting == {"rig": 1}
            site.now += after_s
            site.books.changes.put_nowait(host("rig", mode, since=site.now))
            for _ in range(4):
                await asyncio.sleep(0)
        assert site.books.waiting == {"rig": 0}
        assert [woken[3] for woken in site.meters.woken] == [came]

    asyncio.run(run())


def test_a_host_that_had_failed_before_may_still_come() -> None:
    async def run() -> None:
        site = Site()
        failed = host("rig", Mode.FAILED)
        site.see(failed)
        _prewake(site, {"model": "embed"})
        for news in (failed, host("rig", Mode.WAKING)):
            await asyncio.sleep(0)
            site.books.changes.put_nowait(news)
        for _ in range(4):
            await asyncio.sleep(0)
        assert site.books.waiting == {"rig": 1}
        site.books.changes.put_nowait(replace(failed, since=2_000.0))
        for _ in range(4):
            await asyncio.sleep(0)
        assert site.books.waiting == {"rig": 0}

    asyncio.run(run())


def test_a_hundred_prewakes_of_a_host_are_one_wish_and_one_wake_of_the_quota() -> None:
    async def run() -> None:
        site = Site()
        site.access.wakes_left = 1
        site.see(host("rig", Mode.ASLEEP))
        for _ in range(100):
            assert _prewake(site, {"host": "rig"}).status == 202
        for _ in range(4):
            await asyncio.sleep(0)
        assert site.books.waiting == site.wanted == {"rig": 1}
        site.pages.close()
        for _ in range(4):
            await asyncio.sleep(0)
        assert site.books.waiting == {"rig": 0} and site.wanted == {}

    asyncio.run(run())


def test_who_is_awake_is_not_woken() -> None:
    site = Site(loaded={"rig/llama": ("qwen",)})
    site.see(host("rig", Mode.READY), host("box", Mode.ASLEEP))
    told = _told(_prewake(site, {"model": "qwen"}))
    assert (told["host"], told["state"], told["expected_s"]) == ("rig", "ready", 0.0)
    told = _told(_prewake(site, {"model": "embed"}))
    assert (told["state"], told["expected_s"]) == ("awake", 5.0)
    assert _told(_prewake(site, {"host": "rig"}))["state"] == "ready"
    assert _told(_prewake(site, {"model": "cloudy"}))["state"] == "outside"
    assert site.books.wishes == [] and site.access.wakes_left == 1_000


def test_a_host_that_requests_wait_for_is_not_woken_again() -> None:
    async def run() -> None:
        site = Site(wanted={"rig": 3})
        site.access.wakes_left = 0
        site.see(host("rig", Mode.ASLEEP))
        assert _prewake(site, {"host": "rig"}).status == 202
        assert site.wanted == {"rig": 4}
        site.pages.close()
        for _ in range(4):
            await asyncio.sleep(0)
        assert site.wanted == {"rig": 3} and site.meters.woken == []

    asyncio.run(run())


def test_a_model_outside_of_the_rack_is_there_for_keys_that_may_use_it() -> None:
    site = Site()
    assert _model(site, "cloudy")["state"] == "outside"
    home = replace(PEOPLE, outside=False)
    told = _told(site.ask("GET", "/v1/models/cloudy", key=home))["labctl"]
    assert (told["state"], told["expected_s"]) == ("unavailable", None)
    assert _told(_prewake(site, {"model": "cloudy"}, home))["state"] == "unavailable"


def test_somebody_elses_wake_is_waited_for_and_costs_no_wake() -> None:
    async def run() -> None:
        site = Site()
        site.access.wakes_left = 0
        site.see(host("rig", Mode.WAKING, left_s=9.0), host("box", Mode.ASLEEP))
        assert _told(_prewake(site, {"model": "qwen"}), 202)["expected_s"] == 29.0
        assert len(site.books.wishes) == 1
        site.pages.close()
        await asyncio.sleep(0)

    asyncio.run(run())


@pytest.mark.parametrize(
    "document,status,code",
    [
        ({"model": "nothing"}, 404, "no-such-model"),
        ({"host": "nas"}, 404, "no-such-host"),
        ({}, 400, "bad-prewake"),
        ({"model": "qwen", "host": "rig"}, 400, "bad-prewake"),
        ({"model": "qwen", "wait": 1}, 400, "bad-prewake"),
        ({"model": 7}, 400, "bad-prewake"),
        ({"model": ""}, 400, "bad-prewake"),
        (b"", 400, "bad-prewake"),
        (b"[" * 10_000, 400, "bad-prewake"),
        (b'{"model": "\xff"}', 400, "bad-prewake"),
        (b'{"model": "' + b"q" * 20_000 + b'"}', 413, "too-large"),
    ],
)
def test_a_prewake_of_nothing_is_refused(document: object, status: int, code: str) -> None:
    site = Site()
    assert _told(_prewake(site, document), status)["error"]["code"] == code
    assert site.books.wishes == [] and site.access.wakes_left == 1_000


def test_a_form_of_a_web_page_wakes_nobody() -> None:
    site = Site()
    answer = site.ask("POST", "/labctl/v1/prewake", b'{"host": "rig"}', content_type="text/plain")
    assert _told(answer, 415)["detail"] == "What is to be woken is told as application/json"


def test_a_prewake_is_refused_with_the_reason_of_whoever_refuses() -> None:
    site = Site()
    site.see(host("rig", Mode.ASLEEP, refused="it is paused: a new fan"))
    told = _told(_prewake(site, {"host": "rig"}), 503)
    assert told["detail"] == "rig is asleep and must not be woken: it is paused: a new fan"
    assert told["host"] == "rig" and "labctl explain rig" in told["hint"]
    site.see(host("rig", Mode.ASLEEP))
    site.books.paused = "a move"
    assert "the rack is paused: a move" in _told(_prewake(site, {"host": "rig"}), 503)["detail"]
    site.books.paused = ""
    site.access.wakes_left = 0
    assert _told(_prewake(site, {"host": "rig"}), 429)["error"]["code"] == "too-many-wakes"
    site.books.trouble = "database is locked"
    told = _told(_prewake(site, {"host": "rig"}), 503)
    assert told["error"]["code"] == "store-unusable" and "database is locked" in told["detail"]
    site.access.requests_left = 0
    assert _told(_prewake(site, {"host": "rig"}), 429)["error"]["code"] == "too-many"
    assert site.books.wishes == [] and site.access.inside == 0


def test_a_prewake_counts_for_a_model_that_the_key_may_ask_for() -> None:
    site = Site()
    site.see(host("rig", Mode.READY), host("box", Mode.READY))
    for key in (PEOPLE, replace(PEOPLE, models=("embed",)), replace(PEOPLE, models=("secret",))):
        _prewake(site, {"host": "rig"}, key)
    # Without a model a key for certain models does not get in.
    assert site.access.entered == ["", "embed", ""]


# --- the page for people, in a browser's stead


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed: apt install nodejs")
def test_the_page_asks_for_a_key_and_shows_models_and_hosts_as_text() -> None:
    site = Site()
    site.see(host("rig", Mode.WAKING, left_s=12.0, because="<b>somebody</b> wants it"))
    told = _told(site.ask("GET", "/labctl/v1/status"))
    answers = [{"status": 401, "body": {"detail": "no key was shown"}}, {"status": 200, "body": told}]
    page = Path(pages.__file__).with_name("front.html")
    script = Path(__file__).with_name("front_page.js")
    done = subprocess.run(
        ["node", str(script), str(page), json.dumps(answers)], capture_output=True, text=True, check=True
    )
    first, second, third = json.loads(done.stdout)
    assert first["asked"] == [{"path": "labctl/v1/status", "headers": {}}]
    assert "ask" in first["visible"] and first["text"]["trouble"] == "no key was shown"
    # What was typed is sent, and the form goes.
    assert second["asked"] == [{"path": "labctl/v1/status", "headers": {"Authorization": "Bearer sk-typed"}}]
    assert "ask" not in second["visible"] and "shown" in second["visible"]
    assert second["text"]["models"].startswith("qwen, coder, org/Qwen 3|waking|32 s|rig, box|chat|embed|")
    assert "rig|waking|1 s|<b>somebody</b> wants it|qwen, embed|box|unknown" in second["text"]["hosts"]
    assert second["title"] == "home – labctl gateway" and second["text"]["trouble"] == ""
    # It asks again by itself, and what it showed stays when nobody answers.
    assert len(third["asked"]) == 1 and third["text"]["trouble"] == "The gateway does not answer."
    assert third["text"]["models"] == second["text"]["models"]
