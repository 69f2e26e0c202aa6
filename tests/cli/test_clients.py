"""``labctl clients``: snippets that parse, name the key without holding it, and wait long enough."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from labctl.cli.main import main
from labctl.inventory.coldstart import PROMPT_S, UNLOAD_S
from labctl.inventory.swapping import WAKE_S
from labctl.render.clients import CLIENTS

HEAD = """\
from labctl.inventory import (
    Command, Host, IdlePolicy, LlamaServer, LlamaSwap, Model, Ollama, Rack, Secret, Ssh, Swapped, WakeOnLan,
)
_MODELS = [
    Model(id="coder", aliases=["gpt-4o"], source="/srv/c.gguf"),
    Model(id="embed", kind="embedding", source="/srv/e.gguf"),
    Model(id="rank", kind="rerank", source="/srv/r.gguf"),
    Model(id="hidden", source="/srv/h.gguf"),
]
"""
RIG = """\
_rig = Host(name="rig", address="10.0.0.1", open_ports=[8080, 8001], ssh=Ssh(user="me", port=2222),
    idle=IdlePolicy(suspend=True), wake=WakeOnLan(mac="52:54:00:00:00:01"),
    services=[
        LlamaSwap(name="swap", port=8080, binary="/usr/bin/llama-swap", LISTEN, models=[
            Swapped(engine=LlamaServer(name="c", model="coder", ctx_size=65536, parallel=2,
                                       load_timeout="200s")),
            Swapped(engine=LlamaServer(name="e", model="embed", load_timeout="20s")),
            Swapped(engine=LlamaServer(name="r", model="rank", load_timeout="20s")),
            Swapped(engine=LlamaServer(name="h", model="hidden", load_timeout="20s"), unlisted=True),
        ]),
    ])
"""
HUB = """\
_hub = Host(name="hub", address="10.0.0.2", roles=["always-on"], open_ports=[8080], services=[
    LlamaSwap(name="swap", port=8080, binary="/usr/bin/llama-swap", listen="0.0.0.0",
              api_key=Secret(file="keys/hub"), peers="rack")])
"""
OPEN = 'listen="0.0.0.0", api_key=Secret(env="RIG_KEY")'
SHUT = 'listen="127.0.0.1"'
FIRST_BYTE_S = WAKE_S["wol"] + UNLOAD_S + 200 + PROMPT_S


def write(folder: Path, *, listen: str = OPEN, hub: bool = True) -> str:
    hosts = "[_rig, _hub]" if hub else "[_rig]"
    text = HEAD + RIG.replace("LISTEN", listen) + (HUB if hub else "")
    text += f'rack = Rack(name="home", models=_MODELS, hosts={hosts})\nglobals().update(rack.groups())\n'
    (folder / "keys").mkdir(exist_ok=True)
    (folder / "keys" / "hub").write_text("hunter2\n")
    (folder / "rack.py").write_text(text)
    return str(folder / "rack.py")


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run ``labctl clients``; return its exit code, stdout and stderr."""
    monkeypatch.setenv("RIG_KEY", "hunter3")

    def run(*argv: str, **rack: Any) -> tuple[int, str, str]:
        code = main(["clients", *argv[:1], *([write(tmp_path, **rack)] if argv else []), *argv[1:]])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def parsed(language: str, text: str) -> Any:
    match language:
        case "json":
            return json.loads(text)
        case "yaml":
            return yaml.safe_load(text)
        case "toml":
            return tomllib.loads(text)
        case "python":
            return ast.parse(text)
        case "sh":
            return subprocess.run(["sh", "-n"], input=text, text=True, check=True)
        case _:
            return text


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize(("listen", "url"), [(OPEN, "10.0.0.2:8080/v1"), (SHUT, "127.0.0.1:8080/v1")])
def test_a_snippet_parses_and_stands_alone_on_stdout(name: str, listen: str, url: str, ask: Any) -> None:
    code, out, err = ask(name, listen=listen, hub=listen == OPEN)
    assert code == 0, err
    assert parsed(CLIENTS[name].language, out)
    assert "note:" not in out
    assert url in out
    assert out.endswith("\n")


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize("hub", [True, False])
def test_no_key_is_ever_shown(name: str, hub: bool, ask: Any) -> None:
    for options in ([], ["--json"]):
        code, out, err = ask(name, *options, hub=hub)
        assert code == 0
        assert "hunter" not in out + err


@pytest.mark.parametrize(
    "name", [name for name, client in CLIENTS.items() if client.language == "javascript"]
)
def test_a_program_for_node_is_one(name: str, ask: Any, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here")
    for model in ("coder", "embed", "rank"):
        program = tmp_path / f"{model}.mjs"
        program.write_text(ask(name, "--model", model)[1])
        subprocess.run([node, "--check", str(program)], check=True, timeout=60)


@pytest.mark.parametrize("name", [name for name, client in CLIENTS.items() if client.language == "python"])
@pytest.mark.parametrize("model", ["coder", "embed"])
def test_a_program_in_python_compiles_for_each_kind_of_model(name: str, model: str, ask: Any) -> None:
    code, out, _ = ask(name, "--model", model)
    assert code == 0
    compile(out, name, "exec")
    assert repr(model) in out or f"openai/{model}" in out


def test_the_best_endpoint_is_the_front_with_peers_on_the_host_that_never_sleeps(ask: Any) -> None:
    said = json.loads(ask("curl", "--json")[1])
    assert (said["endpoint"], said["base_url"], said["tunnel"]) == ("hub/swap", "http://10.0.0.2:8080/v1", [])
    assert said["key"] == {"env": "LABCTL_API_KEY", "needed": True, "file": "keys/hub", "from_env": None}


GATEWAY = (
    'controller=Controller(host="hub"), controller_key="keys/c.pub", gateway=Gateway(host="hub", port=8000, '
    'LISTEN, keys=[GatewayKey(name="bot", models=["embed"], secret=Secret(env="BOT")), ANN], wait="20m"), '
)
ANN = 'GatewayKey(name="ann", secret=Secret(file="keys/ann"))'
HASH = f'GatewayKey(name="ann", sha256="{"a" * 64}")'


def with_gateway(
    folder: Path, *, listen: str = 'listen="0.0.0.0"', ann: str = ANN, more: str = "", address: str = OPEN
) -> str:
    path = Path(write(folder, listen=address))
    text = path.read_text().replace("Command, Host,", "Command, Controller, Gateway, GatewayKey, Host,")
    gateway = GATEWAY.replace("LISTEN", listen + more).replace("ANN", ann)
    path.write_text(text.replace("hosts=[_rig", f"{gateway}hosts=[_rig"))
    return str(path)


def asked(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    assert main(["clients", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_racks_own_gateway_comes_first_with_a_key_by_reference_and_its_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = with_gateway(tmp_path)
    said = asked(capsys, "openai-python", path)
    assert (said["endpoint"], said["base_url"], said["tunnel"]) == (
        "hub/gateway",
        "http://10.0.0.2:8000/v1",
        [],
    )
    assert said["key"] == {"env": "LABCTL_API_KEY", "needed": True, "file": "keys/ann", "from_env": None}
    assert 'api_key=os.environ["LABCTL_API_KEY"]' in said["content"]
    assert [one["id"] for one in said["models"]] == ["coder", "embed", "rank"]
    # Longer than the gateway has a request wait, and than what comes after.
    assert said["timeouts"]["first_byte_s"] == 20 * 60 + UNLOAD_S + 200 + PROMPT_S
    assert asked(capsys, "curl", path, "--host", "rig")["endpoint"] == "rig/swap"
    rows = asked(capsys, path)["endpoints"]
    assert [(one["endpoint"], one["best"]) for one in rows] == [
        ("hub/gateway", True),
        ("rig/swap", False),
        ("hub/swap", False),
    ]


@pytest.mark.parametrize("name", CLIENTS)
def test_every_client_can_use_the_gateway(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = asked(capsys, name, with_gateway(tmp_path))
    assert parsed(said["language"], said["content"])
    assert "10.0.0.2:8000/v1" in said["content"]


def test_a_key_that_is_given_by_its_hash_is_one_that_somebody_was_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = with_gateway(tmp_path, ann=HASH.replace('name="ann"', 'name="ann", models=["coder"]'))
    said = asked(capsys, "curl", path, "--model", "coder")
    assert said["key"] == {"env": "LABCTL_API_KEY", "needed": True, "file": None, "from_env": None}
    assert "the key of ann, which labctl gateway keys new showed once" in said["notes"][0]


def test_a_gateway_with_a_certificate_is_asked_by_https(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ', certificate="tls.pem", private_key="tls.key"'
    said = asked(capsys, "curl", with_gateway(tmp_path, more=files))
    assert said["base_url"] == "https://10.0.0.2:8000/v1"
    assert any("clients that do not trust its certificate need it" in note for note in said["notes"])


def test_a_gateway_on_loopback_comes_after_what_the_network_reaches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = with_gateway(tmp_path, listen='listen="127.0.0.1"')
    assert asked(capsys, "curl", path)["endpoint"] == "hub/swap"
    shown = next(one for one in asked(capsys, path)["endpoints"] if one["endpoint"] == "hub/gateway")
    assert shown["tunnel"][-3:] == ["-L", "8000:127.0.0.1:8000", "admin@10.0.0.2"]


def test_a_host_can_be_named_and_its_key_is_a_reference(ask: Any) -> None:
    code, _, err = ask("opencode", "--host", "rig")
    assert code == 0
    assert 'export LABCTL_API_KEY="$RIG_KEY"' in err
    assert json.loads(ask("opencode", "--host", "rig", "--json")[1])["endpoint"] == "rig/swap"


def test_what_listens_on_loopback_only_comes_with_its_tunnel(ask: Any) -> None:
    code, out, err = ask("curl", listen=SHUT, hub=False)
    assert code == 0
    assert "http://127.0.0.1:8080/v1" in out
    assert "ssh -N -p 2222 -L 8080:127.0.0.1:8080 me@10.0.0.1" in err
    assert "it asks for no key" in err
    assert "Authorization" not in out


def test_the_timeouts_are_those_of_a_cold_start(ask: Any) -> None:
    said = json.loads(ask("opencode", "--json")[1])
    options = json.loads(said["content"])["provider"]["labctl"]["options"]
    assert said["timeouts"] == {"first_byte_s": FIRST_BYTE_S, "whole_s": FIRST_BYTE_S + 600}
    assert options["headerTimeout"] == options["chunkTimeout"] == FIRST_BYTE_S * 1000
    assert options["timeout"] == (FIRST_BYTE_S + 600) * 1000
    (chat,) = said["models"]
    assert (chat["id"], chat["aliases"], chat["kind"], chat["context"]) == (
        "coder",
        ["gpt-4o"],
        "chat",
        32768,
    )


def test_timeouts_have_the_unit_of_each_client(ask: Any) -> None:
    whole, first = FIRST_BYTE_S + 600, FIRST_BYTE_S
    assert yaml.safe_load(ask("aider")[1])["timeout"] == whole
    assert yaml.safe_load(ask("continue")[1])["models"][0]["requestOptions"] == {"timeout": whole}
    codex = tomllib.loads(ask("codex")[1])
    assert codex["model_providers"]["labctl"]["stream_idle_timeout_ms"] == first * 1000
    webui = yaml.safe_load(ask("open-webui")[1])["services"]["open-webui"]["environment"]
    assert webui["AIOHTTP_CLIENT_TIMEOUT"] == str(whole)
    assert f"--max-time {whole} " in ask("curl")[1]
    assert f"timeout: {first * 1000}," in ask("openai-node")[1]
    assert f"openai.Timeout({first}, " in ask("openai-python")[1]


def test_keys_are_references_in_the_syntax_of_each_client(ask: Any) -> None:
    assert json.loads(ask("opencode")[1])["provider"]["labctl"]["options"]["apiKey"] == "{env:LABCTL_API_KEY}"
    assert yaml.safe_load(ask("continue")[1])["models"][0]["apiKey"] == "${{ secrets.LABCTL_API_KEY }}"
    assert json.loads(ask("crush")[1])["providers"]["labctl"]["api_key"] == "$LABCTL_API_KEY"
    assert tomllib.loads(ask("codex")[1])["model_providers"]["labctl"]["env_key"] == "LABCTL_API_KEY"
    # Zed makes the variable's name of the provider's.
    assert list(json.loads(ask("zed")[1])["language_models"]["openai_compatible"]) == ["labctl"]


def test_the_key_reaches_curl_by_its_standard_input(ask: Any, tmp_path: Path) -> None:
    seen = tmp_path / "curl"
    seen.write_text('#!/bin/sh\nprintf "%s\\n" "$@"; echo stdin:; cat\n')
    seen.chmod(0o755)
    done = subprocess.run(
        ["sh"],
        input=ask("curl")[1],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "LABCTL_API_KEY": "s3cret"},
        capture_output=True,
        text=True,
        check=True,
    )
    argv, _, stdin = done.stdout.partition("stdin:\n")
    assert "s3cret" not in argv
    assert stdin == 'header = "Authorization: Bearer s3cret"\n'


def test_models_are_dealt_out_by_what_they_are_for(ask: Any) -> None:
    roles = {one["model"]: one["roles"] for one in yaml.safe_load(ask("continue")[1])["models"]}
    assert roles == {"coder": ["chat", "edit", "apply"], "embed": ["embed"]}
    webui = yaml.safe_load(ask("open-webui")[1])["services"]["open-webui"]["environment"]
    assert (webui["RAG_EMBEDDING_MODEL"], webui["RAG_RERANKING_MODEL"]) == ("embed", "rank")
    assert "/v1/rerank" in ask("curl", "--model", "rank")[1]
    assert "/v1/embeddings" in ask("curl", "--model", "embed")[1]


def test_an_unlisted_model_is_shown_only_when_it_is_named(ask: Any) -> None:
    assert "hidden" not in ask("opencode")[1]
    assert json.loads(ask("opencode", "--model", "hidden")[1])["model"] == "labctl/hidden"


def test_a_model_can_be_named_by_its_alias(ask: Any) -> None:
    assert json.loads(ask("opencode", "--model", "gpt-4o")[1])["model"] == "labctl/coder"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["opencod"], "did you mean opencode?"),
        (["opencode", "--model", "codr"], "did you mean coder?"),
        (["opencode", "--host", "rigg"], "did you mean rig?"),
        (["opencode", "--model", "embed"], "serves embedding, for which opencode has no use"),
    ],
)
def test_what_there_is_none_of_is_refused_with_what_there_is(argv: list[str], words: str, ask: Any) -> None:
    code, out, err = ask(*argv)
    assert (code, out) == (2, "")
    assert words in err


def test_a_rack_that_serves_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rack.py"
    file.write_text(
        "from labctl.inventory import Host, Rack\n"
        'rack = Rack(name="r", hosts=[Host(name="a", address="x")])\nglobals().update(rack.groups())\n'
    )
    assert main(["clients", "curl", str(file)]) == 2
    assert "nothing in this rack serves any model" in capsys.readouterr().err
    assert main(["clients", str(file)]) == 0
    assert "This rack has no endpoint" in capsys.readouterr().out


def test_without_a_client_all_clients_and_endpoints_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clients", write(tmp_path)]) == 0
    said = capsys.readouterr()
    assert all(name in said.out for name in CLIENTS)
    rows = [line.split()[:4] for line in said.out.splitlines() if line.startswith(("rig/", "hub/"))]
    assert rows == [
        ["rig/swap", "http://10.0.0.1:8080/v1", "yes", "coder,"],
        ["hub/swap", "http://10.0.0.2:8080/v1", "yes", "yes"],
    ]
    assert main(["clients", "--json", write(tmp_path)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["endpoint"] for one in document["endpoints"] if one["best"]] == ["hub/swap"]
    assert len(document["clients"]) >= 8


def test_without_a_client_an_endpoint_on_loopback_is_listed_with_its_tunnel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clients", write(tmp_path, listen=SHUT, hub=False)]) == 0
    said = capsys.readouterr()
    assert "http://127.0.0.1:8080/v1 by ssh -L" in said.out
    assert "rig/swap is reached by: ssh -N" in said.err
