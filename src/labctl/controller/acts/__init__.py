"""What the controller does to hosts, one act a module; ``carry`` finds the one for an action.

An act runs in a thread of its own, for one host. It writes its intent before and its outcome after each
effect, and looks again at whatever could have changed while it waited: the order of ``sleep`` is committed
under the row's version, ``mend`` cuts power only after a fresh look.
"""

from __future__ import annotations

from labctl.controller.acts import caps, gate, mend, sleep, wake
from labctl.controller.means import Means
from labctl.domain.sleep.actions import Action, Mend, SendWake, StepCaps, Suspend, Unload, Verify
from labctl.domain.sleep.terms import KnownHost

HARMLESS = (SendWake,)
"""These may rest on old news: a host that is awake does not notice them."""


def names(action: Action) -> str:
    """Return what an act is called while it runs."""
    match action:
        case Suspend():
            return f"putting it to sleep ({action.how})"
        case Unload():
            return "freeing its cards"
        case SendWake():
            return f"waking it, round {action.round}"
        case Verify():
            return "running the gate"
        case Mend():
            return action.step
        case StepCaps():
            return "setting its caps"
        case _:
            return ""


def carry(means: Means, action: Action, known: KnownHost) -> None:
    """Carry out an action, decided on the row ``known``.

    Raises:
        HostError, PowerError, StaleError, StoreError, NotLeadingError: it could not be, as was written down.
    """
    match action:
        case Suspend():
            sleep.suspend(means, action)
        case Unload():
            sleep.unload(means, action)
        case SendWake():
            wake.wake(means, action, known)
        case Verify():
            gate.verify(means, action)
        case Mend():
            mend.mend(means, action)
        case StepCaps():
            caps.step(means, action)
        case _:
            raise TypeError(f"{type(action).__name__} is no act")
