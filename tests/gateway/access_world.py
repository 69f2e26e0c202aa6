"""What the tests of access and meters share: tables with keys, questions, records, and a clock's timers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from labctl.domain.budget import Rack as WattRack
from labctl.domain.gateway.table import Host, Key, Model, Table
from labctl.gateway.terms import Answer, Ask, Record

SECRET = "sk-labctl-alice-0123456789"


def key(name: str = "alice", secret: str = SECRET, **limits: object) -> Key:
    return Key(name, hashlib.sha256(secret.encode()).hexdigest(), **limits)  # type: ignore[arg-type]


def table(*keys: Key, listen: str = "127.0.0.1") -> Table:
    models = (Model("qwen3-8b", "chat", 60.0, aliases=("small",)), Model("bge-m3", "embedding", 60.0))
    return Table(
        "home", listen, 8080, models, (), (), (Host("gpu-box", True, True, 90.0),), WattRack(()), keys
    )


def ask(named: Mapping[bytes, bytes] | None = None, *, client: str = "192.168.1.20", at: float = 0.0) -> Ask:
    path = "/v1/chat/completions"
    headers = dict(named or {})
    return Ask("req-1", "POST", path, path, "", "1.1", tuple(headers.items()), headers, client, at)


def refused(answer: object) -> Answer:
    assert isinstance(answer, Answer)
    return answer


def record(**changes: object) -> Record:
    served = {
        "id": "req-1",
        "at": 1_790_000_000.1234567,
        "key": "alice",
        "client": "192.168.1.20",
        "method": "POST",
        "path": "/v1/chat/completions",
        "model": "qwen3-8b",
        "upstream": "gpu-box/llama",
        "host": "gpu-box",
        "status": 200,
        "how": "served",
        "tries": 1,
        "first_s": 0.2,
        "seconds": 1.2,
        "bytes_in": 300,
        "bytes_out": 4000,
    }
    return Record(**(served | changes))  # type: ignore[arg-type]


class Timers:
    """``loop.call_later`` of a loop whose time passes when a test says so."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.due.append((seconds, call))

    def pass_by(self) -> None:
        """Let all that is due now happen, but not what that brings about."""
        due, self.due = self.due, []
        for _, call in due:
            call()
