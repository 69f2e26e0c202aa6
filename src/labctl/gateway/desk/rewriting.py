"""Call a model by the name that its upstream knows it by.

A JSON body is taken apart into its members only, whose text stays as it was sent; where a member stands twice
the last one counts, as for every engine. In a form only the value of the field ``model`` is replaced, in what
was read of it. For a websocket the name stands in the query.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode

import msgspec

from labctl.gateway.terms import Ask

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode
_BOUNDARY = re.compile(rb'boundary=(?:"([^"]+)"|([^;,\s"]+))', re.I)
_NAMED = re.compile(rb'(?i:\r\ncontent-disposition:)[^\r\n]*?;\s*(?i:name)=(?:"model"|model(?=[\s;]|$))')


def renamed(ask: Ask, path: str, name: str) -> tuple[bytes | None, str]:
    """Return the body (None: as it is) and the path of a request that asks for the model by another name."""
    if ask.upgrade:
        return None, _in_query(path, name)
    kind = ask.named.get(b"content-type", b"")
    if kind[:19].lower() == b"multipart/form-data" and ask.body.startswith(b"--"):  # no JSON does
        return _in_form(ask.body, kind, name), path
    return _in_json(ask.body, name), path


def _in_json(body: bytes, name: str) -> bytes:
    members = _members(body)
    members["model"] = msgspec.Raw(_encode(name))
    return _encode(members)


def _in_form(body: bytes, kind: bytes, name: str) -> bytes:
    found = _BOUNDARY.search(kind)
    mark = b"\r\n--" + (found[1] or found[2] if found else b"")
    pieces = (b"\r\n" + body).split(mark)
    for at, piece in enumerate(pieces):
        head, gap, _ = piece.partition(b"\r\n\r\n")
        if gap and _NAMED.search(head):
            pieces[at] = head + gap + name.encode()
            break
    return mark.join(pieces)[2:]


def _in_query(path: str, name: str) -> str:
    before, _, query = path.partition("?")
    pairs = [(key, name if key == "model" else value) for key, value in parse_qsl(query, True)]
    return f"{before}?{urlencode(pairs)}"
