# ruff: noqa: E501 - one case a line reads best
"""Mistakes in llama-swap's part of a rack: each is refused with its line and what to do, before any restart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rack_texts import problems, write

# Two hosts that serve and one that asks both; each case below changes one place.
SOUND = """\
from labctl.inventory import *
KEY = Secret(file="keys/swap")
rack = Rack(name="r",
    models=[
        Model(id="m1", source="file:///srv/m1.gguf", files=[ModelFile(name="x.gguf", sha256="0" * 64, size=40_000_000_000)], path="/m/1", aliases=["small"]),
        Model(id="m2", source="file:///srv/m2", path="/m/2"),
        Model(id="m3", source="file:///srv/m3", path="/m/3"),
    ],
    hosts=[
        Host(name="one", address="10.0.0.1", open_ports=[8080], disk_mb_s=500, wake=WakeOnLan(mac="52:54:00:00:00:01"), services=[
            LlamaSwap(name="swap", binary="/bin/swap", port=8080, listen="0.0.0.0", api_key=KEY,
                models=[
                    Swapped(engine=LlamaServer(name="e1", binary="/bin/e", model="m1")),
                    Swapped(engine=LlamaServer(name="e2", binary="/bin/e", model="m2")),
                ],
                macros={"tag": "x"},
                settings={"logLevel": "info"},
            ),
            Command(name="web", argv=["/bin/web"], port=9000),
        ]),
        Host(name="two", address="10.0.0.2", open_ports=[8080], services=[
            LlamaSwap(name="swap", binary="/bin/swap", port=8080, listen="0.0.0.0", api_key=KEY,
                models=[Swapped(engine=LlamaServer(name="e3", binary="/bin/e", model="m3"))],
            ),
        ]),
        Host(name="front", address="10.0.0.3", roles=["always-on"], services=[
            LlamaSwap(name="swap", binary="/bin/swap", port=8080,
                peers=["one", "two"],
            ),
        ]),
    ])
globals().update(rack.groups())
"""
SETTING = '"logLevel": "info"'
E1 = 'model="m1")'
E2 = 'Swapped(engine=LlamaServer(name="e2", binary="/bin/e", model="m2"))'
MACROS = 'macros={"tag": "x"}'
PEERS = 'peers=["one", "two"]'


def setting(
    new: str, line: int, field: str, reason: str, hint: str = ""
) -> tuple[str, str, int, str, str, str, str]:
    return SETTING, new, line, "one", f"services[0].settings.{field}", reason, hint


def of_model(new: str, field: str, reason: str, hint: str = "") -> tuple[str, str, int, str, str, str, str]:
    return (
        E2,
        E2[:-1] + f", settings={{{new}}})",
        14,
        "one",
        f"services[0].models[1].settings.{field}",
        reason,
        hint,
    )


def beside(
    new: str, line: int, field: str, reason: str, hint: str = ""
) -> tuple[str, str, int, str, str, str, str]:
    return MACROS, f"{new}, {MACROS}", line, "one", f"services[0].{field}", reason, hint


CASES = {
    # keys
    "a mistyped key": setting(
        '"logLevell": "info"',
        17,
        "logLevell",
        "knows no such key, and would ignore it",
        "did you mean logLevel?",
    ),
    "a mistyped key deep inside": setting(
        '"performance": {"evry": "5s"}', 17, "performance.evry", "knows no such key", "did you mean every?"
    ),
    "a mistyped key of a model": of_model(
        '"useModelNam": "x"', "useModelNam", "knows no such key", "did you mean useModelName?"
    ),
    "a mistyped key of a filter": of_model(
        '"filters": {"strip_params": "x"}',
        "filters.strip_params",
        "knows no such key",
        "did you mean stripParams?",
    ),
    "a key that the inventory states": setting(
        '"healthCheckTimeout": 300',
        17,
        "healthCheckTimeout",
        "is rendered by labctl",
        "say it by `health_check_timeout`",
    ),
    "a model's key that the inventory states": of_model(
        '"ttl": 300', "ttl", "is rendered by labctl", "say it by `ttl`"
    ),
    "keys in the open": setting(
        '"apiKeys": ["x"]', 17, "apiKeys", "is rendered by labctl", "say it by `api_key`"
    ),
    "legacy groups": setting(
        '"groups": {"g": {"members": ["m1"]}}',
        17,
        "groups",
        "refuses this beside routing.router",
        "move it to `groups` of the LlamaSwap",
    ),
    "a legacy matrix": setting(
        '"matrix": {"sets": {}}',
        17,
        "matrix",
        "refuses this beside routing.router",
        "move it to `matrix` of the LlamaSwap",
    ),
    "a router by hand": setting(
        '"routing": {"router": {"use": "group"}}',
        17,
        "routing.router",
        "is rendered by labctl",
        "say it by `groups` or `matrix`",
    ),
    "health asked elsewhere": of_model(
        '"checkEndpoint": "/"', "checkEndpoint", "is rendered by labctl for a llama-server"
    ),
    "labctl's own mark": of_model(
        '"metadata": {"labctl": "x"}', "metadata.labctl", "knows its own configuration by"
    ),
    # values
    "a number as text": setting(
        '"captureBuffer": "5"', 17, "captureBuffer", "must be a whole number of at least 0, not the text '5'"
    ),
    "a level that nobody knows": setting(
        '"logLevel": "loud"', 17, "logLevel", "must be one of debug, info, warn, error, not the text 'loud'"
    ),
    "measuring too often": setting(
        '"performance": {"every": "2s"}',
        17,
        "performance.every",
        "more often than each 5 s",
        'write at least "5s"',
    ),
    "a duration without a unit": setting(
        '"performance": {"every": 5}',
        17,
        "performance.every",
        "must be a duration in llama-swap's spelling, not 5",
    ),
    "no regular expression": setting(
        '"upstream": {"ignorePaths": ["(js"]}', 17, "upstream.ignorePaths", "'(js' is no regular expression"
    ),
    "a regular expression of another kind": setting(
        '"upstream": {"ignorePaths": ["(?!js)"]}',
        17,
        "upstream.ignorePaths",
        "regular expressions know no (?!",
    ),
    "a filter of the model's name": of_model(
        '"filters": {"setParams": {"model": "x"}}',
        "filters.setParams",
        "never sets or strips `model`",
        "use useModelName",
    ),
    "a modality that nobody knows": of_model(
        '"capabilities": {"in": ["smell"]}', "capabilities.in", "must be of text, audio, image, not 'smell'"
    ),
    # macros
    "an unknown macro": of_model(
        '"description": "${tog}"', "description", "there is no macro ${tog} here", "did you mean tag?"
    ),
    "an unknown macro at the top": setting(
        '"store": {"path": "${tog}/db"}',
        17,
        "store.path",
        "there is no macro ${tog} here",
        "did you mean tag?",
    ),
    "the process id outside of cmdStop": of_model(
        '"description": "${PID}"', "description", "there is no macro ${PID} here"
    ),
    "a variable that is not set": of_model(
        '"description": "${env.NAME}"',
        "description",
        "${env.NAME} is not set where llama-swap runs",
        'add env={"NAME": "..."}',
    ),
    "a macro in itself": (
        MACROS,
        'macros={"tag": "${tag}"}',
        16,
        "one",
        "services[0].macros.tag",
        "macro tag contains itself",
        "",
    ),
    "a macro of a later one": (
        MACROS,
        'macros={"tag": "${next}", "next": "y"}',
        16,
        "one",
        "services[0].macros.tag",
        "there is no macro ${next} here",
        "",
    ),
    "a macro that is llama-swap's": of_model(
        '"macros": {"PORT": 1}', "macros", "llama-swap itself says what ${PORT} is"
    ),
    "a macro of an odd name": of_model('"macros": {"a.b": 1}', "macros", "'a.b' is no name of a macro"),
    # names
    "a model twice": (
        E2,
        'Swapped(engine=LlamaServer(name="e2", binary="/bin/e", model="small"))',
        14,
        "one",
        "services[0].models[1].engine.model",
        "is taken already by model m1 of this llama-swap",
        "one engine for each name",
    ),
    "a program with a model's name": (
        E2,
        'Swapped(engine=Command(name="small", argv=["/bin/e", "${PORT}"]))',
        13,
        "one",
        "services[0].models[0].engine.model",
        "is taken already by model small of this llama-swap",
        "",
    ),
    "a name on two peers": (
        'name="e3", binary="/bin/e", model="m3"',
        'name="e3", binary="/bin/e", model="m2"',
        28,
        "front",
        "services[0].peers[1]",
        "m2 is on one and on two, so llama-swap would answer for neither",
        '"targets": ["one/m2", "two/m2"]',
    ),
    # members
    "a member that is not there": beside(
        'groups=[SwapGroup(name="g", members=["m9"])]',
        16,
        "groups[0].members[0]",
        "there is no model of this llama-swap called 'm9'",
    ),
    "a member by its alias": beside(
        'groups=[SwapGroup(name="g", members=["small"])]',
        16,
        "groups[0].members[0]",
        "small is only another name of m1",
        "write 'm1'",
    ),
    "a member of two groups": beside(
        'groups=[SwapGroup(name="g", members=["m1"]), SwapGroup(name="h", members=["m1"])]',
        16,
        "groups[1].members[0]",
        "m1 is in group g already",
    ),
    "an empty group": beside(
        'groups=[SwapGroup(name="g", members=[])]', 16, "groups[0].members", "must not be empty"
    ),
    "two groups of one name": beside(
        'groups=[SwapGroup(name="g", members=["m1"]), SwapGroup(name="g", members=["m2"])]',
        16,
        "groups[1].name",
        "is taken already by another group",
    ),
    "a var of nobody": beside(
        'matrix=SwapMatrix(vars={"a": "m9"}, sets={"s": "a"})',
        16,
        "matrix.vars.a",
        "there is no model of this llama-swap called 'm9'",
    ),
    "a var of an odd name": beside(
        'matrix=SwapMatrix(vars={"a_b": "m1"}, sets={"s": "m1"})',
        16,
        "matrix.vars.a_b",
        "'a_b' is no name of a var",
    ),
    "a set of nobody": beside(
        'matrix=SwapMatrix(sets={"s": "m1 & m9"})',
        16,
        "matrix.sets.s",
        "no model or var 'm9'",
        "models: m1, m2",
    ),
    "a set that nobody can read": beside(
        'matrix=SwapMatrix(sets={"s": "m1 &"})',
        16,
        "matrix.sets.s",
        "ends where a model or a parenthesis is missing",
        'write "a & b"',
    ),
    "sets in a circle": beside(
        'matrix=SwapMatrix(sets={"s": "+t", "t": "+s"})',
        16,
        "matrix.sets.s",
        "refers to itself",
        "break the circle",
    ),
    "a cost of nothing": beside(
        'matrix=SwapMatrix(sets={"s": "m1"}, evict_costs={"m1": 0})',
        16,
        "matrix.evict_costs.m1",
        "must be at least 1",
    ),
    "a cost of nobody": beside(
        'matrix=SwapMatrix(sets={"s": "m1"}, evict_costs={"m9": 1})',
        16,
        "matrix.evict_costs.m9",
        "there is no model of this llama-swap called 'm9'",
    ),
    "a preload of nobody": beside(
        'preload=["m9"]',
        16,
        "preload[0]",
        "there is no model of this llama-swap called 'm9'",
        "known are: m1, m2",
    ),
    "a selector of nobody": setting(
        '"selectors": {"s": {"strategy": "pin", "targets": ["m9"]}}',
        17,
        "selectors.s.targets[0]",
        "there is no model here or on a peer called 'm9'",
    ),
    "a selector without a strategy": setting(
        '"selectors": {"s": {"targets": ["m1"]}}', 17, "selectors.s", "needs `strategy` and `targets`"
    ),
    "a selector of a model's name": setting(
        '"selectors": {"m1": {"strategy": "pin", "targets": ["m2"]}}',
        17,
        "selectors.m1",
        "is also the name of a model",
    ),
    "a profile of nobody": setting(
        '"profiles": {"p": {"pins": {"chat": "m9"}}}',
        17,
        "profiles.p.pins.chat",
        "there is no model here or on a peer called 'm9'",
    ),
    "a priority of nobody": setting(
        '"routing": {"scheduler": {"settings": {"fifo": {"priority": {"m9": 1}}}}}',
        17,
        "routing.scheduler.settings.fifo.priority.m9",
        "there is no model of this llama-swap called 'm9'",
    ),
    # engines and ports
    "an engine without a port": (
        E2,
        'Swapped(engine=Command(name="c", argv=["/bin/e"]))',
        14,
        "one",
        "services[0].models[1].engine.argv",
        "does not say where it listens",
        "put ${PORT} where its port goes",
    ),
    "an engine that listens outside": (
        E1,
        'model="m1", listen="10.0.0.1")',
        13,
        "one",
        "services[0].models[0].engine.listen",
        "listens on 10.0.0.1, past its llama-swap",
        "llama-swap reaches engines on loopback",
    ),
    "an engine with a key": (
        E1,
        'model="m1", api_key=Secret(file="k"))',
        13,
        "one",
        "services[0].models[0].engine.api_key",
        "is asked for by nobody",
        "give it to the LlamaSwap(...)",
    ),
    "an engine of another user": (
        E1,
        'model="m1", user="alice")',
        13,
        "one",
        "services[0].models[0].engine.user",
        "llama-swap starts it as labctl-svc",
        "",
    ),
    "ports over another service": beside(
        "start_port=8999",
        16,
        "start_port",
        "engines of swap get ports 8999 to 9000, but 9000 is taken by service web",
        "start elsewhere",
    ),
    "ports over llama-swap's own": beside(
        "start_port=8080", 16, "start_port", "but 8080 is taken by service swap"
    ),
    "ports beyond the last": beside("start_port=65535", 16, "start_port", "there is none after 65535"),
    "sleep of what cannot": (
        E2,
        E2[:-1] + ", sleep=True)",
        14,
        "one",
        "services[0].models[1].sleep",
        "only a Vllm(...) with enable_sleep_mode=True can sleep",
        "remove `sleep`",
    ),
    "sleep without the wrapper": (
        E2,
        'Swapped(engine=Vllm(name="v", binary="/bin/v", model="m2", enable_sleep_mode=True), sleep=True)',
        14,
        "one",
        "services[0].models[1].sleep",
        "always ends the process that it started",
        'macros={"vllm-wrapper":',
    ),
    # peers
    "a peer that is not there": (
        PEERS,
        'peers=["one", "tow"]',
        28,
        "front",
        "services[0].peers[1]",
        "there is no host called 'tow'",
        "did you mean two?",
    ),
    "a peer that is oneself": (
        PEERS,
        'peers=["one", "front"]',
        28,
        "front",
        "services[0].peers[1]",
        "cannot be its own peer",
        "remove it",
    ),
    "a peer twice": (
        PEERS,
        'peers=["one", "one"]',
        28,
        "front",
        "services[0].peers[1]",
        "one is in the list already",
        "remove it",
    ),
    "a peer without models": (
        'models=[Swapped(engine=LlamaServer(name="e3", binary="/bin/e", model="m3"))]',
        'peers=["one"]',
        28,
        "front",
        "services[0].peers[1]",
        "two has no llama-swap with models",
        "add one there",
    ),
    "a peer that nobody can reach": (
        'name="two", address="10.0.0.2", open_ports=[8080], services=[\n            LlamaSwap(name="swap", binary="/bin/swap", port=8080, listen="0.0.0.0", api_key=KEY,',
        'name="two", address="10.0.0.2", open_ports=[8080], services=[\n            LlamaSwap(name="swap", binary="/bin/swap", port=8080,',
        28,
        "front",
        "services[0].peers[1]",
        "swap of two listens on 127.0.0.1, out of reach",
        'listen="0.0.0.0"',
    ),
    "a llama-swap that serves nothing": (
        PEERS,
        "peers=[]",
        27,
        "front",
        "services[0]",
        "serves nothing",
        "add models=[Swapped(...)]",
    ),
    # times
    "a time too short for the disk": beside(
        'health_check_timeout="60s"',
        16,
        "health_check_timeout",
        "stops a model after 60 s, but m1 takes 80 s to load at the disk's rate",
        'at least "80s"',
    ),
    "a time too short for what is stated": (
        E1,
        'model="m1", load_timeout="20m")), Swapped(engine=LlamaServer(name="e9", binary="/bin/e", model="m3"',
        13,
        "one",
        "services[0].health_check_timeout",
        "",
        "",
    ),
    "a time that llama-swap would change": beside(
        'health_check_timeout="5s"', 16, "health_check_timeout", "would make 15 s of 5 s in silence"
    ),
    "a peer that is not waited for": (
        PEERS,
        PEERS + ', peer_timeout="60s"',
        28,
        "front",
        "services[0].peer_timeout",
        "gives one up after 60 s, but it may take",
        "or leave it out",
    ),
    # versions and keys
    "an old release": (
        'name="r",\n',
        'name="r",\n    engines=[LlamaSwapBuild(version="199", archive=Artifact(url="https://e.org/x.tar.gz", sha256="0" * 64))],\n',
        4,
        "",
        "engines[0].version",
        "for llama-swap 250 and newer, not for '199'",
        'version="250"',
    ),
}
del CASES["a time too short for what is stated"]  # tried by itself below


@pytest.mark.parametrize(("old", "new", "line", "host", "field", "reason", "hint"), CASES.values(), ids=CASES)
def test_a_mistake_is_refused_with_its_line_and_its_cure(
    old: str, new: str, line: int, host: str, field: str, reason: str, hint: str, tmp_path: Path
) -> None:
    assert SOUND.count(old) == 1
    found = problems(write(tmp_path, SOUND.replace(old, new)))
    told = [p for p in found if (p.line, p.host, p.field) == (line, host, field) and reason in p.reason]
    assert told, found
    assert hint in told[0].hint, found
    # What follows from it may be told, too, but not much.
    assert len(found) <= 3, found


def test_a_rack_without_mistakes_has_none(tmp_path: Path) -> None:
    assert problems(write(tmp_path, SOUND)) == []
    assert problems(write(tmp_path, SOUND.replace(PEERS, 'peers="rack"'))) == []


def test_a_llama_swap_that_listens_outside_needs_a_key(tmp_path: Path) -> None:
    text = SOUND.replace(
        ', api_key=KEY,\n                models=[Swapped(engine=LlamaServer(name="e3"',
        ',\n                models=[Swapped(engine=LlamaServer(name="e3"',
    )
    (found,) = {(p.host, p.field): p for p in problems(write(tmp_path, text))}.values()
    assert (found.host, found.field, found.line) == ("two", "services[0].listen", 22)


def test_the_stated_time_for_loading_counts_too(tmp_path: Path) -> None:
    text = SOUND.replace(E1, 'model="m1", load_timeout="20m")').replace(
        MACROS, f'health_check_timeout="10m", {MACROS}'
    )
    (found,) = problems(write(tmp_path, text))
    assert "stops a model after 600 s, but m1 takes 1200 s to load as its load_timeout says" in found.reason


def test_a_selector_decides_between_peers_of_one_name(tmp_path: Path) -> None:
    text = SOUND.replace('model="m3"))]', 'model="m2"))]').replace(
        PEERS,
        PEERS + ', settings={"selectors": {"m2": {"strategy": "pin", "targets": ["one/m2", "two/m2"]}}}',
    )
    assert problems(write(tmp_path, text)) == []


def test_validate_says_it_all_to_a_person(tmp_path: Path) -> None:
    rack = write(
        tmp_path,
        SOUND.replace(SETTING, '"healthCheckTimout": 5, "groups": {}').replace(PEERS, 'peers=["tow"]'),
    )
    argv = [str(Path(sys.executable).with_name("labctl")), "validate", str(rack)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    said = done.stdout + done.stderr
    for words in (
        "rack.py:17: host one: services[0].settings.healthCheckTimout: llama-swap knows no such key, and would ignore it\n  hint: did you mean healthCheckTimeout?",
        "rack.py:17: host one: services[0].settings.groups: llama-swap 250 refuses this beside routing.router",
        "rack.py:28: host front: services[0].peers[0]: there is no host called 'tow'\n  hint: did you mean two?",
    ):
        assert words in said, said
