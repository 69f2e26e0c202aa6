"""One endpoint for a rack that sleeps: the official client on a laptop, the gateway on a hub, hosts asleep.

Whatever is asked goes over the network to real llama-servers. The machine that serves `tiny-chat` has a
kernel of its own and truly sleeps. See ``sleeping_site.py``.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from sleeping_site import ENGINE_KEY, KEY, PORT, Site

from labctl.lab import LabHost
from labctl.lab.preflight import lacks_for_machines
from labctl.lab.processes import wait_until

pytestmark = pytest.mark.rack

INSTANCES = "labctl-gateway@*"
CHAT = "/v1/chat/completions"
AT_ONCE = 12


def asked(model: str, **more: object) -> dict[str, Any]:
    """Return a request that gets the same answer whenever it is asked, and never ends early."""
    always = {"temperature": 0, "seed": 1, "max_tokens": 12, "ignore_eos": True, "cache_prompt": False}
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **always, **more}


def asks(client: openai.OpenAI, model: str, *, stream: bool = False, **more: object) -> Any:
    """Have the official client ask the same."""
    body = asked(model, **more)
    beyond = {name: body.pop(name) for name in ("ignore_eos", "cache_prompt")}
    return client.chat.completions.create(**body, stream=stream, extra_body=beyond)


def post(connection: http.client.HTTPConnection, body: dict[str, Any], key: str = KEY) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection.request("POST", CHAT, json.dumps(body), headers)
    answer = connection.getresponse()
    said = answer.read()
    assert answer.status == 200, (answer.status, said)
    document: dict[str, Any] = json.loads(said)
    return document


def to_gateway(site: Site) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection(site.hub.address, PORT, timeout=180))


def once(site: Site, body: dict[str, Any]) -> str:
    """Ask on a connection of its own, and return the text of the answer."""
    with to_gateway(site) as connection:
        return text_of(post(connection, body))


def text_of(document: dict[str, Any]) -> str:
    text: str = document["choices"][0]["message"]["content"]
    return text


def state_of(site: Site, host: LabHost) -> str:
    return str(site.explain(host)["mode"])


def asleep(site: Site, *hosts: LabHost) -> None:
    """Wait until hosts have fallen asleep by themselves."""
    for host in hosts:
        assert wait_until(lambda host=host: state_of(site, host) == "asleep", within=120), site.explain(host)
        site.rack.await_state(host.name, "asleep", 5)


def texts(site: Site, host: LabHost, since: float = 0.0) -> list[tuple[float, str]]:
    said = site.say("events", host.name, "--last", "100")
    return [(one["at"], one["text"]) for one in said if one["at"] >= since]


def instances(site: Site) -> set[str]:
    said = site.do(site.hub, "systemctl", "list-units", "--plain", "--no-legend", "--state=active", INSTANCES)
    return {line.split()[0] for line in said.splitlines()}


@pytest.fixture(scope="module")
def client(site: Site, armed: object) -> openai.OpenAI:
    """The official client; hosts that nobody uses for six seconds fall asleep."""
    if site.cycle is None:
        pytest.skip(f"virtual machines need {', '.join(lacks_for_machines())}")
    site.cycle.result(timeout=400)
    site.write(after="6s", machine_after="6s")
    site.apply("controller", site.hub)
    return openai.OpenAI(
        base_url=f"http://{site.hub.address}:{PORT}/v1", api_key=KEY, max_retries=0, timeout=180
    )


@dataclass(frozen=True)
class Cut:
    """A stream whose gateway was killed: when, what its client got, and why its host stayed awake."""

    at: float
    error: Exception | None
    kept_awake: str


@pytest.fixture(scope="module")
def cut(site: Site, client: openai.OpenAI) -> Cut:
    """The gateway is killed in the middle of a stream from the box, which stands still meanwhile."""
    engine = "labctl-alone.service"
    error: Exception | None = None
    stream = iter(asks(client, "tiny-alone", max_tokens=3500, stream=True))
    next(stream)
    site.do(site.box, "systemctl", "kill", "--signal=STOP", engine)
    at = time.time()
    site.do(site.hub, "systemctl", "kill", "--signal=KILL", INSTANCES)
    try:
        for _ in stream:
            continue
    except Exception as ended:
        error = ended
    site.do(site.box, "systemctl", "kill", "--signal=CONT", engine)
    # Whoever comes now waits for its successor at the socket, which is systemd's.
    assert asks(client, "tiny-coder").choices[0].message.content
    return Cut(at, error, " ".join(site.explain(site.box)["against"]))


def test_the_gateway_is_set_up_once_and_runs_hardened(site: Site) -> None:
    serve = instances(site)
    assert len(serve) == 1
    assert site.apply("gateway,controller", site.hub) == {site.hub.name: 0}
    assert instances(site) == serve
    site.do(site.hub, "systemd-analyze", "security", "--threshold=15", "--no-pager", *serve)
    with to_gateway(site) as connection:
        found = post(connection, asked("tiny-coder"))
    assert found["model"] == "tiny-coder" and text_of(found)


def _all_at_once(site: Site, client: openai.OpenAI, kept: http.client.HTTPConnection) -> str:
    """Ask a host that sleeps for many answers; return the text that the same request gets in each way."""

    def streamed() -> str:
        chunks = asks(client, "tiny-chat", stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        stream = pool.submit(streamed)
        first = pool.submit(post, kept, asked("tiny-chat"))
        others = [pool.submit(once, site, asked("tiny-chat", seed=number)) for number in range(AT_ONCE - 2)]
        said = text_of(first.result())
        assert stream.result() == said
        assert all(other.result() for other in others)
    return said


# Its leases last for half a minute after a gateway is killed: that is waited for meanwhile.
def test_a_request_wakes_a_machine_that_truly_sleeps_and_it_sleeps_again(
    site: Site, client: openai.OpenAI, cut: Cut
) -> None:
    machine = site.machine
    assert machine is not None
    asleep(site, machine)
    packets = len(site.rack.packets(machine.name))
    with to_gateway(site) as polled:
        for path in ("/v1/models", "/health", "/metrics", "/", "/labctl/v1/status") * 40:
            polled.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
            answer = polled.getresponse()
            assert answer.status == 200, (path, answer.read())
            answer.read()
    (listed,) = (one for one in client.models.list().data if one.id == "tiny-chat")
    assert listed.labctl["state"] == "asleep"  # type: ignore[attr-defined]
    assert len(site.rack.packets(machine.name)) == packets, "nobody who only looks wakes a host"

    began = time.time()
    with ExitStack() as stack:
        kept = stack.enter_context(to_gateway(site))
        said = _all_at_once(site, client, kept)
        socket = kept.sock
        assert text_of(post(kept, asked("tiny-chat"))) == said
        assert kept.sock is socket is not None, "one connection for a cold and for a warm request"
        straight = closing(http.client.HTTPConnection(machine.address, 8081, timeout=60))
        direct = stack.enter_context(straight)
        assert text_of(post(direct, asked("tiny-chat"), ENGINE_KEY)) == said
    outcomes = [one["outcome"] for one in site.rack.packets(machine.name)[packets:]]
    assert outcomes.count("wakes") == 1, outcomes
    asleep(site, machine)
    story = [text for _, text in texts(site, machine, began)]
    assert sum("tiny-chat was asked for" in text for text in story) >= 1, story
    assert "passed the gate" in " ".join(story) and "has been quiet for" in " ".join(story)


def test_a_killed_gateways_host_falls_asleep_when_its_leases_have_ended(site: Site, cut: Cut) -> None:
    assert cut.error is not None, "a stream that is not whole must be seen as such"
    assert "lease" in cut.kept_awake or "request" in cut.kept_awake, cut.kept_awake
    asleep(site, site.box)
    ordered = [at for at, text in texts(site, site.box, cut.at) if "quiet for" in text]
    assert ordered and min(ordered) - cut.at >= 20, (cut.at, texts(site, site.box, cut.at))


def test_a_host_that_does_not_come_is_said_in_time_and_another_one_serves(
    site: Site, client: openai.OpenAI, cut: Cut
) -> None:
    site.say("suspend", site.spare.name)
    asleep(site, site.box)
    site.rack.sleep_fault(site.box.name, "deaf")
    try:
        with ThreadPoolExecutor(2) as pool:
            alone = pool.submit(asks, client, "tiny-alone")
            elsewhere = pool.submit(once, site, asked("tiny-writer"))
            with pytest.raises(openai.APIStatusError) as refused:
                alone.result()
            assert elsewhere.result()
    finally:
        site.rack.sleep_fault(site.box.name, "sleep-heal")
    said = refused.value.response.json()
    assert (refused.value.status_code, said["host"]) == (503, site.box.name), said
    assert said["type"].endswith("not-awake-in-time") and f"{site.box.name} is waking" in said["detail"], said
    assert said["error"]["message"], said


@dataclass
class Load:
    """Requests that go on and on until they are told to stop; what failed is kept."""

    ask: Callable[[], object]
    done: int = 0
    failed: list[Exception] | None = None

    def __call__(self, stop: threading.Event) -> None:
        self.failed = []
        while not stop.is_set():
            try:
                self.ask()
            except Exception as error:
                self.failed.append(error)
            self.done += 1


def test_a_new_table_under_load_loses_no_request_and_no_stream(site: Site, client: openai.OpenAI) -> None:
    before = instances(site)
    patient = client.with_options(max_retries=2)
    tokens = 600

    def stream() -> None:
        chunks = asks(client, "tiny-coder", max_tokens=tokens, stream=True)
        (last,) = (chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason)
        assert last == "length"

    loads = [
        Load(lambda: once(site, asked("tiny-coder"))),
        Load(lambda: asks(patient, "tiny-coder")),
        Load(stream),
    ]
    stop = threading.Event()
    with ThreadPoolExecutor(len(loads)) as pool:
        running = [pool.submit(load, stop) for load in loads]
        try:
            site.write(after="6s", machine_after="6s", per_minute=1_000_000)
            assert site.apply("gateway", site.hub)[site.hub.name] > 0
            time.sleep(1)  # so that all of them meet the new one
        finally:
            stop.set()
        for one in running:
            one.result()
    assert [load.failed for load in loads] == [[], [], []]
    assert all(load.done > 2 for load in loads)
    assert wait_until(lambda: not instances(site) & before, within=30), "who has nothing to serve ends"
    assert len(instances(site)) == 1
