"""What the rack's electricity went into, and what sleeping saved: pure arithmetic over samples and sums.

``counting`` makes joules of two looks at a host, ``buckets`` puts them into minutes, ``tariff`` says what an
hour costs, and ``account`` turns the store's sums into the answer. What was not measured is an estimate, and
stays one through every sum.
"""
