"""What engines say of their requests, asked over real sockets, and what is never asked of them."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from host_tree import Tree

from labctl.agent.config import Engine
from labctl.agent.signals import asking, http
from labctl.agent.signals.engines import Engines
from labctl.agent.signals.sockets import Sockets
from labctl.agent.signals.terms import Unreadable
from labctl.lab.fake.engines.double.metrics import SglangMetrics, VllmMetrics

LLAMA = "# HELP x\nllamacpp:requests_processing {}\nllamacpp:requests_deferred {}\nllamacpp:kv 3e5\n"


class Scripted(BaseHTTPRequestHandler):
    """Answers by what the server was told, and notes what was asked; a list is a stream that stays open."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append((self.path, self.headers.get("Authorization")))
        status, body = server.answers.get(self.path, (404, "no"))
        self.send_response(status)
        self.end_headers()
        for part in body if isinstance(body, list) else [body]:
            self.wfile.write(part.encode())
            self.wfile.flush()
        if isinstance(body, list):
            server.closing.wait(10)

    do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *given: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Any]:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    made.asked, made.answers, made.closing = [], {}, threading.Event()
    made.url = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.closing.set()
    made.shutdown()
    made.server_close()
    thread.join()


def engine(kind: str, url: str, **more: Any) -> Engine:
    return Engine("chat", kind, "labctl-chat.service", url, **more)


def look(tree: Tree, *engines: Engine) -> tuple[bool, str]:
    busy, because = Engines(tree.host, engines, Sockets(tree.root)).look()
    return busy, because


@pytest.fixture
def running(tree: Tree) -> Tree:
    tree.process(70, "engine", group="system.slice/labctl-chat.service")
    return tree


def paths(server: Any) -> list[str]:
    return [path for path, _ in server.asked]


# --- units ---


def test_a_unit_that_does_not_run_is_quiet_and_is_not_asked(tree: Tree, server: Any) -> None:
    assert look(tree, engine("llama-server", server.url)) == (False, "no engine runs")
    (tree.root / "sys/fs/cgroup/system.slice/labctl-chat.service").mkdir()
    assert look(tree, engine("llama-server", server.url)) == (False, "no engine runs")
    assert server.asked == []


def test_a_unit_that_runs_and_does_not_listen_is_not_known_to_be_quiet(running: Tree) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(Unreadable, match=r"^chat: it does not listen$"):
        look(running, engine("vllm", f"http://127.0.0.1:{port}"))


def test_one_that_is_busy_is_seen_behind_one_that_is_silent(running: Tree, server: Any) -> None:
    server.answers["/metrics"] = (200, LLAMA.format(1, 2))
    silent = Engine("swap", "vllm", "labctl-chat.service", "nowhere")
    found = look(running, silent, engine("llama-server", server.url))
    assert found == (True, "chat: 1 request running, 2 waiting")
    with pytest.raises(Unreadable, match=r"^swap: its address is not http://HOST:PORT$"):
        look(running, silent)


# --- llama-server ---


def test_llama_server_says_what_it_processes(running: Tree, server: Any) -> None:
    server.answers["/metrics"] = (200, LLAMA.format(0, 0))
    assert look(running, engine("llama-server", server.url)) == (False, "1 engine with nothing to do")
    for processing, deferred, said in ((2, 0, "2 requests running"), (0, 1, "0 requests running, 1 waiting")):
        server.answers["/metrics"] = (200, LLAMA.format(processing, deferred))
        assert look(running, engine("llama-server", server.url)) == (True, f"chat: {said}")
    assert set(paths(server)) == {"/metrics"}


def test_without_metrics_its_slots_are_looked_at(running: Tree, server: Any) -> None:
    server.answers["/metrics"] = (501, "{}")
    server.answers["/slots"] = (200, json.dumps([{"is_processing": False}, {"is_processing": True}]))
    assert look(running, engine("llama-server", server.url)) == (True, "chat: 1 request in its slots")
    server.answers["/slots"] = (200, json.dumps([{"is_processing": False}]))
    assert not look(running, engine("llama-server", server.url))[0]


@pytest.mark.parametrize(
    ("slots", "reason"),
    [
        ((501, "{}"), "it answers 501"),
        ((401, "{}"), "it answers 401: its key is missing or wrong"),
        ((200, "[{}]"), "its slots are not understood"),
        ((200, '[{"is_processing": 1}]'), "its slots are not understood"),
        ((200, "{}"), "its slots are not understood"),
        ((200, "<html>"), "its answer is no JSON"),
        ((200, "[" * 100_000), "its answer is no JSON"),
    ],
)
def test_slots_that_say_nothing_are_no_quiet(
    running: Tree, server: Any, slots: tuple[int, str], reason: str
) -> None:
    server.answers["/slots"] = slots
    with pytest.raises(Unreadable, match=f"^chat: {reason}"):
        look(running, engine("llama-server", server.url))


def test_one_that_loads_is_busy(running: Tree, server: Any) -> None:
    server.answers["/metrics"] = (503, '{"error":{"message":"Loading model"}}')
    assert look(running, engine("llama-server", server.url)) == (True, "chat: it loads its model")


def test_its_key_is_read_from_its_file_and_shown(running: Tree, server: Any) -> None:
    server.answers["/metrics"] = (200, LLAMA.format(0, 0))
    keyed = engine("llama-server", server.url, key_file="/etc/labctl/agent-keys/chat")
    with pytest.raises(Unreadable, match=r"^chat: its key is not in /etc/labctl/agent-keys/chat$"):
        look(running, keyed)
    running.write({"etc/labctl/agent-keys/chat": "secret\n"})
    look(running, keyed)
    assert server.asked == [("/metrics", "Bearer secret")]


def test_one_with_an_idle_timer_is_known_by_its_connections_alone(running: Tree, server: Any) -> None:
    timed = engine("llama-server", "http://127.0.0.1:8080", ask=False)
    assert look(running, timed) == (False, "1 engine with nothing to do")
    running.connections(
        (("127.0.0.1", 8080), ("127.0.0.1", 5000)), (("127.0.0.1", 5000), ("127.0.0.1", 8080))
    )
    assert look(running, timed) == (True, "chat: 1 connection to it")


# --- llama-swap ---


def swap(*models: tuple[str, str, str, str]) -> str:
    names = ("model", "state", "cmd", "proxy")
    return json.dumps({"running": [dict(zip(names, model, strict=True)) for model in models]})


def event(kind: str, data: Any) -> str:
    """One event as llama-swap v250 writes it (internal/server/apigroup.go)."""
    envelope = json.dumps({"type": kind, "data": json.dumps(data)}, separators=(",", ":"))
    return f"event:message\ndata:{envelope}\n\n"


LOGS = event("logData", {"source": "proxy", "data": 'data:{"type":"inflight"}' * 500})


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"operation": "snapshot", "requests": []}, (False, "1 engine with nothing to do")),
        (
            {"operation": "snapshot", "requests": [{"id": "1"}, {"id": "2"}]},
            (True, "chat: 2 requests in flight"),
        ),
        ({"operation": "upsert", "request": {"id": "1"}}, (True, "chat: a request is in flight")),
        ({"operation": "remove", "id": "1"}, (True, "chat: a request is in flight")),
    ],
)
def test_llama_swap_says_what_is_in_flight_in_its_first_events(
    running: Tree, server: Any, said: dict[str, Any], found: tuple[bool, str]
) -> None:
    server.answers["/running"] = (200, swap(("a", "ready", "llama-server", "http://x")))
    server.answers["/api/events"] = (200, [LOGS, event("modelStatus", []), event("inflight", said)])
    began = time.monotonic()
    assert look(running, engine("llama-swap", server.url)) == found
    assert time.monotonic() - began < 5  # the stream stays open
    assert paths(server) == ["/running", "/api/events"]


def test_llama_swap_is_busy_while_it_starts_or_stops_a_model(running: Tree, server: Any) -> None:
    for state in ("starting", "stopping"):
        server.answers["/running"] = (200, swap(("a", state, "", "")))
        assert look(running, engine("llama-swap", server.url)) == (True, f"chat: a is {state}")


def test_an_older_llama_swaps_engines_are_asked_past_it(running: Tree, server: Any) -> None:
    command = "/opt/labctl/llama.cpp/cuda/current/llama-server \\\n --port 5800"
    server.answers["/running"] = (200, swap(("a", "ready", command, server.url)))
    server.answers["/metrics"] = (200, LLAMA.format(1, 0))
    assert look(running, engine("llama-swap", server.url)) == (True, "chat: a: 1 request running")
    server.answers["/metrics"] = (200, LLAMA.format(0, 0))
    assert not look(running, engine("llama-swap", server.url))[0]
    assert not any("upstream" in path for path in paths(server))


@pytest.mark.parametrize("command", ["/usr/bin/python3 app.py", "llama-server --sleep-idle-seconds 60", ""])
def test_an_older_llama_swaps_engine_that_cannot_be_asked_is_not_known_to_be_quiet(
    running: Tree, server: Any, command: str
) -> None:
    server.answers["/running"] = (200, swap(("a", "ready", command, server.url)))
    with pytest.raises(Unreadable, match="does not say what is in flight"):
        look(running, engine("llama-swap", server.url))


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"/running": (401, "{}")}, "it answers 401: its key"),
        ({"/running": (200, '{"running": 3}')}, "what it runs is not understood"),
        ({"/running": (200, '{"running": ["a"]}')}, "what it runs is not understood"),
        ({"/running": (200, swap()), "/api/events": (401, "")}, "it answers 401: its key"),
        (
            {"/running": (200, swap()), "/api/events": (200, ['data:{"type":"inflight","data":"{}"}\n\n'])},
            "what is in flight there is not understood",
        ),
    ],
)
def test_a_llama_swap_that_is_not_understood_is_no_quiet(
    running: Tree, server: Any, answers: dict[str, Any], reason: str
) -> None:
    server.answers.update(answers)
    with pytest.raises(Unreadable, match=f"^chat: {reason}"):
        look(running, engine("llama-swap", server.url))


# --- vLLM, SGLang and those that count nothing ---


def test_vllm_says_what_runs_and_waits_under_its_own_names(running: Tree, server: Any) -> None:
    metrics = VllmMetrics("qwen}3")
    server.answers["/metrics"] = (200, metrics.text().decode())
    assert not look(running, engine("vllm", server.url))[0]
    metrics.waiting.set(3)
    server.answers["/metrics"] = (200, metrics.text().decode())
    assert look(running, engine("vllm", server.url)) == (True, "chat: 0 requests running, 3 waiting")
    assert set(paths(server)) == {"/metrics"}


def test_sglang_says_it_too_and_without_metrics_its_load(running: Tree, server: Any) -> None:
    metrics = SglangMetrics("qwen", 1000)
    metrics.running.set(1)
    server.answers["/metrics"] = (200, metrics.text().decode())
    assert look(running, engine("sglang", server.url)) == (True, "chat: 1 request running")
    del server.answers["/metrics"]
    for load, found in (
        ([{"dp_rank": 0, "num_reqs": 0, "num_waiting_reqs": 0}], (False, "1 engine with nothing to do")),
        ([{"num_reqs": 1, "num_waiting_reqs": 1}], (True, "chat: 2 requests")),
    ):
        server.answers["/get_load"] = (200, json.dumps(load))
        assert look(running, engine("sglang", server.url)) == found
    assert not any("health" in path for path in paths(server))


@pytest.mark.parametrize(
    "load", ["[]", "{}", "3", '[{"num_reqs": 0}]', '[{"num_reqs":"x","num_waiting_reqs":0}]']
)
def test_a_load_that_is_not_understood_is_no_quiet(running: Tree, server: Any, load: str) -> None:
    server.answers["/get_load"] = (200, load)
    with pytest.raises(Unreadable, match="its load is not understood"):
        look(running, engine("sglang", server.url))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "its metrics do not say"),
        ("vllm:num_requests_running 0\n", "its metrics do not say"),
        ("vllm:num_requests_running 1e\nvllm:num_requests_waiting 0\n", "its metrics are not understood"),
        ("vllm:num_requests_running 1e999\nvllm:num_requests_waiting 0\n", "its metrics are not understood"),
        ("vllm:num_requests_running -1\nvllm:num_requests_waiting 0\n", "its metrics are not understood"),
    ],
)
def test_metrics_without_the_numbers_are_no_quiet(running: Tree, server: Any, text: str, reason: str) -> None:
    server.answers["/metrics"] = (200, text)
    with pytest.raises(Unreadable, match=f"chat: {reason}"):
        look(running, engine("vllm", server.url))


@pytest.mark.parametrize("kind", ["ollama", "tabbyapi", "command", "pgvector", "rpc-server"])
def test_what_counts_no_requests_is_known_by_its_connections(running: Tree, server: Any, kind: str) -> None:
    assert not look(running, engine(kind, server.url))[0]
    running.connections((("127.0.0.1", server.server_port), ("127.0.0.1", 5000)))
    assert look(running, engine(kind, server.url)) == (True, "chat: 1 connection to it")
    assert look(running, engine(kind, "")) == (False, "1 engine with nothing to do")
    assert server.asked == []


# --- answers ---


def test_who_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(Unreadable, match=r"does not answer within 0\.2 s"):
            http.get(url, "/", limit_s=0.2)


def answered(said: bytes) -> http.Answer:
    """Return the answer of something that says this and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as other:

        def talk() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(said)

        talking = threading.Thread(target=talk)
        talking.start()
        try:
            return http.get(f"http://127.0.0.1:{other.getsockname()[1]}", "/")
        finally:
            talking.join()


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 what\r\n\r\n"])
def test_who_speaks_something_else_is_not_understood(said: bytes) -> None:
    with pytest.raises(Unreadable, match=r"does not speak HTTP|does not answer"):
        answered(said)


def test_half_an_answer_is_none() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 9\r\n\r\n"
    assert answered(head + b"[1, 2, 3]").body == b"[1, 2, 3]"
    with pytest.raises(Unreadable, match="it ended in the middle of its answer"):
        answered(head + b"[1, 2, ")


def test_an_answer_without_end_is_not_read(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER_MAX", 1 << 16)
    server.answers["/"] = (200, "x" * (1 << 18))
    with pytest.raises(Unreadable, match=r"answers without end|does not answer"):
        http.get(server.url, "/")


@pytest.mark.parametrize(
    "url", ["", "https://x:1", "http://x", "http://x:0", "http://x:70000", "http://a b:1"]
)
def test_what_is_no_address_is_said_so(url: str) -> None:
    with pytest.raises(Unreadable, match="its address is not"):
        asking.vllm(url, "")
