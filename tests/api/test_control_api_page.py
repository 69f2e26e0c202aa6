"""docs/control-api.md says what the code does: verbs, fields, defaults, codes, bounds, a conversation."""

from __future__ import annotations

import ast
import json
import re
import socket
from pathlib import Path

from labctl.controller.answers import Change
from labctl.controller.api import ALIVE_S, LONGEST_LINE, PROGRAM, SOCKET, VERSION, server, words
from labctl.controller.service import IDLE_LASTS_S, WAKE_LASTS_S
from labctl.domain.sleep.lifecycle import Mode

from scripted_service import Scripted, serving  # isort: skip

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "control-api.md").read_text()
SECTIONS = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S))


def test_every_verb_has_its_section_and_every_field_its_row() -> None:
    assert SECTIONS.keys() == words.VERBS.keys()
    for verb, fields in words.VERBS.items():
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", SECTIONS[verb], re.M)
        told = {
            name: (field.must_be, "required" if field.required else f"`{json.dumps(field.default)}`")
            for name, field in fields.items()
        }
        assert {name: (must_be, default) for name, must_be, default in rows} == told, verb


def test_every_code_has_its_row_which_says_whether_the_connection_goes_on() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| .+? \| (ends|goes on) \|$", PAGE, re.M))
    said = {"no-controller", *words.FATAL}
    for path in (ROOT / "src" / "labctl" / "controller" / "api").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "SaidError":
                said |= {one.value for one in node.args[:1] if isinstance(one, ast.Constant)}
    assert rows.keys() == {*said, "refused", "store"}
    assert {code for code, end in rows.items() if end == "ends"} == {*words.FATAL, "no-controller"}


def test_modes_places_and_bounds_are_those_of_the_code() -> None:
    listed = re.search(r"A \*mode\* is (.+?); see", PAGE)
    assert listed is not None
    assert set(re.findall(r"`(\w+)`", listed[1])) == set(Mode)
    for said in (
        f"Its version is {VERSION}.",
        f"`{SOCKET}`",
        f"{' '.join(PROGRAM)} controller connect",
        f"at least every {ALIVE_S:.0f} seconds",
        f"at most {LONGEST_LINE} bytes",
        f"not whole {server.LINE_S:.0f} s after its first byte",
        f"nothing was said for {server.IDLE_S:.0f} s",
        f"{server.MOST_CLIENTS} clients are connected, or {server.MOST_OF_A_USER} of this user",
        f"takes no answer for {server.SEND_S:.0f} s",
        f"lives for {WAKE_LASTS_S / 60:.0f} minutes",
        f"lives for {IDLE_LASTS_S / 3600:.0f} hours",
    ):
        assert said in PAGE, said


def test_the_conversation_is_what_would_be_said(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.M | re.S)
    service = Scripted(
        changes=[
            Change("gpu-box", Mode.WAKING, "round 1 was sent", 42.0),
            Change("gpu-box", Mode.VERIFYING, "it answers", 42.0),
            Change("gpu-box", Mode.READY, "the gate has passed", 42.0, True),
        ]
    )
    heard = []
    with serving(tmp_path / "s", service), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(tmp_path / "s"))
        with sock.makefile("rb") as lines:
            for line in block.splitlines():
                if line.startswith("> "):
                    sock.sendall(line[2:].encode() + b"\n")
                    heard.append(line)
                else:
                    heard.append(f"< {lines.readline().decode().rstrip()}")
    assert "\n".join(heard) == block.rstrip()
