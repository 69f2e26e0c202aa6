"""Bodies: which model does one ask for?

A JSON body is read whole and peeked at: two of its members are decoded, everything else is skipped by the
parser. A form is read until its field ``model``, in whatever order its fields come; what comes behind it is
looked through as it flows on.

Two servers may read one body in two ways: of a name that stands twice, some take the first and some the
last, and servers in Go take ``MODEL`` for ``model``. Who may ask for one model would then get another. So
JSON in which ``model`` could stand twice goes on as its members were understood here, each of them once. A
form is refused where it has that field twice, or where libraries (Go's mime/multipart, python-multipart,
Python's email) would see other fields than we do: with text before its first boundary, with spaces behind
one, with a part whose head is folded, ends its lines otherwise or says its name twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec


class Unreadable(ValueError):
    """A body that is not what its request says it is; the text never quotes it."""


class _Peek(msgspec.Struct, gc=False):
    model: str = ""
    stream: bool | None = False


_peek = msgspec.json.Decoder(_Peek).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Loose(msgspec.Struct):
    model: object = None
    stream: object = None


_loose = msgspec.json.Decoder(_Loose).decode


_MODEL = re.compile(rb'"(?i:model)"').findall


def peek(body: bytes) -> tuple[str, bool, bytes]:
    """Return the model and whether a stream is asked for, and the body as it may be passed on.

    Raises:
        Unreadable: it is no JSON object.
    """
    try:
        if len(_MODEL(body)) > 1 or b"\\u006" in body or b"\\u004" in body:
            body = _each_once(body)
        seen = _peek(body)
    except msgspec.ValidationError:
        return _of_wrong_types(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Unreadable("the request's body is no JSON") from None
    return seen.model, bool(seen.stream), body


def _each_once(body: bytes) -> bytes:
    """Return a body with each of its members once, and none that some take for ``model``."""
    members = _members(body)
    return msgspec.json.encode({k: v for k, v in members.items() if k == "model" or k.lower() != "model"})


def _of_wrong_types(body: bytes) -> tuple[str, bool, bytes]:
    """Return what a body says whose members are not of the types that they should have."""
    try:
        seen = _loose(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Unreadable("the request's body is no JSON object") from None
    return seen.model if isinstance(seen.model, str) else "", seen.stream is True, body


_SMALL, _TOGETHER = 1024, 256 * 1024


def keep(pieces: list[bytes | bytearray], piece: bytes) -> None:
    """Add a piece of a body; small ones are put together, since each takes more memory than it holds."""
    last = pieces[-1] if pieces and len(piece) < _SMALL else None
    if last is None:
        pieces.append(piece)
    elif isinstance(last, bytearray) and len(last) < _TOGETHER:
        last += piece
    else:
        pieces.append(bytearray(piece))


def joined(pieces: Sequence[bytes | bytearray]) -> bytes:
    """Return what pieces are together."""
    return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)


_BCHARS = rb"[0-9A-Za-z'()+_./:=?-]"  # RFC 2046 5.1.1, without the comma
_BOUNDARY = re.compile(rb';\s*boundary=(?:"(%b{1,70})"|(%b{1,70}))\s*(?:;|$)' % (_BCHARS, _BCHARS), re.I)
_BOUNDARIES = re.compile(rb";\s*boundary[*0-9]*\s*=", re.I)
_DISPOSITION = re.compile(rb"\r\ncontent-disposition:[ \t]*[^\s;]*[ \t]*(;[^\r]*)?", re.I)
_PARAMETER = re.compile(rb';\s*([^\s=;"]+)\s*=\s*(?:"([^"]*)"|([^\s;"]*))')
_NAMES = re.compile(rb";\s*name\s*[*=]", re.I)
_HEAD_BYTES = 16 * 1024


def boundary_of(content_type: bytes) -> bytes:
    """Return the boundary of a form's parts; nothing where the body is no form.

    Raises:
        Unreadable: it is a form, and says no boundary, or more than one.
    """
    if not content_type.lower().lstrip().startswith(b"multipart/form-data"):
        return b""
    match = _BOUNDARY.search(content_type)
    if match is None or len(_BOUNDARIES.findall(content_type)) > 1:
        raise Unreadable("the form's Content-Type says no boundary (multipart/form-data; boundary=...)")
    return match[1] or match[2]


class Form:
    """Reads a form as it comes; each byte is looked at about once."""

    __slots__ = ("_at", "_delimiter", "_inside", "_model", "_over", "_value", "buffer")

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self.buffer = bytearray(b"\r\n")  # the first delimiter has no line before it
        self._at = 0
        self._value = 0  # where a part's value begins
        self._inside = False  # ... and it is the model
        self._over = False
        self._model: str | None = None

    def feed(self, piece: bytes) -> str | None:
        """Return the model as soon as it is known.

        Raises:
            Unreadable: the field is no text, or others could read the form in another way.
        """
        self.buffer += piece
        while self._step():
            pass
        return self._model

    @property
    def read(self) -> bytes:
        """Return all that was read."""
        return bytes(memoryview(self.buffer)[2:])

    def watch(self, piece: bytes) -> None:
        """Look through what comes behind the model, and keep nothing of it.

        Raises:
            Unreadable: there is another model, or others could read the form in another way.
        """
        if not self._over:
            del self.buffer[: self._at]
            self._value -= self._at
            self._at = 0
            self.feed(piece)

    def _step(self) -> bool:
        """Go one part further; False when more has to come first, or nothing does."""
        buffer = self.buffer
        after = 0 if self._over else self._behind_delimiter()
        if not after:
            return False
        found = after - len(self._delimiter)
        if self._inside:
            self._inside = False
            try:
                self._model = bytes(buffer[self._value : found]).decode().strip()
            except UnicodeDecodeError:
                raise Unreadable("the form's field `model` is no text") from None
        self._at = found
        if buffer[after : after + 2] == b"--":
            self._over = True
            return False
        end = buffer.find(b"\r\n\r\n", after)
        if end < 0 or end - after > _HEAD_BYTES:
            if len(buffer) - after > _HEAD_BYTES:
                raise Unreadable("a part of the form has no end to its head")
            return False
        if _name_of(bytes(buffer[after:end])) == b"model":
            if self._model is not None:
                raise Unreadable("the form has more than one field `model`")
            self._inside = True
        self._value = end + 4
        self._at = end + 2
        return True

    def _behind_delimiter(self) -> int:
        """Return where the next delimiter ends, 0 where it isn't here yet."""
        buffer, delimiter = self.buffer, self._delimiter
        if not self._value and self._model is None and not buffer.startswith(delimiter[: len(buffer)]):
            raise Unreadable("the form does not begin with its boundary")
        while (found := buffer.find(delimiter, self._at)) >= 0:
            after = found + len(delimiter)
            behind = bytes(buffer[after : after + 2])
            if len(behind) < 2:
                return 0
            if behind in (b"\r\n", b"--"):
                if found < self._value:
                    raise Unreadable("a part of the form has no value")
                return after
            if behind[:1] in (b" ", b"\t", b"\r", b"\n"):
                raise Unreadable("a boundary of the form does not end its line")
            self._at = found + 1  # another, longer one: it belongs to a value
        self._at = max(self._at, len(buffer) - len(delimiter) + 1)
        return 0


def _name_of(head: bytes) -> bytes:
    """Return the name of a part by its head, which begins with the line end before its first line."""
    lines = head.split(b"\r\n")
    if any(line[:1] in (b" ", b"\t") or b"\n" in line or b"\r" in line for line in lines):
        raise Unreadable("a part of the form has a head with folded or broken lines")
    said = sum(b"content-disposition" in line.partition(b":")[0].lower() for line in lines)
    disposition = _DISPOSITION.search(head)
    if said != (disposition is not None):
        raise Unreadable("a part of the form has an unclear Content-Disposition")
    if disposition is None:
        return b""
    parameters = disposition[1] or b""
    # Where quotes may be escaped, what stands in them is no longer sure.
    sure = b"\\" not in parameters
    pairs = [(key.lower(), quoted or plain) for key, quoted, plain in _PARAMETER.findall(parameters)]
    names = [value for key, value in pairs if key == b"name"]
    if (
        len(names if sure else _NAMES.findall(parameters)) > 1
        or any(key.startswith(b"name*") for key, _ in pairs)
        or any(b"\\" in name for name in names)
    ):
        raise Unreadable("a part of the form has more than one name, or an encoded one")
    return names[0] if names else b""
