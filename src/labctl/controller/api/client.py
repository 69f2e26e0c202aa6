"""Ask the controller, over whatever carries lines: a unix socket, or SSH with ``labctl controller connect``.

A ``Controller`` is one connection; requests go one after the other. What the other end says is believed only
as far as it has the right form: its texts are a stranger's and belong through ``printer.safe``. Every way in
which an answer may be missing is a ``ControllerError`` with words and an exit code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from labctl.controller.api import VERSION, words
from labctl.domain.failures import HostError
from labctl.domain.problem import ExitCode, LabctlError
from labctl.ports import Conversation

_AWAY = frozenset({"silent", "no-controller"})
_REFUSED = frozenset({"refused", "not-allowed", "bad-field", "unknown-host", "unknown-verb", "version"})

_UNKNOWN_FIELD = "has a field that it does not know"


class ControllerError(LabctlError):
    """The controller did not do what was asked; ``said`` is its own code, or "silent"."""

    def __init__(self, said: str, reason: str, hint: str = "") -> None:
        code = ExitCode.BAD_INPUT if said in _REFUSED else ExitCode.HOST_FAILED
        super().__init__(reason, hint=hint, code=ExitCode.UNREACHABLE if said in _AWAY else code)
        self.said = said


def silent(why: str, hint: str = "") -> ControllerError:
    """Return the error of a controller that cannot be reached or broke off."""
    return ControllerError("silent", f"the controller does not answer: {why}", hint)


def no_controller(*, described: bool) -> ControllerError:
    """Return the error of a rack without a controller, or (not ``described``) of a machine without one."""
    if described:
        hint = "name the host it shall run on, Rack(controller=Controller(host=...)), then: labctl apply"
        return ControllerError("no-controller", "this rack has no controller", hint)
    hint = "name the rack file with --inventory, or run this on the controller's host"
    return ControllerError("no-controller", "there is no rack file here, and no controller either", hint)


class Controller:
    """One connection to the controller; ``rack`` and ``version`` are what it says of itself."""

    def __init__(self, conversation: Conversation, by: str) -> None:
        """Hear the greeting.

        Args:
            conversation: carries the lines; closed by ``close``.
            by: who asks, as another person would need it.

        Raises:
            ControllerError: it lets us not in, or is none.
        """
        self._conversation = conversation
        self._by = by
        self._lines = conversation.lines()
        try:
            first = self._hear()
            if first.get("v") != VERSION:
                raise ControllerError(
                    "version",
                    f"the controller speaks version {first.get('v')} of the protocol, this labctl {VERSION}",
                    "bring the older of the two up to date",
                )
        except BaseException:
            conversation.close()
            raise
        self.rack = str(first.get("rack", ""))
        self.version = str(first.get("labctl", ""))

    def ask(self, do: str, **fields: Any) -> Iterator[dict[str, Any]]:
        """Yield what a request is answered with, signs of life left out; the last has ``done``.

        Raises:
            ControllerError: it is refused, fails, or no answer comes.
        """
        by = "".join(sign for sign in self._by if sign.isprintable())[: words.LONGEST_TEXT]
        try:
            self._conversation.send(words.encode({"v": VERSION, "do": do, "by": by, **fields}))
        except HostError as error:
            raise silent(error.failure.reason, error.failure.hint) from None
        while True:
            said = self._hear()
            if said.get("alive") is True:
                continue
            yield said
            if said.get("done") is True:
                return

    def tell(self, do: str, **fields: Any) -> dict[str, Any]:
        """Return the last line of what a request is answered with."""
        *_, last = self.ask(do, **fields)
        return last

    def close(self) -> None:
        """Hang up; what was wished stays wished."""
        self._conversation.close()

    def __enter__(self) -> Controller:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _hear(self) -> dict[str, Any]:
        """Return the next line; raise ``ControllerError`` for an error, and where there is none."""
        try:
            line = next(self._lines, None)
        except HostError as error:
            raise silent(error.failure.reason, error.failure.hint) from None
        if line is None:
            raise silent("it hung up")
        try:
            said = words.document(line)
        except ValueError as error:
            raise silent(f"it said something else than an answer ({error})") from None
        refusal = said.get("error")
        if isinstance(refusal, Mapping):
            code, reason, hint = (str(refusal.get(name, "")) for name in ("code", "reason", "hint"))
            if code == "unknown-verb" or reason.endswith(_UNKNOWN_FIELD):  # we ask for what there is
                hint = "the controller is older than this labctl: labctl apply brings it up to date"
            raise ControllerError(code, reason or "the controller refuses", hint)
        return said
