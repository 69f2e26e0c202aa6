"""Mail: a letter by SMTP, with its id as ``Message-ID``, by which mail programs drop a second copy.

Where the server was given the whole letter and did not say what became of it, nobody knows; everything before
that is a letter that certainly did not arrive.
"""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from typing import Literal

from labctl.adapters.couriers import asking
from labctl.domain.health.terms import Level
from labctl.ports.letters import CourierError, Letter

_STEP_S = 10.0


@dataclass(frozen=True, slots=True)
class Account:
    """Where mail is handed in, and as whom; ``password`` None: without logging in."""

    server: str
    port: int
    security: Literal["starttls", "tls", "none"]
    user: str | None
    password: str | None


class Mail:
    """Letters from one address to others."""

    def __init__(
        self, account: Account, sender: str, to: tuple[str, ...], trust: ssl.SSLContext | None = None
    ) -> None:
        """Ask for nothing yet; ``trust``: whom to believe who the server is, default: the system's."""
        self._account = account
        self._sender = sender
        self._to = to
        self._trust = trust

    def send(self, letter: Letter) -> None:
        """Hand a letter in; see ``ports.letters.Courier``."""
        asking.within(2 * asking.DEADLINE_S, lambda: self._hand_in(letter))

    def has(self, letter_id: str) -> bool:
        """Return False: a server that takes mail does not show it."""
        return False

    def _hand_in(self, letter: Letter) -> bool:
        message = self._message(letter)
        under_way = False
        try:
            with self._server() as server:
                if self._account.user is not None and self._account.password is not None:
                    server.login(self._account.user, self._account.password)
                under_way = True
                server.send_message(message, self._sender, list(self._to))
                # It has it now, whatever becomes of the farewell.
                return True
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused) as error:
            raise CourierError(f"the server refuses an address ({_code(error)})", certain=True) from None
        except smtplib.SMTPAuthenticationError:
            raise CourierError("the server does not accept the user and password", certain=True) from None
        except smtplib.SMTPResponseException as error:
            reason = f"the server does not take it ({error.smtp_code})"
            raise CourierError(reason, certain=True) from None
        except smtplib.SMTPNotSupportedError:
            raise CourierError("the server cannot do what `security` asks for", certain=True) from None
        except UnicodeError:
            # smtplib speaks no other than ASCII in commands; the letter itself may hold anything.
            reason = "it cannot be told a user, password or address with other letters than ASCII"
            raise CourierError(reason, certain=True) from None
        except ssl.SSLError:
            raise CourierError("the server cannot prove who it is", certain=not under_way) from None
        except (OSError, smtplib.SMTPException):
            raise CourierError("the server cannot be reached", certain=not under_way) from None

    def _server(self) -> smtplib.SMTP:
        account, trust = self._account, self._trust or ssl.create_default_context()
        if account.security == "tls":
            return smtplib.SMTP_SSL(account.server, account.port, timeout=_STEP_S, context=trust)
        server = smtplib.SMTP(account.server, account.port, timeout=_STEP_S)
        if account.security == "starttls":
            try:
                server.starttls(context=trust)
            except BaseException:
                server.close()
                raise
        return server

    def _message(self, letter: Letter) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = ", ".join(self._to)
        message["Subject"] = letter.title
        message["Date"] = formatdate(localtime=False)
        message["Message-ID"] = f"<{letter.id}@labctl.invalid>"
        message["Auto-Submitted"] = "auto-generated"
        if letter.level is Level.CRIT:
            message["Importance"] = "high"
        message.set_content(f"{letter.text}\n")
        return message


def _code(error: smtplib.SMTPException) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = sorted({str(answer[0]) for answer in error.recipients.values()})
        return ", ".join(codes)
    return str(getattr(error, "smtp_code", "?"))
