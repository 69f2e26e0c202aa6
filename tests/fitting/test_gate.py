"""How the gate reads many headers at once, and what it does when a person does not want to wait."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from labctl.domain.fit.terms import ModelShape
from labctl.domain.problem import LabctlError
from labctl.fitting import gate
from labctl.inventory import LoadedRack, Model
from labctl.inventory.served import loads

from fit_racks import rack, shape, swap  # isort: skip

WANTED = rack(swap("a", "b"))
LOADED = LoadedRack(WANTED, Path("rack.py").absolute(), {}, {"rig": {}})


class Headers:
    """Answers by a model's id; what is no shape is raised or done."""

    def __init__(self, **said: object) -> None:
        self._said = said

    def of(self, model: Model, *, host: str | None) -> ModelShape:
        said = self._said[model.id]
        if callable(said):
            said = said()
        if isinstance(said, Exception):
            raise said
        assert isinstance(said, ModelShape)
        return said

    def projector_bytes(self, model: Model, *, host: str | None) -> int:
        return 7


def test_what_can_be_read_is_known_and_what_cannot_says_why() -> None:
    headers = Headers(a=shape(1), b=LabctlError("404"))
    found = gate.sizes(LOADED, loads(WANTED), lambda: headers, {})
    assert found.shapes == {"a": shape(1)}
    assert found.projectors == {"a": 7}
    assert found.silent["b"].reason == "404"


def test_a_host_that_is_off_hides_no_model_that_lies_on_another() -> None:
    (rig,) = WANTED.hosts
    both = WANTED.model_copy(update={"hosts": (rig, rig.model_copy(update={"name": "other"}))})
    asked: list[str | None] = []

    class Off(Headers):
        def of(self, model: Model, *, host: str | None) -> ModelShape:
            asked.append(host)
            if host == "rig":
                raise LabctlError(f"{host} is off")
            return super().of(model, host=host)

    loaded = LoadedRack(both, Path("rack.py").absolute(), {}, {"rig": {}, "other": {}})
    found = gate.sizes(loaded, loads(both), lambda: Off(a=shape(1), b=LabctlError("404")), {})
    assert found.shapes == {"a": shape(1)}
    assert found.silent["b"].reason == "rig is off"
    assert sorted(map(str, asked)) == ["other", "other", "rig", "rig"]


def test_a_bug_in_a_reader_is_not_taken_for_a_header_that_cannot_be_read() -> None:
    with pytest.raises(ZeroDivisionError):
        gate.sizes(LOADED, loads(WANTED), lambda: Headers(a=ZeroDivisionError(), b=shape(1)), {})


def test_ctrl_c_does_not_wait_for_a_server_that_says_nothing() -> None:
    released, ended = threading.Event(), threading.Event()

    def silence() -> ModelShape:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
        released.wait(60)
        ended.set()
        return shape(1)

    with pytest.raises(KeyboardInterrupt):
        gate.sizes(LOADED, loads(WANTED), lambda: Headers(a=silence, b=shape(1)), {})
    assert not ended.is_set()
    released.set()
    assert ended.wait(60)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("", "does not say why"),
        ("yes", "does not say why"),
        ("1234567890 !!", "does not say why"),
        ("lent out \u202eyadnom", "does not say why"),
        ("\x1b[31mlent out until monday", "does not say why"),
        ("why " * 100, "in 399 letters"),
    ],
)
def test_words_that_say_nothing_or_hide_something_force_nothing(words: str, reason: str) -> None:
    with pytest.raises(LabctlError, match=reason):
        gate.checked_words(words)


def test_words_are_kept_as_one_line() -> None:
    assert gate.checked_words("lent out\nuntil\tMonday ") == "lent out until Monday"
