"""Where the files that ship with labctl lie: deploys, templates and the example rack.

An installed wheel carries them inside the package in ``_content``; a checkout has them at its root. The
wheel's copy wins when it exists, because a wheel has no checkout around it. When neither is there the
installation is broken, and the error says so.
"""

from __future__ import annotations

from pathlib import Path

from labctl.domain.problem import ExitCode, LabctlError

REQUIREMENTS = "requirements.lock"
_PACKAGE = Path(__file__).resolve().parent


def _find(relative: str) -> Path:
    for root in (_PACKAGE / "_content", _PACKAGE.parent.parent):
        if (root / relative).exists():
            return root / relative
    raise LabctlError(
        f"this installation of labctl lacks {relative}",
        hint="install labctl again",
        code=ExitCode.INTERNAL,
    )


def deploys_dir() -> Path:
    """Return the folder of the deploys that belong to this version of labctl."""
    return _find("deploys")


def templates_dir() -> Path:
    """Return the folder of the templates that those deploys render."""
    return _find("templates")


def example_rack() -> Path:
    """Return the example rack file that ``labctl init`` copies."""
    return _find("inventory/rack.py")


def requirements() -> Path:
    """Return the file that pins what labctl needs, by version and hash, for the controller's host."""
    return _find(REQUIREMENTS)
