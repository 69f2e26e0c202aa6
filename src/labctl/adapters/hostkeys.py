"""Ask hosts for their public host keys, as ``ssh-keyscan`` does.

One connection for each kind of key (ed25519, ECDSA, RSA with SHA-2) goes as far as the key exchange, in which
the host proves that it holds the private key, and ends before any login: no user name and no credential is
ever sent. Hosts are asked at once, the kinds of one host one after the other, so that its sshd is never near
its limit of unknown callers and a dead host costs one timeout.

All or nothing: a host that does not have a kind of key says so in its first packet, and that is an answer.
Any other failure makes the whole answer a failure, since half of the keys could pass for a changed host.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import paramiko

from labctl.domain.enrolment import HostKey
from labctl.inventory.known_hosts import fingerprint

KINDS = {
    "ed25519": ("ssh-ed25519",),
    "ecdsa": ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    "rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
AT_ONCE = 64
TIMEOUT_S = 10.0
_LOG = "labctl.hostkeys"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a host's sshd listens."""

    address: str
    port: int = 22


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host showed: its keys, or in ``failure`` why not and in ``hint`` what to look at."""

    keys: tuple[HostKey, ...] = ()
    failure: str = ""
    hint: str = ""


class _NotOfferedError(Exception):
    """The host has no key of the kind that it was asked for."""


def fetch_all(endpoints: Iterable[Endpoint], *, timeout_s: float = TIMEOUT_S) -> dict[Endpoint, Answer]:
    """Return the answer of every endpoint; all are asked at once, each within ``timeout_s``.

    The threads are daemons, so Ctrl-C ends the wait at once.
    """
    answers: dict[Endpoint, Answer] = {}
    bugs: list[Exception] = []
    slots = threading.BoundedSemaphore(AT_ONCE)

    def ask(endpoint: Endpoint) -> None:
        with slots:
            try:
                answers[endpoint] = fetch(endpoint, timeout_s=timeout_s)
            except Exception as bug:
                bugs.append(bug)

    threads = [threading.Thread(target=ask, args=(each,), daemon=True) for each in dict.fromkeys(endpoints)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if bugs:
        raise bugs[0]
    return answers


def fetch(endpoint: Endpoint, *, timeout_s: float = TIMEOUT_S) -> Answer:
    """Return the host keys that ``endpoint`` shows within ``timeout_s`` in all."""
    until = time.monotonic() + timeout_s
    keys: list[HostKey] = []
    for kind, algorithms in KINDS.items():
        try:
            keys.append(_key(endpoint, algorithms, lambda: until - time.monotonic()))
        except _NotOfferedError:
            continue
        except (OSError, EOFError, paramiko.SSHException) as error:
            reason, hint = _explain(error, endpoint, timeout_s)
            return Answer(failure=f"{reason}, when asked for its {kind} key" if keys else reason, hint=hint)
    if not keys:
        return Answer(
            failure=f"{_place(endpoint)} has no host key of a kind that labctl accepts ({', '.join(KINDS)})",
            hint="on its console, run: sudo ssh-keygen -A && sudo systemctl restart ssh",
        )
    return Answer(keys=tuple(keys))


def _key(endpoint: Endpoint, algorithms: tuple[str, ...], left_s: Callable[[], float]) -> HostKey:
    """Return the key that the host proves to hold when only ``algorithms`` are acceptable."""
    with socket.create_connection(
        (endpoint.address, endpoint.port), timeout=max(left_s(), 0.001)
    ) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = paramiko.Transport(connection)
        try:
            return _exchange(transport, algorithms, max(left_s(), 0.001))
        finally:
            transport.close()


def _exchange(transport: paramiko.Transport, algorithms: tuple[str, ...], timeout_s: float) -> HostKey:
    # paramiko logs a traceback for whoever does not speak SSH; without a handler it would reach stderr
    logging.getLogger(_LOG).addHandler(logging.NullHandler())
    logging.getLogger(_LOG).propagate = False
    transport.set_log_channel(_LOG)
    # start_client keeps the deadline; paramiko's own would end at the same moment under another name
    transport.banner_timeout = transport.handshake_timeout = 2 * timeout_s + 60
    transport.get_security_options().key_types = algorithms
    try:
        transport.start_client(timeout=timeout_s)
    except paramiko.ssh_exception.IncompatiblePeer as error:
        if "host key" in str(error):
            raise _NotOfferedError from None
        raise
    if not transport.initial_kex_done:
        raise TimeoutError
    key = transport.get_remote_server_key()
    return HostKey(key.get_name(), key.get_base64(), fingerprint(key.get_base64()))


def _place(endpoint: Endpoint) -> str:
    return f"{endpoint.address} port {endpoint.port}"


def _explain(error: Exception, endpoint: Endpoint, timeout_s: float) -> tuple[str, str]:
    """Return what went wrong in words, and what to look at."""
    place = _place(endpoint)
    if isinstance(error, socket.gaierror):
        return (
            f"the name {endpoint.address} does not resolve",
            "give its IP address, or mend the name service",
        )
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens on {place}", "is sshd running there? is it the right port?"
    if isinstance(error, TimeoutError):
        return f"{place} did not answer within {timeout_s:g} s", "is the host awake, and on this network?"
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return f"{place} and labctl have no algorithm in common ({error})", "update the host's sshd"
    if isinstance(error, paramiko.SSHException) and re.search("banner|Indecipherable", str(error)):
        return f"{place} did not introduce itself as SSH", "does something else listen there, or hang?"
    if isinstance(error, EOFError | ConnectionResetError | BrokenPipeError):
        return f"{place} closed the connection before it showed a key", "its log says why: journalctl -u ssh"
    if isinstance(error, OSError):
        return f"{place} cannot be reached: {error.strerror or error}", "check the address and the network"
    return f"{place} failed to show its key: {error}", "its log says more: journalctl -u ssh"
