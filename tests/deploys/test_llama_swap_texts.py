"""llama-swap's configuration and unit: what is in them, and that every byte of a command arrives."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from swap_rack import FRONT, ONE, RACK, TWO

from labctl.inventory import Host, LlamaServer, LlamaSwap, Model, Rack, Swapped
from labctl.inventory.checks import check
from labctl.render import units
from labctl.render.llamaswap import Config, config
from labctl.render.llamaswap.words import PORT, command, document, with_environment

GOLDEN = Path(__file__).parent / "golden"
SWAPS = {"one": ONE, "two": TWO, "front": FRONT}
SCHEMA = os.environ.get("LABCTL_LLAMA_SWAP_SCHEMA", "")


def made(name: str, rack: Rack = RACK) -> Config:
    return config(rack, rack.host(name), SWAPS[name])


def read(name: str, rack: Rack = RACK) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(made(name, rack).text)
    return found


def test_the_rack_of_these_tests_agrees_with_itself() -> None:
    assert check(RACK) == []


@pytest.mark.parametrize("name", SWAPS)
def test_the_configuration_is_the_one_that_was_read_and_found_good(name: str) -> None:
    path = GOLDEN / f"llama-swap-{name}.yaml"
    if os.environ.get("LABCTL_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(made(name).text)
    assert made(name).text == path.read_text(), "LABCTL_GOLDEN=write pytest writes it anew; read what changed"


@pytest.mark.skipif(not SCHEMA, reason="LABCTL_LLAMA_SWAP_SCHEMA names no config-schema.json of llama-swap")
@pytest.mark.parametrize("name", SWAPS)
def test_llama_swaps_own_schema_takes_it(name: str) -> None:
    validator = Draft7Validator(json.loads(Path(SCHEMA).read_text()))
    assert [error.message for error in validator.iter_errors(read(name))] == []


def test_the_old_keys_are_never_beside_the_new() -> None:
    for name, use in (("one", "group"), ("two", "matrix"), ("front", "group")):
        found = read(name)
        assert found["routing"]["router"]["use"] == use
        assert not {"groups", "matrix"} & set(found)


def test_a_peer_lists_what_is_there_and_nothing_else() -> None:
    found = read("front")["peers"]
    assert {name: peer["models"] for name, peer in found.items()} == {
        name: [
            alias for id_, model in read(name)["models"].items() for alias in (id_, *model.get("aliases", []))
        ]
        for name in ("one", "two")
    }


def test_peers_are_asked_over_the_private_network_where_there_is_one() -> None:
    found = read("front")["peers"]
    assert found["one"]["proxy"] == "http://192.168.7.1:8080"
    assert found["two"]["proxy"] == "http://10.0.0.2:8081"


def test_a_peer_is_waited_for_while_it_wakes_and_loads() -> None:
    # 40 GB at 100 MB/s are 400 s, allowed twice; two minutes to wake; ten for the answer to begin.
    found = read("front")["peers"]["one"]["timeouts"]
    assert read("one")["healthCheckTimeout"] == 800
    assert found == {"connect": 120, "responseHeader": 800 + 120 + 600}
    # Nothing is known of the files on the other host.
    assert read("two")["healthCheckTimeout"] == 600


def test_no_key_is_in_a_configuration_and_each_reference_is_set_by_the_unit() -> None:
    for name, swap in SWAPS.items():
        host = RACK.host(name)
        text = made(name).text
        referred = set(re.findall(r"\$\{env\.(\w+)\}", text))
        set_by = {one.form.partition("=")[0] for one in made(name).secrets}
        assert referred == set_by
        unit = units.service(RACK, host, swap).content
        assert set(re.findall(r"^EnvironmentFile=(.*)$", unit, re.M)) == {
            one.path for one in made(name).secrets
        }


def test_each_engine_is_asked_for_its_health_where_that_costs_nothing() -> None:
    found = {
        name: model["checkEndpoint"]
        for host in ("one", "two")
        for name, model in read(host)["models"].items()
    }
    assert found["org/odd:1"] == "/model_info"
    assert set(found.values()) == {"/health", "/model_info"}


def test_a_vllm_that_sleeps_outlives_its_turns_on_a_port_of_its_own() -> None:
    model = read("two")["models"]["sleeper"]
    assert (
        "serve --vllm-url http://127.0.0.1:5802 --listen 127.0.0.1:${PORT} --wait-timeout 300s --"
        in model["cmd"]
    )
    assert "--port 5802" in model["cmd"]
    assert model["cmdStop"].endswith("sleep --vllm-url http://127.0.0.1:5802 --stop-pid ${PID}")
    assert "VLLM_SERVER_DEV_MODE=1" in model["env"]


def test_the_trial_acts_on_nothing_and_says_when_it_listens() -> None:
    found = yaml.safe_load(made("one").trial)
    assert "hooks" not in found
    assert (found["logLevel"], found["logToStdout"], found["performance"]) == (
        "info",
        "proxy",
        {"disabled": True},
    )
    assert found["models"] == read("one")["models"]


def test_the_digest_tells_one_configuration_from_another_and_is_in_the_list() -> None:
    digest = made("one").digest
    assert {model["metadata"]["labctl"] for model in read("one")["models"].values()} == {digest}
    other = RACK.model_copy(
        update={
            "models": tuple(
                model.model_copy(update={"aliases": (*model.aliases, "more")})
                if model.id == "tiny"
                else model
                for model in RACK.models
            )
        }
    )
    assert made("one", other).digest != digest
    assert made("one").digest == digest


def test_another_list_of_models_changes_the_configuration_and_not_the_unit() -> None:
    fewer = ONE.model_copy(update={"models": ONE.models[:2]})
    host = RACK.host("one")
    assert units.service(RACK, host, ONE) == units.service(RACK, host, fewer)
    assert config(RACK, host, ONE).text != config(RACK, host, fewer).text


def test_the_unit_reloads_by_a_signal_and_never_watches_the_file() -> None:
    text = units.service(RACK, RACK.host("one"), ONE).content
    assert "ExecReload=/bin/kill -HUP $MAINPID\n" in text
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.M)
    assert line.replace('"', "").split() == [
        "/opt/labctl/llama-swap/current/llama-swap",
        *("-config", "/etc/labctl/llama-swap/swap.yaml"),
        *("-listen", "0.0.0.0:8080"),
    ]
    assert "watch-config" not in text


def test_it_lists_what_v1_models_will_show() -> None:
    # The model that is unlisted is reachable all the same, so peers pass it on.
    assert made("one").listed == ("big", "coder", "qwen", "tiny", "tts")
    assert made("front").listed == tuple(
        sorted(f"{name}/{model}" for name, peer in read("front")["peers"].items() for model in peer["models"])
    )


# --- every byte of a command ---


def split(line: str) -> list[str]:
    """Split as shlex.Posix of github.com/billziss-gh/golib does, written from its description."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    rest = list(line)
    while rest:
        char = rest.pop(0)
        if char == "\\" and quote != "'":
            after = rest[0] if rest else ""
            if quote == "" or after in ("$", "`", '"', "\\", "\n", ""):
                rest[:1] = []
                if after not in ("", "\n"):
                    word = (word or "") + after
                continue
        if quote:
            if char == quote:
                quote = ""
            else:
                word = (word or "") + char
        elif char in ("'", '"'):
            quote, word = char, word or ""
        elif char in (" ", "\t", "\n"):
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + char
    return words if word is None else [*words, word]


def as_llama_swap_reads(text: str, port: int) -> tuple[list[str], list[str]]:
    """Read a rendered document as llama-swap does: variables in the text, macros in values, then words."""
    assert not re.search(r"\$\{env\.[a-zA-Z_]", text)
    model = yaml.safe_load(text)["models"]["m"]
    cmd = model["cmd"].replace("${PORT}", str(port))
    assert not re.search(r"\$\{[a-zA-Z0-9_-]+\}", cmd), "a macro that llama-swap would refuse"
    assert not any(re.search(r"\$\{[a-zA-Z0-9_-]+\}", pair) for pair in model["env"])
    assert "\n" not in cmd
    assert not cmd.lstrip().startswith("#")
    words, env = split(cmd), list(model["env"])
    if words[0] == "/usr/bin/env":
        place = next(n for n, word in enumerate(words) if word == "/bin/program")
        env, words = [*env, *words[1:place]], words[place:]
    return words, env


TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=20)
ODD = st.text("${}'\"\\ #PORTenv.HOMEx-", max_size=20)
WORDS = st.lists(
    st.one_of(TEXTS, ODD, st.sampled_from(["${env.HOME}", "${x}", PORT, f"--p={PORT}", "${", "$"]))
)


@given(WORDS, st.dictionaries(st.sampled_from("ABC"), st.one_of(TEXTS, ODD)))
def test_any_argument_and_variable_arrives_as_it_is(words: list[str], env: dict[str, str]) -> None:
    argv, plain = with_environment(["/bin/program", *words], env)
    text = document({"models": {"m": {"cmd": command(argv), "env": plain}}})
    seen, variables = as_llama_swap_reads(text, 5800)
    assert seen == ["/bin/program", *(word.replace(PORT, "5800") for word in words)]
    assert dict(pair.split("=", 1) for pair in variables) == {
        name: value.replace(PORT, "5800") if "${" in value else value for name, value in env.items()
    }


@given(
    st.one_of(
        TEXTS,
        st.sampled_from(
            ["no", "on", "1e3", "0x1F", "1_000", "~", "null", ".inf", "1:30", "- a", "a: b", "=", "<<"]
        ),
    )
)
def test_any_text_stays_a_text(text: str) -> None:
    rendered = document({"key": text, "list": [text]})
    assert yaml.safe_load(rendered) == {"key": text, "list": [text]}
    # What YAML 1.2 takes for a number or a word of its own is in quotes, too.
    assert '"' in rendered or re.fullmatch(r"[A-Za-z/][A-Za-z0-9_./-]*", text)


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS, st.text(max_size=9)
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3))
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_whatever_settings_hold_is_read_as_it_is(value: dict[str, Any]) -> None:
    assert yaml.safe_load(document(value)) == value


def test_a_large_rack_has_one_look_at_each_model() -> None:
    models = tuple(Model(id=f"m{n}", source=f"/srv/m{n}") for n in range(400))
    hosts = tuple(
        Host(
            name=f"h{n}",
            address=f"10.1.0.{n + 1}",
            services=(
                LlamaSwap(
                    name="swap",
                    binary="/b",
                    port=8080,
                    models=tuple(
                        Swapped(engine=LlamaServer(name=f"e{k}", binary="/e", model=f"m{n * 20 + k}"))
                        for k in range(20)
                    ),
                ),
            ),
        )
        for n in range(20)
    )
    rack = Rack(name="large", hosts=hosts, models=models)
    assert check(rack) == []
    shown = [config(rack, host, host.services[0]).listed for host in hosts]  # type: ignore[arg-type]
    assert len({name for names in shown for name in names}) == 400
