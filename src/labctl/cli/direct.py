"""Wake hosts from here, without a controller: what ``labctl wake --direct`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labctl import wiring
from labctl.domain.problem import LabctlError, Problem

if TYPE_CHECKING:
    from labctl.cli.wake_view import View
    from labctl.fleet.waking import Change, Waking
    from labctl.inventory import LoadedRack


def wake(
    loaded: LoadedRack, hosts: Sequence[str], view: View, *, wait: bool, timeout_s: float
) -> dict[str, Mapping[str, Any]]:
    """Wake hosts, and return what became of each as the controller would say it.

    Raises:
        LabctlError: a host has nothing that wakes it, or is not enrolled; then nothing was sent.
    """
    from labctl.fleet import sessions

    waking = _waking(loaded, hosts)
    if not wait:
        return {host: _news(change) for host, change in waking.send_once().items()}
    sessions.require_enrolled({name: loaded.host_data[name] for name in hosts})
    ends = waking.run(
        timeout_s=timeout_s,
        monotonic=wiring.clock().monotonic,
        on_change=lambda change: view.on_news(_news(change)),
    )
    return {host: _news(change) for host, change in ends.items()}


def _waking(loaded: LoadedRack, hosts: Sequence[str]) -> Waking:
    from labctl.fleet.waking import Waking

    unwakeable = [
        Problem("nothing is named that wakes it", "say how in the rack file: Host(wake=...)", host=name)
        for name in hosts
        if loaded.rack.host(name).wake.kind == "none"
    ]
    if unwakeable:
        raise LabctlError(unwakeable)
    switches = {name: wiring.switch_for(loaded, name) for name in hosts}

    def verify(host: str, document: dict[str, Any]) -> tuple[str, ...]:
        return _missing(loaded, host, document)

    return Waking(loaded, switches, wiring.remote(), verify)


def _missing(loaded: LoadedRack, host: str, document: dict[str, Any]) -> tuple[str, ...]:
    """Return which cards of the rack file the host does not have, or why that cannot be known."""
    from labctl.cli.power import expected
    from labctl.domain.budget_live import look

    seen = look(host, expected(loaded.rack.host(host)), document)
    told = {"missing"} if seen.present is not None else {"missing", "finding"}
    return tuple(one.what for one in seen.wrong if one.code in told)


def _news(change: Change) -> dict[str, Any]:
    return {
        "host": change.host,
        "mode": str(change.mode),
        "because": change.because,
        "usual_s": None,
        "ok": change.ok,
    }
