# ruff: noqa: E501 - one case a line reads best
"""Gateways and vector stores that could not work, or that would be open to anybody, are refused with a cure."""

from __future__ import annotations

from pathlib import Path

import pytest
from rack_texts import loaded, problems, rack_text, write

from labctl.inventory import LiteLlm
from labctl.inventory.upstreams import reach

IMPORTS = (
    "from labctl.inventory import Bifrost, LiteLlm, LlamaSwap, Olla, PgVector, PrivateNet, Secret, Swapped\n"
)
MODELS = '[Model(id="m", source="/srv/m"), Model(id="n", source="/srv/n")]'
KEY = 'api_key=Secret(file="keys/k")'
SHUT = 'services=[LlamaServer(name="chat", model="m", port=8001)]'
OPEN = (
    f'open_ports=[8001], services=[LlamaServer(name="chat", model="m", port=8001, listen="0.0.0.0", {KEY})]'
)


def rack(hub: str, rig: str = OPEN, more: str = "") -> str:
    """Return a rack whose line 8 is the gateway on ``hub``."""
    return (
        f"{IMPORTS}rack = Rack(name='r', models={MODELS}, hosts=[\n"
        f'Host(name="hub", address="10.0.0.1", open_ports=[4000], services=[\n{hub}]),\n'
        f'Host(name="rig", address="10.0.0.2", {rig}),\n{more}])'
    )


@pytest.mark.parametrize(
    ("hub", "rig", "field", "reason", "hint"),
    [
        ('LiteLlm(name="g", port=4000, binary="/b", listen="0.0.0.0")', OPEN, "listen", "listens on 0.0.0.0 without a key", 'add api_key=Secret(file='),
        ('Bifrost(name="g", port=4000, binary="/b", listen="0.0.0.0")', OPEN, "listen", "listens on 0.0.0.0 without a key", 'listen on "127.0.0.1"'),
        ('Olla(name="g", port=4000, binary="/b", listen="0.0.0.0")', OPEN, "listen", "listens on 0.0.0.0, but Olla asks nobody for a key", "put a llama-swap or a gateway before it"),
        (f'Olla(name="g", port=4000, binary="/b", {KEY})', OPEN, "api_key", "Olla asks nobody for a key", "remove it"),
        (f'LiteLlm(name="g", port=4001, binary="/b", listen="0.0.0.0", {KEY})', OPEN, "port", "the firewall keeps port 4001 closed", "add 4001"),
        ('LiteLlm(name="g", port=4000, binary="/b", hosts=["rigg"])', OPEN, "hosts[0]", "there is no host called 'rigg'", "did you mean rig?"),
        ('LiteLlm(name="g", port=4000, binary="/b", hosts=["rig", "rig"])', OPEN, "hosts[1]", "rig is in the list already", "remove it"),
        ('LiteLlm(name="g", port=4000, binary="/b", hosts=["hub"])', OPEN, "hosts[0]", "hub serves no model", "or remove it"),
        ('LiteLlm(name="g", port=4000, binary="/b", hosts=["rig"])', SHUT, "hosts[0]", "cannot serve m of rig/chat: listens on 127.0.0.1 of rig, where hub cannot reach it", 'listen="0.0.0.0"'),
        ('LiteLlm(name="g", port=4000, binary="/b")', SHUT, "", "has nothing to serve: m of rig/chat: listens on 127.0.0.1", "let it reach"),
        ('LiteLlm(name="g", port=4000, binary="/b")', "", "", "has nothing to serve: no service of this rack serves a model", "let it reach"),
        ('PgVector(name="v", password=Secret(env="P"), user="labctl-svc"), Command(name="c", argv=["/bin/true"])', OPEN, "user", "labctl-svc also runs c; who runs as the user of a database may read all of it", "a user of its own"),
        ('PgVector(name="v", password=Secret(env="P"), database="postgres")', OPEN, "database", "PostgreSQL has a meaning of its own for postgres", "another name"),
        ('PgVector(name="v", password=Secret(env="P"), listen="0.0.0.0")', OPEN, "port", "the firewall keeps port 5432 closed", "add 5432"),
    ],
)  # fmt: skip
def test_what_could_not_work_is_refused_with_its_line(
    hub: str, rig: str, field: str, reason: str, hint: str, tmp_path: Path
) -> None:
    (found,) = problems(write(tmp_path, rack_text(rack(hub, rig))))
    assert (found.line, found.host) == (8, "hub")
    assert found.field == f"services[0].{field}".rstrip(".")
    assert reason in found.reason
    assert hint in found.hint


def test_two_stores_of_one_user_are_refused(tmp_path: Path) -> None:
    one = 'PgVector(name="NAME", port=PORT, password=Secret(env="P"))'
    both = (
        f"{one.replace('NAME', 'v').replace('PORT', '1')},\n{one.replace('NAME', 'w').replace('PORT', '2')}"
    )
    found = problems(write(tmp_path, rack_text(rack(both))))
    assert {problem.field for problem in found} == {"services[0].user", "services[1].user"}


def test_a_gateway_for_the_whole_rack_leaves_out_what_it_cannot_reach_and_says_why(tmp_path: Path) -> None:
    more = 'Host(name="far", address="10.0.0.3", services=[LlamaServer(name="alone", model="n", port=8002)]),'
    found = loaded(tmp_path, rack('LiteLlm(name="g", port=4000, binary="/b")', more=more)).rack
    (gateway,) = found.host("hub").services
    assert isinstance(gateway, LiteLlm)
    reached = reach(found, found.host("hub"), gateway)
    assert [(one.name, one.url) for one in reached.upstreams] == [("rig", "http://10.0.0.2:8001")]
    assert [str(one) for one in reached.left_out] == [
        "n of far/alone: listens on 127.0.0.1 of far, where hub cannot reach it"
    ]


def test_what_only_a_llama_swap_in_front_reaches_is_asked_for_there(tmp_path: Path) -> None:
    cable = 'private=PrivateNet(interface="eth1", address="10.9.0.{}")'
    swap = f'LlamaSwap(name="s", port=8080, binary="/b", {KEY}, '
    body = (
        f"{IMPORTS}rack = Rack(name='r', models={MODELS}, hosts=[\n"
        'Host(name="hub", address="10.0.0.1", services=[LiteLlm(name="g", port=4000, binary="/b")]),\n'
        f'Host(name="front", address="10.0.0.2", open_ports=[8080], {cable.format(2)}, services=['
        f'{swap} listen="0.0.0.0", peers=["rig"])]),\n'
        f'Host(name="rig", address="10.0.0.3", open_ports=[8080], {cable.format(3)}, services=['
        f'{swap} listen="10.9.0.3", models=[Swapped(engine=LlamaServer(name="e", model="m"))])]),\n])'
    )
    found = loaded(tmp_path, body).rack
    (gateway,) = found.host("hub").services
    assert isinstance(gateway, LiteLlm)
    reached = reach(found, found.host("hub"), gateway)
    assert [(one.name, one.url, [m.id for m in one.models]) for one in reached.upstreams] == [
        ("front", "http://10.0.0.2:8080", ["m"])
    ]
    assert reached.left_out == ()


BUILD = """\
from labctl.inventory import Artifact, PythonEnv
rack = Rack(name="r", hosts=[], engines=[PythonEnv(kind="KIND", version="1.0", requirements="req/r.txt",
    uv=Artifact(url="https://x/uv.tgz", sha256="{sha}"))])
""".replace("{sha}", "a" * 64)


@pytest.mark.parametrize("kind", ["litellm", "vllm"])
@pytest.mark.parametrize(
    "line", ["litellm==1.82.7 \\", "LiteLLM[proxy] == 1.82.8", "litellm===1.82.8 ; python_version > '3'"]
)
def test_a_requirements_file_with_known_malware_is_refused_with_its_line(
    kind: str, line: str, tmp_path: Path
) -> None:
    (tmp_path / "req").mkdir()
    (tmp_path / "req" / "r.txt").write_text(f"# made by uv\nhttpx==0.28.1 \\\n    --hash=sha256:00\n{line}\n")
    (found,) = problems(write(tmp_path, rack_text(BUILD.replace("KIND", kind))))
    assert found.file.endswith("req/r.txt")
    assert found.line == 4
    assert "was published with malware that steals secrets" in found.reason
    assert "pin another version" in found.hint


@pytest.mark.parametrize("text", ["litellm==1.82.6\n", "not-litellm==1.82.7\n", "# litellm==1.82.7\n", None])
def test_other_requirements_are_no_concern(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "req").mkdir()
        (tmp_path / "req" / "r.txt").write_text(text)
    assert problems(write(tmp_path, rack_text(BUILD.replace("KIND", "litellm")))) == []
