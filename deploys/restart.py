"""Restart: a host whose new driver, kernel or memory setting waits for the next boot gets that boot.

Only with ``labctl apply --allow-reboot`` (plain pyinfra: ``--data allow_reboot=true``), one host at a time on
each circuit, and only while nobody uses it. Otherwise the reasons are said and nothing happens. It comes
before whatever needs the new driver.
"""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from labctl.ops import reboot


@deploy("Restart")
def restart() -> None:
    """Reboot the host if it needs it, may be, and is not in use."""
    reboot.if_needed(name="reboot where it is needed")


if __name__ == "builtins":  # run alone: pyinfra executes a deploy file without a module name
    restart()
