"""Bodies: which model does one ask for?

A JSON body is read whole and peeked at: two of its members are decoded, everything else is skipped by the
parser. A form is read until its field ``model``, in whatever order its fields come.

Two servers may read one body in two ways: of a name that stands twice, some take the first and some the
last. Who may ask for one model would then get another. So a body in which ``model`` could stand twice goes on
as its members were understood here, each of them once.
"""

from __future__ import annotations

import re

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


def peek(body: bytes) -> tuple[str, bool, bytes]:
    """Return the model and whether a stream is asked for, and the body as it may be passed on.

    Raises:
        Unreadable: it is no JSON object.
    """
    try:
        if body.count(b'"model"') > 1 or b"\\u006" in body:
            body = msgspec.json.encode(_members(body))
        seen = _peek(body)
    except msgspec.ValidationError:
        return _of_wrong_types(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Unreadable("the request's body is no JSON") from None
    return seen.model, bool(seen.stream), body


def _of_wrong_types(body: bytes) -> tuple[str, bool, bytes]:
    """Return what a body says whose members are not of the types that they should have."""
    try:
        seen = _loose(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Unreadable("the request's body is no JSON object") from None
    return seen.model if isinstance(seen.model, str) else "", seen.stream is True, body


_BOUNDARY = re.compile(rb';\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_DISPOSITION = re.compile(rb"content-disposition:\s*form-data([^\r\n]*)", re.IGNORECASE)
_PARAMETER = re.compile(rb';\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')
_HEAD_BYTES = 16 * 1024
_BEHIND = (b"\r\n", b"--")  # what follows a boundary


def boundary_of(content_type: bytes) -> bytes:
    """Return the boundary of a form's parts; nothing where the body is no form.

    Raises:
        Unreadable: it is a form, and says no boundary.
    """
    if not content_type.lower().lstrip().startswith(b"multipart/form-data"):
        return b""
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise Unreadable("the form's Content-Type says no boundary (multipart/form-data; boundary=...)")
    return match[1] or match[2]


class Form:
    """Reads a form as it comes, until its field ``model``; each byte is looked at about once."""

    __slots__ = ("_at", "_delimiter", "_inside", "_model", "buffer")

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self.buffer = bytearray(b"\r\n")  # the first delimiter has no line before it
        self._at = 0
        self._inside = False  # the field `model`: its value begins at _at
        self._model: str | None = None

    def feed(self, piece: bytes) -> str | None:
        """Return the model as soon as it is known.

        Raises:
            Unreadable: the field is no text, or its part has no end to its head.
        """
        self.buffer += piece
        while self._model is None and self._step():
            pass
        return self._model

    @property
    def read(self) -> bytes:
        """Return all that was read."""
        return bytes(memoryview(self.buffer)[2:])

    def _step(self) -> bool:
        """Go one part further; False when more has to come first."""
        buffer, delimiter = self.buffer, self._delimiter
        found = buffer.find(delimiter, self._at)
        after = found + len(delimiter)
        while found >= 0 and len(buffer) >= after + 2 and buffer[after : after + 2] not in _BEHIND:
            found = buffer.find(delimiter, after)  # another, longer boundary
            after = found + len(delimiter)
        if found < 0 or len(buffer) < after + 2:
            if found < 0 and not self._inside:
                self._at = max(self._at, len(buffer) - len(delimiter) + 1)
            return False
        if self._inside:
            try:
                self._model = bytes(buffer[self._at : found]).decode().strip()
            except UnicodeDecodeError:
                raise Unreadable("the form's field `model` is no text") from None
            return False
        if buffer[after : after + 2] == b"--":  # the form's end: there is no such field
            self._at = len(buffer)
            return False
        end = buffer.find(b"\r\n\r\n", after)
        if end < 0 or end - after > _HEAD_BYTES:
            if len(buffer) - after > _HEAD_BYTES:
                raise Unreadable("a part of the form has no end to its head")
            self._at = found
            return False
        self._at = end + 4
        self._inside = _name_of(bytes(buffer[after:end])) == b"model"
        return True


def _name_of(head: bytes) -> bytes:
    disposition = _DISPOSITION.search(head)
    if disposition is None:
        return b""
    for name, quoted, plain in _PARAMETER.findall(disposition[1]):
        if name.lower() == b"name":
            return bytes(quoted or plain)
    return b""
