"""Secrets on hosts: files that only root may read, and that systemd hands to the one unit they are for.

A secret lies in ``/etc/labctl/secrets/SERVICE.NAME``, root's and mode 0600, and reaches the program as a
credential below ``/run/credentials`` (``LoadCredential=``), or, where the program takes it by its environment
alone, by ``EnvironmentFile=``. Neither shows it in a command line, in the unit or to ``systemctl show``. The
text around it is what the program's own file format wants.

A key that a file format or a header could take for something else is refused, not escaped: every engine
reads it by rules of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labctl.domain.problem import LabctlError
from labctl.inventory import Secret

FOLDER = "/etc/labctl/secrets"
_PLAIN = re.compile(r"[A-Za-z0-9._~+/=:@!*,-]{1,4096}", re.ASCII)
_OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret for the unit of ``service``; ``form`` is its file's content, with ``{secret}`` where it goes.

    ``environment``: the content is a line NAME=VALUE for the program's environment.
    """

    service: str
    name: str
    secret: Secret
    form: str = "{secret}\n"
    environment: bool = False

    @property
    def path(self) -> str:
        """Return where it lies on the host, for root alone."""
        return f"{FOLDER}/{self.service}.{self.name}"

    @property
    def inside(self) -> str:
        """Return where the program finds it while its unit runs."""
        return f"/run/credentials/labctl-{self.service}.service/{self.name}"

    def content(self, value: str) -> str:
        """Return the file's content for this secret."""
        return self.form.replace("{secret}", value)


def value_of(secret: Secret, folder: Path, environment: Mapping[str, str]) -> str:
    """Return a secret's value: the first line of its file, or the variable.

    Args:
        secret: where it is.
        folder: the rack file's folder, to which paths of the inventory are relative.
        environment: the variables of the process that runs labctl.

    Raises:
        LabctlError: it is not there, others may read it, or it is no plain key.
    """
    if secret.env is not None:
        value, where = environment.get(secret.env, ""), f"variable {secret.env}"
        if not value:
            raise LabctlError(f"the {where} is not set", hint=f"export {secret.env}=... before labctl runs")
    else:
        path = folder / (secret.file or Path()).expanduser()
        value, where = _first_line(path), f"file {path}"
    if not _PLAIN.fullmatch(value):
        raise LabctlError(
            f"the secret in {where} is empty or no plain key (letters, digits and ._~+/=:@!*,- only)",
            hint="make one with: openssl rand -hex 32",
        )
    return value


def _first_line(path: Path) -> str:
    try:
        if (mode := path.stat().st_mode) & _OTHERS:
            raise LabctlError(
                f"others may read the secret in {path} (mode {mode & 0o777:o})", hint=f"chmod 600 {path}"
            )
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise LabctlError(
            f"the secret in {path} cannot be read: {reason}",
            hint=f"umask 077; openssl rand -hex 32 >{path}",
        ) from None
    return lines[0].strip() if lines else ""
