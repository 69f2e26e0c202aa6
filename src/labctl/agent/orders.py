"""An order about caps as it comes in: bytes from somebody else, bounded, and believed in nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, BinaryIO

from . import caps
from .capstate import Refused

_AT_MOST = 1 << 16


def answered(stream: BinaryIO, do: Callable[[Any], dict[str, Any]] = caps.order) -> dict[str, Any]:
    """Read one order, do it, and return the answer; what is no order changes nothing and is said so."""
    text = stream.read(_AT_MOST + 1)
    if len(text) > _AT_MOST:
        return _no_order(f"the order is longer than {_AT_MOST} bytes")
    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=_once)
    except UnicodeDecodeError:
        return _no_order("the order is not UTF-8")
    except RecursionError:
        return _no_order("the order is nested too deeply")
    except ValueError as error:
        return _no_order(f"the order is not JSON: {error}")
    return do(document)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; a name that comes twice could be meant either way."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _no_order(what: str) -> dict[str, Any]:
    return Refused(what, "nothing was changed", "bad-order").as_json()
