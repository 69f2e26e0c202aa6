"""Fetch a file that is pinned by its sha256, and put nothing else in its place.

The host fetches into a hidden file beside the destination, where only root may write, goes on from there if
it was cut, and renames it only after its sha256 was found right; one wrong byte and it is refused and
removed. Because the content is pinned, it does not matter by which way it came: a mirror may be asked before
the file's own address, and what one address began another one may finish.

Models are large, and hashing 40 GB on each run would take longer than everything else. So a verified file
leaves a stamp in /var/lib/labctl/verified: device, inode, size, mtime and ctime, beside the sha256. While all
of these still match, the file is taken as verified; nothing can change its content without moving its ctime.
A file without a stamp is hashed.
"""

from __future__ import annotations

import hashlib
import re
import shlex

from pyinfra.api.exceptions import OperationValueError
from pyinfra.api.facts import FactBase
from pyinfra.context import host
from typing_extensions import override

from labctl.inventory import mirrors
from labctl.ops import diff
from labctl.ops.command import Commands, Script, operation
from labctl.ops.facts import HASH, Look, PathInfo, look_command, look_function, parse_look
from labctl.ops.files import absolute, attribute_notes, octal

_STAMPS = "/var/lib/labctl/verified"
_URL = re.compile(r"(https?://[^\s/@]+/|file:///)\S+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TOKEN = re.compile(r"[!#-\[\]-~]{1,4096}")  # what curl's configuration takes between quotes
_VERIFIED = """\
d=DEST s=
if [ -f "$d" ] && [ ! -L "$d" ] && read -r w s 2>/dev/null <STAMP && \
[ "$w" = "$(stat -c '%d:%i:%s:%.9Y:%.9Z' -- "$d" 2>/dev/null)" ]; then labctl_look "$d" '' ''; echo "$s"
else
"""


class Verified(FactBase[PathInfo]):
    """What is at a path, with its sha256 from the stamp if that still holds, else by hashing."""

    @override
    @staticmethod
    def default() -> PathInfo:
        """Return that nothing is there."""
        return PathInfo()

    def command(self, path: str, stamp: str) -> str:
        """Return the command for this file and its stamp."""
        known = _VERIFIED.replace("DEST", shlex.quote(path)).replace("STAMP", shlex.quote(stamp))
        return f"{look_function()}{known}{look_command([Look(path, HASH)])}\nfi"

    @override
    def process(self, output: list[str]) -> PathInfo:
        """Read the answer and, on a second line, the sha256 that the stamp vouches for."""
        info = parse_look(output[0])
        if len(output) == 1:
            return info
        return PathInfo(info.kind, info.mode, info.uid, info.gid, info.user, info.group, info.size, output[1])


@operation
def file(  # noqa: PLR0913
    url: str | tuple[str, ...],
    dest: str,
    sha256: str,
    *,
    size: int | None = None,
    pinned: str = "",
    token: str = "",
    mode: str = "644",
    user: str = "root",
    group: str = "root",
    timeout_s: int = 6 * 3600,
) -> Commands:
    """Have the file at ``url`` (http, https or file: on the host) at ``dest``, if it has this ``sha256``.

    Args:
        url: its address, or several that are tried in their order: one that does not answer, lacks the file
            or gives another one is named, and the next is tried. They are shown in plans and process lists,
            so they must hold no credentials.
        dest: where it shall be, absolute.
        sha256: what pins it, in hexadecimal.
        size: bytes, where it is known; else its server is asked. Where they don't fit, nothing is fetched.
        pinned: where the inventory says the sha256, told where a file has another one.
        token: sent to the last address and to no other host; it travels by standard input alone.
        mode: its mode, in octal.
        user: its owner.
        group: its group.
        timeout_s: most seconds for all of it.
    """
    absolute(dest)
    octal(mode, dest)
    urls = (url,) if isinstance(url, str) else url
    digest = sha256.lower()
    if not urls or not all(map(_URL.fullmatch, urls)):
        raise OperationValueError(f"{urls!r} is no http, https or file URL without user and spaces")
    if not _SHA256.fullmatch(digest):
        raise OperationValueError(f"sha256 of {urls[-1]} is {sha256!r}, expected 64 hexadecimal digits")
    if token and not (_TOKEN.fullmatch(token) and mirrors.takes_token(urls[-1])):
        raise OperationValueError(f"the token for {urls[-1]} is no token, or would travel in the clear")
    stamp = f"{_STAMPS}/{hashlib.sha256(dest.encode()).hexdigest()[:32]}"
    info: PathInfo = host.get_fact(Verified, path=dest, stamp=stamp)
    if info.kind != "file" or info.sha256 != digest:
        was = {"absent": "not there", "file": f"sha256 {info.sha256}"}.get(info.kind, f"a {info.kind}")
        diff.show(dest, b"", b"", notes=[f"{was} -> sha256 {digest} from {', else '.join(urls)}"])
        argv = (dest, digest, mode, f"{user}:{group}", stamp, "" if size is None else str(size))
        asks, stdin = (urls[-1], f"{token}\n") if token else ("", "")
        yield Script("download", *argv, asks, pinned, *urls, stdin=stdin, timeout_s=timeout_s)
    elif notes := attribute_notes(info, mode, user, group):
        diff.show(dest, b"", b"", notes=notes)
        yield Script("attributes", "file", dest, mode, f"{user}:{group}", stamp)
