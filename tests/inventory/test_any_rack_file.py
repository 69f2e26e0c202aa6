# ruff: noqa: E501 - long tables of values
"""Any rack file: whatever the text, the answer is a rack or problems with a file, never a traceback.

Six thousand here and four thousand in test_any_inventory.py, in shards that several workers can share.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rack_texts import HEAD, TAIL

from labctl import content
from labctl.domain.problem import ExitCode, LabctlError
from labctl.inventory import Rack, load_rack

THOROUGH = settings(deadline=None, suppress_health_check=list(HealthCheck))

FIELDS = {
    "Host": "name address roles ssh gpus psus base_w wake idle services depends_on open_ports packages "
    "unified_memory_gib vendor_image cap_w cap_reason nvidia amd backend",
    "Gpu": "model slot uuid pci cap_w cap_reason clocks_mhz vendor tdp_w",
    "Nvidia": "branch flavour manage source mirror container_toolkit cuda_toolkit suspend suspend_path",
    "Amd": "rocm source manage mirror",
    "AptMirror": "url key fingerprint",
    "Psu": "name watts efficiency spike_tolerance circuit feeds",
    "Circuit": "name volts amps continuous_share upstream",
    "IdlePolicy": "suspend after",
    "WakeOnLan": "mac interface broadcast port secureon_file relay kind",
    "Command": "name argv user env port listen working_dir kind",
    "LlamaServer": "name binary model port listen ctx_size n_gpu_layers gpus env extra_args",
    "Model": "id source sha256 path aliases",
    "Ssh": "user port key",
    "Rack": "name hosts circuits models ssh timezone ntp packages controller_key",
}
TYPOS = ["cap", "adress", "hots", "Name", "__class__", "self", "cls", "_x", "to_json", "model_config"]
SCALARS = [
    "1", "0", "-1", "200", "65535", "65536", "10**40", "1.5", "float('nan')", "float('inf')", "True", "None", "''",
    "'a'", "'b'", "'x y'", "'10.0.0.1'", "'10.0.0.256'", "'::1'", "'/m'", "'../x'", "'slot0'", "'board'", "'gpu'", "'30m'",
    "'always-on'", "'52:54:00:00:00:01'", "'200W'", "'\\0'", "'\\ud800'", "'\\x1b[2J'", "'a' * 5000", "b'a'", "...", "object()",
    "int", "Host", "lambda: 1", "{}", "[]", "()", "set()", "{1: 2}", "{'kind': 'wol'}", "{'name': 'a'}", "range(3)", "1j",
    "'RTX 3090'", "'RTX 9999'", "'circuit'", "'01:00.0'", "(300, 900)", "580", "'open'", "'cuda'", "'nvidia'", "'12-8'", "'10.0'",
    "(x for x in 'ab')", "['gpu']", "[[]]", "[None]", "['a', 'b']", "[22, 80]", "nowhere", "1/0", "Path", "type('T', (), {})()",
]  # fmt: skip


@st.composite
def expressions(draw: st.DrawFn) -> str:
    """A constructor with right and wrong fields and values, other constructors among them."""

    def value(depth: int) -> str:
        if depth == 0 or draw(st.integers(0, 2)):
            return draw(st.sampled_from(SCALARS))
        name = draw(st.sampled_from(sorted(FIELDS)))
        known = FIELDS[name].split()
        given = {known[0]: "'a'", known[1]: "'x'"} if draw(st.booleans()) else {}
        for field in draw(st.lists(st.sampled_from([*known, *known, *TYPOS]), max_size=4)):
            given[field] = value(depth - 1)
            if draw(st.booleans()):
                given[field] = f"[{given[field]}]"
        return f"{name}({', '.join(f'{field}={text}' for field, text in given.items())})"

    return value(4)


EXPRESSIONS = expressions()
STATEMENTS = st.one_of(
    EXPRESSIONS.map(lambda text: f"x = {text}"),
    EXPRESSIONS.map(lambda text: f"rack = {text}"),
    EXPRESSIONS.map(lambda text: f"rack = Rack(name='r', hosts=[{text}])"),
    EXPRESSIONS.map(lambda text: f"def f(): return {text}\nrack = f()"),
    EXPRESSIONS.map(lambda text: f"for _ in range(2):\n    _y = {text}"),
    EXPRESSIONS.map(lambda text: f"try:\n    _z = {text}\nexcept Exception as _e:\n    raise ValueError(_e)"),
    st.sampled_from([
        "exit()", "raise SystemExit('\\x1b')", "raise GeneratorExit", "raise RecursionError", "raise MemoryError", "assert 0",
        "raise BaseException", "raise BaseExceptionGroup('g', [ValueError()])", "print('x')", "input()", "import nothing",
        "from labctl.inventory import Nothing", "from . import x", "import sys; sys.stdout.write(1)", "def g(): return g()\ng()",
        "del rack", "rack", "rack = [rack]", "hosts = ['zz']", "all = 5", "all = ([], {})", "gpu = ('a',)", "rack.name = 'x'",
        "rack.hosts[0].name", "rack = rack.model_copy(update={'hosts': 5})", "rack = rack.model_copy(update={'name': 'R R'})",
        "_a = []; _a.append(_a); rack = Rack(name='r', hosts=_a)", "globals().clear()", "__file__ = 5", "Rack = Host", "yield 1",
        "globals()[5] = []", "x = " + "(" * 300 + ")" * 300, "x = " + "[" * 60 + "]" * 60, "class A(Host): extra: int = 1", "A(name='a')",
        "rack = Rack.model_construct()", "rack = Rack.model_construct(name='r', hosts=[5])", "raise __import__('labctl.domain.problem').domain.problem.LabctlError('x')",
        "Host.model_validate({})", "Host.model_validate_json('{')", "import warnings; warnings.warn('w')", "'\\d'; 1 is 1", "open('/nowhere')",
    ]),
)  # fmt: skip
PROGRAMS = st.tuples(st.lists(STATEMENTS, max_size=4), st.booleans()).map(
    lambda drawn: HEAD + "\n".join(drawn[0]) + (TAIL if drawn[1] else "")
)


def _tokens(text: str) -> list[str]:
    """Split a program into its tokens and the blanks between them; joined they are the program again."""
    starts = {0}
    offsets = [0]
    for line in text.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.end[0] < len(offsets):
            starts |= {offsets[token.start[0] - 1] + token.start[1], offsets[token.end[0] - 1] + token.end[1]}
    cuts = sorted(starts | {len(text)})
    return [text[a:b] for a, b in pairwise(cuts)]


EXAMPLE = _tokens(content.example_rack().read_text(encoding="utf-8"))
# Swapped at will, these could only make a program slow, which is not what is tested here.
POOL = sorted({token for token in EXAMPLE if not re.fullmatch(r"\d{4,}", token)})


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """The example rack with up to three tokens dropped, doubled or replaced."""
    tokens = list(EXAMPLE)
    for _ in range(draw(st.integers(1, 3))):
        index = draw(st.integers(0, len(tokens) - 1))
        how = draw(st.sampled_from(["drop", "double", "replace", "cut"]))
        if how == "cut":
            del tokens[index:]
            break
        new = {"drop": "", "double": tokens[index] * 2, "replace": draw(st.sampled_from(POOL))}[how]
        tokens[index] = new
        tokens = tokens or [""]
    return "".join(tokens)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("racks")
    modules = set(sys.modules)
    yield path
    assert not [name for name in set(sys.modules) - modules if name in ("pyinfra", "gevent", "paramiko")]


def judge(folder: Path, text: str | bytes) -> None:
    path = folder / "rack.py"
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    path.write_bytes(data)
    surroundings = (sys.stdout, sys.stdin, list(sys.path))
    try:
        loaded = load_rack(path)
    except LabctlError as error:
        assert error.code is ExitCode.BAD_INPUT
        assert error.problems
        lines = data.count(b"\n") + data.count(b"\r") + 2
        for problem in error.problems:
            if problem.reason == "x" and not problem.file:
                continue  # the file itself raised LabctlError("x")
            assert problem.file
            assert problem.reason.isprintable()
            assert problem.hint.isprintable()
            assert problem.line is None or 1 <= problem.line <= lines
    else:
        again = Rack.model_validate(loaded.rack.model_dump(warnings=False))
        assert again == loaded.rack
        assert set(loaded.groups["all"]) >= {host.name for host in loaded.rack.hosts} - set()
    assert (sys.stdout, sys.stdin, list(sys.path)) == surroundings


@pytest.mark.parametrize("shard", range(2))
@settings(THOROUGH, max_examples=750)
@given(text=PROGRAMS)
def test_any_program_about_racks_is_a_rack_or_problems(folder: Path, shard: int, text: str) -> None:
    judge(folder, text)


@settings(THOROUGH, max_examples=2000)
@given(mutants())
def test_any_slip_in_the_example_is_a_rack_or_problems(folder: Path, text: str) -> None:
    judge(folder, text)


@settings(THOROUGH, max_examples=1250)
@given(st.text(max_size=200))
def test_any_text_is_a_rack_or_problems(folder: Path, text: str) -> None:
    judge(folder, text)


@settings(THOROUGH, max_examples=1250)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_rack_or_problems(folder: Path, data: bytes) -> None:
    judge(folder, data)
