"""What a plan shows of a change: text as a diff, the rest by its size, secrets not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.ops.diff import MAX_BYTES, render


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        (b"a\nb\n", b"a\nc\n", "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n a\n-b\n+c"),
        (None, b"a\n", "--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+a"),
        (b"a\n", None, "--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a"),
        (None, b"", "--- /dev/null\n+++ b/x"),
        (b"a", b"a\n", "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a"),
        (b"\0" * 12, b"\0" * 34, "/x: Binary content differs (old 12 B, new 34 B)"),
        (None, b"\xff", "/x: Binary content differs (new 1 B)"),
        (5_000_000, b"a", "/x: Content too large to show differs (old 4.768 MiB, new 1 B)"),
        (b"a", b"x" * (MAX_BYTES + 1), "/x: Content too large to show differs (old 1 B, new 256 KiB)"),
    ],
)
def test_content_is_shown_as(old: bytes | int | None, new: bytes | None, shown: str) -> None:
    assert render("/x", old, new) == shown


def test_notes_about_mode_and_owner_come_first() -> None:
    assert render("/x", b"a\n", b"a\n", notes=["mode 644 -> 600"]) == "/x: mode 644 -> 600"


def test_a_secret_is_named_by_its_size() -> None:
    assert render("/x", b"old", b"new1", secret=True) == "/x: secret: 4 bytes, content not shown"


@given(st.binary(min_size=6), st.binary(min_size=6))
def test_no_byte_of_a_secret_is_shown(old: bytes, new: bytes) -> None:
    assert render("/x", old, new, secret=True) == f"/x: secret: {len(new)} bytes, content not shown"


@given(st.binary(), st.binary())
def test_a_terminal_is_never_driven_by_what_a_host_says(old: bytes, new: bytes) -> None:
    shown = render("/x", old, new)
    assert all(character.isprintable() or character in "\n\t" or ord(character) > 0x9F for character in shown)


def test_a_line_that_would_colour_or_reorder_the_terminal_is_escaped() -> None:
    assert render("/x", None, "\x1b[31m\u202e\r\n".encode()).endswith("+\\x1b[31m\\u202e\\r")
