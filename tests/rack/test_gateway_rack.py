"""One endpoint for a rack that sleeps: the official client on a laptop, the gateway on a hub, hosts asleep.

Whatever is asked goes over the network to real llama-servers. See ``sleeping_site.py``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import openai
import pytest
from gateway_driving import (
    INSTANCES,
    asked,
    asks,
    asleep,
    instances,
    official,
    once,
    post,
    text_of,
    texts,
    to_gateway,
)
from sleeping_site import Site

from labctl.lab.processes import wait_until

pytestmark = pytest.mark.rack


@pytest.fixture(scope="module")
def client(site: Site, armed: object) -> openai.OpenAI:
    """The official client; the box falls asleep when nobody has used it for six seconds."""
    site.write(after="6s")
    site.apply("controller,gateway", site.hub)
    return official(site)


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


def test_the_gateway_is_set_up_once_and_runs_hardened(site: Site, client: openai.OpenAI) -> None:
    serve = instances(site)
    assert len(serve) == 1
    assert site.apply("gateway,controller", site.hub) == {site.hub.name: 0}
    assert instances(site) == serve
    site.do(site.hub, "systemd-analyze", "security", "--threshold=15", "--no-pager", *serve)
    with to_gateway(site) as connection:
        found = post(connection, asked("tiny-coder"))
    assert found["model"] == "tiny-coder" and text_of(found)


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


# Its leases last for half a minute after a gateway is killed: they run out meanwhile.
def test_a_new_table_under_load_loses_no_request_and_no_stream(
    site: Site, client: openai.OpenAI, cut: Cut
) -> None:
    before = instances(site)
    patient = client.with_options(max_retries=2)

    def stream() -> None:
        chunks = asks(client, "tiny-coder", max_tokens=100, stream=True)
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
            site.write(after="6s", per_minute=1_000_000)
            assert site.apply("gateway", site.hub)[site.hub.name] > 0
            time.sleep(1)  # so that all of them meet the new one
        finally:
            stop.set()
        for one in running:
            one.result()
    assert [load.failed for load in loads] == [[], [], []]
    assert all(load.done > 1 for load in loads), loads
    assert wait_until(lambda: not instances(site) & before, within=30), "who has nothing to serve ends"
    assert len(instances(site)) == 1


def test_a_killed_gateways_host_falls_asleep_when_its_leases_have_ended(site: Site, cut: Cut) -> None:
    assert cut.error is not None, "a stream that is not whole must be seen as such"
    assert "lease" in cut.kept_awake or "request" in cut.kept_awake, cut.kept_awake
    asleep(site, site.box)
    ordered = [at for at, text in texts(site, site.box, cut.at) if "quiet for" in text]
    assert ordered and min(ordered) - cut.at >= 20, (cut.at, texts(site, site.box, cut.at))


def test_a_host_that_does_not_come_is_said_in_time_and_another_one_serves(
    site: Site, client: openai.OpenAI
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
