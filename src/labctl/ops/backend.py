"""Try which backend an engine computes with, once for each state of a host, and remember it.

An engine is tried in a unit of its own: as a user that owns nothing, with the devices of the cards and no
others, without network, for a bounded time and with bounded memory. A fault, a hang or a flood of output
harms that unit only. What came out is judged here (``domain.backend``), and written whole to a record on the
host together with what it stands on; as long as that is so, nothing is tried again.

Where no engine is installed there is nothing to try: that is said, and is no change.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Generator
from typing import Any

from pyinfra import logger
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS
from pyinfra.api.command import FunctionCommand, QuoteString, StringCommand
from pyinfra.api.facts import FactBase
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.context import host as current_host
from typing_extensions import override

from labctl.domain import backend as proof
from labctl.ops.command import Script, content_on_stdin, operation, text
from labctl.ops.facts import look
from labctl.ops.files import Wanted, put_commands
from labctl.render import HEADER

RECORD = "/var/lib/labctl/backend.json"
ENVIRONMENT = "/etc/labctl/backend.env"
RUN_S = 120
# Where engines for a backend are looked for, in this order; a service's own program comes after them.
PLACES = (
    "/opt/labctl/llama.cpp/{backend}/current/llama-bench",
    "/opt/labctl/llama.cpp/{backend}/current/llama-server",
)
NO_ENGINE = "no backend is proved yet: there is no llama.cpp on this host to try one with"

Seen = tuple[proof.Record | None, proof.Ground, dict[str, str]]


class Ground(FactBase[Seen]):
    """The record on a host, what a proof stands on now, and the program to try for each backend."""

    @override
    @staticmethod
    def default() -> Seen:
        """Return a host of which nothing is known."""
        return None, proof.Ground(), {}

    @override
    def command(self, candidates: tuple[tuple[str, str], ...]) -> StringCommand:
        """Return the one command that asks; ``candidates`` are backends and programs, the best first."""
        words = [QuoteString(word) for pair in candidates for word in pair]
        script = QuoteString(text("backend-facts"))
        return StringCommand("sh", "-c", script, "labctl-backend-facts", QuoteString(RECORD), *words)

    @override
    def process(self, output: list[str]) -> Seen:
        """Read "key value" lines; the first program of a backend counts."""
        said: dict[str, list[str]] = {}
        for line in output:
            key, _, value = line.partition(" ")
            said.setdefault(key, []).append(value.strip())
        engines: dict[str, str] = {}
        programs: dict[str, str] = {}
        for value in said.get("engine", []):
            backend, identity, program = value.split(" ", 2)
            if backend not in programs:
                programs[backend], engines[backend] = program, f"{program} {identity}"
        ground = proof.Ground(
            kernel="".join(said.get("kernel", [])),
            mesa=said.get("mesa", [""])[0],
            rocm=said.get("rocm", [""])[0],
            cards=tuple(sorted(said.get("card", []))),
            engines=engines,
        )
        record = said.get("record")
        return (proof.record_of(_decoded(record[0])) if record else None), ground, programs


def _decoded(data: str) -> object:
    """Return the value of JSON in base64, or None where there is none."""
    try:
        return json.loads(base64.b64decode(data, validate=True))
    except ValueError:
        return None


def answers(stdout: str) -> tuple[dict[str, Any], ...]:
    """Return the JSON objects among the lines of an engine's output."""
    found = []
    for line in stdout.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return tuple(found)


def candidates(programs: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return backends and the programs to try for each; ``programs`` are those of a host's services.

    A llama-bench beside a service's program goes before the program itself.
    """
    found = []
    for backend in proof.BACKENDS:
        found += [(backend, place.format(backend=backend)) for place in PLACES]
        for program in programs:
            found += [(backend, f"{program.rpartition('/')[0]}/llama-bench"), (backend, program)]
    return tuple(dict.fromkeys(found))


def environment(backend: str) -> Wanted:
    """Return the file by which units learn which backend to use."""
    return Wanted(ENVIRONMENT, f"{HEADER}\nLABCTL_BACKEND={backend}\n".encode())


@operation
def proved(programs: tuple[str, ...], model: bytes, run_s: int = RUN_S) -> Generator[object, None, None]:
    """Have a current proof of which backend works, and the choice in ``ENVIRONMENT``.

    Args:
        programs: of the host's services, which are tried where no engine of labctl's is installed.
        model: the model file to decode with.
        run_s: seconds that one backend may take.
    """
    places = candidates(programs)
    record, ground, found = current_host.get_fact(Ground, candidates=places)
    if not found:
        logger.warning(f"{current_host.name}: {NO_ENGINE}")
        current_host.noop(NO_ENGINE)
        return
    reasons = proof.stale(record, ground)
    if record is not None and not reasons:
        if record.backend == "none":
            logger.warning(f"{current_host.name}: no backend works: {record.why}")
        wanted = environment(record.backend)
        (info,) = look(wanted.question())
        yield from put_commands(wanted, info)
        return
    logger.info(f"{current_host.name}: tries {' and '.join(found)}: {'; '.join(reasons)}")
    given: dict[str, Any] = dict(current_host.current_op_global_arguments or {})
    arguments = {key: given[key] for key in CONNECTOR_ARGUMENT_KEYS if key in given}

    def prove(state: State, host: Host) -> bool:
        return _prove(host, arguments, ground, found, (model, run_s))

    yield FunctionCommand(prove, (), {})


def _prove(
    host: Host,
    arguments: dict[str, Any],
    ground: proof.Ground,
    programs: dict[str, str],
    trial: tuple[bytes, int],
) -> bool:
    """Try each backend, judge, and write the record; return whether it could be written."""
    runs, at = [], ""
    for backend, program in programs.items():
        raw, at = _try(host, arguments, (backend, program), trial)
        run = proof.judge(backend, raw)
        runs.append(run)
        host.log(
            f"{backend}: {run.outcome}: {run.why}", logger.info if run.outcome == "ok" else logger.warning
        )
    chosen, why = proof.choose(tuple(runs))
    record = proof.Record(chosen, why, tuple(runs), ground, at)
    (logger.warning if chosen == "none" else logger.info)(f"{host.name}: backend {chosen}: {why}")
    kept = json.dumps(record.plain(), indent=2, sort_keys=True) + "\n"
    for wanted in (environment(chosen), Wanted(RECORD, kept.encode())):
        script = wanted.script()
        sent = {**arguments, "_stdin": script.stdin, "_timeout": 60}
        good, output = host.run_shell_command(script, **sent)
        if not good:
            host.log(output.stderr.strip() or f"{wanted.dest} could not be written", logger.error)
            return False
    return True


def _try(
    host: Host, arguments: dict[str, Any], engine: tuple[str, str], trial: tuple[bytes, int]
) -> tuple[proof.Raw, str]:
    """Let one engine decode on the host; return what came of it, and the host's time."""
    model, run_s = trial
    script = Script("backend-try", *engine, str(run_s))
    sent = {**arguments, "_stdin": content_on_stdin(model), "_timeout": run_s + 90}
    good, output = host.run_shell_command(script, **sent)
    if not good:
        return proof.Raw("", "", "", output.stderr), ""
    said: dict[str, list[str]] = {}
    for line in output.stdout_lines:
        key, _, value = line.partition(" ")
        said.setdefault(key, []).append(value)
    stdout = "\n".join(said.get("out", []))
    ended = (said.get("result", [""])[0], said.get("detail", [""])[0])
    raw = proof.Raw(*ended, stdout, "\n".join(said.get("err", [])), answers(stdout))
    return raw, said.get("at", [""])[0]
