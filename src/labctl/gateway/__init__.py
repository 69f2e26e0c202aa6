"""The gateway: one endpoint for all models of the rack, which wakes the host of the one that is asked for.

A request goes through the hands of these, each in a module of its own; ``terms`` is what they say to each
other:

    proxy   bytes: clients, upstreams, heads, bodies, streams. It knows no rack.
    desk    the life of a request: who asks, which host, lease, wait, failover, end.
    access  keys, rates, quotas.
    books   the store, from a thread of its own: leases, wishes, beats, and the world as it was last seen.
    pages   what the gateway answers by itself: models, health, metrics, prewake, status.
    meters  what is counted, and the log with one line for each request.

Everything but ``books`` runs in one event loop; nothing there waits for a disk, a lock or a host.
"""
