"""Read the header of a safetensors file, and nothing else of it.

It begins with the length of its header in eight bytes, then the header itself, JSON: tensors by name, each
with the places where its bytes begin and end. Nothing in it is believed: the length is bounded, places lie
within the file, and whatever is no such header is an error that says so.
"""

from __future__ import annotations

import json
from typing import Any

from labctl.domain.fit.gguf_shape import Tensor
from labctl.domain.problem import LabctlError
from labctl.ports import Ranges

MOST_HEADER = 16 * 1024**2
MOST_JSON = 16 * 1024**2
_FIRST = 256 * 1024
_LENGTH = 8


def read_tensors(source: Ranges) -> tuple[Tensor, ...]:
    """Return the tensors of a file with their bytes.

    Raises:
        LabctlError: it cannot be read, or is no whole safetensors file; says why.
    """
    size = source.size
    data = source.read(0, min(_FIRST, size))
    length = int.from_bytes(data[:_LENGTH], "little")
    if len(data) < _LENGTH or not 2 <= length <= MOST_HEADER or _LENGTH + length > size:
        raise _wrong(source, f"it is no safetensors file (its header would have {length} bytes)")
    if (missing := _LENGTH + length - len(data)) > 0:
        data += source.read(len(data), missing)
    entries = _parsed(source, data[_LENGTH : _LENGTH + length])
    room = size - _LENGTH - length
    return tuple(
        _tensor(source, name, entry, room) for name, entry in entries.items() if name != "__metadata__"
    )


def read_json(source: Ranges) -> dict[str, Any]:
    """Return the JSON object in a small file; raise ``LabctlError`` if there is none."""
    if source.size > MOST_JSON:
        raise _wrong(source, f"it has {source.size} bytes; no such file is longer than {MOST_JSON}")
    return _parsed(source, source.read(0, source.size))


def _wrong(source: Ranges, reason: str) -> LabctlError:
    return LabctlError(f"{source.name}: {reason}", hint="is it the model's file, and whole?")


def _parsed(source: Ranges, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise _wrong(source, "what should be JSON is none") from None
    if not isinstance(found, dict):
        raise _wrong(source, "what should be a JSON object is none")
    return found


def _tensor(source: Ranges, name: str, entry: object, room: int) -> Tensor:
    places = entry.get("data_offsets") if isinstance(entry, dict) else None
    match places:
        case [int(start), int(end)] if 0 <= start <= end <= room:
            return Tensor(name, end - start)
        case [int(), int(end)] if end > room:
            raise _wrong(source, f"it is cut off: the tensor {name[:80]} ends beyond it")
    raise _wrong(source, f"the tensor {name[:80]} has no place; that cannot be")
