"""How callers order the sandbox: one JSON line there, one back, over a unix socket in the lab's directory.

The directory belongs to root alone, so whoever can reach the socket may order. Expected failures travel as
their problems and are raised again on the caller's side; anything else is reported as a fault of the lab,
and its traceback stays in the lab's log.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labctl.domain.problem import LabctlError, Problem

Answer = Callable[[str, dict[str, Any]], Any]
_NAME = "control"


def order(home: Path, verb: str, *, patience: float = 60, **arguments: Any) -> Any:
    """Send one order to the lab in ``home`` and return its answer.

    Raises:
        LabctlError: the lab refused or failed, is not up, or did not answer within ``patience`` seconds.
    """
    line = json.dumps({"verb": verb, **arguments}).encode() + b"\n"
    try:
        with _reachable(home) as address, socket.socket(socket.AF_UNIX) as link:
            link.settimeout(patience)
            link.connect(address)
            link.sendall(line)
            reply = link.makefile("rb").readline()
    except TimeoutError:
        raise LabctlError(
            f"the lab did not answer {verb!r} within {patience:g} s", hint=f"see {home}/log"
        ) from None
    except OSError:
        reply = b""
    if not reply:
        raise LabctlError(f"the lab {home.name!r} is not up", hint="labctl lab up")
    answer = json.loads(reply)
    if "problems" in answer:
        raise LabctlError(Problem(**problem) for problem in answer["problems"])
    return answer["result"]


def serve(home: Path, answer: Answer) -> None:
    """Answer orders for ever, each in a thread of its own."""
    (home / _NAME).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    with _reachable(home) as address:
        listener.bind(address)
    listener.listen(64)

    def accept() -> None:
        while True:
            link, _ = listener.accept()
            threading.Thread(target=_answer_one, args=(link, answer), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def _answer_one(link: socket.socket, answer: Answer) -> None:
    with link, link.makefile("rwb") as stream:
        line = stream.readline()
        if not line:
            return
        asked = json.loads(line)
        try:
            reply = {"result": answer(asked.pop("verb"), asked)}
        except LabctlError as error:
            reply = {"problems": [asdict(problem) for problem in error.problems]}
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            reply = {"problems": [asdict(Problem(f"the lab itself failed: {error!r}", hint="see its log"))]}
        try:
            stream.write(json.dumps(reply).encode() + b"\n")
        except BrokenPipeError:
            return


@contextmanager
def _reachable(home: Path) -> Iterator[str]:
    """Yield a short name of the socket: the kernel allows 107 bytes, and homes may lie deep."""
    directory = os.open(home, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{_NAME}"
    finally:
        os.close(directory)
