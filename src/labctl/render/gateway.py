"""What the gateway's host gets: the table, the secrets that it names, a socket, and a unit for each process.

An instance is named after everything that it runs on: the build of labctl, the table, the secrets, the unit.
So whatever changes, there are other instances to start, and the old ones go when those serve; nothing that
runs ever changes under its feet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path, PurePosixPath

from labctl import render
from labctl.domain.problem import LabctlError, Problem
from labctl.inventory import Gateway, GatewayKey, Host, Rack, Secret, controlling
from labctl.inventory.explain import field_text
from labctl.inventory.gatewaying import FOLDER, TABLE, USER
from labctl.inventory.secrets import value_of
from labctl.render import beside as reading
from labctl.render import gateway_table as tables
from labctl.render.controller import folder_for
from labctl.render.credentials import FOLDER as SECRETS
from labctl.render.units import UNIT_DIR

SOCKET = "labctl-gateway.socket"
TEMPLATE = "labctl-gateway@.service"
INSTANCES = "labctl-gateway@*.service"
_AT = ("gateway",)
_STORE_URL = "store-url"
_DATABASES = (b"postgresql+psycopg://", b"postgresql://", b"postgres://")
_WHO = "the gateway"
Where = tuple[str | int, ...]
Place = Callable[[Where], tuple[str, int | None]]
_MIB = 1024 * 1024
# Beside bodies that are held: the program, and what each connection may have under way.
_ROOM_MIB = 512


@dataclass(frozen=True, slots=True)
class Beside:
    """A file beside the table: what it is called there, where it comes from, and the field that says so."""

    name: str
    source: Secret | Path
    hidden: bool
    at: Where

    @property
    def dest(self) -> str:
        """Return where it lies on the gateway's host."""
        return f"{FOLDER}/{self.name}"


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything that the gateway of a rack runs on, with the secrets read.

    ``beside`` are the files beside the table, with their content by name in ``contents``.
    """

    table: str
    beside: tuple[Beside, ...]
    contents: Mapping[str, bytes]


def runs_on(rack: Rack, host: Host) -> bool:
    """Return whether the gateway runs on that host."""
    return rack.gateway is not None and rack.gateway.host == host.name


def places(rack: Rack) -> tables.Places:
    """Return where the gateway finds store and controller on its host."""
    stated = rack.controller
    if stated is None:
        raise LabctlError("the gateway needs a controller", hint="add controller=Controller(host=...)")
    together = rack.gateway is not None and rack.gateway.host == stated.host
    return tables.Places(
        store=controlling.STORE if stated.store_url_file is None else "",
        controller=controlling.SOCKET if together else "",
        store_url="" if stated.store_url_file is None else _STORE_URL,
    )


def beside(rack: Rack) -> tuple[Beside, ...]:
    """Return the files that the table of a rack with a gateway names."""
    gateway = _gateway(rack)
    found = [
        Beside(tables.key_file(line.name), line.endpoint.key, hidden=True, at=_at_service(rack, line))
        for line in tables.lines_of(rack)
        if line.endpoint.key is not None
    ]
    for place, one in enumerate(gateway.outside):
        if one.api_key is not None:
            at: Where = (*_AT, "outside", place, "api_key")
            found.append(Beside(tables.key_file(one.name), one.api_key, hidden=True, at=at))
        if one.ca_file is not None:
            at = (*_AT, "outside", place, "ca_file")
            found.append(Beside(tables.ca_file(one.name), one.ca_file, hidden=False, at=at))
    if gateway.certificate is not None:
        found.append(Beside(tables.CERTIFICATE, gateway.certificate, hidden=False, at=(*_AT, "certificate")))
    if gateway.private_key is not None:
        found.append(Beside(tables.PRIVATE_KEY, gateway.private_key, hidden=True, at=(*_AT, "private_key")))
    if rack.controller is not None and rack.controller.store_url_file is not None:
        url = Path(rack.controller.store_url_file)
        found.append(Beside(_STORE_URL, url, hidden=True, at=("controller", "store_url_file")))
    return tuple(found)


def _at_service(rack: Rack, line: tables.Line) -> Where:
    host = line.endpoint.host
    place = next(at for at, one in enumerate(host.services) if one.name == line.endpoint.service.name)
    return "hosts", rack.hosts.index(host), "services", place, "api_key"


def ready(
    rack: Rack,
    where: tables.Places,
    folder: Path,
    environment: Mapping[str, str],
    place: Place = lambda _: ("", None),
) -> Ready:
    """Read every secret of a rack's gateway and return all that it runs on.

    Args:
        rack: the rack.
        where: where store and controller are for it.
        folder: the rack file's folder, to which paths of the inventory are relative.
        environment: the variables of the process that runs labctl.
        place: tells file and line of a field, as ``LoadedRack.place`` does.

    Raises:
        LabctlError: secrets or files cannot be read, others may read them, or the gateway could not begin
            with them; says all of it at once.
    """
    gateway, files = _gateway(rack), beside(rack)
    faults = _Faults(rack, place)
    hashes: dict[str, str] = {}
    contents: dict[str, bytes] = {}
    for number, key in enumerate(gateway.keys):
        at: Where = (*_AT, "keys", number)
        with faults.at((*at, "secret") if key.secret is not None else at):
            found = _hash_of(key, folder, environment)
            if twin := next((name for name, one in hashes.items() if one == found), ""):
                raise LabctlError(f"is the same key as that of {twin}", hint="give each a key of its own")
            hashes[key.name] = found
    for one in files:
        with faults.at(one.at):
            contents[one.name] = _content(one, folder, environment)
    if not faults.problems and tables.CERTIFICATE in contents:
        with faults.at((*_AT, "certificate")):
            _fit(folder, gateway)
    if faults.problems:
        raise LabctlError(faults.problems)
    return Ready(tables.document(tables.table_of(rack, hashes, where)), files, contents)


class _Faults:
    """What is wrong with files and secrets, all of it, each with the field that names it."""

    def __init__(self, rack: Rack, place: Place) -> None:
        self._rack = rack
        self._place = place
        self.problems: list[Problem] = []

    @contextmanager
    def at(self, path: Where) -> Iterator[None]:
        """Keep a ``LabctlError`` that is raised within, as one of the field at ``path``."""
        try:
            yield
        except LabctlError as error:
            file, line = self._place(path)
            host = self._rack.hosts[path[1]].name if path[0] == "hosts" and isinstance(path[1], int) else ""
            field = field_text(path[2:] if host else path)
            self.problems += (
                Problem(one.reason, one.hint, file, line, host, field) for one in error.problems
            )


def _hash_of(key: GatewayKey, folder: Path, environment: Mapping[str, str]) -> str:
    if key.secret is None:
        return key.sha256 or ""
    return hashlib.sha256(value_of(key.secret, folder, environment).encode()).hexdigest()


def _gateway(rack: Rack) -> Gateway:
    if rack.gateway is None:
        raise LabctlError("this rack has no gateway", hint="add gateway=Gateway(host=...) to the rack")
    return rack.gateway


def _content(one: Beside, folder: Path, environment: Mapping[str, str]) -> bytes:
    if isinstance(one.source, Secret):
        return f"{value_of(one.source, folder, environment)}\n".encode()
    path = folder / one.source.expanduser()
    data = reading.content(path, _WHO, hidden=one.hidden)
    if one.name == _STORE_URL and not data.strip().startswith(_DATABASES):
        # Not with its words: it is a secret.
        raise LabctlError(
            f"{path}: holds no address of a PostgreSQL database",
            hint="its form is postgresql+psycopg://USER:PASSWORD@HOST/NAME",
        )
    if one.name in (tables.CERTIFICATE, tables.PRIVATE_KEY) or one.name.endswith(".ca"):
        reading.pem(path, data, key=one.name == tables.PRIVATE_KEY)
    return data


def _fit(folder: Path, gateway: Gateway) -> None:
    """Prove that the gateway could serve with its certificate; raise ``LabctlError``."""
    certificate, key = ((one or Path()).expanduser() for one in (gateway.certificate, gateway.private_key))
    reading.pair(folder / certificate, folder / key, _WHO)


# --- units ------------------------------------------------------------------------------------------------


def unit(rack: Rack, build: str) -> str:
    """Return the unit of one process; ``build`` is the digest of labctl's environment."""
    gateway = _gateway(rack)
    here = places(rack)
    target = folder_for(build)
    return render.text(
        "gateway@.service.j2",
        socket=SOCKET,
        python=f"{target}/bin/python",
        cache=f"{target}/{CACHE}",
        table=TABLE,
        user=USER,
        store_group=controlling.STORE_GROUP if here.store else "",
        store_folder=str(PurePosixPath(here.store).parent) if here.store else "",
        controller_folder=controlling.FOLDER,
        secrets_folder=SECRETS,
        drain_s=round(gateway.drain.total_seconds()),
        memory_mib=_ROOM_MIB + 2 * -(-gateway.limits.held // _MIB),
        # As many upstream connections as clients, and some to spare.
        files=2 * gateway.limits.clients + 1024,
    )


CACHE = "pyc"
"""Below labctl's environment: the compiled modules that the gateway loads."""


def instances(rack: Rack, build: str, parts: Ready) -> tuple[str, ...]:
    """Return the units that shall run, one for each process, named after all that they run on."""
    digest = hashlib.sha256()
    names = sorted(parts.contents)
    for data in (unit(rack, build).encode(), parts.table.encode(), *(parts.contents[name] for name in names)):
        digest.update(hashlib.sha256(data).digest())
    name = digest.hexdigest()[:8]
    return tuple(f"labctl-gateway@{name}-{one + 1}.service" for one in range(_gateway(rack).processes))


def socket(rack: Rack, first: str) -> str:
    """Return the unit of the listening socket; ``first`` is the instance that it starts if none runs."""
    return render.text("gateway.socket.j2", listen=listens(rack), service=first)


def listens(rack: Rack) -> str:
    """Return where it listens, as systemd writes it."""
    gateway = _gateway(rack)
    literal = f"[{gateway.listen}]" if ":" in gateway.listen else gateway.listen
    return f"{literal}:{gateway.port}"


def held(rack: Rack) -> str:
    """Return where it listens, as ss writes it: all addresses of both families are a star."""
    listen = _gateway(rack).listen
    return f"*:{_gateway(rack).port}" if ip_address(listen) == ip_address("::") else listens(rack)


SOCKET_PATH = f"{UNIT_DIR}/{SOCKET}"
TEMPLATE_PATH = f"{UNIT_DIR}/{TEMPLATE}"
