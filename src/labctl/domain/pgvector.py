"""Which PostgreSQL comes with pgvector, by release of the distribution, from its own archive alone."""

from __future__ import annotations

# Debian 12 and Ubuntu 22.04 have none. Ubuntu's are from its package lists, not tried on a host.
_MAJORS = {("debian", "13"): 17, ("ubuntu", "24.04"): 16, ("ubuntu", "26.04"): 18}


def major(distribution: str, release: str) -> int:
    """Return the major version of PostgreSQL, by ID and VERSION_ID of os-release.

    Raises:
        ValueError: that release has no pgvector; says so in words.
    """
    found = _MAJORS.get((distribution, release))
    if found is None:
        have = ", ".join(f"{name.capitalize()} {number}" for name, number in _MAJORS)
        raise ValueError(
            f"{distribution.capitalize()} {release} has no package of pgvector; those that do: {have}"
        )
    return found
