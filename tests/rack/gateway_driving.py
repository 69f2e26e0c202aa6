"""Ask the gateway of the site from the laptop, by the official client or byte by byte."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import Any

import openai
from sleeping_site import KEY, PORT, Site

from labctl.lab import LabHost
from labctl.lab.processes import wait_until

INSTANCES = "labctl-gateway@*"
CHAT = "/v1/chat/completions"
TOKENS = 12


def asked(model: str, **more: object) -> dict[str, Any]:
    """Return a request that gets the same answer whenever it is asked, and never ends early."""
    always = {"temperature": 0, "seed": 1, "max_tokens": TOKENS, "ignore_eos": True, "cache_prompt": False}
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


def official(site: Site) -> openai.OpenAI:
    """Return the official client, which tries nothing twice."""
    url = f"http://{site.hub.address}:{PORT}/v1"
    return openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=180)
