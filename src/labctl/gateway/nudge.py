"""Tell the controller that there is something new in the store, so that it need not wait for its next tick.

It is asked over its unix socket (the verb ``nudge``, the only one that the gateway's user may use), best
effort: a controller that is not there, stands by or is slow finds the wish at its next tick anyway.
"""

from __future__ import annotations


class Nudger:
    """Nudges a controller; ``ring`` never waits or fails; ``trouble`` is why the last did not get there."""

    def __init__(self, socket: str) -> None:
        """Contact nobody yet; ``socket`` is the controller's, empty where it is on another machine."""
        self.trouble = ""

    def ring(self, host: str) -> None:
        """Tell it, in the background of the running event loop, that a host is wished for."""
        raise NotImplementedError
