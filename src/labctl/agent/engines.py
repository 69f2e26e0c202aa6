"""What runs on this host by labctl's hand: its units, what models they have loaded, and what was forced.

Units are found by labctl's own mark in their files. systemd says how they are; the engines themselves are
asked on loopback, only where asking costs nothing and wakes nothing: llama-server's ``/health``, llama-swap's
``/running``, vLLM's ``/health``, SGLang's ``/ready`` (its ``/health`` makes a token), Ollama's ``/api/ps``.
Anything that would start a model (llama-swap's ``/upstream``) or keep one loaded is never asked.

All are asked at once, each for a second, and no more than 64 KiB of an answer is read. An engine that says
nothing is an engine of which nothing is known: that is null, no finding.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

from .host import ROOT, document, text
from .sections import Finding

FORCED = "var/lib/labctl/forced.json"
UNITS = "etc/systemd/system"
SECRETS = "etc/labctl/secrets"
MARKER = "# labctl service:"
MOST_UNITS = 64
_ASKED_FOR_S = 1.0
_SYSTEMCTL_S = 3.0
_ANSWER_AT_MOST = 64 << 10
_WORD_AT_MOST = 200
_PROPERTIES = ("Id", "ActiveState", "SubState", "NRestarts", "MainPID", "ActiveEnterTimestamp")
# What each kind of program is asked; None: nothing that is safe to ask.
_QUESTIONS = {
    "llama-server": "/health",
    "llama-swap": "/running",
    "vllm": "/health",
    "sglang": "/ready",
    "ollama": "/api/ps",
}


def forced(root: Path = ROOT) -> Any:
    """Return what was let through although it does not fit, null where nothing was.

    Raises:
        Finding: there is a note, and it cannot be read.
    """
    try:
        return document(root / FORCED)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Finding(f"/{FORCED} cannot be read: {error}", "run labctl apply", "bad-file") from None


def engines(root: Path = ROOT) -> list[dict[str, Any]]:
    """Return each of labctl's units with its state, and what its engine says of itself."""
    found = [unit for path in sorted((root / UNITS).glob("labctl-*.service")) if (unit := unit_file(path))]
    found = found[:MOST_UNITS]
    if not found:
        return []
    states = _states([unit["unit"] for unit in found])
    from threading import Thread  # only where there is somebody to ask

    askers = []
    for unit in found:
        unit.update(states.get(unit["unit"], {}))
        unit.update(answer=None, models=None)
        if unit.get("active") == "active" and unit["port"] is not None:
            askers.append(Thread(target=_ask, args=(unit, root), daemon=True))
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(_ASKED_FOR_S + 0.5)
    # A thread that is late may still write into its own; what is returned is a copy.
    return [dict(unit) for unit in found]


def unit_file(path: Path) -> dict[str, Any] | None:
    """Return what a unit file says, or nothing if it is not a service of labctl's."""
    lines = (text(path) or "").splitlines()
    if len(lines) < 2 or not lines[1].startswith(MARKER):
        return None
    import shlex

    start = next((line[len("ExecStart=") :] for line in lines if line.startswith("ExecStart=")), "")
    try:
        words = [word.replace("$$", "$").replace("%%", "%") for word in shlex.split(start)]
    except ValueError:
        words = []
    settings = [line for line in lines if line.startswith("Environment=")]
    kind = _kind(words)
    return {
        "unit": path.name,
        "service": lines[1][len(MARKER) :].strip()[:_WORD_AT_MOST],
        "kind": kind,
        "port": _port(words, settings),
        "names": _option(words, "--alias")[:_WORD_AT_MOST],
    }


def _kind(words: list[str]) -> str | None:
    for word in words[:4]:
        name = word.rpartition("/")[2].partition(".")[0]
        if name in _QUESTIONS:
            return name
    return None


def _option(words: list[str], name: str) -> str:
    """Return the value of an option, "" where it is not given."""
    for word, following in zip(words, [*words[1:], ""]):  # noqa: B905 (also runs on Python 3.9)
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return ""


def _port(words: list[str], settings: list[str]) -> int | None:
    listen = _option(words, "--port") or (_option(words, "-listen") or _option(words, "--listen"))
    if not listen:
        hosts = (line.partition("OLLAMA_HOST=")[2].rstrip('"') for line in settings)
        listen = next((host for host in hosts if host), "")
    number = listen.rpartition(":")[2]
    return int(number) if number.isascii() and number.isdigit() and 0 < int(number) < 65536 else None


def _states(units: list[str]) -> dict[str, dict[str, Any]]:
    """Return what systemd says of units.

    Raises:
        Finding: it says nothing.
    """
    import subprocess

    command = [
        "systemctl",
        "show",
        "--no-pager",
        *(f"--property={name}" for name in _PROPERTIES),
        "--",
        *units,
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_SYSTEMCTL_S, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Finding(f"systemctl does not answer: {error}") from None
    states = {}
    for block in done.stdout.decode(errors="replace").split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in fields:
            restarts = fields.get("NRestarts", "")
            states[fields["Id"]] = {
                "active": fields.get("ActiveState"),
                "sub": fields.get("SubState"),
                "restarts": int(restarts) if restarts.isdigit() else None,
                "since": fields.get("ActiveEnterTimestamp") or None,
            }
    return states


def _ask(unit: dict[str, Any], root: Path) -> None:
    """Put into the unit what its engine says."""
    question = _QUESTIONS.get(unit["kind"] or "")
    if question is None:
        return
    key = text(root / SECRETS / f"{unit['service']}.api-key")
    if key is not None:
        # llama-swap gets its keys as variables; the file is an EnvironmentFile then.
        key = key.removeprefix("LABCTL_API_KEY=")
    try:
        status, body = _get(unit["port"], question, key)
    except (OSError, ValueError):
        return
    try:
        said = json.loads(body) if body else None
    except (ValueError, RecursionError):
        said = None
    unit["answer"] = status
    unit["models"] = _models(unit, status, said)


def _get(port: int, path: str, key: str | None) -> tuple[int, bytes]:
    """Return the status and the beginning of what a server on loopback answers.

    http.client would load a megabyte of modules for each report.

    Raises:
        OSError: there is no answer in time.
        ValueError: it is no HTTP.
    """
    until = time.monotonic() + _ASKED_FOR_S
    words = [f"GET {path} HTTP/1.0", "Host: 127.0.0.1", "Connection: close"]
    words += [f"Authorization: Bearer {key}"] if key else []
    data = b""
    with socket.create_connection(("127.0.0.1", port), timeout=_ASKED_FOR_S) as connection:
        connection.sendall("\r\n".join([*words, "", ""]).encode())
        while len(data) < _ANSWER_AT_MOST:
            connection.settimeout(max(0.01, until - time.monotonic()))
            piece = connection.recv(_ANSWER_AT_MOST)
            if not piece:
                break
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    version, status, *_ = head.split(b" ", 2)
    if not version.startswith(b"HTTP/1."):
        raise ValueError("no HTTP")
    return int(status), body


def _models(unit: dict[str, Any], status: int, said: Any) -> list[dict[str, str]] | None:
    """Return the models that an engine has loaded, null where its answer does not say."""
    if unit["kind"] == "llama-swap" or unit["kind"] == "ollama":
        listed = (
            said.get("running" if unit["kind"] == "llama-swap" else "models")
            if isinstance(said, dict)
            else None
        )
        if status != 200 or not isinstance(listed, list):
            return None
        return [
            {"model": _word(one, "model"), "state": _word(one, "state") or "ready"}
            for one in listed
            if isinstance(one, dict)
        ]
    name = str(unit["names"]).partition(",")[0]
    if status == 200:
        return [{"model": name, "state": "ready"}]
    return [{"model": name, "state": "starting"}] if status == 503 else None


def _word(one: dict[str, Any], name: str) -> str:
    return str(one.get(name, ""))[:_WORD_AT_MOST]
