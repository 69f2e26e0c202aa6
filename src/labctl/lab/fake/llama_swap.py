"""llama-swap's stand-in as a program and as a release: one file that a host's own Python runs.

PyYAML goes in beside it, in pure Python, so a host needs none. The archive has the name and the shape of a
release for Linux, and equal sources give equal bytes.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

NAME = "llama-swap_250_linux_amd64.tar.gz"
SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = "import sys\n\nfrom llama_swap.main import main\n\nsys.exit(main(sys.argv[1:]))\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)


@cache
def program() -> bytes:
    """Return the executable, to be written to a file of mode 755."""
    double = files("labctl.lab.fake").joinpath("programs/llama_swap")
    parts = {
        f"llama_swap/{one.name}": one.read_bytes() for one in double.iterdir() if one.name.endswith(".py")
    }
    library = Path(yaml.__file__).parent
    parts |= {f"yaml/{path.name}": path.read_bytes() for path in library.glob("*.py")}
    parts["__main__.py"] = _MAIN.encode()
    buffer = io.BytesIO()
    buffer.write(SHEBANG)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in sorted(parts.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return buffer.getvalue()


def archive(out: Path) -> Path:
    """Write a release archive into the folder ``out``; return its path."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content, mode in (
            ("LICENSE.md", b"A stand-in of labctl's virtual rack; no part of llama-swap.\n", 0o644),
            ("llama-swap", program(), 0o755),
        ):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    path = out / NAME
    path.write_bytes(gzip.compress(whole.getvalue(), mtime=0))
    return path
