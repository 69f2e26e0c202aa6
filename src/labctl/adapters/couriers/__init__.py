"""Couriers: ntfy, webhooks and mail carry letters to people, and a ping says that labctl still runs.

Every one of them ends within its deadline, follows no redirect (which could carry a token elsewhere), and
never repeats an address in an error: for most of these services, whoever knows the address may write.
"""

from labctl.adapters.couriers.deadman import DeadMan
from labctl.adapters.couriers.mail import Mail
from labctl.adapters.couriers.ntfy import Ntfy
from labctl.adapters.couriers.webhook import Webhook

__all__ = ["DeadMan", "Mail", "Ntfy", "Webhook"]
