"""Secrets by reference: the inventory says where one is read, and never holds it.

A key that a file format or a header could take for something else is refused, not escaped: every program that
gets it reads it by rules of its own.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from labctl.domain.problem import LabctlError
from labctl.inventory.fields import EnvName, MendableError, is_address, is_near
from labctl.inventory.spec import Spec

_PLAIN = re.compile(r"[A-Za-z0-9._~+/=:@!*,-]{1,4096}", re.ASCII)
_OTHERS = 0o077
_LONGEST = 4096
_KEY = "umask 077; openssl rand -hex 32 >"


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
    value, where = _read(secret, folder, environment, _KEY)
    if not _PLAIN.fullmatch(value):
        raise LabctlError(
            f"the secret in {where} is empty or no plain key (letters, digits and ._~+/=:@!*,- only)",
            hint="make one with: openssl rand -hex 32",
        )
    return value


def text_of(secret: Secret, folder: Path, environment: Mapping[str, str]) -> str:
    """Return a secret that need not be a plain key, such as the password of a mailbox; see ``value_of``.

    Raises:
        LabctlError: it is not there, others may read it, or it is empty or no printable text.
    """
    value, where = _read(secret, folder, environment, "umask 077; cat >")
    if not value or not value.isprintable() or len(value) > _LONGEST:
        raise LabctlError(f"the secret in {where} is empty or no line of text")
    return value


def address_of(secret: Secret, folder: Path, environment: Mapping[str, str]) -> str:
    """Return a secret that is the address of a service; see ``value_of``.

    Raises:
        LabctlError: it is not there, others may read it, or it is no address that may be asked.
    """
    value, where = _read(secret, folder, environment, "umask 077; cat >")
    try:
        parts = urlsplit(value)
        sound = parts.scheme in ("http", "https") and is_address(parts.hostname or "") and parts.port != 0
    except ValueError:
        sound = False
    # Never shown: whoever knows it may write there.
    if not sound or not value.isascii() or not value.isprintable() or " " in value or "@" in parts.netloc:
        raise LabctlError(
            f"the secret in {where} is no address", hint="its form is https://HOST/..., without a password"
        )
    if parts.scheme == "http" and not is_near(parts.hostname or ""):
        raise LabctlError(
            f"the address in {where} would send secrets so that anyone on the way can read them",
            hint="write https://; http:// is for addresses of your own network",
        )
    return value


def _read(secret: Secret, folder: Path, environment: Mapping[str, str], mend: str) -> tuple[str, str]:
    """Return a secret's text, and where it was read."""
    if secret.env is None:
        path = folder / (secret.file or Path()).expanduser()
        return first_line(path, mend=mend), f"file {path}"
    if not (value := environment.get(secret.env, "")):
        raise LabctlError(
            f"the variable {secret.env} is not set", hint=f"export {secret.env}=... before labctl runs"
        )
    return value, f"variable {secret.env}"


def first_line(path: Path, *, mend: str = _KEY) -> str:
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
