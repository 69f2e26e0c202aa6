"""Ask a running gateway how it is, over HTTP.

One request with one deadline for each step, bounded in size; a redirect is not followed, since it could lead
the key elsewhere, and the environment's proxies are not asked. No error repeats the key.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from labctl.domain.problem import ExitCode, LabctlError

DEADLINE_S = 10.0
MOST_BYTES = 16 << 20
_KEY_HINT = "export LABCTL_GATEWAY_KEY=... before labctl runs"


@dataclass(frozen=True, slots=True)
class Door:
    """Where a gateway is reached: ``url`` has no path, ``key`` may be empty.

    ``trusted`` is a file with certificates to believe besides the system's, ``hint`` is what to do where it
    cannot be reached.
    """

    url: str
    key: str = ""
    trusted: Path | None = None
    hint: str = ""

    def status(self) -> dict[str, Any]:
        """Return what ``GET /labctl/v1/status`` says.

        Raises:
            LabctlError: it cannot be reached (exit code 3), lets us not in, or is no gateway of labctl's.
        """
        headers = {"Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            with httpx.Client(verify=self._context(), timeout=DEADLINE_S, trust_env=False) as client:
                with client.stream("GET", f"{self.url}/labctl/v1/status", headers=headers) as answer:
                    body = b""
                    for part in answer.iter_bytes():
                        body += part
                        if len(body) > MOST_BYTES:
                            raise LabctlError(f"{self.url}: says more than a gateway of labctl's would")
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
            raise LabctlError(
                f"no gateway can be reached at {self.url}: {_in_words(error)}",
                hint=self.hint,
                code=ExitCode.UNREACHABLE,
            ) from None
        return self._read(answer.status_code, body)

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self.trusted is not None:
            context.load_verify_locations(self.trusted)
        return context

    def _read(self, status: int, body: bytes) -> dict[str, Any]:
        try:
            said = json.loads(body)
        except ValueError:
            said = None
        if status == 200 and isinstance(said, dict) and isinstance(said.get("hosts"), list):
            return said
        detail = said.get("detail") if isinstance(said, dict) else None
        if status in (401, 403):
            raise LabctlError(f"the gateway at {self.url} refuses: {detail or status}", hint=_KEY_HINT)
        if isinstance(detail, str):
            raise LabctlError(f"the gateway at {self.url} says: {detail}")
        raise LabctlError(f"{self.url} is no gateway of labctl's (status {status})", hint=self.hint)


def _in_words(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "it does not answer in time"
    return str(error) or type(error).__name__
