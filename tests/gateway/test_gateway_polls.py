"""Whoever only looks wakes nobody: ten thousand polls of a whole gateway, and what they must not do."""

from __future__ import annotations

import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from assembled_kit import SECRET as KEY
from clients_kit import Plan, Site, gateway_of, key

from labctl.domain.sleep.lifecycle import Mode
from labctl.gateway.pages import openapi
from labctl.gateway.pages.routes import Page

POLLS = 10_000
PLAN = Plan(
    hosts={"box": Mode.ASLEEP, "lost": Mode.UNKNOWN, "up": Mode.READY},
    models={"tiny": ("box",), "big": ("lost", "box"), "near": ("up",)},
    keys=(key(),),
)
LOOKS = (
    "GET /",
    "HEAD /",
    "GET /health",
    "GET /metrics",
    "GET /v1/models",
    "GET /v1/models/tiny",
    "GET /v1/models/nothing",
    "GET /labctl/v1/status",
    "GET /labctl/v1/openapi.json",
    "GET /labctl/v1/prewake",
    "GET /v1/chat/completions",
    "HEAD /v1/embeddings",
    "OPTIONS /v1/chat/completions",
    "GET /hosts/box/props",
    "GET /hosts/box/slots",
    "GET /favicon.ico",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with gateway_of(tmp_path_factory.mktemp("polls"), PLAN) as site:
        yield site


def _written(path: Path) -> dict[str, Any]:
    """Return all that the store holds but how often the gateway said that it lives."""
    with sqlite3.connect(path) as store:
        names = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        held = {name: store.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    store.close()
    held["instance"] = [row[:1] for row in held["instance"]]
    return held


def _ask(site: Site, count: int) -> list[bytes]:
    """Send looks one behind the other over one connection; return their status lines."""
    said = []
    with (
        socket.create_connection(("127.0.0.1", site.port)) as connection,
        connection.makefile("rb") as answers,
    ):
        for start in range(0, count, 50):
            asked = [LOOKS[(start + at) % len(LOOKS)] for at in range(50)]
            connection.sendall(
                b"".join(
                    f"{look} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()
                    for look in asked
                )
            )
            for look in asked:
                said.append(answers.readline())
                size = 0
                while (line := answers.readline()) != b"\r\n":
                    name, _, value = line.partition(b":")
                    size = int(value) if name.lower() == b"content-length" else size
                if not look.startswith("HEAD"):
                    assert len(answers.read(size)) == size
    return said


def test_ten_thousand_looks_wake_ask_and_write_nothing(site: Site) -> None:
    before = _written(site.folder / "store.db")
    said = _ask(site, POLLS)
    assert len(said) == POLLS
    assert {line.split()[1] for line in said} == {b"200", b"403", b"404", b"405", b"503"}
    assert site.wishes() == []
    assert _written(site.folder / "store.db") == before
    assert [double.connections for double in site.doubles.values()] == [0, 0, 0]


# --- the schema

API = schemathesis.openapi.from_dict(openapi.document("0"))

# A method that nobody knows is told 501 by the proxy, which is right and no page's to say.
CONFIG = """
[phases.coverage]
unexpected-methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
"""


def test_the_control_endpoints_keep_what_their_schema_promises(site: Site, tmp_path: Path) -> None:
    """Run by its command: its plugin gives all operations one name, of which xdist would run one."""
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{site.url}{Page.OPENAPI.value}"),
            *("--header", f"Authorization: Bearer {KEY}", "--max-examples", "20", "--no-color"),
            *("--phases", "coverage,fuzzing"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    # All but the document itself.
    assert re.search(r"Tested: +7\b", done.stdout), done.stdout


@pytest.mark.parametrize(
    "method,path,headers,body,status",
    [
        ("GET", "/v1/models", {}, None, 200),
        ("GET", "/v1/models", {"anthropic-version": "2023-06-01"}, None, 200),
        ("GET", "/v1/models/{id}", {}, None, 200),
        ("GET", "/v1/models/{id}", {"anthropic-version": "2023-06-01"}, None, 200),
        ("GET", "/labctl/v1/status", {}, None, 200),
        ("GET", "/labctl/v1/status", {"Authorization": ""}, None, 401),
        ("GET", "/health", {}, None, 200),
        ("POST", "/labctl/v1/prewake", {}, {"model": "near"}, 200),
        ("POST", "/labctl/v1/prewake", {}, {"model": "tiny"}, 202),
        ("POST", "/labctl/v1/prewake", {}, {"host": "box"}, 202),
        ("POST", "/labctl/v1/prewake", {}, {"host": "nas"}, 404),
    ],
)
def test_what_is_answered_of_this_rack_is_what_the_schema_says(
    site: Site, method: str, path: str, headers: dict[str, str], body: object, status: int
) -> None:
    answer = httpx.request(
        method, site.url + path.replace("{id}", "tiny"), headers={**site.auth, **headers}, json=body
    )
    assert answer.status_code == status
    API[path][method].validate_response(answer)
