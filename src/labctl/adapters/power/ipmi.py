"""A BMC that speaks IPMI 2.0 over the network, by way of the program `ipmitool`.

The password reaches it through a file that exists in memory only and that no other process can open: not by
its command line, which everybody may read, nor by its environment. It asks for the privilege of an operator,
which is all that switching needs, so that the BMC's user need be no administrator.

What ipmitool says last is the same for many causes: a BMC that is not there, a wrong user and a wrong
password all end in "Unable to establish IPMI v2 / RMCP+ session". The lines before it, with ``-v``, tell them
apart.

A BMC says "on" of a host that sleeps to memory, and ``chassis power on`` does not wake one. It starts a host
that is off.
"""

from __future__ import annotations

import os
from pathlib import Path

from labctl.adapters.power import secret
from labctl.adapters.power.programs import PATH, Ended, last_words, run
from labctl.inventory.wake import Ipmi
from labctl.ports.power import Power, PowerError

DEADLINE_S = 12.0
_STEP_S, _TRIES = 2, 3
_MOST_BYTES = 20  # what IPMI 2.0 can hold
_CLOSED = "Unable to establish"
# What ipmitool 1.8.19 says, by what is meant.
_FORBIDDEN = (
    *("unauthorized role", "insufficient", "Insufficient", "matching cipher suite", "OPERATOR failed:"),
    *("Privilege level", "not supported in present state"),
)
_WRONG = ("HMAC is invalid", "unauthorized name", "invalid integrity check value")
_GARBLED = ("invalid authcode", "invalid session", "bad checksum")


class IpmiSwitch:
    """The port ``Switch`` for a BMC that speaks IPMI."""

    kind = "ipmi"
    can_cut = True
    has_meter = False

    def __init__(
        self, bmc: Ipmi, folder: Path, *, deadline_s: float = DEADLINE_S, program: str = "ipmitool"
    ) -> None:
        """Ask for nothing yet; ``folder`` is the rack file's."""
        self._bmc = bmc
        self._folder = folder
        self._deadline_s = deadline_s
        self._program = program

    def wake(self) -> None:
        """Switch it on."""
        self._chassis("on")

    def power(self) -> Power:
        """Return what the BMC says; see above of hosts that sleep to memory."""
        said = self._chassis("status").output
        for line in reversed(said.splitlines()):
            if line.strip().startswith("Chassis Power is "):
                return "on" if line.strip().endswith(" on") else "off"
        raise PowerError(
            "bad-answer", f"{self._who} does not say whether it is on", "renew its firmware, or ipmitool"
        )

    def cut(self) -> None:
        """Switch it off at once."""
        self._chassis("off")

    @property
    def _who(self) -> str:
        return f"the BMC at {self._bmc.address}"

    def _chassis(self, what: str) -> Ended:
        password = secret.read(self._folder / self._bmc.password_file.expanduser())
        if len(password.encode()) > _MOST_BYTES:
            raise PowerError(
                "no-secret",
                f"the password for {self._who} is longer than {_MOST_BYTES} bytes, the most that IPMI has",
                "is it the right file?",
            )
        hidden = os.memfd_create("password", os.MFD_CLOEXEC)
        try:
            os.write(hidden, password.encode() + b"\n")
            ended = run(
                [
                    *(self._program, "-v", "-I", "lanplus", "-N", str(_STEP_S), "-R", str(_TRIES)),
                    *("-H", self._bmc.address, "-p", str(self._bmc.port), "-U", self._bmc.user),
                    *("-L", "OPERATOR", "-f", f"/dev/fd/{hidden}", "chassis", "power", what),
                ],
                deadline_s=self._deadline_s,
                environment={"PATH": PATH, "LC_ALL": "C"},
                pass_fds=(hidden,),
            )
        except PowerError as error:
            raise self._explained(error) from None
        finally:
            os.close(hidden)
        if ended.status:
            raise self._failure(ended.output, password)
        return ended

    def _explained(self, error: PowerError) -> PowerError:
        if error.code == "no-program":
            return PowerError(
                "no-program",
                "ipmitool is not installed on the machine that runs labctl",
                "apt-get install ipmitool",
            )
        return PowerError(
            error.code, f"{self._who} does not answer in time", "is IPMI over LAN enabled?", transient=True
        )

    def _failure(self, output: str, password: str) -> PowerError:
        if any(words in output for words in _FORBIDDEN):
            return PowerError(
                "auth",
                f"{self._who} does not allow {self._bmc.user} to switch power",
                "give that user the privilege of an operator over LAN, and cipher suite 17 or 3",
            )
        if any(words in output for words in _WRONG):
            return PowerError(
                "auth", f"{self._who} refuses the user or password", "check `user` and `password_file`"
            )
        if "Address lookup for" in output:
            return PowerError(
                "no-route", f"{self._who} has a name that is not known", "is it in the DNS?", transient=True
            )
        if any(words in output for words in _GARBLED):
            return PowerError(
                "bad-answer",
                f"{self._who} answers in a way that cannot be believed",
                "try again",
                transient=True,
            )
        if _CLOSED in output:
            return PowerError(
                "timeout",
                f"{self._who} does not answer",
                f"is IPMI over LAN enabled, and UDP port {self._bmc.port} open?",
                transient=True,
            )
        busy = "busy" in output.lower()
        said = last_words(output, [password])
        return PowerError(
            "server-error" if busy else "refused",
            f"{self._who} does not do it" + (f": {said}" if said else ""),
            "look at its own page or log",
            transient=busy,
        )
