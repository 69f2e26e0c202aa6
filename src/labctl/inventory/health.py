"""How the rack's health is looked after: who is told, how often, and from when on something is wrong.

Addresses of notifiers are secrets, since whoever knows one may write there: they are given by reference, as
keys are. On the controller's host labctl keeps its own copies, which only its user ``labctl-health`` reads.
"""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, model_validator

from labctl.inventory.fields import (
    Address,
    Count,
    Duration,
    Flag,
    MendableError,
    Port,
    RemotePath,
    ServiceName,
    Text,
    duration,
)
from labctl.inventory.limits import Limits
from labctl.inventory.secrets import Secret
from labctl.inventory.spec import Spec

FOLDER = "/etc/labctl/health"
HOME = "/var/lib/labctl-health"
USER = "labctl-health"
RACK = f"{FOLDER}/rack.json"
RESULTS = f"{HOME}/results.json"
_LEAST = "From which level on it is told."
_NAME = "What labctl calls it; each notifier needs another name."


class NtfyNotice(Spec):
    """Tells by ntfy, its own server or ntfy.sh."""

    kind: Literal["ntfy"] = Field(default="ntfy", description="Always ``ntfy``.")
    name: ServiceName = Field(default="ntfy", description=_NAME)
    address: Secret = Field(
        description="Where the address of the topic is read, such as https://ntfy.sh/TOPIC."
    )
    token: Secret | None = Field(default=None, description="Access token, where the server wants one.")
    least: Literal["warn", "crit"] = Field(default="warn", description=_LEAST)


class WebhookNotice(Spec):
    """Tells by a POST to an address: Discord's and Slack's webhooks, or whatever reads JSON."""

    kind: Literal["webhook"] = Field(default="webhook", description="Always ``webhook``.")
    name: ServiceName = Field(default="webhook", description=_NAME)
    address: Secret = Field(description="Where the webhook's address is read.")
    form: Literal["plain", "discord", "slack"] = Field(
        default="plain", description="What the other end understands; docs/alerts.md shows each."
    )
    least: Literal["warn", "crit"] = Field(default="warn", description=_LEAST)


class MailNotice(Spec):
    """Tells by e-mail."""

    kind: Literal["mail"] = Field(default="mail", description="Always ``mail``.")
    name: ServiceName = Field(default="mail", description=_NAME)
    server: Address = Field(description="The server that takes mail.")
    port: Port = Field(default=587, description="Its port.")
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls",
        description='How the way there is kept private; "none" is refused with a password.',
    )
    user: Text | None = Field(default=None, description="User to log in as.")
    password: Secret | None = Field(default=None, description="Where the password is read.")
    sender: Text = Field(description="The address that it comes from.")
    to: tuple[Text, ...] = Field(min_length=1, description="The addresses that it goes to.")
    least: Literal["warn", "crit"] = Field(default="warn", description=_LEAST)

    @model_validator(mode="after")
    def _private(self) -> "MailNotice":
        if (self.user is None) != (self.password is None):
            raise MendableError("give `user` and `password`, or neither", 'password=Secret(file="keys/mail")')
        if self.security == "none" and self.password is not None:
            raise MendableError("would send the password so that anyone on the way can read it", "starttls")
        return self


Notice = Annotated[NtfyNotice | WebhookNotice | MailNotice, Field(discriminator="kind")]


_STALE_LOOKS, _STALE_S = 3, 3600.0


class Health(Spec):
    """What ``labctl health`` does by itself on the controller's host."""

    every: Duration = Field(default=duration("5m"), description="How often it looks.")
    notify: tuple[Notice, ...] = Field(default=(), description="Who is told when something changes.")
    ping: Secret | None = Field(
        default=None,
        description="Where an address is read that is asked after each whole run, such as "
        "https://hc-ping.com/UUID; whoever misses it tells you that labctl itself is dead.",
    )
    ping_fail: Flag = Field(
        default=False, description="Whether a run that finds something CRIT asks ADDRESS/fail instead."
    )
    looks: Count = Field(
        default=2, description="How many looks in a row must say the same before it is believed and told."
    )
    remind: Duration = Field(
        default=duration("24h"), description="After how long what is still wrong is told again."
    )
    limits: Limits = Field(default=Limits(), description="From which numbers on a check warns.")
    replace_by: dict[Text, date] = Field(
        default={},
        description="Keys and passwords by a name of your own, and the day by which each is to be replaced.",
    )
    textfile: RemotePath | None = Field(
        default=None,
        description="File for node_exporter's textfile collector, ending in .prom; its folder must let "
        "the user labctl-health write. Default: none.",
    )

    @property
    def stale_s(self) -> float:
        """Return how old results are, in seconds, when something must be wrong: three looks, or an hour."""
        return max(_STALE_S, _STALE_LOOKS * self.every.total_seconds())

    @model_validator(mode="after")
    def _told_apart(self) -> "Health":
        names = [one.name for one in self.notify]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise MendableError(
                f"two notifiers are called {twice[0]}", f'give one another: name="{twice[0]}2"'
            )
        return self
