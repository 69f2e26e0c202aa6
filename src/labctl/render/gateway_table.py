"""The table that the gateway reads: hosts, services, models and keys of the rack, as it needs them.

All of it follows from the inventory. Which model is asked for where is ``inventory.upstreams``' answer, as
other people's gateways get it; here come the host that must be awake for it, and what may be asked of it at a
time. Where a llama-swap in front passes requests on, the host behind it is the one that must be awake, so
each host behind gets a line of its own. A front that may fall asleep itself is never taken: two hosts would
have to be awake for one request, and only one is kept so.

Times are generous: a first byte may take as long as unloading, loading and a long prompt do, a whole answer
two hours at least. Whoever knows better says it in the rack file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from json import dumps
from urllib.parse import urlsplit

from labctl.domain.gateway.table import (
    Host,
    Key,
    Kind,
    Limits,
    Model,
    Served,
    Table,
    Upstream,
    Waiting,
)
from labctl.domain.sleep.terms import HostPolicy
from labctl.inventory import Gateway, GatewayModel, LlamaServer, LlamaSwap, Ollama, Rack, Sglang, Vllm
from labctl.inventory import Host as RackHost
from labctl.inventory import Model as RackModel
from labctl.inventory import upstreams as reaching
from labctl.inventory.coldstart import PROMPT_S, UNLOAD_S, cold_start
from labctl.inventory.endpoints import Endpoint, address_from
from labctl.inventory.endpoints import Served as Serving
from labctl.inventory.gatewaying import GatewayHost
from labctl.inventory.services import Program, TabbyApi
from labctl.inventory.sleeping import policy_of
from labctl.inventory.watts import power_of

# What a llama-swap lets in for one model where nothing is said; more are refused with 429.
SWAP_AT_ONCE = 10
LEAST_FIRST_BYTE_S = 600.0
LEAST_WHOLE_S = 7200.0
# A request for a host that is awake waits for a place alone.
LEAST_WAIT_S = 120.0

MAKES = (
    "POST /completion",
    "POST /completions",
    "POST /infill",
    "POST /embedding",
    "POST /embeddings",
    "POST /rerank",
    "POST /reranking",
)
"""What of a llama-server's own makes tokens, and so may wake its host."""

# Not /slots, which shows what others ask, and nothing that changes how it is set.
COUNTS = (
    "POST /tokenize",
    "POST /detokenize",
    "POST /apply-template",
    "GET /props",
    "GET /health",
    "GET /metrics",
)


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie for the gateway: ``store`` and ``controller`` (its socket) may be empty.

    ``beside`` has the names of the files beside the table, by what they are for: ``upstream.NAME.key``,
    ``upstream.NAME.ca``, ``certificate``, ``private-key``, ``store-url``.
    """

    store: str
    controller: str
    store_url: str = ""


def document(table: Table) -> str:
    """Return a table as the text of its file."""
    return f"{dumps(asdict(table), indent=1, sort_keys=True)}\n"


def key_file(upstream: str) -> str:
    """Return the name of the file with the key that an upstream asks for."""
    return f"upstream.{upstream}.key"


def ca_file(upstream: str) -> str:
    """Return the name of the file with the certificates that an upstream is checked by."""
    return f"upstream.{upstream}.ca"


CERTIFICATE = "certificate.pem"
PRIVATE_KEY = "private-key.pem"


def table_of(rack: Rack, hashes: Mapping[str, str], places: Places) -> Table:
    """Return the gateway's table of a rack that has one.

    Args:
        rack: the rack; it was checked.
        hashes: the SHA-256 of each key that is given by reference, by its name.
        places: where store and controller are for it.
    """
    gateway = _gateway(rack)
    policies = policy_of(rack).hosts
    lines = lines_of(rack)
    served = tuple(one for line in lines for one in _served(gateway, line))
    far = tuple(one for line in gateway.outside for one in _outside_served(rack, line.name))
    return Table(
        rack=rack.name,
        listen=gateway.listen,
        port=gateway.port,
        models=models_of(rack),
        upstreams=(*(_upstream(gateway, line) for line in lines), *_outside(gateway)),
        served=(*served, *far),
        hosts=_hosts(rack, policies, lines),
        watts=power_of(rack),
        keys=tuple(_key(rack, hashes, place) for place in range(len(gateway.keys))),
        anonymous=Key("anonymous", "", waiting=Waiting(gateway.waiting), outside=True),
        limits=_limits(gateway),
        certificate=CERTIFICATE if gateway.certificate is not None else "",
        private_key=PRIVATE_KEY if gateway.private_key is not None else "",
        store=places.store,
        store_url_file=places.store_url,
        controller=places.controller,
    )


def _gateway(rack: Rack) -> Gateway:
    if rack.gateway is None:
        raise ValueError("the rack has no gateway")
    return rack.gateway


@dataclass(frozen=True, slots=True)
class Line:
    """What the gateway asks at one address for models of one host, which must be awake for them."""

    name: str
    host: RackHost
    endpoint: Endpoint
    address: str
    models: tuple[Serving, ...]


def lines_of(rack: Rack) -> tuple[Line, ...]:
    """Return everything that the gateway asks within the rack."""
    return tuple(_lines(rack, reaching.reach(rack, rack.host(_gateway(rack).host), _gateway(rack))))


def dropped(rack: Rack) -> tuple[str, ...]:
    """Return as sentences what the gateway does not serve, and why."""
    found = reaching.reach(rack, rack.host(_gateway(rack).host), _gateway(rack))
    taken = {id(served) for line in _lines(rack, found) for served in line.models}
    sleepy = [
        f"{served.id} of {served.host.name}: only {upstream.endpoint.name} leads to it, which may be asleep "
        "itself"
        for upstream in found.upstreams
        for served in upstream.models
        if id(served) not in taken
    ]
    return (*map(str, found.left_out), *sleepy)


def _lines(rack: Rack, found: reaching.Reach) -> Iterator[Line]:
    home = rack.host(_gateway(rack).host)
    names = {upstream.name for upstream in found.upstreams}
    for upstream in found.upstreams:
        address = address_from(upstream.endpoint, home)
        if address is None:
            continue
        front = upstream.endpoint.host
        for name in dict.fromkeys(served.host.name for served in upstream.models):
            models = tuple(one for one in upstream.models if one.host.name == name)
            if name == front.name:
                yield Line(upstream.name, front, upstream.endpoint, address, models)
            elif "always-on" in front.roles or not front.idle.suspend:
                through = f"{upstream.name}-to-{name}"
                while through in names:  # files with keys are called so
                    through += "-"
                names.add(through)
                yield Line(through, rack.host(name), upstream.endpoint, address, models)


# --- upstreams and what they serve ------------------------------------------------------------------------


def _treated(gateway: Gateway, host: str) -> GatewayHost:
    return next((one for one in gateway.treats if one.host == host), GatewayHost(host=host))


def _upstream(gateway: Gateway, line: Line) -> Upstream:
    treated = _treated(gateway, line.host.name)
    kind = Kind(getattr(line.endpoint.service, "kind", Kind.COMMAND))
    passes = treated.passes
    if passes is None:
        passes = (*MAKES, *COUNTS) if kind is Kind.LLAMA_SERVER else ()
    wakes = treated.wakes if treated.wakes is not None else tuple(one for one in passes if one in MAKES)
    slots = treated.at_once if treated.at_once is not None else _slots(line.endpoint.service)
    return Upstream(
        name=line.name,
        host=line.host.name,
        kind=kind,
        address=line.address,
        port=line.endpoint.port,
        key_file=key_file(line.name) if line.endpoint.key is not None else "",
        slots=slots,
        queue=treated.queue,
        passes=passes,
        wakes=wakes,
    )


def _slots(service: Program) -> int:
    """Return how many requests a service takes at a time, 0 where it is not told, or queues by itself."""
    match service:
        case LlamaServer():
            return service.parallel or 0
        case Vllm():
            return service.max_num_seqs or 0
        case Sglang():
            return service.max_running_requests or 0
        case TabbyApi():
            return service.max_batch_size or 0
        case Ollama():
            return service.num_parallel or 0
        case LlamaSwap():
            return min(
                (one.concurrency_limit or SWAP_AT_ONCE for one in service.models), default=SWAP_AT_ONCE
            )
        case _:
            return 0


def _stated(gateway: Gateway, model: str) -> GatewayModel:
    return next((one for one in gateway.models if one.model == model), GatewayModel(model=model))


def _served(gateway: Gateway, line: Line) -> Iterator[Served]:
    for serving in line.models:
        stated, cold = _stated(gateway, serving.id), cold_start(serving)
        loads = serving.behind is not None or isinstance(serving.engine, Ollama)
        first = max(LEAST_FIRST_BYTE_S, float(cold.load_s + UNLOAD_S + PROMPT_S))
        if stated.first_byte is not None:
            first = stated.first_byte.total_seconds()
        whole = max(LEAST_WHOLE_S, first + LEAST_FIRST_BYTE_S)
        if stated.whole is not None:
            whole = stated.whole.total_seconds()
        yield Served(serving.id, line.name, serving.id, float(cold.load_s) if loads else 0.0, first, whole)


def _outside(gateway: Gateway) -> Iterator[Upstream]:
    for one in gateway.outside:
        parts = urlsplit(one.url)
        tls = parts.scheme == "https"
        yield Upstream(
            name=one.name,
            host="",
            kind=Kind.OUTSIDE,
            address=parts.hostname or "",
            port=parts.port or (443 if tls else 80),
            tls=tls,
            ca_file=ca_file(one.name) if one.ca_file is not None else "",
            # Clients ask for /v1/..., and servers are told with and without it.
            base_path=parts.path.rstrip("/").removesuffix("/v1"),
            key_file=key_file(one.name) if one.api_key is not None else "",
            slots=one.at_once,
        )


def _id(rack: Rack, name: str) -> str:
    """Return the id of the model that clients call so; a name that the rack does not know is an id itself."""
    known = rack.models_by_name().get(name)
    return name if known is None else known.id


def _outside_served(rack: Rack, name: str) -> Iterator[Served]:
    gateway = _gateway(rack)
    (one,) = (one for one in gateway.outside if one.name == name)
    for model, there in one.models.items():
        id_ = _id(rack, model)
        stated = _stated(gateway, id_)
        first = LEAST_FIRST_BYTE_S if stated.first_byte is None else stated.first_byte.total_seconds()
        whole = LEAST_WHOLE_S if stated.whole is None else stated.whole.total_seconds()
        yield Served(id_, name, there, 0.0, first, max(first, whole))


# --- models, hosts, keys ----------------------------------------------------------------------------------


def models_of(rack: Rack) -> tuple[Model, ...]:
    """Return every model that the gateway of a rack serves."""
    policies, lines = policy_of(rack).hosts, lines_of(rack)
    gateway = _gateway(rack)
    here: dict[str, list[Serving]] = {}
    for line in lines:
        for serving in line.models:
            here.setdefault(serving.id, []).append(serving)
    beyond: dict[str, list[str]] = {}
    for one in gateway.outside:
        for name in one.models:
            beyond.setdefault(_id(rack, name), []).append(one.name)
    return tuple(
        _model(rack, policies, id_, here.get(id_, []), beyond.get(id_, []))
        for id_ in dict.fromkeys((*here, *beyond))
    )


def _model(
    rack: Rack, policies: Mapping[str, HostPolicy], id_: str, here: list[Serving], beyond: list[str]
) -> Model:
    gateway = _gateway(rack)
    stated = _stated(gateway, id_)
    known: RackModel | None = rack.models_by_name().get(id_)
    listed = all(one.listed for one in here) if stated.listed is None else stated.listed
    waiting = None if stated.waiting is None else Waiting(stated.waiting)
    contexts = [one.context for one in here if one.context is not None]
    return Model(
        id=id_,
        kind="chat" if known is None else known.kind,
        wait_s=_wait_s(gateway, stated, [policies[one.host.name] for one in here], here),
        aliases=() if known is None else known.aliases,
        waiting=waiting,
        last_resort=tuple(beyond) if stated.last_resort is None else stated.last_resort,
        listed=listed,
        # What every host that serves it takes.
        context=min(contexts) if contexts and len(contexts) == len(here) else 0,
    )


def _wait_s(gateway: Gateway, stated: GatewayModel, policies: list[HostPolicy], here: list[Serving]) -> float:
    """Return how long a request may wait before it is sent: for a wake, for engines, for a place."""
    given = stated.wait if stated.wait is not None else gateway.wait
    if given is not None:
        return given.total_seconds()
    gates = [
        policy.boot_s + serving.host.gate.timeout.total_seconds()
        for policy, serving in zip(policies, here, strict=True)
        if policy.wakeable and "always-on" not in serving.host.roles
    ]
    return max([LEAST_WAIT_S, *gates])


def _hosts(rack: Rack, policies: Mapping[str, HostPolicy], lines: tuple[Line, ...]) -> tuple[Host, ...]:
    names = {line.host.name for line in lines}
    drawn = {one.name: one.base_w + sum(card.watts for card in one.cards) for one in power_of(rack).hosts}
    return tuple(
        Host(
            name=policy.name,
            wakeable=policy.wakeable,
            sleeps=policy.sleeps,
            boot_s=policy.boot_s,
            watts=float(drawn[policy.name]),
            quiet_s=policy.quiet_s,
        )
        for policy in policies.values()
        if policy.name in names
    )


def _key(rack: Rack, hashes: Mapping[str, str], place: int) -> Key:
    one = _gateway(rack).keys[place]
    return Key(
        name=one.name,
        sha256=one.sha256 if one.sha256 is not None else hashes[one.name],
        models=tuple(dict.fromkeys(_id(rack, name) for name in one.models)),
        per_minute=one.per_minute,
        at_once=one.at_once,
        wakes_per_hour=-1 if one.wakes_per_hour is None else one.wakes_per_hour,
        waiting=Waiting(one.waiting),
        outside=one.outside,
        sees=one.sees,
    )


def _limits(gateway: Gateway) -> Limits:
    stated = gateway.limits
    return Limits(
        head_bytes=stated.head,
        headers=stated.headers,
        head_s=stated.head_within.total_seconds(),
        body_s=stated.body_within.total_seconds(),
        idle_s=stated.idle.total_seconds(),
        json_bytes=stated.json_body,
        form_bytes=stated.form,
        upload_bytes=stated.upload,
        held_bytes=stated.held,
        clients=stated.clients,
        drain_s=gateway.drain.total_seconds(),
    )
