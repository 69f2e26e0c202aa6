"""Pack parts into one archive with a manifest, so that no secret, and never half a file, leaves labctl.

Each part is redacted here and nowhere else, so none can be forgotten. A part in which a known secret still
shows afterwards is left out, and the manifest says so. The archive is written under another name beside its
place, for its owner alone, and takes its place only when it is whole.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labctl.domain.problem import LabctlError
from labctl.domain.redaction import Redactor

FORMAT = 1
LONGEST_PART = 4 << 20
MOST = 64 << 20
MANIFEST = "manifest.json"
_KEPT = "addresses, names of hosts, users, models and files, and public keys are not redacted"


@dataclass(slots=True)
class Bundle:
    """What is to be packed; ``left_out`` says of each part that is missing why."""

    redactor: Redactor
    files: dict[str, bytes] = field(default_factory=dict)
    listed: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def add_document(self, name: str, what: str, document: Any) -> None:
        """Pack what JSON can hold; what a stranger nested beyond reason is left out."""
        try:
            clean, counts = self.redactor.document(document)
            text = json.dumps(clean, indent=1, ensure_ascii=False, default=str)
        except RecursionError:
            self.left_out[name] = "it is nested too deeply"
            return
        self._add(name, what, text, counts)

    def add_text(self, name: str, what: str, text: str) -> None:
        """Pack lines; of a text that is too long the end, which is the newest."""
        if len(text) > LONGEST_PART:  # before it is looked through, which takes seconds for each MiB
            text = text[-LONGEST_PART:].partition("\n")[2]
        clean, counts = self.redactor.text(text)
        self._add(name, what, clean, counts)

    def leave_out(self, name: str, why: str) -> None:
        """Note that a part is missing, and why."""
        self.left_out[name] = self.redactor.text(why)[0]

    def _add(self, name: str, what: str, text: str, counts: Counter[str]) -> None:
        content = text.encode("utf-8", "backslashreplace")
        if leak := self.redactor.leaks(text):
            self.left_out[name] = f"{leak} shows in it in a form that cannot be taken out"
        elif sum(map(len, self.files.values())) + len(content) > MOST:
            self.left_out[name] = f"more than {MOST >> 20} MiB are not packed"
        else:
            self.files[name] = content
            self.listed.append(
                {
                    "name": name,
                    "what": what,
                    "bytes": len(content),
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "redacted": dict(sorted(counts.items())),
                }
            )

    def manifest(self, head: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is in the archive, what was taken out, and what is missing.

        Args:
            head: what is to be said of the whole.
        """
        names = sorted({name for _, name in self.redactor.forms})
        return {
            "format": FORMAT,
            **head,
            "files": self.listed,
            "left_out": [{"name": name, "reason": why} for name, why in sorted(self.left_out.items())],
            "secrets_looked_for": names,
            "not_redacted": _KEPT,
        }

    def write(self, path: Path, head: Mapping[str, Any], at: float) -> int:
        """Write the archive, readable for its owner alone, and return its size in bytes.

        Args:
            path: where; there must be nothing yet.
            head: what the manifest says of the whole.
            at: wall time in seconds, for the files in it.

        Raises:
            LabctlError: there is something, or it cannot be written; nothing is left behind.
        """
        if os.path.lexists(path):
            raise LabctlError(f"{path} is there already", hint="name another file: -o FILE")
        text = json.dumps(self.manifest(head), indent=1, ensure_ascii=False, default=str)
        files = {MANIFEST: text.encode("utf-8", "backslashreplace"), **self.files}
        packed = _packed(path.name.strip(".").partition(".")[0] or "bundle", files, int(at))
        half = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(packed)
                file.flush()
                os.fsync(file.fileno())
            half.rename(path)
        except OSError as error:
            raise LabctlError(
                f"{path} cannot be written: {error.strerror or error}", hint="name another place: -o FILE"
            ) from None
        finally:
            half.unlink(missing_ok=True)
        return len(packed)


def _packed(folder: str, files: Mapping[str, bytes], at: int) -> bytes:
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=at) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), at, 0o600
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
