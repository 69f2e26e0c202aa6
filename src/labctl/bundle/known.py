"""Find every secret that a rack names, so that it can be taken out of what is packed.

The schema is walked, not a list of fields: whatever is a ``Secret`` or names a secret's file is found, also
in fields that come later. A secret that cannot be read here is *unknown*: what it might stand in (the
journals of its host; all journals, where it is the rack's own) must then not be packed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from labctl.domain.redaction import SHORTEST, arguments, named_like_a_secret
from labctl.inventory import LoadedRack, Secret
from labctl.inventory.fields import SecretFile
from labctl.inventory.hosts import Ssh
from labctl.inventory.spec import Spec

_LONGEST_FILE = 1 << 20
_SECRET_FILE = get_args(SecretFile)[1]
_OWN_VARIABLES = 6  # characters; a shorter value of a variable is a switch, not a secret


@dataclass(frozen=True, slots=True)
class Reference:
    """Where the rack names a secret: the path of its field, its host (empty: the rack's), and where it is.

    ``spoken``: programs that use it might print it; nothing on a host ever has the key by which we log in.
    """

    field: str
    host: str
    file: Path | None = None
    variable: str | None = None
    spoken: bool = True

    @property
    def place(self) -> str:
        """Return where the secret is, for people."""
        return f"variable {self.variable}" if self.variable is not None else f"file {self.file}"


@dataclass(frozen=True, slots=True)
class Known:
    """Values with what they are called, and the references whose value is not known, with the reason."""

    values: Mapping[str, str]
    unknown: tuple[tuple[Reference, str], ...] = ()

    def hides(self, host: str) -> str:
        """Return why what this host prints at length must not be packed; empty: it may."""
        for reference, why in self.unknown:
            if reference.host in ("", host):
                return f"{reference.field} is not known here ({reference.place}: {why})"
        return ""


def references(rack: Spec) -> Iterator[Reference]:
    """Yield every secret that a rack names."""
    yield from _walk(rack, "", "")


def _walk(value: Any, field: str, host: str) -> Iterator[Reference]:
    if isinstance(value, Secret):
        yield Reference(field, host, value.file, value.env)
    elif isinstance(value, Spec):
        for name, info in type(value).model_fields.items():
            inner, path = getattr(value, name, None), f"{field}.{name}" if field else name
            ours = isinstance(value, Ssh)
            if isinstance(inner, Path) and (ours or _is_secret_file(info.annotation, info.metadata)):
                yield Reference(path, host, inner, spoken=not ours)
            else:
                yield from _walk(inner, path, host)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _walk(each, f"{field}.{key}", host)
    elif isinstance(value, tuple | list):
        for index, each in enumerate(value):
            name = str(getattr(each, "name", None) or getattr(each, "id", None) or index)
            own = name if field == "hosts" else host
            yield from _walk(each, f"{field}.{name}", own)


def _is_secret_file(annotation: Any, metadata: list[Any]) -> bool:
    if any(each is _SECRET_FILE for each in metadata):
        return True
    if get_origin(annotation) is Annotated:
        return _SECRET_FILE in get_args(annotation)
    return any(_is_secret_file(each, []) for each in get_args(annotation))


def known(loaded: LoadedRack, environment: Mapping[str, str]) -> Known:
    """Return the values of all secrets of a rack, as far as they can be read here.

    Also those of variables that are named like secrets, and what command lines of the rack give to flags that
    are: neither belongs into what is packed.
    """
    values: dict[str, str] = {}
    unknown = []
    for reference in references(loaded.rack):
        try:
            found = list(_values(reference, loaded.folder, environment))
        except OSError as error:
            if reference.spoken:
                unknown.append((reference, error.strerror or str(error)))
            continue
        values |= dict.fromkeys(found, reference.field)
        if not found and reference.spoken:
            unknown.append((reference, f"it is shorter than {SHORTEST} characters, or not set"))
    for name, value in environment.items():
        if named_like_a_secret(name) and len(value) >= _OWN_VARIABLES:
            values.setdefault(value, f"variable {name}")
    for words in _command_lines(loaded.rack):
        values |= {value: "argument" for value in arguments(words) if value not in values}
    return Known({value: name for value, name in values.items() if len(value) >= SHORTEST}, tuple(unknown))


def _values(reference: Reference, folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a secret; of a private key all but its frame."""
    if reference.variable is not None:
        text = environment.get(reference.variable, "")
    else:
        with (folder / (reference.file or Path()).expanduser()).open("rb") as file:
            text = file.read(_LONGEST_FILE).decode("utf-8", "surrogateescape")
    for line in text.splitlines():
        value = line.strip()
        if len(value) >= SHORTEST and not value.startswith("-----"):
            yield value


def _command_lines(value: Any) -> Iterator[tuple[str, ...]]:
    if isinstance(value, Spec):
        for name in type(value).model_fields:
            yield from _command_lines(getattr(value, name))
    elif isinstance(value, tuple):
        if value and all(isinstance(each, str) for each in value):
            yield value
        for each in value:
            yield from _command_lines(each)
