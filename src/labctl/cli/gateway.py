"""``labctl gateway``: run the gateway, look at it, and make keys for it."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labctl import wiring
from labctl.cli import asking, printer, spans
from labctl.cli.asking import number, text
from labctl.domain.problem import ExitCode, LabctlError

if TYPE_CHECKING:
    from labctl.adapters.gateway_door import Door
    from labctl.inventory import Gateway, LoadedRack

_PREFIX = "sk-labctl-"


@click.group()
def gateway() -> None:
    """Run the gateway, one address for all models that wakes their hosts, or look at it."""


@gateway.command(
    short_help="Run it in the foreground, as its unit does.",
    epilog="""\b
Examples:
  labctl gateway run /etc/labctl/gateway/table.json
  labctl gateway run inventory/rack.py             as it would run on its host
  systemctl status 'labctl-gateway@*'              where labctl apply has installed it
\b
Exit codes:
  0  it was stopped
  2  bad input, or it cannot listen there
""",
)
@click.argument("table", required=False, type=click.Path())
def run(table: str | None) -> None:
    """Run the gateway of TABLE until it is stopped (Ctrl-C, SIGTERM); twice, and it drops what it serves.

    TABLE is the table that labctl apply writes to the gateway's host, or a rack file, of which a table is
    made here first. Several may run at a time: they share the port.
    """
    path = Path(table) if table and table.endswith(".json") else _rendered(wiring.find_inventory(table))
    argv = (sys.executable, "-I", "-OO", "-m", "labctl.cli.gateway_run", str(path))
    # Another Python, since this one holds the whole command line, and docstrings, for as long as it runs.
    os.execv(argv[0], argv)


def _rendered(rack: Path) -> Path:
    """Write the table of a rack file and what it names to a private folder; return the table's path.

    Raises:
        LabctlError: the rack has no gateway, or a secret cannot be read.
    """
    from labctl.inventory import load_rack
    from labctl.render import gateway as wanted
    from labctl.render.gateway_table import Places, dropped

    loaded = load_rack(rack)
    url = loaded.rack.controller is not None and loaded.rack.controller.store_url_file is not None
    where = Places(
        store="" if url else str(wiring.state_home() / "store.db"),
        controller=str(wiring.controller_socket()),
        store_url="store-url" if url else "",
    )
    parts = wanted.ready(loaded.rack, where, loaded.folder, wiring.environment(), loaded.place)
    for reason in dropped(loaded.rack):
        printer.err(f"not served: {reason}")
    if where.store and not Path(where.store).exists():
        printer.err(
            f"note: nothing is woken until a controller has made {where.store}: labctl controller run"
        )
    folder = wiring.private_dir(wiring.state_home())
    for part in ("gateway", loaded.rack.name):
        folder = wiring.private_dir(folder / part)
    files = {**parts.contents, "table.json": parts.table.encode()}
    for old in folder.iterdir():
        if old.name not in files and not old.name.startswith("."):
            # It may hold a secret that the rack file names no more.
            old.unlink(missing_ok=True)
    for name, content in files.items():
        _write(folder / name, content)
    return folder / "table.json"


def _write(path: Path, content: bytes) -> None:
    """Write a file whole, for this user alone.

    Raises:
        LabctlError: it cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise LabctlError(f"{path}: cannot be written: {error.strerror}") from None


@gateway.command(
    short_help="Show its models, and how soon each answers.",
    epilog="""\b
Examples:
  labctl gateway status
  labctl gateway status --url https://models.lan:8000
  labctl gateway status --json | jq '.models[] | {id, state: .labctl.state}'
\b
Exit codes:
  0  it serves
  1  it cannot use the store, or drains
  2  bad input, or it refuses
  3  it cannot be reached
\b
The key is $LABCTL_GATEWAY_KEY, else the first one that the rack file names and that can be read here.
""",
)
@asking.inventory_option
@click.option("--url", metavar="URL", help="Where it is reached; default: as the rack file says.")
@asking.json_option
def status(inventory: str | None, *, url: str | None, as_json: bool) -> int:
    """Show how the gateway sees the rack: hosts, models, and how soon each answers. It wakes nothing."""
    said = _door(inventory, url).status()
    wrong = _wrong(said)
    if as_json:
        printer.emit_json({**said, "wrong": wrong})
        return ExitCode.HOST_FAILED if wrong else ExitCode.OK
    seen = number(said.get("seen_s"))
    looked = "has not looked at the store yet" if seen is None else f"looked {spans.shown(seen)} ago"
    printer.out(f"gateway of {text(said.get('rack'))}: {looked}")
    for line in wrong:
        printer.out(printer.style(line, "red"))
    if paused := text(said.get("paused")):
        printer.out(printer.style(f"the rack is paused: {paused}", "yellow"))
    printer.table(
        ("model", "state", "expected", "hosts"), [_model(one) for one in asking.objects(said.get("models"))]
    )
    printer.table(
        ("host", "mode", "expected", "why"), [_host(one) for one in asking.objects(said.get("hosts"))]
    )
    return ExitCode.HOST_FAILED if wrong else ExitCode.OK


def _wrong(said: Mapping[str, Any]) -> list[str]:
    wrong = []
    if trouble := text(said.get("trouble")):
        wrong.append(f"its store cannot be used, so nothing is woken: {trouble}")
    if said.get("draining") is True:
        wrong.append("it was told to stop, and serves what it has to its end")
    return wrong


def _soon(seconds: object) -> str:
    expected = number(seconds)
    return "" if expected is None else "now" if expected == 0 else spans.shown(expected)


def _model(one: Mapping[str, Any]) -> tuple[str, ...]:
    now = one.get("labctl")
    labctl: Mapping[str, Any] = now if isinstance(now, dict) else {}
    hosts = labctl.get("hosts")
    names = ", ".join(map(str, hosts)) if isinstance(hosts, list) else ""
    return text(one.get("id")), text(labctl.get("state")), _soon(labctl.get("expected_s")), names


def _host(one: Mapping[str, Any]) -> tuple[str, ...]:
    why = text(one.get("because"))
    if refused := text(one.get("refused")):
        why = f"must not be woken: {refused}"
    return text(one.get("name")), text(one.get("mode")), _soon(one.get("expected_s")), why


def _door(inventory: str | None, url: str | None) -> Door:
    """Return the way to the gateway: the one of the URL, else that of the rack file.

    Raises:
        LabctlError: the rack has none, or nobody can reach it from here.
    """
    if url is not None and inventory is None:
        from labctl.adapters.gateway_door import Door

        return Door(_bare(url), wiring.gateway_key())
    from labctl.inventory import load_rack

    return door_of(load_rack(wiring.find_inventory(inventory)), url)


def door_of(loaded: LoadedRack, url: str | None = None) -> Door:
    """Return the way to a rack's gateway; ``url`` says where it is reached, if not as the rack file has it.

    Raises:
        LabctlError: the rack has none, or nobody can reach it from here.
    """
    from labctl.adapters.gateway_door import Door

    key = wiring.gateway_key()
    stated = loaded.rack.gateway
    if stated is None:
        raise LabctlError(
            "this rack has no gateway", hint="add gateway=Gateway(host=...) to the rack, or give --url"
        )
    trusted = None if stated.certificate is None else loaded.folder / stated.certificate.expanduser()
    address, hint = _address(loaded, stated)
    return Door(_bare(url) if url else address, key or _own_key(loaded, stated), trusted, hint)


def _bare(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise LabctlError(f"--url {url}: is no address", hint="write it as http://HOST:PORT")
    return url.rstrip("/").removesuffix("/v1")


def _address(loaded: LoadedRack, stated: Gateway) -> tuple[str, str]:
    """Return where the gateway is reached from here, and what to do when it is not."""
    from labctl.inventory.endpoints import reached

    scheme = "https" if stated.certificate is not None else "http"
    address = reached(loaded.rack.host(stated.host), stated.listen, None)
    hint = f"on {stated.host}: systemctl status 'labctl-gateway@*'"
    if address is None:
        address = stated.listen
        there = loaded.rack.host(stated.host)
        hint = (
            f"it listens on {address} of {stated.host} only; run this there, or beside ssh -N "
            f"-L {stated.port}:{address}:{stated.port} {loaded.rack.ssh_for(there).user}@{there.address}"
        )
    literal = f"[{address}]" if ":" in address else address
    return f"{scheme}://{literal}:{stated.port}", hint


def _own_key(loaded: LoadedRack, stated: Gateway) -> str:
    """Return the first key of the rack that may see the status and can be read here; empty: there is none."""
    for one in stated.keys:
        if one.secret is not None and one.sees:
            try:
                return wiring.secret(one.secret, loaded.folder)
            except LabctlError:
                continue
    return ""


@gateway.group()
def keys() -> None:
    """Make keys for clients of the gateway."""


@keys.command(
    short_help="Make a new key, and say what to write into the rack file.",
    epilog="""\b
Examples:
  labctl gateway keys new ann
  labctl gateway keys new ann --json | jq -r .key
""",
)
@click.argument("name")
@asking.json_option
def new(name: str, *, as_json: bool) -> None:
    """Make a key for NAME. It is shown once, and kept nowhere: the rack file holds its hash alone."""
    from labctl.inventory import GatewayKey

    key = _PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode()).hexdigest()
    try:
        GatewayKey(name=name, sha256=digest)
    except ValueError:
        raise LabctlError(
            f"{name!r} cannot be the name of a key", hint="use a-z, 0-9, '-' and '_', at most 63 characters"
        ) from None
    line = f'GatewayKey(name="{name}", sha256="{digest}")'
    if as_json:
        printer.emit_json({"name": name, "key": key, "sha256": digest, "inventory": line})
        return
    printer.out(f"the key, shown this once: {key}")
    printer.out(f"into Gateway(keys=[...]):  {line},")
