"""Show what a file would become, as a unified diff that a terminal can take.

Only text is shown: content with a NUL or that is no UTF-8 is named by its sizes, and so is content too large
to read. Control characters are escaped, because the old content is the host's word and must not drive the
operator's terminal. A secret is all or nothing: the whole file is named by its size. There is no masking of
single values inside a file; a file that holds a secret value is a secret file.

The diff is logged as one message whose first line is ``labctl-diff:``; whoever wants it taps the logger.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from pyinfra import logger
from pyinfra.context import state

MARKER = "labctl-diff:"
MAX_BYTES = 256 * 1024
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def _size(count: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:.4g} {unit}"
    return f"{count} B"


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def _lines(content: bytes) -> list[str] | None:
    """Return the lines of text, or None for what is not text."""
    if b"\0" in content:
        return None
    try:
        decoded = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    lines = decoded.split("\n")
    if lines[-1]:
        lines[-1] += "\n\\ No newline at end of file"
    else:
        lines.pop()
    return [_CONTROL.sub(_escaped, line) for line in lines]


def _body(path: str, old: bytes | int | None, new: bytes | None) -> str:
    sizes = {
        word: len(content) if isinstance(content, bytes) else content
        for word, content in (("old", old), ("new", new))
        if content is not None
    }
    said = ", ".join(f"{word} {_size(size)}" for word, size in sizes.items())
    if isinstance(old, int) or max(sizes.values(), default=0) > MAX_BYTES:
        return f"{path}: Content too large to show differs ({said})"
    before, after = (None if content is None else _lines(content) for content in (old, new))
    if (old is not None and before is None) or (new is not None and after is None):
        return f"{path}: Binary content differs ({said})"
    relative = path.lstrip("/")
    names = ("/dev/null" if old is None else f"a/{relative}", "/dev/null" if new is None else f"b/{relative}")
    lines = list(difflib.unified_diff(before or [], after or [], *names, lineterm=""))
    return "\n".join(lines or (f"--- {names[0]}", f"+++ {names[1]}"))


def render(
    path: str,
    old: bytes | int | None,
    new: bytes | None,
    *,
    secret: bool = False,
    notes: Sequence[str] = (),
) -> str:
    """Return the diff from ``old`` to ``new``, led by ``notes`` about mode or kind.

    None means no file; an ``old`` that is a number is the size of content that was too large to fetch.
    """
    head = [f"{path}: {note}" for note in notes]
    if secret:
        shown = "removed" if new is None else f"secret: {len(new)} bytes, content not shown"
        return "\n".join([*head, f"{path}: {shown}"])
    if old == new and head:
        return "\n".join(head)
    return "\n".join([*head, _body(path, old, new)])


def show(
    dest: str, old: bytes | int | None, new: bytes | None, *, secret: bool = False, notes: Sequence[str] = ()
) -> None:
    """Log the diff behind the marker line when diffs are wanted."""
    if state.config.DIFF:
        logger.info("%s\n%s", MARKER, render(dest, old, new, secret=secret, notes=notes))


def wanted() -> bool:
    """Return whether diffs are shown, so that facts fetch old content only then."""
    return bool(state.config.DIFF)
