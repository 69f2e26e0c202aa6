"""Which courier serves which notifier of the rack file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labctl import wiring
from labctl.domain.problem import LabctlError, Problem

if TYPE_CHECKING:
    from labctl.inventory import Secret
    from labctl.inventory.health import Notice
    from labctl.ports.letters import Courier, Letter, Ping


@dataclass(frozen=True, slots=True)
class Unusable:
    """A courier that cannot be set up: its letters wait, which is a finding, and the others go on."""

    problems: tuple[Problem, ...]

    def send(self, letter: Letter) -> None:
        """Deliver nothing.

        Raises:
            CourierError: always.
        """
        from labctl.ports.letters import CourierError

        raise CourierError("; ".join(map(str, self.problems)), certain=True)

    def has(self, letter_id: str) -> bool:
        """Return False: none has arrived."""
        return False


def courier(notice: Notice, folder: Path) -> Courier:
    """Return what carries letters by one notifier of the rack file, which lies in ``folder``."""
    try:
        return _courier(notice, folder)
    except LabctlError as error:  # a secret that it needs cannot be read, or used
        return Unusable(error.problems)


def _courier(notice: Notice, folder: Path) -> Courier:
    from labctl.adapters import couriers
    from labctl.adapters.couriers.mail import Account
    from labctl.inventory import MailNotice, NtfyNotice
    from labctl.inventory.secrets import address_of, text_of

    if isinstance(notice, MailNotice):
        password = None if notice.password is None else text_of(notice.password, folder, wiring.environment())
        account = Account(notice.server, notice.port, notice.security, notice.user, password)
        return couriers.Mail(account, notice.sender, notice.to)
    address = address_of(notice.address, folder, wiring.environment())
    if isinstance(notice, NtfyNotice):
        return couriers.Ntfy(address, None if notice.token is None else wiring.secret(notice.token, folder))
    return couriers.Webhook(address, notice.form)


def dead_man(address: Secret, folder: Path) -> Ping:
    """Return the dead man's switch behind an address, for a rack whose file lies in ``folder``.

    Raises:
        LabctlError: the address cannot be read.
    """
    from labctl.adapters.couriers import DeadMan
    from labctl.inventory.secrets import address_of

    return DeadMan(address_of(address, folder, wiring.environment()))
