"""From where a pinned file may come: the rack's mirror first, then its own address.

A mirror is a folder of copies: models as MIRROR/MODEL_ID/FILE, engines as MIRROR/FILE. It is asked first,
since it is near, and it is never needed: where it does not answer, lacks the file or holds another one under
its name, the file's own address is next. What pins a file is its sha256, so it does not matter which of them
gave it.

A token goes to a model's own address alone, never to the mirror, and only where nobody on the way can read
it: by https, or to the host itself.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from labctl.inventory.models import Model, Placed
from labctl.inventory.rack import Rack

_HERE = ("localhost", "127.0.0.1", "::1")


def addresses(rack: Rack, url: str, *, name: str) -> tuple[str, ...]:
    """Return the addresses of a file in the order in which they are tried.

    Args:
        rack: whose mirror is asked first, where it has one.
        url: the file's own address; "" for a file that is never fetched, which has no address at all.
        name: what the mirror calls it: FILE, or MODEL_ID/FILE for a file of a model.
    """
    if not url:
        return ()
    if rack.mirror is None:
        return (url,)
    return tuple(dict.fromkeys((f"{rack.mirror.rstrip('/')}/{name}", url)))


def of_model(rack: Rack, model: Model, placed: Placed) -> tuple[str, ...]:
    """Return the addresses of one file of a model."""
    return addresses(rack, placed.url, name=f"{model.id}/{placed.name}")


def takes_token(url: str) -> bool:
    """Return whether a token may be sent to this address: nobody on the way can read it."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _HERE)
