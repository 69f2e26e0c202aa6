"""What llama-swap 250 was seen to do, asked of its stand-in, and of the real one where there is one.

LABCTL_LLAMA_SWAP_BIN names a real llama-swap; every test then runs against both.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import runpy
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from swap_program import Running, Start, refusal, starter

from labctl import wiring
from labctl.lab import llama
from labctl.lab.fake import llama_swap
from labctl.lab.processes import wait_until
from labctl.render.llamaswap.words import command, document, with_environment

REAL = os.environ.get("LABCTL_LLAMA_SWAP_BIN", "")


@pytest.fixture(scope="session")
def double(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("swap") / "llama-swap"
    path.write_bytes(llama_swap.program())
    path.chmod(0o755)
    return str(path)


@pytest.fixture(params=["double", *(["real"] if REAL else [])])
def program(request: pytest.FixtureRequest, double: str) -> str:
    return double if request.param == "double" else REAL


@pytest.fixture
def start(program: str, tmp_path: Path) -> Iterator[Start]:
    yield from starter(program, tmp_path)


def two(one: Running, **more: object) -> dict[str, object]:
    return {"models": {name: {"cmd": one.cmd(name), **more} for name in ("a", "b")}}


MODEL = {"cmd": "/bin/true ${PORT}"}
REFUSED = [
    (
        "a command without a port",
        {"models": {"m": {"cmd": "/bin/true"}}},
        r"proxy uses \$\{PORT\} but cmd does not",
    ),
    (
        "an unknown macro",
        {"models": {"m": {"cmd": "/bin/true ${PORT} ${nix}"}}},
        r"unknown macro '\$\{nix\}' found in m.cmd",
    ),
    (
        "a variable that is not set",
        {"models": {"m": {"cmd": "/bin/true ${PORT} ${env.NIX_DA}"}}},
        "environment variable 'NIX_DA' is not set",
    ),
    (
        "a macro that is reserved",
        {"macros": {"PORT": 1}, "models": {"m": MODEL}},
        "macro name 'PORT' is reserved",
    ),
    ("a macro of an odd name", {"macros": {"a.b": 1}, "models": {"m": MODEL}}, "contains invalid characters"),
    ("a macro in itself", {"macros": {"a": "x ${a}"}, "models": {"m": MODEL}}, "self-reference"),
    (
        "a group member that is not there",
        {
            "models": {"m": MODEL},
            "routing": {"router": {"use": "group", "settings": {"groups": {"g": {"members": ["x"]}}}}},
        },
        "no model config for .{0,2}x",
    ),
    (
        "a member of two groups",
        {
            "models": {"m": MODEL},
            "routing": {
                "router": {"settings": {"groups": {"g": {"members": ["m"]}, "h": {"members": ["m"]}}}}
            },
        },
        "used in multiple groups",
    ),
    (
        "legacy keys beside the new",
        {
            "models": {"m": MODEL},
            "groups": {"g": {"members": ["m"]}},
            "routing": {"router": {"use": "group"}},
        },
        "config uses both the legacy",
    ),
    (
        "a matrix without sets",
        {
            "models": {"m": MODEL},
            "routing": {"router": {"use": "matrix", "settings": {"matrix": {"sets": {}}}}},
        },
        "matrix must define at least one set",
    ),
    (
        "a matrix that is missing",
        {"models": {"m": MODEL}, "routing": {"router": {"use": "matrix"}}},
        "routing.router.settings.matrix is not set",
    ),
    (
        "a matrix of unknown models",
        {
            "models": {"m": MODEL},
            "routing": {"router": {"use": "matrix", "settings": {"matrix": {"sets": {"s": "m & x"}}}}},
        },
        "unknown var or model",
    ),
    (
        "a matrix that nobody can read",
        {
            "models": {"m": MODEL},
            "routing": {"router": {"use": "matrix", "settings": {"matrix": {"sets": {"s": "(m"}}}}},
        },
        "missing closing parenthesis",
    ),
    (
        "a matrix in a circle",
        {
            "models": {"m": MODEL},
            "routing": {
                "router": {"use": "matrix", "settings": {"matrix": {"sets": {"s": "+t", "t": "+s"}}}}
            },
        },
        "circular reference",
    ),
    ("an unknown router", {"models": {"m": MODEL}, "routing": {"router": {"use": "ring"}}}, "unknown router"),
    (
        "an alias of two models",
        {"models": {"m": {**MODEL, "aliases": ["x"]}, "n": {**MODEL, "aliases": ["x"]}}},
        "duplicate alias x found in model",
    ),
    ("a first port of nothing", {"startPort": 0, "models": {"m": MODEL}}, "startPort must be greater than 1"),
    ("a key with a blank", {"apiKeys": ["a b"], "models": {"m": MODEL}}, "cannot contain spaces"),
    ("a key of nothing", {"apiKeys": [""], "models": {"m": MODEL}}, "empty api key"),
    ("a peer without an address", {"peers": {"p": {"models": ["x"]}}}, "proxy is required"),
    (
        "a peer without models",
        {"peers": {"p": {"proxy": "http://127.0.0.1:1"}}},
        "peer models can not be empty",
    ),
    (
        "a peer's model that is one's own",
        {"models": {"p/x": MODEL}, "peers": {"p": {"proxy": "http://127.0.0.1:1", "models": ["x"]}}},
        "conflicts with fully qualified peer model name",
    ),
    (
        "a path that is no regular expression",
        {"models": {"m": MODEL}, "upstream": {"ignorePaths": ["("]}},
        "invalid regular expression",
    ),
    (
        "measuring too often",
        {"models": {"m": MODEL}, "performance": {"every": "1s"}},
        "every must be at least 5s",
    ),
    (
        "a proxy that is no address",
        {"models": {"m": {**MODEL, "proxy": "http://[::1"}}},
        "model m: invalid proxy URL",
    ),
    (
        "words for a log that nobody knows",
        {"models": {"m": MODEL}, "logToStdout": "loud"},
        "logToStdout must be one of",
    ),
]


@pytest.mark.parametrize(
    ("given", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_a_configuration_is_refused_with_its_reason(
    given: object, words: str, program: str, tmp_path: Path
) -> None:
    said = refusal(program, tmp_path, yaml.safe_dump(given))
    assert re.search(r"(^|[ =])ERROR ", said)
    assert re.search(words, said), said


IGNORED = [
    ("a mistyped key", {"healthCheckTimout": 5, "models": {"m": {**MODEL, "tll": 1}}}),
    ("no models", {}),
    ("a short time for loading", {"healthCheckTimeout": 1, "models": {"m": MODEL}}),
    ("a preload of nobody", {"hooks": {"on_startup": {"preload": ["x"]}}, "models": {"m": MODEL}}),
    ("an alias that is a model", {"models": {"m": {**MODEL, "aliases": ["n"]}, "n": MODEL}}),
    ("a variable in a comment", "# ${env.NIX_DA}\nmodels: {}\n"),
]


@pytest.mark.parametrize("given", [case[1] for case in IGNORED], ids=[case[0] for case in IGNORED])
def test_a_configuration_with_a_mistake_is_taken_in_silence(
    given: object, program: str, tmp_path: Path
) -> None:
    assert refusal(program, tmp_path, given if isinstance(given, str) else yaml.safe_dump(given)) == ""


def test_a_rendered_command_reaches_the_engine_byte_for_byte(start: Start) -> None:
    words = [
        "",
        " ",
        "a b",
        "'",
        '"',
        "\\",
        "\\n",
        "a\\",
        "$",
        "${x}",
        "${PORT",
        "${env.HOME}",
        "$$",
        "#",
        "#x",
        "`id`",
        "*",
        "é ☃ 𝄞",
        "-",
        "'${a}'",
        "\u2028",
        "~",
        "no",
        "{",
        "%n",
    ]
    env = {"PLAIN": "a=b c'\"\\", "MACRO": "${x} $HOME", "VAR": "${env.HOME}"}

    def given(one: Running) -> dict[str, object]:
        argv, plain = with_environment([*one.cmd().split(), *words], env)
        text = document({"models": {"m": {"cmd": command(argv), "env": plain}}})
        assert "${env" not in text
        found: dict[str, object] = yaml.safe_load(text)
        return found

    one = start(given)
    one.chat("m")
    said = one.ask("/upstream/m/told").json
    assert said["argv"] == words
    assert {name: said["env"][name] for name in env} == env


def test_a_model_is_started_when_asked_for_and_listed_while_it_runs(start: Start) -> None:
    one = start(
        lambda one: {
            "models": {
                "m": {
                    "cmd": one.cmd("x"),
                    "aliases": ["n"],
                    "ttl": 77,
                    "name": "Em",
                    "metadata": {"labctl": "d"},
                },
                "hidden": {"cmd": one.cmd(), "unlisted": True},
            }
        }
    )
    assert one.loaded() == {}
    (listed,) = one.ask("/v1/models").json["data"]
    assert (listed["id"], listed["status"]["value"]) == ("m", "unloaded")
    assert listed["meta"]["llamaswap"] == {"aliases": ["n"], "labctl": "d", "type": "model"}
    assert one.chat("n").json["asked"]["model"] == "n"
    (shown,) = one.ask("/running").json["running"]
    assert shown == {
        "model": "m",
        "state": "ready",
        "cmd": one.cmd("x").replace("${PORT}", str(one.ports + 1)),
        "proxy": f"http://localhost:{one.ports + 1}",
        "ttl": 77,
        "name": "Em",
        "description": "",
    }
    assert one.ask("/v1/models").json["data"][0]["status"]["value"] == "loaded"


def test_an_answer_streams_part_by_part(start: Start) -> None:
    one = start(two)
    asked = http.client.HTTPConnection("127.0.0.1", one.port, timeout=60)
    asked.request(
        "POST",
        "/v1/chat/completions",
        json.dumps({"model": "a", "stream": True}),
        {"Content-Type": "application/json"},
    )
    found = asked.getresponse()
    assert found.getheader("Content-Type") == "text/event-stream"
    first = found.read1(100)
    assert first == b"data: one\n\n"
    one.gate.touch()
    assert found.read() == b"data: two\n\n"
    asked.close()


def test_models_without_a_group_take_turns(start: Start) -> None:
    one = start(two)
    one.chat("a")
    one.chat("b")
    assert one.loaded() == {"b": "ready"}


def test_groups_keep_what_they_say(start: Start) -> None:
    def given(one: Running) -> dict[str, object]:
        models = {name: {"cmd": one.cmd(name)} for name in "abcd"}
        groups = {
            "both": {"swap": False, "exclusive": True, "members": ["a", "b"]},
            "stays": {"swap": True, "exclusive": False, "persistent": True, "members": ["c"]},
        }
        return {"models": models, "routing": {"router": {"use": "group", "settings": {"groups": groups}}}}

    one = start(given)
    for name in "cab":
        one.chat(name)
    assert set(one.loaded()) == {"a", "b", "c"}
    one.chat("d")
    assert set(one.loaded()) == {"c", "d"}


def test_a_matrix_unloads_the_cheapest(start: Start) -> None:
    def given(one: Running) -> dict[str, object]:
        models = {name: {"cmd": one.cmd(name)} for name in "abcd"}
        matrix = {"vars": {"X": "a"}, "evict_costs": {"X": 5}, "sets": {"s": "X & (b | c)", "t": "+s & d"}}
        return {"models": models, "routing": {"router": {"use": "matrix", "settings": {"matrix": matrix}}}}

    one = start(given)
    one.chat("a")
    one.chat("b")
    assert set(one.loaded()) == {"a", "b"}
    one.chat("c")
    assert set(one.loaded()) == {"a", "c"}
    one.chat("d")
    assert set(one.loaded()) == {"a", "c", "d"}


def test_a_busy_model_is_not_stopped_for_another(start: Start) -> None:
    one = start(two)
    first = threading.Thread(target=one.chat, args=("a",), kwargs={"wait": True})
    first.start()
    assert wait_until(lambda: one.loaded() == {"a": "ready"}, within=20)
    second = threading.Thread(target=one.chat, args=("b",))
    second.start()
    second.join(1)
    assert one.loaded() == {"a": "ready"}
    one.gate.touch()
    second.join(30)
    first.join(30)
    assert one.loaded() == {"b": "ready"}


def test_an_idle_model_is_stopped(start: Start) -> None:
    one = start(lambda one: two(one, ttl=1))
    one.chat("a")
    assert wait_until(lambda: one.loaded() == {}, within=20)


def test_a_killed_engine_is_gone_at_once_and_started_again(start: Start) -> None:
    one = start(two)
    pid = one.chat("a").json["pid"]
    os.kill(pid, 9)
    assert wait_until(lambda: one.loaded() == {}, within=10)
    assert one.chat("a").json["pid"] != pid


def test_unloading_stops_one_or_all(start: Start) -> None:
    one = start(two)
    one.chat("a")
    assert one.ask("/api/models/unload/a", b"").body == b"OK"
    assert one.loaded() == {}
    one.chat("b")
    assert one.ask("/unload").body == b"OK"
    assert one.loaded() == {}
    assert one.ask("/api/models/unload", b"").json == {"msg": "ok"}
    assert one.ask("/api/models/unload/x", b"").words == "model not found"


def test_errors_have_their_status_and_words(start: Start) -> None:
    one = start(
        lambda one: {
            "models": {
                "broken": {"cmd": "/bin/false ${PORT}"},
                "absent": {"cmd": "/nix/da ${PORT}"},
                "fine": {"cmd": one.cmd()},
            }
        }
    )
    told = {
        ("x", 404): "no router for requested model",
        ("", 404): "no model id could be identified",
        ("broken", 500): "unspecific error: upstream command exited prematurely",
    }
    for (model, status), words in told.items():
        found = one.chat(model)
        assert (found.status, found.words) == (status, words)
    assert "fork/exec /nix/da: no such file or directory" in one.chat("absent").words
    assert one.ask("/v1/chat/completions", b"{").words == "no model id could be identified"
    assert one.ask("/nowhere").status == 404
    assert one.ask("/running", b"").status == 405
    assert one.ask("/upstream/x/y").words == "model not found"
    assert one.chat("x").json["src"] == "llama-swap"
    assert (
        one.ask("/v1/chat/completions", {"model": "x"}, Accept="text/plain").body
        == b"llama-swap: no router for requested model"
    )


def test_a_model_that_breaks_has_unloaded_the_one_that_worked(start: Start) -> None:
    one = start(lambda one: {"models": {"fine": {"cmd": one.cmd()}, "broken": {"cmd": "/bin/false ${PORT}"}}})
    one.chat("fine")
    one.chat("broken")
    assert one.loaded() == {}


def test_more_requests_than_the_limit_are_refused(start: Start) -> None:
    one = start(lambda one: two(one, concurrencyLimit=1))
    first = threading.Thread(target=one.chat, args=("a",), kwargs={"wait": True})
    first.start()
    assert wait_until(lambda: one.loaded() == {"a": "ready"}, within=20)
    found = one.chat("a")
    assert (found.status, found.headers["retry-after"]) == (429, "1")
    one.gate.touch()
    first.join(30)


def test_everything_but_health_wants_the_key(start: Start) -> None:
    one = start(lambda one: {**two(one), "apiKeys": ["${env.SWAP_KEY}"]}, key="k-1", SWAP_KEY="k-1")
    assert one.ask("/health", key="-").status == 200
    for path in ("/running", "/v1/models", "/logs", "/unload"):
        found = one.ask(path, key="wrong")
        assert (found.status, found.headers["www-authenticate"]) == (401, 'Basic realm="llama-swap"')
    assert one.ask("/running", key="", **{"x-api-key": "k-1"}).status == 200
    assert one.ask("/running", key="", Authorization="Basic " + "dTprLTE=").status == 200
    assert one.chat("a").status == 200


def test_a_reload_stops_every_model_and_a_bad_file_changes_nothing(start: Start) -> None:
    one = start(two)
    one.chat("a")
    kept = one.config.read_text()
    one.config.write_text("models: {m: {cmd: /bin/true}}")
    one.hup()
    assert wait_until(lambda: "failed to reload config" in one.said(), within=20)
    assert one.loaded() == {"a": "ready"}
    one.config.write_text(kept)
    one.hup()
    assert wait_until(lambda: "configuration reloaded" in one.said(), within=40)
    assert one.loaded() == {}
    one.write({"models": {"c": {"cmd": one.cmd()}}})
    one.hup()
    assert wait_until(lambda: [m["id"] for m in one.ask("/v1/models").json["data"]] == ["c"], within=20)


def test_preloads_come_back_after_a_reload(start: Start) -> None:
    one = start(lambda one: {**two(one), "hooks": {"on_startup": {"preload": ["b"]}}})
    assert wait_until(lambda: one.loaded() == {"b": "ready"}, within=20)
    pid = one.chat("b").json["pid"]
    one.hup()
    assert wait_until(lambda: one.said().count("preloading model: b") == 2, within=20)
    assert wait_until(lambda: one.loaded() == {"b": "ready"}, within=30)
    assert one.chat("b").json["pid"] != pid


def test_a_peer_answers_under_its_own_key_for_its_models(start: Start) -> None:
    far = start(lambda one: {**two(one), "apiKeys": ["far-key"]}, key="far-key")
    near = start(
        lambda one: {
            "models": {"c": {"cmd": one.cmd()}},
            "apiKeys": ["near-key"],
            "peers": {
                "far": {
                    "proxy": f"http://127.0.0.1:{far.port}",
                    "apiKey": "${env.FAR_KEY}",
                    "models": ["a", "b"],
                }
            },
        },
        key="near-key",
        FAR_KEY="far-key",
    )
    listed = near.ask("/v1/models").json["data"]
    assert [one["id"] for one in listed] == ["c", "far/a", "far/b"]
    assert listed[1]["meta"]["llamaswap"] == {"type": "peer", "peerID": "far"}
    assert near.chat("a").json["asked"]["model"] == "a"
    assert near.chat("far/b").json["asked"]["model"] == "b"
    assert far.loaded() == {"b": "ready"}
    assert near.loaded() == {}
    asked = http.client.HTTPConnection("127.0.0.1", near.port, timeout=60)
    asked.request(
        "POST",
        "/v1/chat/completions",
        json.dumps({"model": "b", "stream": True}),
        {"Content-Type": "application/json", "x-api-key": "near-key"},
    )
    found = asked.getresponse()
    assert found.read1(100) == b"data: one\n\n"
    far.gate.touch()
    assert found.read() == b"data: two\n\n"
    asked.close()


def test_a_peer_that_is_gone_or_slow_is_a_bad_gateway(start: Start) -> None:
    far = start(two)
    near = start(
        lambda one: {
            "peers": {
                "far": {
                    "proxy": f"http://127.0.0.1:{far.port}",
                    "models": ["a"],
                    "timeouts": {"responseHeader": 1},
                },
                "gone": {"proxy": "http://127.0.0.1:1", "models": ["z"]},
            }
        }
    )
    found = near.chat("z")
    assert found.status == 502
    assert "peer proxy error: dial tcp 127.0.0.1:1: connect: connection refused" in found.words
    far.chat("a")
    found = near.chat("a", wait=True)
    assert (found.status, found.words) == (
        502,
        "peer proxy error: net/http: timeout awaiting response headers",
    )


def test_a_name_on_two_peers_is_answered_by_neither(start: Start) -> None:
    far = start(two)
    near = start(
        lambda one: {
            "peers": {name: {"proxy": f"http://127.0.0.1:{far.port}", "models": ["a"]} for name in ("p", "q")}
        }
    )
    assert near.chat("a").words == "no router for requested model"
    assert near.chat("q/a").status == 200


def test_an_asset_of_a_stopped_model_starts_nothing(start: Start) -> None:
    one = start(two)
    found = one.ask("/upstream/a/style.css")
    assert (found.status, found.words) == (409, "model a is not loaded; path matches upstream.ignorePaths")
    assert one.loaded() == {}
    assert one.ask("/upstream/a/told").json["path"] == "/told"


def test_a_stop_command_is_used(start: Start, tmp_path: Path) -> None:
    trace = tmp_path / "stopped"
    one = start(lambda one: two(one, cmdStop=f"/bin/sh -c 'echo ${{PID}} > {trace}; kill ${{PID}}'"))
    pid = one.chat("a").json["pid"]
    one.ask("/unload")
    assert trace.read_text().strip() == str(pid)


def test_loading_is_told_in_the_stream_where_it_is_wanted(start: Start) -> None:
    one = start(lambda one: two(one, sendLoadingState=True))
    one.gate.touch()
    said = one.chat("a", stream=True).body.decode()
    thoughts = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("data: {")]
    told = "".join(one["choices"][0]["delta"]["reasoning_content"] for one in thoughts)
    assert "llama-swap loading model: a" in told
    assert said.index("reasoning_content") < said.index("data: one")


def test_parameters_are_set_and_stripped(start: Start) -> None:
    filters = {
        "stripParams": "top_k",
        "setParams": {"temperature": 0.5},
        "setParamsByID": {"a2": {"seed": 7}},
    }
    one = start(
        lambda one: {"models": {"a": {"cmd": one.cmd(), "useModelName": "inner", "filters": filters}}}
    )
    assert one.chat("a", top_k=3).json["asked"] == {"model": "inner", "temperature": 0.5}


def test_macros_are_put_in_before_the_command_is_split(start: Start) -> None:
    macros = {"first": "x y", "second": "${first} z", "n": 3}
    one = start(
        lambda one: {
            "macros": macros,
            "models": {
                "a": {
                    "cmd": one.cmd("${second}", "'${first}'", "${n}", "${MODEL_ID}"),
                    "macros": {"n": 4},
                    "ttl": "${n}",
                }
            },
        }
    )
    one.chat("a")
    assert one.ask("/upstream/a/told").json["argv"] == ["x", "y", "z", "x y", "4", "a"]
    assert one.ask("/running").json["running"][0]["ttl"] == 4


def test_it_starts_a_real_llama_server(start: Start, tmp_path: Path) -> None:
    tiny_gguf = runpy.run_path(str(Path(__file__).parents[1] / "rack" / "tiny_model.py"))["tiny_gguf"]
    try:
        server = llama.tree(wiring.cache_home() / "lab") / "llama-server"
    except llama.NoLlama as reason:
        pytest.skip(f"no llama-server: {reason}")
    model = tmp_path / "tiny.gguf"
    model.write_bytes(tiny_gguf())
    argv = [str(server), "--model", str(model), "--host", "127.0.0.1", "--port", "${PORT}", "--alias", "tiny"]
    one = start(lambda one: {"models": {"tiny": {"cmd": command(argv), "proxy": "http://127.0.0.1:${PORT}"}}})
    found = one.chat("tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=3)
    assert found.json["usage"]["completion_tokens"] == 3


# --- the stand-in alone ---


def test_equal_sources_give_an_equal_archive(tmp_path: Path) -> None:
    sums = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        path = llama_swap.archive(tmp_path / name)
        assert path.name == "llama-swap_250_linux_amd64.tar.gz"
        sums.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert sums[0] == sums[1]


def test_the_stand_in_brings_its_library_and_nothing_of_labctl(double: str) -> None:
    with zipfile.ZipFile(double) as packed:
        names = packed.namelist()
    assert {"__main__.py", "llama_swap/main.py", "yaml/__init__.py"} <= set(names)
    assert not [name for name in names if name.startswith("labctl")]
