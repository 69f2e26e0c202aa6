"""Heads: what may stand in a request, what of it goes upstream, and what of an answer comes back.

The rule: nothing that frames a message is ever passed on. A request's body is framed anew by us, and headers
that speak of one connection alone (RFC 9110 7.6.1: those of ``Connection`` and what it names) end here, in
both directions; so do the credentials that were shown to us. Whatever two readers could read in two ways
(two lengths, a coding that we don't know, a second ``Host``) is refused before anybody upstream sees a byte.

The parser (llhttp, strict) has seen each head before this module does: line ends, tokens and values are as
RFC 9112 wants them. What it lets through and we don't is checked here. All of it is pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from labctl.domain.gateway.table import Kind
from labctl.gateway.terms import Answer, Ask, Target

Headers = Sequence[tuple[bytes, bytes]]

METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
"""What may be asked; anything else is 501."""

WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose request says its length even when it is 0."""

ONCE = (b"host", b"content-length", b"transfer-encoding", b"authorization", b"x-api-key", b"content-type")
"""Headers that may stand in a request once."""

HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings"),
    }
)
OURS = HOP_BY_HOP | {b"host", b"content-length", b"expect", b"authorization", b"x-api-key"}
"""Headers of a request that we write ourselves or keep."""

_FRAMING = frozenset({b"transfer-encoding:", b"content-length:"})
telling = re.compile(
    rb"\r\n(transfer-encoding:|content-length:|connection:|keep-alive:|proxy-|upgrade:|trailer:)"
).findall
"""Return the names of headers, in an answer's head in lower case, that frame it or end here: in one pass."""

_chunked = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n").search

CHUNK_END = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
READABLE = b"Access-Control-Allow-Origin: *\r\n"
"""Web pages may read what we say: they need a key, and without keys ``access`` turns strange ones away."""

EVENT_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"X-Accel-Buffering: no\r\n" + READABLE
)
STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}


class Unfit(Exception):
    """A request that is refused by its head alone: ``status``, ``code`` and the sentence."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


def _bad(detail: str) -> Unfit:
    return Unfit(HTTPStatus.BAD_REQUEST, "bad-request", detail)


def first_of_each(headers: Headers) -> dict[bytes, bytes]:
    """Return the first value of each header by its name in lower case.

    Raises:
        Unfit: a header that may stand once stands twice.
    """
    named = {name.lower(): value for name, value in reversed(headers)}
    if len(named) != len(headers):
        names = [name.lower() for name, _ in headers]
        for name in ONCE:
            if names.count(name) > 1:
                raise _bad(f"the header {name.decode()} stands twice in the request")
    return named


def body_length(named: Mapping[bytes, bytes], version: str) -> int:
    """Return the length of a request's body in bytes; -1 where it comes in chunks.

    Raises:
        Unfit: it is framed in no way or in more than one.
    """
    coding = named.get(b"transfer-encoding")
    length = named.get(b"content-length")
    if coding is None:
        if length is None:
            return 0
        length = length.strip(b" \t")
        if not length.isdigit() or len(length) > 18:
            raise _bad("Content-Length is no number of bytes")
        return int(length)
    if length is not None:
        raise _bad("the request has both Content-Length and Transfer-Encoding")
    if version != "1.1":
        raise _bad("HTTP/1.0 knows no Transfer-Encoding")
    if coding.strip(b" \t").lower() != b"chunked":
        raise Unfit(
            HTTPStatus.NOT_IMPLEMENTED, "unknown-coding", "the only Transfer-Encoding taken here is chunked"
        )
    return -1


def target_of(url: bytes, method: str) -> str:
    """Return the target of a request line in origin form: a path and perhaps a query, as they stood there.

    Raises:
        Unfit: it is none.
    """
    if url.startswith(b"/"):
        target = url
    elif url == b"*" and method == "OPTIONS":
        return "*"
    elif url[:7].lower() == b"http://" or url[:8].lower() == b"https://":
        authority, slash, rest = url.partition(b"://")[2].partition(b"/")
        if b"?" in authority or b"@" in authority:
            raise _bad("the request's target is not a path")
        target = slash + rest or b"/"
    else:
        raise _bad("the request's target is not a path")
    if b"#" in target or not target.isascii():
        raise _bad("the request's target has characters that no path has")
    return target.decode("ascii")


def check_version(version: str, named: Mapping[bytes, bytes]) -> None:
    """Refuse versions that are not spoken here, and HTTP/1.1 without ``Host``.

    Raises:
        Unfit: with the reason.
    """
    if version == "1.1":
        if b"host" not in named:
            raise _bad("HTTP/1.1 needs the header Host")
    elif version != "1.0":
        status = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
        raise Unfit(status, "unknown-version", f"HTTP/{version} is not spoken here, but 1.1 and 1.0 are")


def without_upgrade(method: str, url: bytes, headers: Headers, version: str) -> bytes:
    """Return the head of a request as if it had never asked for another protocol than HTTP/1.1.

    Some clients (Java's, curl --http2) offer h2c with each first request; RFC 9110 7.8 lets a server ignore
    that. The parser would take the body for the other protocol's.
    """
    kept = [
        b"%b: %b\r\n" % (name, value)
        for name, value in headers
        if name.lower() not in (b"connection", b"upgrade", b"http2-settings")
    ]
    if more := named_by_connection(headers) - {b"upgrade", b"http2-settings"}:
        kept.append(b"Connection: %b\r\n" % b", ".join(sorted(more)))
    line = b"%b %b HTTP/%b\r\n" % (method.encode(), url, version.encode())
    return b"%b%b\r\n" % (line, b"".join(kept))


def named_by_connection(headers: Headers) -> frozenset[bytes]:
    """Return what all headers ``Connection`` name, in lower case."""
    values = [value for name, value in headers if name.lower() == b"connection"]
    return frozenset(token.strip(b" \t").lower() for value in values for token in value.split(b","))


def passed_on(ask: Ask) -> bytes:
    """Return the lines of a request's headers that an upstream gets to see.

    Answers to POST are asked for without compression, so that their use of tokens can be read; what they
    say travels over the rack's own network anyhow.
    """
    dropped: frozenset[bytes] = OURS
    connection = ask.named.get(b"connection")
    if connection is not None and (
        len(ask.named) < len(ask.headers) or connection.lower() not in (b"keep-alive", b"close", b"upgrade")
    ):
        # What a body is, it was read by; who reads it next is told the same.
        dropped |= named_by_connection(ask.headers) - {b"content-type"}
    if ask.method == "POST":
        dropped |= {b"accept-encoding"}
    return b"".join([b"%b: %b\r\n" % header for header in ask.headers if header[0].lower() not in dropped])


def credentials(ask: Ask, target: Target) -> bytes:
    """Return the lines with the key that an upstream asks for.

    Servers of the rack get it in both ways that are in use (each looks for one of them); a server outside
    gets it as the client showed its own.
    """
    if not target.key:
        return b""
    key = target.key.encode("ascii")
    if target.upstream.kind is not Kind.OUTSIDE:
        return b"Authorization: Bearer %b\r\nx-api-key: %b\r\n" % (key, key)
    if b"x-api-key" in ask.named:
        return b"x-api-key: %b\r\n" % key
    return b"Authorization: Bearer %b\r\n" % key


def answer_bytes(answer: Answer, *, method: str, close: bool) -> bytes:
    """Return an answer of our own as it goes to the client."""
    head = STATUS_LINES.get(answer.status) or b"HTTP/1.1 %d -\r\n" % answer.status
    lines = [head, READABLE]
    if answer.status not in (204, 304):
        lines.append(
            b"Content-Type: %b\r\nContent-Length: %d\r\n" % (answer.content_type.encode(), len(answer.body))
        )
    lines += [b"%b: %b\r\n" % (name.encode(), value.encode("latin-1")) for name, value in answer.headers]
    if close:
        lines.append(b"Connection: close\r\n")
    lines.append(b"\r\n")
    if method != "HEAD" and answer.status not in (204, 304):
        lines.append(answer.body)
    return b"".join(lines)


def sound_coding(lower: bytes, said: Sequence[bytes]) -> bool:
    """Return whether an answer's transfer coding is one that its client understands as we do: chunks alone.

    ``lower`` is its head in lower case, ``said`` what ``telling`` found in it.
    """
    return (
        said.count(b"transfer-encoding:") == 1
        and _chunked(lower) is not None
        and lower.startswith(b"http/1.1")
    )


def relayed(head: bytes, *, said: Sequence[bytes], close: bool, decoded: bool) -> bytes:
    """Return the head of an upstream's answer as the client gets it.

    ``said`` is what ``telling`` found in it; ``decoded``: its body loses its chunks on the way (HTTP/1.0).
    """
    if decoded or not _FRAMING.issuperset(said):
        head = _filtered(head, decoded=decoded)
    return head[:-2] + b"Connection: close\r\n\r\n" if close else head


def _filtered(head: bytes, *, decoded: bool) -> bytes:
    status, *lines = head[:-4].split(b"\r\n")
    named = [(line.partition(b":")[0].lower(), line) for line in lines]
    dropped = set(HOP_BY_HOP)
    if not decoded:
        dropped.discard(b"transfer-encoding")
    for name, line in named:
        if name == b"connection":
            dropped |= {token.strip(b" \t").lower() for token in line.partition(b":")[2].split(b",")}
    if not decoded:
        dropped.discard(b"transfer-encoding")
    dropped -= {b"content-length", b"content-type"}  # Connection may not name those
    kept = [line for name, line in named if name not in dropped]
    return b"\r\n".join([status, *kept, b"", b""])


def chunk(data: bytes) -> bytes:
    """Return data as one chunk; nothing for nothing, which would be the end."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
