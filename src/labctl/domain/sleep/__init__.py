"""Sleep and wake as decisions: which mode a host is in, whether it may sleep, how it wakes, what to do next.

Nothing here does I/O or reads a clock. ``lifecycle`` is the table of modes, ``terms`` are the values that
all parts share, ``idle`` judges whether a host is unused, ``waking`` plans packets, ``proofs`` says whether
a host has shown that it comes back, ``ladder`` how a broken host is mended, and ``reconcile`` turns what is
known and what was seen into actions.
"""
