"""``labctl fit --measure``: ask hosts what their engines took, keep it, and say what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labctl import wiring
from labctl.cli import printer
from labctl.domain.problem import LabctlError

if TYPE_CHECKING:
    from labctl.inventory import LoadedRack


def measure(loaded: LoadedRack, host: str | None) -> None:
    """Measure the running engines of a host (None: all), and keep what was found.

    Raises:
        LabctlError: no host answered, or what was found cannot be kept.
    """
    from labctl.fitting import gate, store
    from labctl.fleet import measured as asking
    from labctl.inventory import fitting

    hosts = [one for one in fitting.checked(loaded.rack, None if host is None else [host]) if one.served]
    if not hosts:
        raise LabctlError("nothing to measure: no model is served there", hint="labctl fit --measure")
    told = asking.ask(loaded, hosts, wiring.remote())
    folder = wiring.private_dir(wiring.state_home())
    sizes = gate.sizes(loaded, hosts, lambda: wiring.shapes(loaded), {}, everything=True)
    when = wiring.clock().now().isoformat(timespec="seconds")
    found, answered = {}, False
    for one in hosts:
        answer = told[one.host.name]
        if not isinstance(answer, asking.Told):
            reason = answer.failure.reason if answer.failure is not None else "it gave no answer"
            printer.err(f"{one.host.name}: {printer.safe(reason)}")
            continue
        answered = True
        seen = asking.measured(loaded, one, answer, sizes, when)
        found.update({key: result for key, (_, result) in seen.items()})
        for served in one.served:
            if served not in [of for of, _ in seen.values()]:
                printer.err(f"{one.host.name}: nothing could be read of {served.model.id}: {_WHY}")
    if not answered:
        raise LabctlError("no host answered", hint="is it on? labctl status")
    try:
        store.save(folder, found)
    except OSError as error:
        raise LabctlError(f"{folder}: what was measured cannot be kept: {error.strerror}") from None
    count = len(found)
    printer.err(f"measured {count} model{'' if count == 1 else 's'}")


_WHY = 'it is not loaded, or its build prints no sizes (extra_args=["-lv", "4"] of llama-server does)'
