"""What the controller's host gets: labctl itself, the rack as data, the controller's key, and a unit.

The controller knows the rack as JSON, not as Python: what it reads cannot run, and it names no file that is
not there. Of all secrets it gets those that switch power and the key that opens the agent's door, never the
operator's. Its user owns its store and nothing else; what it may read lies in one folder, for root to change.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import labctl
from labctl import content, render
from labctl.domain.problem import LabctlError
from labctl.inventory import Host, Rack
from labctl.inventory.controlling import (
    FOLDER,
    HOME,
    KEY,
    KNOWN_HOSTS,
    RACK,
    STORE_FOLDER,
    STORE_URL,
    USER,
    python_of,
)

UNIT = "labctl-controller.service"
PING = "/etc/sysctl.d/60-labctl-controller.conf"
SHELF = "/opt/labctl/labctl"
REQUIREMENTS = "requirements.txt"
_SECRETS = ("password_file", "secureon_file", "on_file", "off_file")
_PUBLIC = ("ca_file",)
_SKIPPED = {"__pycache__"}
_OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class Copied:
    """A file that goes to the controller's host: from the rack file's folder, to its folder there."""

    source: Path
    name: str
    secret: bool

    @property
    def dest(self) -> str:
        """Return where it lies on the controller's host."""
        return f"{FOLDER}/{self.name}"

    @property
    def owner(self) -> str:
        """Return whose it is: a secret that anybody but its owner may read is used by nobody."""
        return USER if self.secret else "root"

    @property
    def mode(self) -> str:
        """Return who may read it."""
        return "400" if self.secret else "640"


def runs_on(rack: Rack, host: Host) -> bool:
    """Return whether the controller runs on that host."""
    return rack.controller is not None and rack.controller.host == host.name


def copied(rack: Rack) -> tuple[Copied, ...]:
    """Return the files that the controller reads beside the rack; the pinned host keys are not among them.

    Raises:
        LabctlError: nothing says where the controller's private key is.
    """
    if rack.controller_key is None or rack.controller_key.suffix != ".pub":
        raise LabctlError(
            "the controller needs a key of its own",
            hint='ssh-keygen -t ed25519 -N "" -f keys/controller, then controller_key="keys/controller.pub"',
        )
    key = Copied(rack.controller_key.with_suffix(""), KEY, secret=True)
    assert rack.controller is not None
    url = rack.controller.store_url_file
    store = () if url is None else (Copied(Path(url), STORE_URL, secret=True),)
    return (key, *store, *(one for host in rack.hosts for one in _of(host)))


def content_of(one: Copied, folder: Path) -> bytes:
    """Return what a file holds that goes to the controller's host; ``folder`` is the rack file's.

    Raises:
        LabctlError: it cannot be read, others may read the secret in it, or it is a key that nobody there
            could use.
    """
    path = folder / one.source.expanduser()
    key = one.name == KEY
    try:
        mode, data = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        how = f'ssh-keygen -t ed25519 -N "" -f {path}' if key else "write it, or take it out of the rack file"
        raise LabctlError(f"{path}: the controller needs it: {error.strerror}", hint=how) from None
    if one.secret and mode & _OTHERS:
        raise LabctlError(
            f"others may read the secret in {path} (mode {mode & 0o777:o})", hint=f"chmod 600 {path}"
        )
    if key and b"PRIVATE KEY-----" not in data:
        raise LabctlError(f"{path}: is no private key", hint="it lies beside the public one, without .pub")
    if key and _wants_passphrase(data):
        raise LabctlError(
            f"{path}: wants a passphrase, which nobody can type for the controller",
            hint=f'ssh-keygen -p -N "" -f {path}',
        )
    return data


def _wants_passphrase(key: bytes) -> bool:
    """Return whether a private key is encrypted (OpenSSH's PROTOCOL.key, or PEM)."""
    if b"ENCRYPTED" in key:
        return True
    body = b"".join(line for line in key.splitlines() if not line.startswith(b"-"))
    try:
        inside = base64.b64decode(body)
    except ValueError:
        return False
    magic = b"openssh-key-v1\0"
    return inside.startswith(magic) and not inside[len(magic) :].startswith(b"\0\0\0\x04none")


def read(rack: Rack) -> tuple[str, ...]:
    """Return every file that the controller reads, as its host has it."""
    return (RACK, f"{FOLDER}/{KNOWN_HOSTS}", *(one.dest for one in copied(rack)))


def _of(host: Host) -> Iterator[Copied]:
    for part in ("wake", "power"):
        spec = getattr(host, part)
        for field in (*_SECRETS, *_PUBLIC):
            source = getattr(spec, field, None)
            if source is not None:
                yield Copied(source, f"{host.name}.{part}.{field}", secret=field in _SECRETS)


def rack_json(rack: Rack) -> str:
    """Return the rack as the controller reads it: its own secrets by the names that they have there."""
    # Who may use the gateway and the web page, or is told of what, is no reason to start it anew.
    return f"{json.dumps(document(rack, without={'gateway', 'health', 'web'}), indent=1, sort_keys=True)}\n"


def document(rack: Rack, *, without: set[str]) -> dict[str, Any]:
    """Return the rack as data for the controller's host, without some of its fields."""
    document: dict[str, Any] = rack.model_dump(mode="json", exclude_defaults=True, exclude=without)
    for host, shown in zip(rack.hosts, document["hosts"], strict=True):
        for one in _of(host):
            _, part, field = one.name.split(".")
            shown[part][field] = one.name
            shown[part]["kind"] = getattr(host, part).kind
    _kinds(rack, document)
    document["controller_key"] = f"{KEY}.pub"
    return document


def _kinds(value: Any, shown: Any) -> None:
    """Put back what tells kinds apart: it is a default, and yet nobody could read the document without it."""
    if isinstance(shown, dict) and hasattr(type(value), "model_fields"):
        if "kind" in type(value).model_fields:
            shown["kind"] = value.kind
        for name, part in shown.items():
            _kinds(getattr(value, name, None), part)
    elif isinstance(shown, list) and isinstance(value, tuple):
        for one, part in zip(value, shown, strict=True):
            _kinds(one, part)


def bundle() -> bytes:
    """Return labctl itself, and what it needs by version and hash, as a tar; equal sources, equal bytes."""
    files = {f"src/labctl/{name}": data for name, data in _own_files()}
    files[REQUIREMENTS] = content.requirements().read_bytes()
    for name, folder in (("deploys", content.deploys_dir()), ("templates", content.templates_dir())):
        for path in _walk(folder):
            files[f"src/labctl/_content/{name}/{path.relative_to(folder)}"] = path.read_bytes()
    files["src/labctl/_content/inventory/rack.py"] = content.example_rack().read_bytes()
    files[f"src/labctl/_content/{content.REQUIREMENTS}"] = files[REQUIREMENTS]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(packed.getvalue(), 9, mtime=0)


def _own_files() -> Iterator[tuple[str, bytes]]:
    package = Path(labctl.__file__).parent
    for path in _walk(package):
        name = str(path.relative_to(package))
        if not name.startswith("_content/"):
            yield name, path.read_bytes()


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _SKIPPED.intersection(path.parts) and path.suffix != ".pyc":
            yield path


def digest(rack: Rack, packed: bytes) -> str:
    """Return what identifies the environment: everything that goes into it."""
    assert rack.controller is not None
    parts = [rack.controller.python, hashlib.sha256(packed).hexdigest()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def folder_for(digest: str) -> str:
    """Return where that build of labctl lies on the host."""
    return f"{SHELF}/{labctl.__version__}-{digest[:12]}"


def options(rack: Rack) -> tuple[str, ...]:
    """Return the options by which pip learns where packages come from."""
    assert rack.controller is not None
    if rack.controller.wheels is not None:
        return ("--no-index", "--find-links", rack.controller.wheels)
    return ("--index-url", rack.controller.index) if rack.controller.index is not None else ()


def ping() -> str:
    """Return the setting by which the controller's user may ping; its unit applies it at each start."""
    return render.text("ping.conf.j2")


def unit(rack: Rack, digest: str) -> str:
    """Return the controller's unit.

    ``digest`` is a mark, so that another labctl means one restart; so are the users who come to its socket,
    since it looks only at its start who they are.
    """
    assert rack.controller is not None
    guests = [name for name in ("gateway", "health", "web") if getattr(rack, name) is not None]
    return render.text(
        "controller.service.j2",
        mark=", ".join((f"build {digest[:12]}", *guests)),
        python=python_of(),
        rack=RACK,
        user=USER,
        home=PurePosixPath(HOME).name,
        store_folder=STORE_FOLDER,
        alone=not rack.controller.operators and not guests,
        watchdog_s=max(60, round(rack.controller.tick.total_seconds()) * 6),
    )


__all__ = ["FOLDER", "KNOWN_HOSTS", "PING", "RACK", "UNIT", "USER", "Copied", "bundle", "copied", "unit"]
