"""What a host keeps of an ``apply --force``: who let through what does not fit, when, and in which words.

The moment of the first time is kept as long as the same person says the same of the same, so that applying it
again changes nothing.
"""

from __future__ import annotations

import json

from labctl import render

PATH = "/var/lib/labctl/forced.json"
FIELDS = ("words", "who", "when", "what")


def document(record: str, before: bytes | None) -> str:
    """Return the text of the file, given the record and what the file holds now (None: nothing)."""
    found = {name: value for name, value in json.loads(record).items() if name in FIELDS}
    try:
        old = json.loads(before or b"{}")
        if all(old[name] == found[name] for name in FIELDS if name != "when"):
            found["when"] = str(old["when"])
    except (ValueError, TypeError, KeyError, RecursionError):
        pass  # somebody else's file, or a broken one: it is replaced
    text = json.dumps({"managed": render.HEADER, **found}, indent=1, ensure_ascii=False)
    return f"{text}\n"
