"""Pieces of files over HTTP: who is asked, who gets the token, and which servers are refused."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import made_gguf as made
import pytest
from range_server import Served, serving

from labctl.adapters.gguf_header import read_header
from labctl.adapters.http_ranges import HttpRanges
from labctl.domain.problem import LabctlError

SIZE = 300_000


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    data = os.urandom(SIZE)
    (tmp_path / "file").write_bytes(data)
    return data


@pytest.fixture
def server(content: bytes, tmp_path: Path) -> Iterator[Served]:
    with serving({"/file": tmp_path / "file"}) as served:
        yield served


def test_pieces_are_what_lies_there(server: Served, content: bytes) -> None:
    with HttpRanges(f"{server.url}/file") as source:
        assert source.size == SIZE
        assert source.read(0, 100) == content[:100]
        assert source.read(250_000, 100_000) == content[250_000:]
    assert server.bytes_sent == 1 + 100 + 50_000


def test_of_40_gb_less_than_32_mib_are_read(tmp_path: Path) -> None:
    path = made.qwen3moe().write(tmp_path / "model.gguf")
    with path.open("r+b") as file:
        file.truncate(40 * 10**9)  # a hole
    with serving({"/model.gguf": path}) as served, HttpRanges(f"{served.url}/model.gguf") as source:
        header = read_header(source)
        assert header.file_bytes == 40 * 10**9
        assert header.tensor_bytes == made.qwen3moe().weight_bytes
        assert served.bytes_sent < 32 * 1024**2


def test_a_server_that_sends_everything_is_refused_before_it_has(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(10**9)
    with serving({"/file": path}) as served:
        served.ranges = False
        with HttpRanges(f"{served.url}/file") as source:
            with pytest.raises(LabctlError, match="its server cannot send parts of a file") as refused:
                source.read(0, 100)
    assert "or fetch the model first" in str(refused.value)
    assert served.bytes_sent < 32 * 1024**2


def test_the_token_goes_to_its_own_host_and_not_where_that_sends_us(content: bytes, tmp_path: Path) -> None:
    with serving({"/bytes": tmp_path / "file"}) as store, serving({}) as hub:
        hub.moved["/file"] = f"{store.url}/bytes?signed=1"
        with HttpRanges(f"{hub.url}/file", token="hf_secret") as source:
            assert source.read(0, 10) == content[:10]
    assert hub.requests[0][1]["authorization"] == "Bearer hf_secret"
    assert [headers.get("authorization") for _, headers in store.requests] == [None]


def test_the_token_is_not_sent_in_the_clear_beyond_this_machine() -> None:
    source = HttpRanges("http://models.example/file", token="hf_secret")
    assert source._permission() == {}
    assert HttpRanges("https://models.example/file", token="t")._permission() == {"authorization": "Bearer t"}


def test_no_error_shows_what_may_hold_a_permission(server: Served) -> None:
    with HttpRanges(f"{server.url}/missing?signature=secret", token="hf_secret") as source:
        with pytest.raises(LabctlError, match="answers 404") as refused:
            source.read(0, 10)
    assert "secret" not in str(refused.value)


def test_moving_in_circles_ends(server: Served) -> None:
    server.moved["/a"] = "/b"
    server.moved["/b"] = "/a"
    with HttpRanges(f"{server.url}/a") as source, pytest.raises(LabctlError, match="more than 5 times"):
        source.read(0, 10)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://example/x", "", "https:///x"])
def test_moving_to_another_kind_of_place_is_refused(server: Served, target: str) -> None:
    server.moved["/a"] = target
    with HttpRanges(f"{server.url}/a") as source, pytest.raises(LabctlError, match="redirected"):
        source.read(0, 10)


@pytest.mark.parametrize("target", ["http://[bad", f"http://xn--zz.{'a' * 300}/", f"http://{'a' * 70_000}/"])
def test_moving_to_what_is_no_address_is_an_error_in_words(server: Served, target: str) -> None:
    server.moved["/a"] = target
    with HttpRanges(f"{server.url}/a") as source, pytest.raises(LabctlError, match="cannot be read"):
        source.read(0, 10)


def test_moving_from_https_to_http_is_refused() -> None:
    import httpx

    source = HttpRanges("https://models.example/file")
    answer = httpx.Response(302, headers={"location": "http://models.example/file"})
    with pytest.raises(LabctlError, match="is redirected to http, which is refused"):
        source._next(answer)


Behave = Callable[[BaseHTTPRequestHandler, bytes, int, int], bool]


def _answer(handler: BaseHTTPRequestHandler, span: str, data: bytes, claimed: int | None = None) -> bool:
    handler.send_response(206)
    handler.send_header("Content-Range", span)
    handler.send_header("Content-Length", str(len(data) if claimed is None else claimed))
    handler.end_headers()
    handler.wfile.write(data)
    handler.close_connection = True
    return True


MISBEHAVIOUR: dict[str, tuple[Behave, str]] = {
    "another part": (
        lambda h, data, start, size: _answer(h, f"bytes {start + 1}-{start + len(data)}/{size}", data),
        "another part than was asked for",
    ),
    "no word of which part": (lambda h, data, start, size: _answer(h, "", data), "another part"),
    "more than was asked for": (
        lambda h, data, start, size: _answer(h, f"bytes {start}-{start + 9}/{size}", data + bytes(99)),
        "more than was asked for",
    ),
    "less than it says": (
        lambda h, data, start, size: _answer(
            h, f"bytes {start}-{start + len(data) - 1}/{size}", data[:1], len(data)
        ),
        "cannot be read",
    ),
    "less than was asked for": (
        lambda h, data, start, size: _answer(h, f"bytes {start}-{start + 2}/{size}", data[:3]),
        "the connection ended early",
    ),
}


@pytest.mark.parametrize("behave, words", MISBEHAVIOUR.values(), ids=MISBEHAVIOUR.keys())
def test_a_server_that_sends_something_else_is_refused(server: Served, behave: Behave, words: str) -> None:
    server.behave = behave
    with HttpRanges(f"{server.url}/file") as source, pytest.raises(LabctlError, match=words):
        source.read(0, 10)


def test_a_file_that_changes_while_it_is_read_is_refused(server: Served, tmp_path: Path) -> None:
    with HttpRanges(f"{server.url}/file") as source:
        source.read(0, 10)
        (tmp_path / "file").write_bytes(bytes(SIZE + 1))
        with pytest.raises(LabctlError, match="it changed while it was read"):
            source.read(10, 10)


@pytest.mark.parametrize("code, hint", [(401, "give the model a `token`"), (403, "accept its terms")])
def test_a_gated_model_says_what_to_do(server: Served, code: int, hint: str) -> None:
    def behave(handler: BaseHTTPRequestHandler, *_: object) -> bool:
        handler.send_error(code)
        return True

    server.behave = behave
    with HttpRanges(f"{server.url}/file") as source:
        with pytest.raises(LabctlError, match=f"its server answers {code}") as refused:
            source.read(0, 10)
    assert hint in str(refused.value)


def test_a_server_that_is_not_there_is_an_error_in_words() -> None:
    with HttpRanges("http://127.0.0.1:1/file") as source:
        with pytest.raises(LabctlError, match="cannot be read") as refused:
            source.read(0, 10)
    assert "is the server up" in str(refused.value)


def test_a_server_that_falls_silent_is_given_up(server: Served) -> None:
    go_on = threading.Event()

    def behave(handler: BaseHTTPRequestHandler, data: bytes, start: int, size: int) -> bool:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{size}")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        go_on.wait(20)
        handler.close_connection = True
        return True

    server.behave = behave
    try:
        with HttpRanges(f"{server.url}/file", timeout_s=0.2) as source:
            with pytest.raises(LabctlError, match="cannot be read"):
                source.read(0, 10)
    finally:
        go_on.set()


def test_a_server_that_only_drips_is_given_up(server: Served) -> None:
    enough = threading.Event()

    def behave(handler: BaseHTTPRequestHandler, data: bytes, start: int, size: int) -> bool:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{size}")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        while not enough.wait(0.02):
            try:
                handler.wfile.write(b".")
            except OSError:
                break
        handler.close_connection = True
        return True

    server.behave = behave
    try:
        with HttpRanges(f"{server.url}/file", timeout_s=0.1) as source:
            with pytest.raises(LabctlError, match=r"sent \d+ of 100000 bytes in 0.4 s"):
                source.read(0, 100_000)
    finally:
        enough.set()
