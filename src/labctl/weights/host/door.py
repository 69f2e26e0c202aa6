"""Let the other hosts of a run through this host's firewall, for as long as the run lasts.

labctl's firewall (deploys/base) has two sets of addresses and ports that may come in, ``transfers4`` and
``transfers6``. An entry lives for a minute and is renewed while this program runs; so nothing stays open
when the program, the host or the network dies, and there is no rule to clean up. Without labctl's firewall
there is nothing to open.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Sequence

from labctl.weights.host.incoming import HostFault

TABLE = ("inet", "labctl")
LIVES_S = 60
RENEW_S = 20.0


class Door:
    """The entries of this run: who may come to which port."""

    def __init__(self, entries: Sequence[tuple[str, int]], nft: str = "") -> None:
        self._entries = list(entries)
        self._nft = nft or shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin") or ""
        self._closed = threading.Event()
        self._turn = threading.Lock()

    def open(self) -> None:
        """Open it and keep it open.

        Raises:
            HostFault: labctl's firewall there is older than this labctl, or nft refuses.
        """
        if not self._nft or not self._entries:
            return
        listed = self._run("list", "table", *TABLE)
        if listed.returncode:
            return  # labctl keeps no firewall there
        if "set transfers4" not in listed.stdout:
            raise HostFault("firewall", "its firewall knows nothing of transfers: labctl apply --only base")
        self._renew()
        threading.Thread(target=self._keep, daemon=True).start()

    def _keep(self) -> None:
        while not self._closed.wait(RENEW_S):
            with self._turn:
                if self._closed.is_set():
                    return
                # An apply may be loading the firewall just now; then the next turn succeeds.
                with contextlib.suppress(HostFault):
                    self._renew()

    def _renew(self) -> None:
        """Give every entry a whole minute, in one transaction in which it never is absent."""
        script = ""
        for timeout in ("", None, f" timeout {LIVES_S}s"):
            for address, port in self._entries:
                verb = "delete" if timeout is None else "add"
                family = "transfers6" if ":" in address else "transfers4"
                element = f"{address} . {port}{timeout or ''}"
                script += f"{verb} element {' '.join(TABLE)} {family} {{ {element} }}\n"
        done = self._run("-f", "-", given=script)
        if done.returncode:
            raise HostFault("firewall", f"nft refuses to open its firewall: {done.stderr.strip()[-200:]}")

    def close(self) -> None:
        """Take the entries away."""
        with self._turn:
            self._closed.set()
            for address, port in self._entries if self._nft else ():
                family = "transfers6" if ":" in address else "transfers4"
                self._run("delete", "element", *TABLE, family, f"{{ {address} . {port} }}")

    def _run(self, *argv: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._nft, *argv], input=given, capture_output=True, text=True, timeout=30, check=False
        )
