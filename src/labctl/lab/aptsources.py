"""What this machine's own apt may fetch: the lab fetches from there and from nowhere else.

Debian trees are built from the archives that the machine itself uses, if it runs Debian; elsewhere from
mmdebstrap's own default, or from an archive that the user names. No archive's name is written down in labctl.
Hosts speak plain HTTP to the lab's proxy, which asks the archive by the scheme that the machine uses; what is
fetched is signed either way. Sources that apt does not fetch over HTTP (files, discs) are left out.
"""

from __future__ import annotations

import platform
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from labctl.lab.commands import attempt

_PRINTABLE = re.compile("[!-~]+")
_FORMAT = "$(RELEASE)|$(COMPONENT)|$(REPO_URI)"


@dataclass(frozen=True, slots=True)
class Archive:
    """One repository: ``release`` is its suite as the sources name it, ``uri`` ends with a slash."""

    release: str
    component: str
    uri: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """The places from which the proxy may fetch, as URIs that end with a slash."""

    uris: tuple[str, ...]

    def upstream(self, asked: str) -> str | None:
        """Return the URL to fetch for the plain HTTP URL that a host asked for, or None to refuse."""
        if not _PRINTABLE.fullmatch(asked):
            return None
        try:
            parts = urlsplit(asked)
        except ValueError:
            return None
        plain = posixpath.normpath(unquote(parts.path))
        if parts.scheme != "http" or parts.query or parts.fragment or plain != unquote(parts.path):
            return None
        for uri in self.uris:
            known = urlsplit(uri)
            if parts.netloc == known.netloc and plain.startswith(known.path):
                return f"{known.scheme}://{known.netloc}{parts.path}"
        return None


def machine_archives() -> tuple[Archive, ...]:
    """Return the archives of this machine's apt sources that are fetched over HTTP; none without apt."""
    argv = ("apt-get", "indextargets", "--no-release-info", "--format", _FORMAT, "Created-By: Packages")
    listed = attempt(*argv)
    rows = (line.split("|") for line in listed.stdout.splitlines() if line.count("|") == 2)
    archives = (Archive(release, component, uri) for release, component, uri in rows)
    return tuple(archive for archive in archives if urlsplit(archive.uri).scheme in ("http", "https"))


def machine_proxy() -> str | None:
    """Return the HTTP proxy that this machine's apt is told to use, if any."""
    listed = attempt("apt-config", "dump", "--format", "%v%n", "Acquire::http::Proxy")
    value = listed.stdout.strip()
    return value if value and value != "DIRECT" else None


def allowed(extra: Iterable[str] = ()) -> Allowed:
    """Return what may be fetched: the machine's own archives, and those that the trees came from."""
    uris = {archive.uri for archive in machine_archives()} | {_slashed(uri) for uri in extra}
    return Allowed(tuple(sorted(uris, key=len, reverse=True)))


def debian_lines(suite: str, mirror: str | None = None) -> tuple[str, ...]:
    """Return sources.list lines for ``suite``; none means that mmdebstrap shall use its own default.

    ``mirror`` replaces the machine's archive. Security updates come from the archive that the machine names
    for its own security updates; a machine that names none gets none.
    """
    archives = machine_archives()
    running = platform.freedesktop_os_release()
    code = running.get("VERSION_CODENAME") if running.get("ID") == "debian" else None
    main = mirror or _first(archives, f"{code}-updates") or _first(archives, f"{code}")
    if not main:
        return ()
    lines = [f"deb {main} {suite} main", f"deb {main} {suite}-updates main"]
    security = _first(archives, f"{code}-security")
    if security:
        lines.append(f"deb {security} {suite}-security main")
    return tuple(lines)


def _first(archives: Iterable[Archive], release: str) -> str | None:
    matching = (a.uri for a in archives if a.component == "main" and a.release == release)
    return next(matching, None)


def _slashed(uri: str) -> str:
    return uri if uri.endswith("/") else uri + "/"
