"""Bytes: clients, upstreams, heads, bodies, streams. It knows no rack.

client     one connection of a client; ``incoming`` reads its requests, ``wire`` is what every one has
exchange   one request and its answer
upstream   connections to upstreams and their pools
heads      what may stand in a head, and what of it is passed on
bodies     which model a body asks for
known      heads that came before, and say the same again
outbox     writes that go out together when there is much to do
watch      all deadlines, by one clock
sockets    how a peer without power is noticed
"""

from labctl.gateway.proxy.proxy import Proxy

__all__ = ["Proxy"]
