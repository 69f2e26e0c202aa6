"""Why a request is not served, in words for whoever sent it."""

from __future__ import annotations

from collections.abc import Sequence

from labctl.domain.gateway.picking import Ease, Option
from labctl.domain.gateway.table import Upstream
from labctl.domain.sleep.wording import lasting, listed
from labctl.gateway.desk.lanes import Lane, Way
from labctl.gateway.desk.lives import Life
from labctl.gateway.refusals import joined, problem
from labctl.gateway.terms import Answer, Failure, HostNow

STORE_S = 5.0
BUSY_S = 10.0


def no_such_model(asked: str, near: Sequence[str]) -> Answer:
    """404: nobody serves it."""
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return problem(
        404,
        "no-such-model",
        f"no model is called {asked[:100]!r} here",
        hint=f"{hint}GET /v1/models lists all of them",
    )


def no_model() -> Answer:
    """400: it names none."""
    return problem(
        400,
        "no-model",
        "the request names no model",
        hint='put "model" into its JSON, a field `model` into its form, or ?model= behind /v1/realtime',
    )


def unreadable(what: str) -> Answer:
    """400: it cannot be called by its upstream's name."""
    return problem(400, "bad-request", f"the model's name in {what} cannot be read and rewritten")


def no_such_path(method: str, path: str) -> Answer:
    """404: nothing is there."""
    return problem(
        404,
        "no-such-path",
        f"nothing answers {method} {path[:100]} here",
        hint="GET / shows what there is; an engine's own paths are below /hosts/NAME/",
    )


def no_such_host(name: str, names: Sequence[str]) -> Answer:
    """404: it serves nothing."""
    known = (
        f"these do: {listed(list(names))}" if names else "the inventory lets nothing through below /hosts/"
    )
    return problem(404, "no-such-host", f"no host that serves is called {name[:100]!r}", hint=known)


def not_let_through(name: str, method: str, path: str, upstreams: Sequence[Upstream]) -> Answer:
    """403: the inventory does not pass it on."""
    passes = [rule for upstream in upstreams for rule in upstream.passes]
    allowed = f"it lets through {listed(passes)}" if passes else "it lets nothing through (`passes`)"
    return problem(
        403, "not-let-through", f"{method} {path[:100]} is not passed on to {name}", host=name, hint=allowed
    )


def store_unusable(host: str, because: str) -> Answer:
    """503: nobody can say whether the host may be used."""
    return problem(
        503,
        "store-unusable",
        f"the rack's store cannot be used, so nothing new is sent to {host}: {because}",
        host=host,
        hint="it goes on by itself when the store works again; `labctl gateway status` says how it stands",
        retry_after_s=STORE_S,
    )


def must_not_wake(host: HostNow, paused: str) -> Answer:
    """503: it is not to be touched."""
    because = host.refused or f"the rack is paused: {paused}"
    return problem(
        503,
        "must-not-wake",
        f"{host.name} is {host.mode} and must not be woken: {because}",
        host=host.name,
        hint=f"`labctl explain {host.name}` says more, `labctl resume {host.name}` ends a pause",
    )


def does_not_wake(host: HostNow) -> Answer:
    """503: this path wakes nobody."""
    return problem(
        503,
        "asleep",
        f"{host.name} is {host.mode}, and this path does not wake it",
        host=host.name,
        hint="POST /labctl/v1/prewake wakes it, as any request for one of its models does",
        retry_after_s=host.comes_s,
    )


def waking(host: HostNow, seconds: float) -> Answer:
    """503: the client would rather come again than wait."""
    return problem(
        503,
        "waking",
        f"{host.name} is being woken, which usually takes {lasting(seconds)}",
        host=host.name,
        hint="send the same request again then",
        retry_after_s=max(1.0, seconds),
    )


def wake_failed(host: HostNow) -> Answer:
    """503: it did not come."""
    return problem(
        503,
        "wake-failed",
        f"{host.name} did not come up: {host.because}",
        host=host.name,
        hint=f"`labctl explain {host.name}` says what a person has to look at",
    )


def too_late(lane: Lane, standing: str, waited_s: float, option: Option) -> Answer:
    """503: the time that it may wait is over."""
    awake = option.ease <= Ease.AWAKE
    why = "" if awake else f"; `labctl explain {lane.host}` says what it waits for"
    return problem(
        503,
        "too-busy" if awake else "not-awake-in-time",
        f"waited {lasting(waited_s)}: {standing}",
        host=lane.host,
        hint=f"send it again; the inventory says how long a model's requests may wait{why}",
        retry_after_s=max(1.0, option.seconds if option.seconds else BUSY_S),
    )


def line_full(lane: Lane, key: str) -> Answer:
    """503: too many of its key wait already."""
    return problem(
        503,
        "line-full",
        f"{lane.upstream.name} is busy, and {lane.slots.queue} requests of the key {key} wait already",
        host=lane.host,
        hint="send it again later",
        retry_after_s=max(1.0, lane.usual_s),
    )


FAILED = {
    "connect": (503, "upstream-unreachable"),
    "reset": (502, "upstream-hung-up"),
    "status": (502, "upstream-failed"),
    "late": (504, "upstream-late"),
    "bad": (502, "upstream-broken"),
}


def upstream_failed(lane: Lane, failure: Failure) -> Answer:
    """502, 503 or 504: it was asked, and did not serve."""
    status, code = FAILED.get(failure.kind, (502, "upstream-failed"))
    return problem(
        status,
        code,
        f"{lane.upstream.name} did not answer: {failure.text}",
        host=lane.host,
        hint=f"`labctl explain {lane.host}` says how it stands" if lane.host else "",
        retry_after_s=STORE_S if status == 503 else 0,
    )


def our_bug() -> Answer:
    """500: it was us."""
    return problem(
        500, "internal-error", "the gateway failed in a way that is its own bug", hint="its log says where"
    )


def none_left(life: Life, way: Way) -> Answer:
    """Return why nobody serves: the reason of each that was left out, the first one's status."""
    out = life.out or {}
    answers = [out[place] for place in (*way.places, *way.last) if place in out]
    if not answers:
        return problem(
            503,
            "nobody-serves",
            f"nobody serves {way.id or 'this'} for your key",
            hint="the upstreams of this model are outside of the rack; the inventory says who may use those",
        )
    return joined(answers)
