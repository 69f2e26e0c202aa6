"""Loading a rack file: run it without pyinfra, then believe it only if everything in it agrees.

labctl and plain ``pyinfra`` read the same file, so groups and data follow pyinfra's rules to the letter
(see ``groups``); only the engine is absent. Whatever the file does wrong ends in one ``LabctlError`` that
holds all problems at once, each with a file and, where one is known, a line and a host: never in a
traceback. Parts that could not be read do not hide what is wrong with the others: those are still checked
against each other.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from labctl.domain.problem import LabctlError, Problem
from labctl.inventory import requirements
from labctl.inventory.checks import check
from labctl.inventory.checks.finding import ANY_PART
from labctl.inventory.engines import Build
from labctl.inventory.explain import field_text, shown
from labctl.inventory.groups import Groups, misread, read_groups
from labctl.inventory.hosts import Host, Ssh
from labctl.inventory.models import Model
from labctl.inventory.power import Circuit
from labctl.inventory.rack import Rack
from labctl.inventory.report import Report, in_short, inside, merged, name_of
from labctl.inventory.running import Ran, run, working_folder
from labctl.inventory.services import RayCluster
from labctl.inventory.spec import Ledger, Spec, collecting

_S = TypeVar("_S", bound=Spec)
_MAX_BYTES = 2 * 1024 * 1024
_CLOSING_LINE = "globals().update(rack.groups())"


def _nowhere(_: tuple[str | int, ...]) -> tuple[str, int | None]:
    return "", None


@dataclass(frozen=True, slots=True)
class LoadedRack:
    """A valid rack, and what pyinfra would read from its file: groups, their data, and each host's own."""

    rack: Rack
    path: Path
    groups: dict[str, tuple[str, ...]]
    host_data: dict[str, dict[str, Any]]
    group_data: dict[str, dict[str, Any]] = field(default_factory=dict)
    place: Callable[[tuple[str | int, ...]], tuple[str, int | None]] = field(
        default=_nowhere, compare=False, repr=False
    )
    """Where a field of the rack is said, by its path: file and line, as exactly as they are known."""

    @property
    def folder(self) -> Path:
        """Where the rack file, its keys and its ``known_hosts`` lie."""
        return self.path.parent

    @property
    def known_hosts(self) -> Path:
        """The file of pinned host keys; it may not exist yet."""
        return self.folder / "known_hosts"


def read_text(path: Path) -> str:
    """Return the text of a Python file; raise ``LabctlError`` unless it is UTF-8 text of sane size."""
    short = in_short(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "is a directory" if stat.S_ISDIR(status.st_mode) else "is not a regular file"
            raise LabctlError(
                [Problem(what, hint="name the rack file itself, such as inventory/rack.py", file=short)]
            )
        if status.st_size > _MAX_BYTES:
            reason = (
                f"is {status.st_size // 1024} KiB long; no rack file is longer than {_MAX_BYTES // 1024} KiB"
            )
            raise LabctlError([Problem(reason, file=short)])
        data = path.read_bytes()
    except FileNotFoundError:
        raise LabctlError(
            [Problem("there is no such file", hint="start one with: labctl init DIR", file=short)]
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise LabctlError([Problem(f"cannot be read: {reason}", file=short)]) from None
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise LabctlError([Problem("holds a zero byte, so it is no Python", file=short, line=line)])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LabctlError(
            [Problem("is not UTF-8 text", hint="save it as UTF-8", file=short, line=line)]
        ) from None


def load_rack(path: Path | str) -> LoadedRack:
    """Run the rack file and return what it declares; raise ``LabctlError`` with everything that is wrong."""
    given = Path(path)
    try:
        file = given.absolute().parent.resolve() / given.name
    except (OSError, RuntimeError, ValueError) as error:
        raise LabctlError([Problem(f"cannot be read: {error}", file=str(path))]) from None
    text = read_text(file)
    with collecting(str(file)) as ledger:
        ran = run(text, file)
    extra, more = _group_data(file)
    report = Report(file, text, ledger)
    problems = [*report.mistakes(), *report.ending(ran), *report.printed(ran.printed), *more]
    rack = ran.namespace.get("rack")
    if ran.error is None:
        problems += _unusable(rack, ran.namespace, report)
    if isinstance(rack, Rack):
        bypassed = [] if ledger.mistakes else list(_bypassed(rack, report))
        problems += bypassed or _disagreements(rack, ledger, report)
    if not problems and not ledger.mistakes and isinstance(rack, Rack):
        problems += _ungrouped(rack, ran.namespace, report)
        problems += requirements.refusals(rack, file.parent, in_short(file.parent))
        if not problems:
            groups: Groups = read_groups(ran.namespace, file, extra)
            return LoadedRack(
                rack, file, groups.members, groups.host_data, groups.data, partial(report.line_in, rack)
            )
    raise LabctlError(merged(problems))


def _unusable(rack: object, namespace: Mapping[str, Any], report: Report) -> Iterator[Problem]:
    """Say why the variable ``rack`` is no rack."""
    file = in_short(report.file)
    if "rack" not in namespace:
        others = [name for name, value in namespace.items() if isinstance(value, Rack)]
        hint = f"rename `{others[0]}` to `rack`" if others else "add: rack = Rack(name=..., hosts=[...])"
        yield Problem("defines no `rack`", hint=hint, file=file, line=1)
    elif not isinstance(rack, Rack):
        line = report.sources.assignment(str(report.file), "rack")
        yield Problem(f"`rack` is {shown(rack)}, not a Rack(...)", file=file, line=line, field="rack")


def _salvage(rack: Rack, broken: set[int]) -> tuple[Rack, set[str]]:
    """Return the rack without the parts that failed, and the names which those parts bear."""
    names: set[str] = set()

    def sound(field: str, kind: type[_S]) -> tuple[_S, ...]:
        items = vars(rack).get(field)
        kept = []
        for item in items if isinstance(items, (list, tuple)) else ():
            if isinstance(item, kind) and _is_sound(item, broken):
                kept.append(item)
            elif isinstance(item, Spec):
                raw = vars(item)
                texts = [raw.get(key) for key in ("name", "id", "version", "kind")]
                if isinstance(item, Build):
                    texts.append(type(item).model_fields["kind"].default)
                texts += _texts(raw.get("aliases"))
                names.update(text for text in texts if isinstance(text, str))
        return tuple(kept)

    ssh = vars(rack).get("ssh")
    engines: tuple[Any, ...] = sound("engines", Build)
    safe = Rack.model_construct(
        name="rack",
        hosts=sound("hosts", Host),
        circuits=sound("circuits", Circuit),
        models=sound("models", Model),
        engines=engines,
        clusters=sound("clusters", RayCluster),
        ssh=ssh if isinstance(ssh, Ssh) and id(ssh) not in broken else Ssh(),
    )
    return safe, names


def _is_sound(item: Spec, broken: set[int]) -> bool:
    """Return whether nothing in an object was refused, or slipped in without being validated."""
    if any(id(part) in broken for part, _ in inside(item)):
        return False
    try:
        type(item).model_validate(item.model_dump(warnings=False))
    except Exception:
        return False
    return True


def _texts(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _disagreements(rack: Rack, ledger: Ledger, report: Report) -> Iterator[Problem]:
    """Check the parts of the rack that could be read against each other."""
    broken = {id(mistake.stand_in) for mistake in ledger.mistakes}
    checked, names = _salvage(rack, broken) if broken else (rack, set())
    # A part that failed without a name may be any of those that are missed.
    nameless = bool(broken) and not names
    for finding in check(checked):
        if broken and finding.unknown and (nameless or finding.unknown in {*names, ANY_PART}):
            continue
        file, line, reached = report.place_in(checked, finding.path)
        path, host = finding.path, ""
        if path[0] == "hosts" and isinstance(path[1], int):
            host, path = name_of(checked.hosts[path[1]]), path[2:]
        yield Problem(finding.reason + reached, finding.hint, file, line, host, field_text(path))


def _bypassed(rack: Rack, report: Report) -> Iterator[Problem]:
    """Validate once more what was built without a constructor (``model_copy``, ``model_construct``)."""
    try:
        Rack.model_validate(rack.model_dump(warnings=False))
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            file, line = report.line_in(rack, detail["loc"])
            yield Problem(detail["msg"], "", file, line, "", field_text(detail["loc"]))
    except Exception as error:
        yield Problem(f"holds values that no rack can have: {error}", file=in_short(report.file))


def _ungrouped(rack: Rack, namespace: Mapping[str, Any], report: Report) -> Iterator[Problem]:
    """Say where plain pyinfra would see something else than the rack."""
    file, names = str(report.file), [host.name for host in rack.hosts]
    for name, reason in misread(namespace, names):
        line = report.sources.assignment(file, name)
        yield Problem(f"`{name}`: {reason}", f"rename it to `_{name}`", in_short(file), line)
    lists = (name for name, value in namespace.items() if isinstance(value, (list, tuple)))
    groups = {"all", report.file.stem, *lists}
    for host in rack.hosts:
        if host.name in groups:
            site, line = report.line_in(rack, ("hosts", names.index(host.name), "name"))
            yield Problem("is also the name of a group", "choose another", site, line, host.name, "name")
    group = namespace.get("hosts")
    listed = (
        [item[0] for item in group[0] if isinstance(item, tuple)]
        if isinstance(group, tuple) and group
        else []
    )
    if listed != names:
        reason = "plain pyinfra would not see the hosts of this rack"
        yield Problem(reason, f"end the file with: {_CLOSING_LINE}", in_short(file), _last_line(report))


def _last_line(report: Report) -> int | None:
    tree = report.sources.tree(str(report.file))
    return tree.body[-1].lineno if tree is not None and tree.body else None


def _group_data(file: Path) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    """Read ``group_data/*.py`` where pyinfra does: in the working directory, then beside the rack file."""
    found: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    folders = dict.fromkeys(place for place in (working_folder(), file.parent) if place is not None)
    for source in (path for place in folders for path in sorted((place / "group_data").glob("*.py"))):
        try:
            text = read_text(source)
        except LabctlError as error:
            problems += error.problems
            continue
        ran: Ran = run(text, source)
        report = Report(source, text, Ledger())
        problems += [*report.ending(ran), *report.printed(ran.printed)]
        wanted = ran.namespace.get("__all__")
        keys = ran.namespace if wanted is None else wanted
        imported = report.sources.imported(str(source)) if wanted is None else set()
        found.setdefault(source.stem, {}).update(
            {
                key: value
                for key, value in ran.namespace.items()
                if key in keys and key not in imported and not key.startswith("__")
            }
        )
    return found, problems
