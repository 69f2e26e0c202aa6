"""The life of a request: who asks, which host, lease, wait, failover, end.

A request goes one of two ways. Where a host is awake, its lease held and a slot free, ``FrontDesk.start``
sends it on before it returns: no task, no future, nothing awaited. Whatever has to wait, for a lease, a slot
or a wake, is a ``Search``: a task of its own, which ends with somebody who serves, or with a reason.

front        heads, and what becomes of each request
lanes        upstreams as they are now: slots, who is avoided, what is loaded
lives        what is kept of one request, and what it held
choosing     which upstream, from the world as it was last seen
search       the wait
loading      what is said while an upstream loads a model
reasons      why a request is not served
presenting   what a client hears meanwhile
rewriting    a model's other name, in a body, a form or a query
running      asking an upstream what it has loaded
"""

from __future__ import annotations

from .front import FrontDesk, Parts

__all__ = ["FrontDesk", "Parts"]
