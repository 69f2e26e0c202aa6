"""An address that switches power on when it is asked by POST, such as one of Home Assistant.

Nothing can be asked of it: it says that it got the request, not what came of it. (Home Assistant answers 200
even to an address that it does not know, so that strangers learn nothing.) The address is a secret; errors
name its server only.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from labctl.adapters.power import secret
from labctl.adapters.power.web import DEADLINE_S, Web, checked, trust
from labctl.inventory.wake import Webhook
from labctl.ports.power import Power, PowerError


class WebhookSwitch:
    """The port ``Switch`` for addresses."""

    kind = "webhook"
    has_meter = False

    def __init__(self, hook: Webhook, folder: Path, *, deadline_s: float = DEADLINE_S) -> None:
        """Ask for nothing yet; ``folder`` is the rack file's."""
        self.can_cut = hook.off_file is not None
        self._hook = hook
        self._folder = folder
        self._deadline_s = deadline_s

    def wake(self) -> None:
        """Ask for power."""
        self._post(self._hook.on_file)

    def power(self) -> Power:
        """Return that it cannot tell."""
        return "unclear"

    def cut(self) -> None:
        """Ask for no power."""
        if self._hook.off_file is None:
            raise PowerError(
                "unsupported", "nothing switches this host off", "off_file in the inventory names an address"
            )
        self._post(self._hook.off_file)

    def _post(self, file: Path) -> None:
        path = self._folder / file.expanduser()
        address = secret.read(path, what="address")
        try:
            parts = urlsplit(address)
            server, port = parts.hostname, parts.port
        except ValueError:
            parts, server, port = urlsplit(""), None, None
        if parts.scheme not in ("http", "https") or not server:
            raise PowerError(
                "no-secret", f"what {path} holds is no address", "write one into it: http://HOST/PATH"
            )
        who = f"the webhook at {server}" + (f":{port}" if port else "")
        certificates = trust(self._ca_file()) if parts.scheme == "https" else None
        with Web(who, "", trust=certificates, deadline_s=self._deadline_s) as web:
            checked(web.ask("POST", address), who)

    def _ca_file(self) -> Path | None:
        return None if self._hook.ca_file is None else self._folder / self._hook.ca_file.expanduser()
