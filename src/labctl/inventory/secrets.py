"""Secrets by reference: the inventory says where one is read, and never holds it.

A key that a file format or a header could take for something else is refused, not escaped: every program that
gets it reads it by rules of its own.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, model_validator

from labctl.domain.problem import LabctlError
from labctl.inventory.fields import EnvName, MendableError
from labctl.inventory.spec import Spec

_PLAIN = re.compile(r"[A-Za-z0-9._~+/=:@!*,-]{1,4096}", re.ASCII)
_OTHERS = 0o077


class Secret(Spec):
    """Where a secret is read on the machine that runs labctl: a file, or an environment variable."""

    file: Path | None = Field(
        default=None,
        description="File whose first line is the secret, relative to the rack file's folder; mode 0600.",
    )
    env: EnvName | None = Field(default=None, description="Environment variable that holds the secret.")

    @model_validator(mode="after")
    def _one_place(self) -> "Secret":
        if (self.file is None) == (self.env is None):
            raise MendableError(
                "give either `file` or `env`", 'write Secret(file="keys/hf") or Secret(env="HF_TOKEN")'
            )
        return self


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
        value, where = first_line(path), f"file {path}"
    if not _PLAIN.fullmatch(value):
        raise LabctlError(
            f"the secret in {where} is empty or no plain key (letters, digits and ._~+/=:@!*,- only)",
            hint="make one with: openssl rand -hex 32",
        )
    return value


def first_line(path: Path, *, mend: str = "umask 077; openssl rand -hex 32 >") -> str:
    """Return the first line of a file that only its owner may read, without spaces around it.

    Args:
        path: the file.
        mend: how one like it is made; its path is put behind.

    Raises:
        LabctlError: it is not there, others may read it, or it is no text.
    """
    try:
        if (mode := path.stat().st_mode) & _OTHERS:
            raise LabctlError(
                f"others may read the secret in {path} (mode {mode & 0o777:o})", hint=f"chmod 600 {path}"
            )
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise LabctlError(f"the secret in {path} cannot be read: {reason}", hint=f"{mend}{path}") from None
    return lines[0].strip() if lines else ""
