"""Say where a request may go, by its method, its path and the model that it names.

The paths below generate: a POST to one of them (or a websocket to /v1/realtime) is for a model, and may wake
its host. Whatever is below /hosts/NAME/ is for an upstream itself: NAME is an upstream's, or a host's whose
upstreams are looked through in the table's order. Only what an upstream ``passes`` gets there, and only what
it ``wakes`` may wake its host. A path is compared as it was sent: one that could mean another path to
somebody behind us (a dot segment, an empty one, a percent sign) matches nothing.

A model's upstreams outside of the rack that are its last resort are kept apart from the others: they are
asked when no host can serve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from labctl.domain.gateway.table import Host, Key, Model, Served, Table, Upstream

GENERATING = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/rerank",
        "/rerank",
        "/v1/reranking",
        "/v1/messages",
        "/v1/messages/count_tokens",
    }
)
GENERATING_BELOW = ("/v1/audio/", "/v1/images/")
REALTIME = "/v1/realtime"
HOSTS = "/hosts/"

Door = Literal["model", "realtime", "host"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One upstream that serves a model; ``host`` is None outside of the rack."""

    served: Served
    upstream: Upstream
    host: Host | None


@dataclass(frozen=True, slots=True)
class Route:
    """A model, who serves it, and who is asked when none of those can, best first."""

    model: Model
    choices: tuple[Choice, ...]
    last: tuple[Choice, ...]


def plain(path: str) -> bool:
    """Return whether a path means the same to everybody."""
    return "%" not in path and "\\" not in path and "//" not in path and "/." not in path


def door(method: str, path: str, *, upgrade: bool) -> Door | None:
    """Return what a request asks for, or None for whatever is not for a model or an upstream."""
    if path.startswith(HOSTS):
        return "host"
    if upgrade:
        return "realtime" if method == "GET" and path == REALTIME else None
    if method != "POST":
        return None
    below = path.startswith(GENERATING_BELOW) and plain(path)
    return "model" if below or path in GENERATING else None


def routes_of(table: Table) -> dict[str, Route]:
    """Return the route of each model, by its id and by its aliases; an id goes before an alias."""
    upstreams = {upstream.name: upstream for upstream in table.upstreams}
    hosts = {host.name: host for host in table.hosts}
    routes: dict[str, Route] = {}
    for model in table.models:
        choices = {
            served.upstream: Choice(served, upstream, hosts.get(upstream.host))
            for served in table.served
            if served.model == model.id and (upstream := upstreams[served.upstream])
        }
        last = tuple(choices.pop(name) for name in model.last_resort if name in choices)
        routes[model.id] = Route(model, tuple(choices.values()), last)
    for model in table.models:
        for alias in model.aliases:
            routes.setdefault(alias, routes[model.id])
    return routes


def below_hosts(table: Table) -> dict[str, tuple[Upstream, ...]]:
    """Return the upstreams by the names that they have below /hosts/: their own, and their host's."""
    found: dict[str, tuple[Upstream, ...]] = {}
    for upstream in table.upstreams:
        if upstream.host:
            found[upstream.host] = (*found.get(upstream.host, ()), upstream)
    for upstream in table.upstreams:
        if upstream.host and upstream.name not in found:
            found[upstream.name] = (upstream,)
    return found


def split(path: str) -> tuple[str, str]:
    """Return NAME and the rest, with its slash, of a path below /hosts/."""
    name, slash, rest = path.removeprefix(HOSTS).partition("/")
    return name, slash + rest


def let_through(upstreams: Sequence[Upstream], method: str, path: str) -> Upstream | None:
    """Return the first upstream that passes a method and path."""
    return next((upstream for upstream in upstreams if matches(upstream.passes, method, path)), None)


def matches(rules: Sequence[str], method: str, path: str) -> bool:
    """Return whether one of the rules, such as "POST /completion" or "GET /slots/*", covers a request."""
    if not plain(path):
        return False
    for rule in rules:
        its_method, _, its_path = rule.partition(" ")
        if its_method == method and (
            path.startswith(its_path[:-1]) if its_path.endswith("*") else path == its_path
        ):
            return True
    return False


def names_near(routes: Mapping[str, Route], asked: str, key: Key, most: int = 3) -> list[str]:
    """Return the names of models that a key may see which are most like one that nobody serves."""
    models = {name: route.model for name, route in routes.items() if route.model.listed}
    seen = [name for name, model in models.items() if not key.models or model.id in key.models]
    return get_close_matches(asked[:200], seen, most)
