"""Secrets on hosts: files that only root may read, and that systemd hands to the one unit they are for.

A secret lies in ``/etc/labctl/secrets/SERVICE.NAME``, root's and mode 0600, and reaches the program as a
credential below ``/run/credentials`` (``LoadCredential=``), or, where the program takes it by its environment
alone, by ``EnvironmentFile=``. Neither shows it in a command line, in the unit or to ``systemctl show``. The
text around it is what the program's own file format wants.
"""

from __future__ import annotations

from dataclasses import dataclass

from labctl.inventory import Secret

FOLDER = "/etc/labctl/secrets"


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
