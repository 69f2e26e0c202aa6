"""The store, as the gateway's event loop sees it: leases, wishes, beats, and the world as it was last seen.

Everything that touches the store runs in one thread of its own (``thread``), one piece of work after the
other; the event loop only ever looks at what came back. So what the loop decides rests on news that came in
the order in which the store was asked, and no answer overtakes another.

Where the store cannot be used, a request is let in only to a host whose lease we hold already, or to one that
is never put to sleep; all else is refused, and gets through as soon as the store works again.
"""

from __future__ import annotations

from .books import Around, StoreBooks

__all__ = ["Around", "StoreBooks"]
