"""The house rules, as tests: what a reader may rely on in every file, checked by machine.

Formatting, lint, types and layers are the tools' own verdicts; the rest (caps, one printer, one clock, one
reader of the environment) is read from the syntax tree, so that a comment or a string never triggers it.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "labctl"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

MAX_LINES_OF_A_MODULE = 400
MAX_LINES_OF_A_FUNCTION = 50
MAX_PARAMETERS = 6
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "manager", "base", "common"}
# A command's or an operation's parameters are its interface, each named by the caller.
INTERFACES = {"command", "operation"}


def _files(*roots: str) -> list[Path]:
    return sorted(path for root in roots for path in (ROOT / root).rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


SOURCES = _files("src/labctl")
CAPPED = SOURCES + _files("deploys", "bench", "docs")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _dotted(node: ast.AST) -> str:
    """Return ``a.b.c`` for an attribute or a name, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := _dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def _imported_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


def _uses(names: set[str], allowed: tuple[str, ...]) -> list[str]:
    """Return where the package uses ``names``, outside the files that start with ``allowed``."""
    found = []
    for path in SOURCES:
        if path.relative_to(PACKAGE).as_posix().startswith(allowed):
            continue
        used = [
            (node.lineno, _dotted(node))
            for node in ast.walk(_tree(path))
            if isinstance(node, ast.Attribute | ast.Name)
        ]
        found += [
            f"{_name(path)}:{line} {name}"
            for line, name in [*used, *_imported_names(_tree(path))]
            if name in names
        ]
    return found


def _run(*argv: str) -> None:
    done = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- verdicts of the tools ---


def test_ruff_finds_nothing() -> None:
    _run(sys.executable, "-m", "ruff", "check", ".")


def test_everything_is_formatted() -> None:
    _run(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_types_hold_strictly() -> None:
    _run(sys.executable, "-m", "mypy", "--strict", "-p", "labctl")


def test_layers_hold() -> None:
    _run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")


def test_shell_scripts_are_clean() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed; `sudo ./lab test` installs it")
    _run(shellcheck, "lab", ".ci/run")


# --- caps ---


def test_no_module_is_longer_than_the_cap() -> None:
    sizes = {_name(path): len(path.read_text().splitlines()) for path in CAPPED}
    assert {name: size for name, size in sizes.items() if size > MAX_LINES_OF_A_MODULE} == {}


def test_no_function_is_longer_than_the_cap() -> None:
    long = [
        f"{_name(path)}:{function.lineno} {function.name}: {size} lines"
        for path in CAPPED
        for function in _functions(path)
        if (size := (function.end_lineno or 0) - function.lineno + 1) > MAX_LINES_OF_A_FUNCTION
    ]
    assert long == []


def _is_interface(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    calls = [node.func if isinstance(node, ast.Call) else node for node in function.decorator_list]
    return any(_dotted(call).rpartition(".")[2] in INTERFACES for call in calls)


def test_no_function_has_more_parameters_than_the_cap() -> None:
    wide = []
    for path in CAPPED:
        for function in _functions(path):
            arguments = function.args
            names = [a.arg for a in arguments.posonlyargs + arguments.args + arguments.kwonlyargs]
            names = [name for name in names if name not in {"self", "cls"}]
            if len(names) > MAX_PARAMETERS and not _is_interface(function):
                wide.append(f"{_name(path)}:{function.lineno} {function.name}({', '.join(names)})")
    assert wide == []


def test_no_module_has_a_vague_name() -> None:
    vague = [
        _name(path)
        for path in SOURCES + _files("bench")
        if VAGUE_NAMES & {path.stem, *path.relative_to(ROOT).parent.parts}
    ]
    assert vague == []


def _undocumented(node: ast.Module | ast.ClassDef, where: str) -> Iterator[str]:
    if not ast.get_docstring(node):
        yield where
    for child in node.body:
        if isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ) and not child.name.startswith("_"):
            if isinstance(child, ast.ClassDef):
                yield from _undocumented(child, f"{where}: {child.name}")
            elif not ast.get_docstring(child):
                overload = any(_dotted(d).endswith(("overload", ".setter")) for d in child.decorator_list)
                if not overload:
                    yield f"{where}: {child.name}"


def test_everything_public_has_a_docstring() -> None:
    assert [gap for path in CAPPED for gap in _undocumented(_tree(path), _name(path))] == []


# --- one place for each effect ---


def test_only_the_printer_prints() -> None:
    # The agent runs alone on a host, where there is no printer; its answer is its standard output.
    assert _uses({"print", "click.echo", "click.secho", "rich.print"}, ("cli/printer.py", "agent/")) == []


def test_only_the_wiring_reads_the_environment() -> None:
    # The agent learns its order from sshd by SSH_ORIGINAL_COMMAND.
    names = {"os.environ", "os.getenv", "os.environb", "os.getenvb"}
    assert _uses(names, ("wiring.py", "agent/", "lab/fake/engines/double/")) == []


def test_only_the_clock_adapter_reads_the_time_of_day() -> None:
    names = {
        *("time.time", "time.time_ns", "time.localtime", "time.gmtime"),
        *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
        *(f"datetime.{cls}" for cls in ("datetime.now", "datetime.utcnow", "datetime.today", "date.today")),
    }
    assert _uses(names, ("adapters/clock.py", "agent/")) == []


def test_the_domain_imports_values_and_types_only() -> None:
    allowed = {"__future__", "dataclasses", "enum", "datetime", "collections", "typing", "math", "labctl"}
    allowed |= {"re", "fnmatch", "difflib"}  # matching of text: as pure as the others
    allowed |= {"abc", "functools", "base64", "html", "json", "urllib"}  # of these, what has no effects
    allowed |= {"zoneinfo"}  # a table of zones, which the same answer is read from for ever
    foreign = []
    for path in _files("src/labctl/domain"):
        for line, name in _imported_names(_tree(path)):
            inside = name == "labctl.domain" or name.startswith("labctl.domain.")
            if name.startswith("urllib.") and not name.startswith("urllib.parse"):
                foreign.append(f"{_name(path)}:{line} {name}")
            if name.split(".")[0] not in allowed or (name.startswith("labctl") and not inside):
                foreign.append(f"{_name(path)}:{line} {name}")
    assert foreign == []


def _top_level_imports_of_labctl(path: Path) -> set[str]:
    names = {name for _, name in _imported_names(_tree(path)) if name.split(".")[0] == "labctl"}
    return {".".join(name.split(".")[:2]) for name in names}


def test_deploys_use_only_the_inventory_the_rendering_and_the_operations() -> None:
    allowed = {"labctl.inventory", "labctl.render", "labctl.ops"}
    foreign = {
        _name(path): extra
        for path in _files("deploys")
        if (extra := _top_level_imports_of_labctl(path) - allowed)
    }
    assert foreign == {}


def test_what_goes_to_a_host_uses_only_the_standard_library() -> None:
    stays_here = {"build.py", "access.py"}  # they pack the agent and its key, where labctl runs
    allowed = {*sys.stdlib_module_names, "pynvml"}  # pynvml travels with it
    foreign = [
        f"{_name(path)}:{line} {name}"
        for path in _files("src/labctl/agent")
        if path.name not in stays_here
        for line, name in _imported_names(_tree(path))
        if name.split(".")[0] not in allowed and not name.startswith("labctl.agent")
    ]
    assert foreign == []


def test_everything_but_operations_and_worker_loads_without_pyinfra_and_gevent() -> None:
    modules = sorted(
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if path.stem != "__main__"
    )
    engine = ("labctl.ops", "labctl.provision.worker")
    innocent = [name for name in modules if not name.startswith(engine)]
    assert innocent
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    loaded = {'gevent', 'pyinfra', 'pyinfra_cli'} & set(sys.modules)\n"
        "    assert not loaded, f'{name} loads {loaded}'\n"
    )
    _run(sys.executable, "-c", program, *innocent)


# --- safety that must not be undone by a quick fix ---


def _keyword(name: str, value: object) -> Callable[[ast.AST], bool]:
    def match(node: ast.AST) -> bool:
        return (
            isinstance(node, ast.keyword)
            and node.arg == name
            and isinstance(node.value, ast.Constant)
            and node.value.value is value
        )

    return match


@pytest.mark.parametrize(("name", "value"), [("shell", True), ("verify", False), ("check_hostname", False)])
def test_no_call_gives_up_safety(name: str, value: object) -> None:
    match = _keyword(name, value)
    unsafe = [
        f"{_name(path)}:{node.value.lineno} {name}={value}"
        for path in CAPPED
        for node in ast.walk(_tree(path))
        if match(node) and isinstance(node, ast.keyword)
    ]
    assert unsafe == []


def test_no_host_key_is_accepted_unseen() -> None:
    lax = {
        f"{owner}.{name}"
        for owner in ("paramiko", "paramiko.client")
        for name in ("AutoAddPolicy", "WarningPolicy")
    }
    assert _uses(lax | {"AutoAddPolicy", "WarningPolicy"}, ("nothing is exempt",)) == []


def test_no_path_in_the_shared_temporary_directory_is_spelled_out() -> None:
    docstrings = {
        id(node.body[0].value)
        for path in CAPPED
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    spelled = [
        f"{_name(path)}:{node.lineno}"
        for path in CAPPED
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
        and re.search(r"(^|[\s'\"=])/(var/)?tmp/", node.value)
    ]
    assert spelled == []


# --- what is committed ---


def _committed() -> list[Path]:
    git = shutil.which("git")
    argv = [git or "git", "ls-files", "-z"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False) if git else None
    if done is None or done.returncode:
        pytest.skip("not a git checkout: what is committed is unknown")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_committed_files_name_no_registry_and_no_place_of_one_machine() -> None:
    # In pieces, or this file would name them.
    banned = re.compile(
        "|".join(
            re.escape("".join(pieces))
            for pieces in [
                ("py", "pi.org"),
                ("files.python", "hosted.org"),
                ("registry.", "npmjs.org"),
                ("deb.", "debian.org"),
                ("security.", "debian.org"),
                ("ftp.", "debian.org"),
                ("archive.", "ubuntu.com"),
                ("/work/", "main"),
                ("/work/", "shared"),
                ("/tmp/", "bash_jobs"),
                ("/tmp/", "labctl/"),
                ("/fa", "rm/"),
                ("/opt/", "wheels"),
                ("shared/", "facts"),
            ]
        )
    )
    named = [
        f"{_name(path)}:{number} {match.group()}"
        for path in _committed()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if (match := banned.search(line))
    ]
    assert named == []


def test_nothing_generated_or_secret_is_committed() -> None:
    kinds = re.compile(
        r"(^|/)(known_hosts|keys/.*|__pycache__/.*|.*\.pyc|\.venv/.*|dist/.*|.*\.egg-info/.*)$"
    )
    assert [
        name for path in _committed() if kinds.search(name := _name(path)) and not name.startswith("tests/")
    ] == []


# --- dependencies ---


def _direct() -> dict[str, Requirement]:
    texts = list(PYPROJECT["project"]["dependencies"])
    for group in PYPROJECT["dependency-groups"].values():
        texts += [entry for entry in group if isinstance(entry, str)]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, texts)}


@cache
def _locked(lock: str) -> dict[str, list[str]]:
    """Return the versions in a lock file by package, and fail where a hash is missing."""
    versions: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=[a-z0-9])", (ROOT / lock).read_text()):
        if match := re.match(r"([a-z0-9._-]+)==([^ ;\\]+)", block):
            assert "--hash=sha256:" in block, f"{lock}: {match[1]} has no hash"
            versions.setdefault(canonicalize_name(match[1]), []).append(match[2])
    return versions


def _requirements_of(lock: str) -> list[Requirement]:
    groups = PYPROJECT["dependency-groups"]
    runtime = [] if lock == "requirements-bench.lock" else list(PYPROJECT["project"]["dependencies"])
    named = {
        "requirements.lock": ["build"],
        "requirements-dev.lock": ["build", "dev"],
        "requirements-bench.lock": ["bench"],
    }
    texts = [entry for group in named[lock] for entry in groups[group] if isinstance(entry, str)]
    if lock == "requirements.lock":
        # The controller's host gets this lock alone, and its store may be in PostgreSQL.
        texts += PYPROJECT["project"]["optional-dependencies"]["postgres"]
    return [Requirement(text) for text in runtime + texts]


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock", "requirements-bench.lock"])
def test_the_lock_holds_what_pyproject_asks_for(lock: str) -> None:
    versions = _locked(lock)
    missing = [
        f"{requirement} (run `./lab lock`)"
        for requirement in _requirements_of(lock)
        if not any(
            requirement.specifier.contains(v) for v in versions.get(canonicalize_name(requirement.name), [])
        )
    ]
    assert missing == []


def test_the_locks_agree_with_each_other() -> None:
    dev = _locked("requirements-dev.lock")
    for lock in ("requirements.lock", "requirements-bench.lock"):
        assert {n: v for n, v in _locked(lock).items() if n in dev and dev[n] != v} == {}


def test_the_tests_run_on_the_locked_versions() -> None:
    installed = {}
    for name in _locked("requirements-dev.lock"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
    wrong = {n: v for n, v in installed.items() if v not in _locked("requirements-dev.lock")[n]}
    assert wrong == {}, "run `./lab test`, which installs requirements-dev.lock"


def test_every_direct_dependency_has_its_reason() -> None:
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    assert [name for name in _direct() if f"| `{name}` |" not in reasons] == []
