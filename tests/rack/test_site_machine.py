"""A machine with a kernel of its own: it truly sleeps, and the gateway wakes it for whoever asks.

Its part of the site takes the longest to be set up, so the others of the site are tried first: see
``sleeping_site.py``.
"""

from __future__ import annotations

import http.client
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import openai
import pytest
from gateway_driving import TOKENS, asked, asks, asleep, official, once, post, text_of, texts, to_gateway
from sleeping_site import ENGINE_KEY, KEY, Site

from labctl.lab import LabHost
from labctl.lab.preflight import lacks_for_machines

pytestmark = pytest.mark.rack

AT_ONCE = 12


@pytest.fixture
def set_up(site: Site) -> LabHost:
    """The machine, which was set up and has shown that it comes back."""
    if site.cycle is None or site.machine is None:
        pytest.skip(f"virtual machines need {', '.join(lacks_for_machines())}")
    site.cycle.result(timeout=400)
    return site.machine


def test_a_virtual_machine_truly_sleeps_and_is_woken_and_armed_by_the_same_commands(
    site: Site, set_up: LabHost
) -> None:
    # Where the controller was restarted since, it has not heard the machine yet.
    unheard = f"{set_up.name} does not tell what it runs, so its proof may be stale"
    assert site.explain(set_up)["proof"] in ("", unheard)


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


def _said_by_its_engine(site: Site, machine: LabHost) -> str:
    return site.do(machine, "journalctl", "--unit=labctl-chat", "--output=cat", "--no-pager")


def test_a_request_wakes_a_machine_that_truly_sleeps_and_it_sleeps_again(site: Site, set_up: LabHost) -> None:
    client, machine = official(site), set_up
    site.write(after="6s", machine_after="6s")
    site.apply("controller,gateway", site.hub)
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
    answers = re.findall(rf" eval time = .*/ +{TOKENS} tokens", _said_by_its_engine(site, machine))
    assert len(answers) == AT_ONCE + 2, "each request was served once"
    outcomes = [one["outcome"] for one in site.rack.packets(machine.name)[packets:]]
    assert outcomes.count("wakes") == 1, outcomes
    asleep(site, machine)
    story = [text for _, text in texts(site, machine, began)]
    moves = [text.partition(":")[0] for text in story if "->" in text]
    # A signal that could not be read in time turns a drain back; it begins anew when all is quiet again.
    while "draining -> ready" in moves:
        back = moves.index("draining -> ready")
        assert moves[back - 1] == "ready -> draining"
        del moves[back - 1 : back + 1]
    assert moves == [
        "asleep -> waking",
        "waking -> verifying",
        "verifying -> ready",
        "ready -> draining",
        "draining -> suspending",
        "suspending -> asleep",
    ]
    assert [text for text in story if "wants it awake" in text] == [
        "gateway laptop wants it awake: tiny-chat was asked for"
    ]
