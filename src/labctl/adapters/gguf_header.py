"""Read the header of a GGUF file, and nothing else of it.

The header stands at the beginning: counts, keys with values, the list of tensors. It is walked through once,
in pieces that are fetched as they are needed, one mebibyte first and then four at a time. Keys and short
lists are kept; of long lists, which are vocabularies, only the length.

The library's own reader wants the whole file in memory's reach and makes two arrays of every word of the
vocabulary (seconds, and hundreds of megabytes); it also believes every length it reads. So only its tables
are used here: which types there are, and how large their blocks.

Nothing in the file is believed: lengths and counts are compared with what there is, at most ``MOST_BYTES``
are read, and every refusal says what is wrong. A file that ends before its tensors do was cut off.
"""

from __future__ import annotations

import struct
from functools import cache

from labctl.domain.fit.gguf_shape import Header, Number, Tensor, Value
from labctl.domain.problem import LabctlError
from labctl.ports import Ranges

MOST_BYTES = 28 * 1024**2
"""No header of a real model is longer: 300 000 words and their merges take about 13 MiB."""
_FIRST, _NEXT = 1024**2, 4 * 1024**2
_MOST_KEYS, _MOST_TENSORS, _MOST_KEPT, _MOST_NAME = 65_536, 131_072, 2048, 4096
_MOST_DIMENSIONS = 4
_MOST_SIZE = 2**62
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    _BOOL: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}


@cache
def _blocks() -> dict[int, tuple[int, int]]:
    """Return elements and bytes of a block by the number of a type."""
    from gguf.constants import GGML_QUANT_SIZES

    return {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}


def read_header(source: Ranges) -> Header:
    """Return what a GGUF file's header says.

    Raises:
        LabctlError: it cannot be read, or is no GGUF file that labctl reads; says why.
    """
    walk = _Walk(source)
    _begin(walk)
    tensor_count, key_count = walk.number("<Q"), walk.number("<Q")
    if tensor_count > _MOST_TENSORS or key_count > _MOST_KEYS:
        raise walk.wrong(f"it claims {tensor_count} tensors and {key_count} keys; that cannot be")
    values: dict[str, Value] = {}
    counts: dict[str, int] = {}
    for _ in range(key_count):
        key = walk.name()
        if key in values or key in counts:
            raise walk.wrong(f"it has the key {key[:80]} twice")
        _value(walk, key, values, counts)
    found = [_tensor(walk) for _ in range(tensor_count)]
    _whole(walk, values, found)
    tensors = tuple(Tensor(name, size) for name, size, _ in found)
    return Header(values, counts, tensors, source.size)


class _Walk:
    """A place in the header, and the pieces of it that were fetched so far."""

    def __init__(self, source: Ranges) -> None:
        self._source = source
        self._data = bytearray()
        self.at = 0

    @property
    def source_size(self) -> int:
        """Return the length of the file."""
        return self._source.size

    def wrong(self, reason: str) -> LabctlError:
        return LabctlError(f"{self._source.name}: {reason}", hint="is it the model's file, and whole?")

    def take(self, length: int) -> int:
        """Step over ``length`` bytes, fetching them if need be, and return where they begin."""
        start = self.at
        end = start + length
        if end > self._source.size:
            raise self.wrong(f"it ends within its header (it has {self._source.size} bytes)")
        if end > MOST_BYTES:
            raise self.wrong(f"its header is longer than {MOST_BYTES >> 20} MiB; no model's is")
        while len(self._data) < end:
            piece = self._source.read(len(self._data), self._piece(end))
            if not piece:
                raise self.wrong("it became shorter while it was read")
            self._data += piece
        self.at = end
        return start

    def _piece(self, end: int) -> int:
        wanted = max(end - len(self._data), _NEXT if self._data else _FIRST)
        room = min(self._source.size, MOST_BYTES) - len(self._data)
        return min(wanted, room)

    def number(self, form: str) -> int:
        """Return the next whole number of that form."""
        found = self.scalar(form)
        assert isinstance(found, int)
        return found

    def scalar(self, form: str) -> Number:
        start = self.take(struct.calcsize(form))
        found: Number = struct.unpack_from(form, self._data, start)[0]
        return found

    def scalars(self, form: str, count: int) -> tuple[Number, ...]:
        start = self.take(struct.calcsize(form) * count)
        return struct.unpack_from(f"<{count}{form[1:]}", self._data, start)

    def bytes(self, length: int) -> bytes:
        start = self.take(length)
        return bytes(self._data[start : self.at])

    def name(self) -> str:
        """Return the next key or name, which is text."""
        length = self.number("<Q")
        if length > _MOST_NAME:
            raise self.wrong(f"it has a name of {length} bytes; that cannot be")
        try:
            return self.bytes(length).decode()
        except UnicodeDecodeError:
            raise self.wrong("it has a name that is not text") from None

    def skip_words(self, count: int) -> None:
        """Step over that many words, each its length and its bytes."""
        if count * 8 > MOST_BYTES:
            raise self.wrong(f"it has a list of {count} words; that cannot be")
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(count):
            start = self.take(8)
            self.take(unpack(self._data, start)[0])


def _begin(walk: _Walk) -> None:
    magic = walk.bytes(4)
    if magic != b"GGUF":
        raise walk.wrong("it is no GGUF file")
    version = walk.number("<I")
    if version & 0xFFFF == 0:
        raise walk.wrong("it is a GGUF file for machines with the other byte order")
    if version not in (2, 3):
        raise walk.wrong(f"it is a GGUF file of version {version}; labctl reads 2 and 3")


def _value(walk: _Walk, key: str, values: dict[str, Value], counts: dict[str, int]) -> None:
    """Read one value; keep it if it is short."""
    kind = walk.number("<I")
    if kind == _STRING:
        length = walk.number("<Q")
        if length > MOST_BYTES:
            raise walk.wrong(f"{key[:80]} is a text of {length} bytes; that cannot be")
        text = walk.bytes(length)
        values[key] = text[:_MOST_NAME].decode(errors="replace")
    elif kind in _SCALARS:
        values[key] = walk.scalar(_SCALARS[kind])
    elif kind == _ARRAY:
        item, count = walk.number("<I"), walk.number("<Q")
        counts[key] = count
        if item == _STRING:
            walk.skip_words(count)
        elif item in _SCALARS and count <= _MOST_KEPT:
            values[key] = walk.scalars(_SCALARS[item], count)
        elif item in _SCALARS and count <= MOST_BYTES:
            walk.take(struct.calcsize(_SCALARS[item]) * count)
        else:
            raise walk.wrong(f"{key[:80]} is a list of {count} values of type {item}; that cannot be")
    else:
        raise walk.wrong(f"{key[:80]} is of type {kind}, which GGUF does not have")


def _tensor(walk: _Walk) -> tuple[str, int, int]:
    """Return name, bytes and place of the next tensor."""
    name = walk.name()
    dimensions = walk.number("<I")
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise walk.wrong(f"the tensor {name[:80]} has {dimensions} dimensions; that cannot be")
    lengths = [walk.number("<Q") for _ in range(dimensions)]
    kind, offset = walk.number("<I"), walk.number("<Q")
    if kind not in _blocks():
        raise walk.wrong(f"the tensor {name[:80]} is of type {kind}, which this labctl does not know")
    block, size = _blocks()[kind]
    elements = 1
    for length in lengths:
        elements *= length
    if elements > _MOST_SIZE or lengths[0] % block:
        raise walk.wrong(f"the tensor {name[:80]} has lengths {lengths}; that cannot be")
    return name, elements // block * size, offset


def _whole(walk: _Walk, values: dict[str, Value], tensors: list[tuple[str, int, int]]) -> None:
    """Raise unless the file is as long as its tensors need, and names none twice."""
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 2**20 or alignment & (alignment - 1):
        raise walk.wrong(f"its alignment is {str(alignment)[:40]}; that cannot be")
    if len({name for name, _, _ in tensors}) != len(tensors):
        raise walk.wrong("it has two tensors of one name")
    start = -(-walk.at // alignment) * alignment
    needed = max((start + offset + size for _, size, offset in tensors), default=0)
    if needed > walk.source_size:
        raise walk.wrong(f"it is cut off: it has {walk.source_size} bytes, and its tensors need {needed}")
