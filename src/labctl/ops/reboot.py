"""Reboot a host that needs it, may be and is not in use, and wait until it has really rebooted.

Whoever changes what takes effect at the next boot says so with ``needed``, which reboots nothing.
``if_needed`` comes once, after all of them: without ``--allow-reboot`` it only warns, with it the host waits
for its turn (see ``turns``), then until nobody uses it for a bounded time, and fails naming who does.

The kernel draws a new boot_id at each boot, so a host is back when it answers with another one; that it
answers at all proves nothing, since a slow shutdown keeps answering for a while. Each look uses a fresh
connection, for the old one may hang instead of failing. Any trouble while looking means "not back yet";
only the time limit ends the wait. A host that refuses to reboot (an inhibitor) fails at once with its words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from typing import Any

import gevent
from pyinfra import logger
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.context import host as current_host
from typing_extensions import override

from labctl.ops.command import Commands, Script, operation
from labctl.ops.facts_reboot import NOTES, RebootReasons
from labctl.ops.turns import Turns, circuits_of

PAUSE_S = 2.0
DRAIN_S = 120
_TURNS = Turns()
_BOOT_ID = StringCommand("cat", "/proc/sys/kernel/random/boot_id")


class _Reboot(FunctionCommand):
    """A reboot, shown in a plan with its reasons."""

    reasons = ""

    @override
    def __repr__(self) -> str:
        """Return what a person reads in the plan."""
        return f"reboot: {self.reasons}"


@operation
def needed(reasons: tuple[str, ...]) -> Commands:
    """Note that the host has to be rebooted, for ``reasons`` that are whole sentences; give it an ``_if``."""
    noted = host_reasons()
    if new := [reason for reason in reasons if reason not in noted]:
        pairs = [
            word for reason in new for word in (hashlib.sha256(reason.encode()).hexdigest()[:16], reason)
        ]
        yield Script("reboot-note", NOTES, *pairs)


def host_reasons() -> tuple[str, ...]:
    """Return why the current host needs a reboot; empty when it does not."""
    reasons: tuple[str, ...] = current_host.get_fact(RebootReasons)
    return reasons


@operation
def if_needed(timeout_s: int = 600, drain_s: int = DRAIN_S) -> Generator[FunctionCommand, None, None]:
    """Reboot a host that needs it when ``--allow-reboot`` permits it, else say that it needs one.

    ``drain_s`` is how long to wait until nobody uses the host, ``timeout_s`` until it is back.
    """
    reasons = host_reasons()
    if not reasons:
        return
    why = "; ".join(reasons)
    if not current_host.data.get("allow_reboot"):
        logger.warning(f"{current_host.name}: needs a reboot: {why} (labctl apply --allow-reboot does it)")
        current_host.noop(f"a reboot is needed and was not allowed: {why}")
        return
    arguments = _connector_arguments()
    rack, spec = current_host.data.rack, current_host.data.spec
    circuits = circuits_of(rack, spec)
    ports = [str(service.port) for service in spec.services if service.port is not None]
    drained = Script("drain", str(drain_s), *ports)

    def reboot_host(state: State, host: Host) -> bool:
        with _TURNS.turn(circuits) as stayed_away:
            if stayed_away:
                words = f"not rebooted: {stayed_away}, on the same circuit, did not come back from its reboot"
                host.log(words, logger.error)
                return False
            quiet, output = host.run_shell_command(drained, **{**arguments, "_timeout": drain_s + 60})
            if not quiet:
                host.log(output.stderr.strip() or "whether it is in use cannot be told", logger.error)
                return False
            back = reboot_and_wait(host, arguments, timeout_s)
            if not back and not _boot_id(host, arguments):
                _TURNS.stayed_away(host.name, circuits)
            return back

    command = _Reboot(reboot_host, (), {})
    command.reasons = why
    yield command


def _connector_arguments() -> dict[str, Any]:
    given: dict[str, Any] = dict(current_host.current_op_global_arguments or {})
    return {**{key: given[key] for key in CONNECTOR_ARGUMENT_KEYS if key in given}, "_timeout": 60}


def reboot_and_wait(host: Host, arguments: dict[str, Any], timeout_s: int) -> bool:
    """Reboot ``host`` and return whether it came back from a new boot in time."""
    before = _boot_id(host, arguments)
    if not before:
        host.log("its boot_id cannot be read, so a reboot could not be told; not rebooted", logger.error)
        return False
    try:
        accepted, output = host.run_shell_command(StringCommand("systemctl", "reboot"), **arguments)
        refusal = "" if accepted else output.stderr.strip()
    except Exception as error:
        # The connection may die before the answer comes; the boot_id will tell.
        logger.debug("%s: connection ended by its reboot: %s", host.name, error)
        refusal = ""
    if refusal and _boot_id(host, arguments) == before and "connection" not in refusal.lower():
        host.log(f"it refused to reboot: {refusal}", logger.error)
        return False
    limit = gevent.Timeout(timeout_s)
    try:
        with limit:
            while not (_reconnected(host) and _boot_id(host, arguments) not in ("", before)):
                gevent.sleep(PAUSE_S)
    except gevent.Timeout as timeout:
        if timeout is not limit:
            raise
        host.log(f"it did not come back from its reboot within {timeout_s} s", logger.error)
        return False
    return True


def _reconnected(host: Host) -> bool:
    """Drop the connection and open a new one; return whether that worked."""
    client = getattr(host.connector, "client", None)
    try:
        host.disconnect()
    except Exception as error:
        logger.debug("%s: while disconnecting: %s", host.name, error)
    finally:
        host.connected = False
        # pyinfra leaves the transport open.
        if client is not None:
            client.close()
    try:
        host.connect(show_errors=False, raise_exceptions=True)
    except Exception as error:
        logger.debug("%s: not back yet: %s", host.name, error)
    return host.connected


def _boot_id(host: Host, arguments: dict[str, Any]) -> str:
    """Return the boot_id, or "" when it cannot be read."""
    try:
        good, output = host.run_shell_command(_BOOT_ID, **arguments)
    except Exception as error:
        logger.debug("%s: no boot_id: %s", host.name, error)
        return ""
    return output.stdout.strip() if good else ""
