"""``labctl clients``: what programs need to use the rack's models, in each program's own format.

Only the snippet goes to stdout, so ``labctl clients opencode > opencode.json`` works; what a person must
know beside it goes to stderr. Nothing is contacted, and no key is read: a snippet names the variable that
holds it.

``--json`` prints one document; fields may be added, and those here keep their names and meaning::

    {"client": "opencode", "language": "json", "file": "~/.config/opencode/opencode.json",
     "content": "...",                       the snippet
     "base_url": "http://10.0.0.2:8080/v1", "endpoint": "hub/swap", "tunnel": [],
     "key": {"env": "LABCTL_API_KEY", "needed": true, "file": "keys/swap", "from_env": null},
     "models": [{"id": "coder", "aliases": [], "kind": "chat", "host": "rig", "context": 32768,
                 "first_byte_s": 800}],
     "timeouts": {"first_byte_s": 800, "whole_s": 1400},
     "notes": ["..."]}

Without a client it is ``{"clients": [{"name", "what", "language", "file"}], "endpoints": [{"endpoint",
"base_url", "tunnel", "best", "models"}]}``.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labctl import wiring
from labctl.cli import printer
from labctl.domain.problem import LabctlError

if TYPE_CHECKING:
    from labctl.inventory import Rack
    from labctl.inventory.endpoints import Served
    from labctl.render.clients import Client
    from labctl.render.clients.target import Target

_HELP = """\b
Examples:
  labctl clients                               every client, and every endpoint of the rack
  labctl clients opencode > opencode.json      a whole configuration file
  labctl clients curl --model coder | sh       ask the model, now
  labctl clients openai-python --host rig      of this host, not of the rack's best endpoint
  labctl clients zed --json | jq -r .notes[]
"""


@click.command(short_help="Print what a client needs to use the models.", epilog=_HELP)
@click.argument("client", required=False)
@click.argument("inventory", required=False, type=click.Path())
@click.option("--model", metavar="MODEL", help="Only this model, by its id or an alias.")
@click.option("--host", metavar="HOST", help="An endpoint of this host; default: the rack's best.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def clients(
    client: str | None, inventory: str | None, *, model: str | None, host: str | None, as_json: bool
) -> None:
    """Print base URL, key reference, models and timeouts for CLIENT, in its own format.

    The best endpoint is the rack's gateway if the network reaches it, then a llama-swap with peers on an
    always-on host, then a llama-swap or an engine that serves the model. The timeouts are what a first answer
    needs when the host sleeps and nothing is loaded. Without CLIENT, lists the clients and the endpoints.
    """
    from labctl.inventory import load_rack
    from labctl.render.clients import CLIENTS
    from labctl.render.clients import client as find
    from labctl.render.clients.target import choose

    if client is not None and inventory is None and client not in CLIENTS and _is_path(client):
        client, inventory = None, client
    wanted = None if client is None else find(client)
    loaded = load_rack(wiring.find_inventory(inventory))
    if wanted is None:
        _overview(loaded.rack, model, host, as_json=as_json)
        return
    target = choose(loaded.rack, model=model, host=host)
    document = _document(wanted, target, loaded.folder)
    if as_json:
        printer.emit_json(document)
        return
    # Not by way of the printer's table or wrapping: it is a file's content.
    printer.out(document["content"].rstrip("\n"))
    if wanted.file:
        printer.err(f"note: for {wanted.file}")
    for note in document["notes"]:
        printer.err(f"note: {note}")


def _is_path(word: str) -> bool:
    return "/" in word or word.endswith(".py") or Path(word).exists()


def _document(wanted: Client, target: Target, folder: Path) -> dict[str, Any]:
    from labctl.render.clients import render
    from labctl.render.clients.target import KEY

    content = render(wanted, target)
    usable = target.only(wanted.kinds)
    secret = target.key
    return {
        "client": wanted.name,
        "language": wanted.language,
        "file": wanted.file,
        "content": content,
        "base_url": target.base_url,
        "endpoint": target.name,
        "tunnel": list(target.tunnel),
        "key": {
            "env": KEY,
            "needed": target.asks_for_key,
            "file": str(secret.file) if secret is not None and secret.file is not None else None,
            "from_env": secret.env if secret is not None else None,
        },
        "models": [_served(usable, served) for served in usable.models],
        "timeouts": {"first_byte_s": usable.first_byte_s, "whole_s": usable.whole_s},
        "notes": [*usable.notes(folder), *wanted.notes(usable)],
    }


def _served(target: Target, served: Served) -> dict[str, Any]:
    return {
        "id": served.id,
        "aliases": list(served.model.aliases),
        "kind": served.kind,
        "host": served.host.name,
        "context": served.context,
        "first_byte_s": target.cold(served).first_byte_s,
    }


def _overview(rack: Rack, model: str | None, host: str | None, *, as_json: bool) -> None:
    from labctl.render.clients import CLIENTS
    from labctl.render.clients.target import choose

    try:
        best = choose(rack, model=model, host=host).name
    except LabctlError:
        if model is not None or host is not None:
            raise
        best = ""
    found = _found(rack, None if model is None else rack.model(model).id, host)
    if as_json:
        printer.emit_json(
            {
                "clients": [
                    {"name": c.name, "what": c.what, "language": c.language, "file": c.file}
                    for c in CLIENTS.values()
                ],
                "endpoints": [_endpoint(one, best=one.name == best) for one in found],
            }
        )
        return
    printer.table(
        ("client", "what", "for"),
        [(c.name, c.what, c.file or f"a {c.language} program") for c in CLIENTS.values()],
    )
    printer.out()
    if not found:
        printer.out("This rack has no endpoint: add a LlamaServer(...) or a LlamaSwap(...) to a host.")
        return
    printer.table(
        ("endpoint", "base url", "best", "key", "models"),
        [
            (
                one.name,
                one.base_url + (" by ssh -L" if one.tunnel else ""),
                "yes" if one.name == best else "",
                "yes" if one.asks_for_key else "no",
                ", ".join(served.id for served in one.models),
            )
            for one in found
        ],
    )
    for one in found:
        if one.tunnel:
            printer.err(f"note: {one.name} is reached by: {shlex.join(one.tunnel)}")


def _found(rack: Rack, model: str | None, host: str | None) -> list[Target]:
    """Return the endpoints of a host that have a model, the gateway first; None is any."""
    from labctl.inventory.endpoints import endpoints
    from labctl.render.clients.target import gateway_target, target

    gateway = gateway_target(rack, model)
    found = [gateway] if gateway is not None and gateway.serves(model, host) else []
    return found + [
        target(rack, endpoint)
        for endpoint in endpoints(rack)
        if host in (None, endpoint.host.name)
        and (model is None or model in [served.id for served in endpoint.models()])
    ]


def _endpoint(one: Target, *, best: bool) -> dict[str, Any]:
    return {
        "endpoint": one.name,
        "base_url": one.base_url,
        "tunnel": list(one.tunnel),
        "best": best,
        "models": [_served(one, served) for served in one.models],
    }
