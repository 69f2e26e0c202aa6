"""pyinfra's door to a host, over our sessions instead of one SSH channel for each command.

Operations and facts see an ordinary pyinfra connector. Commands for root and for the log-in user go through
one persistent shell each. While a plan is made nothing changes, so equal commands share one answer
(``remember``). Files arrive under an unpredictable name in the target's own directory, private until they
are complete.
"""

from __future__ import annotations

import base64
import shlex
from typing import Any

import paramiko
from gevent.lock import RLock
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.api.util import get_file_io
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import (
    CommandOutput,
    OutputLine,
    make_unix_command,
    make_unix_command_for_host,
)

from labctl.domain import failures
from labctl.domain.failures import Failure, HostError
from labctl.provision.worker.lock import HostLock, lost
from labctl.provision.worker.session import Answer, Asked, ConnectionLost, Session, start
from labctl.provision.worker.transport import Endpoint, open_transport

DEFAULT_TIMEOUT_S = 900
_GRACE_S = 30
# What commands say is read by us and by pyinfra's facts, so they shall say it in one language.
_LOCALE = "env -u LANGUAGE LC_ALL=C.UTF-8 "
_OTHER_USER = ("_sudo", "_su_user", "_doas", "_dzdo")
_FROM_ENVIRONMENT = 'c=$LABCTL_COMMAND; unset LABCTL_COMMAND; eval "$c"'
_NO_PASSWORDS = (
    "labctl sends no password for sudo or su, since it could be read in the host's process list",
    "drop it; the log-in user must be allowed sudo without one",
)
_NOT_IN_THE_COMMAND = ("_shell_executable", "_retries", "_retry_delay", "_retry_until", "_temp_dir")
_ROOT_ONLY = {"_sudo": True, "_sudo_user": None, "_use_sudo_login": False, "_preserve_sudo_env": False}

# $1 destination. Keeps mode and owner of a file that is there, else root's umask decides.
_RECEIVE = """
set -e; dest=$1; dir=$(dirname -- "$dest"); umask 077
tmp=$(mktemp -- "$dir/.labctl-put.XXXXXXXXXX"); trap 'rm -f -- "$tmp"' EXIT
cat >"$tmp"
if [ -e "$dest" ]; then chmod --reference="$dest" -- "$tmp"; chown --reference="$dest" -- "$tmp"
else chmod 644 -- "$tmp"; fi
sync -- "$tmp"; mv -fT -- "$tmp" "$dest"; trap - EXIT
"""


class RackConnector(SSHConnector):
    """A connector that keeps one shell for root and one for the log-in user open."""

    def __init__(self, state: State, host: Host) -> None:
        """Prepare for ``host``; nothing is sent before ``connect``."""
        super().__init__(state, host)
        self.transport: paramiko.Transport | None = None
        self.owner: str | None = None
        self.last_failure = ""
        self.questions = 0  # how many facts are being asked now; what runs meanwhile changes nothing
        self._patience_s = 10.0
        self.lost: ConnectionLost | None = None
        self._sessions: dict[bool, Session] = {}
        self._opening = RLock()
        self._lock: HostLock | None = None
        self._remembered: dict[str, Asked] | None = None

    # -- life

    def open(self, timeout_s: float) -> None:
        """Connect and start the root shell; raise ``HostError`` when that is not possible."""
        self._patience_s = timeout_s
        self.transport = open_transport(Endpoint.of(self.host.data.dict(), self.host.name, timeout_s))
        self.lost = None
        self._session(root=True)
        if self.owner is not None:
            self.take_lock(self.owner)

    def connect(self) -> None:
        """Connect as pyinfra asks for it (a reboot operation does); raise ``ConnectError``."""
        try:
            self.open(self.state.config.CONNECT_TIMEOUT)
        except HostError as error:
            raise ConnectError(error.failure.reason) from None

    def disconnect(self) -> None:
        """End the shells in an orderly way, let go of the lock, close the connection."""
        for session in self._sessions.values():
            session.finish()
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        self.drop()

    def drop(self) -> None:
        """Close everything at once, as after a lost connection."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        if self.transport is not None:
            self.transport.close()
            self.transport = None

    def take_lock(self, owner: str) -> str:
        """Take the host's lock for ``owner``, now and after every reconnect.

        Returns the last owner's word; raises ``HostError`` when somebody else has it.
        """
        assert self.transport is not None
        self._session(root=True)
        pids = [session.pid for session in self._sessions.values()]
        self._lock = HostLock(self.transport, self._become, owner, pids)
        self.owner = owner
        return self._lock.word_before

    def require_lock(self) -> None:
        """Raise ``HostError`` if the lock that was taken is not ours any more."""
        if self._lock is not None and self.lost is None and not self._lock.held():
            raise HostError(lost())

    def end_running_command(self) -> None:
        """Send TERM to what the root shell runs now; ``timeout`` follows up with KILL."""
        if self.transport is None:
            return
        pids = [session.pid for session in self._sessions.values() if session.alive]
        script = 'for p in "$@"; do kill -TERM $(cat "/proc/$p/task/$p/children") 2>/dev/null; done; true'
        try:
            words = " ".join(str(pid) for pid in pids)
            start(self.transport, f"{self._become}sh -c {shlex.quote(script)} labctl-cancel {words}", 5)
        except (paramiko.SSHException, OSError, EOFError):
            self.drop()

    @property
    def _become(self) -> str:
        return "" if (self.data["ssh_user"] or "root") == "root" else f"{_LOCALE}sudo -H -n "

    def _session(self, *, root: bool) -> Session:
        key = root or not self._become
        with self._opening:
            session = self._sessions.get(key)
            if session is None:
                if self.transport is None:
                    raise self.lost or ConnectionLost("there is no connection")
                session = self._sessions[key] = self._start(root=key)
                if self._lock is not None:
                    self._lock.watch(session.pid)
            return session

    def _start(self, *, root: bool) -> Session:
        assert self.transport is not None
        try:
            shell = (self._become if root else "") or _LOCALE
            return Session(self.transport, f"{shell}sh", self._patience_s)
        except HostError as error:
            raise HostError(failures.of_output(error.failure.reason) or error.failure) from None
        except paramiko.ChannelException as error:
            raise HostError(
                Failure(
                    "no-shell",
                    f"its sshd opens no further session: {error}",
                    "in sshd_config, MaxSessions must be 4 or more",
                    unreachable=True,
                )
            ) from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise HostError(
                Failure("frozen", f"it opened no channel: {error or 'no answer'}", unreachable=True)
            ) from None

    # -- commands

    def remember(self, *, on: bool) -> None:
        """Share the answers of equal commands from now on, or forget them; only while nothing changes."""
        self._remembered = (self._remembered or {}) if on else None

    def run_shell_command(
        self, command: StringCommand, print_output: bool = False, print_input: bool = False, **arguments: Any
    ) -> tuple[bool, CommandOutput]:
        """Run ``command`` and return whether it succeeded, and its output.

        Raises ``TimeoutError`` when its deadline ended it and ``ConnectionLost`` when the host went away.
        """
        if arguments.pop("_get_pty", False):
            raise HostError(Failure("deploy-error", "labctl runs commands without a terminal: drop _get_pty"))
        limit_s = arguments.pop("_timeout", None)
        timeout_s = int(limit_s or DEFAULT_TIMEOUT_S)
        stdin = _stdin_bytes(arguments.pop("_stdin", None))
        good = arguments.pop("_success_exit_codes", None) or (0,)
        root = all(arguments.get(key) in (value, None) for key, value in _ROOT_ONLY.items() if key != "_sudo")
        root = root and bool(arguments.get("_sudo")) and not arguments.get("_su_user")
        if root:
            arguments["_sudo"] = False
        if self.questions and not limit_s and stdin is None and _needs_no_shell(arguments):
            question = StringCommand(command).get_raw_value()  # pyinfra gives facts as text, too
            answer = self._ask(question, root=root, timeout_s=timeout_s)
        else:
            text, hidden, stdin = self._request(command, arguments, stdin)
            session = self._session(root=root)
            asked = session.submit(text, timeout_s=timeout_s, stdin=stdin, hidden=hidden)
            answer = self._await(session, asked, timeout_s + _GRACE_S)
        output = CommandOutput(_lines("stdout", answer.stdout) + _lines("stderr", answer.stderr))
        if answer.cut:
            self.last_failure = "it printed more than labctl keeps (64 MiB)"
            return False, output
        if answer.status in good:
            return True, output
        self.last_failure = (answer.stderr or answer.stdout).decode("utf-8", "replace").strip()
        # A command may end with these by itself, so it counts how long it ran.
        if answer.status in (124, 137) and answer.seconds >= 0.9 * timeout_s:
            late = f"it did not end within {timeout_s} s and was ended"
            self.last_failure = f"{self.last_failure}\n{late}".strip()
            raise TimeoutError(late)
        self.last_failure = self.last_failure or f"it ended with exit status {answer.status}, saying nothing"
        return False, output

    def _request(
        self, command: StringCommand, arguments: dict[str, Any], stdin: bytes | None
    ) -> tuple[str, str, bytes | None]:
        """Return ``command`` as one simple command, what of it goes into its environment, and its stdin.

        What is hidden must not become an argument of a process, which any user may read: it goes into the
        environment, which only root and the owner may. sudo passes none on, so another user's shell gets its
        script by stdin. Both at once are not to be had; then stdin is the command's own.
        """
        if arguments.get("_sudo_password") or arguments.get("_su_password"):
            raise HostError(Failure("deploy-error", *_NO_PASSWORDS))
        built = make_unix_command_for_host(self.state, self.host, command, **arguments)
        another_user = any(arguments.get(key) for key in _OTHER_USER)
        if built.get_raw_value() == built.get_masked_value() or (another_user and stdin is not None):
            return built.get_raw_value(), "", stdin
        shell = arguments.pop("_shell_executable", None) or "sh"
        within = {key: arguments.pop(key) for key in ("_env", "_chdir") if key in arguments}
        script = make_unix_command(command, _shell_executable=None, **within).get_raw_value()
        if not another_user:
            return f"{shell} -c {shlex.quote(_FROM_ENVIRONMENT)}", script, stdin
        text = make_unix_command_for_host(self.state, self.host, StringCommand(shell, "-s"), **arguments)
        return text.get_raw_value(), "", f"{{ {script}\n}} </dev/null\n".encode()

    def ask_root(self, script: str) -> str:
        """Return what ``script`` prints when root runs it, stripped; for our own questions to the host."""
        return self._ask(script, root=True, timeout_s=30).stdout.decode("utf-8", "replace").strip()

    def _ask(self, question: str, *, root: bool, timeout_s: int) -> Answer:
        """Ask what changes nothing; while a plan is made, the same question is asked once."""
        key = f"{root}:{question}"
        asked = self._remembered.get(key) if self._remembered is not None else None
        session = self._session(root=root)
        if asked is None:
            asked = session.ask(question)
            if self._remembered is not None:
                self._remembered[key] = asked
        return self._await(session, asked, timeout_s)

    def _await(self, session: Session, asked: Asked, limit_s: int) -> Answer:
        try:
            return asked.get(limit_s)
        except TimeoutError:
            session.give_up(f"a command did not end within {limit_s} s and could not be ended")
            raise TimeoutError(f"it did not end within {limit_s} s and could not be ended") from None
        except ConnectionLost as error:
            self.lost = error
            raise

    # -- files

    def put_file(
        self,
        filename_or_io: Any,
        remote_filename: str,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        """Write a file atomically and return whether that worked; pyinfra's name in /tmp is not used."""
        with get_file_io(filename_or_io) as file:
            content = file.read()
        data = content.encode() if isinstance(content, str) else content
        arguments.pop("_stdin", None)
        command = StringCommand(f"sh -c {shlex.quote(_RECEIVE)} labctl-put {shlex.quote(remote_filename)}")
        ok, _output = self.run_shell_command(command, _stdin=data, **arguments)
        return ok

    def get_file(
        self,
        remote_filename: str,
        filename_or_io: Any,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        """Fetch a file and return whether that worked."""
        command = StringCommand("base64", "--", QuoteString(remote_filename))
        ok, output = self.run_shell_command(command, **arguments)
        if ok:
            with get_file_io(filename_or_io, "wb") as file:
                file.write(base64.b64decode("".join(output.stdout_lines)))
        return ok


def _needs_no_shell(arguments: dict[str, Any]) -> bool:
    """Return whether a command may run in the shell that is there: as its user, in its folder, as sh."""
    return arguments.get("_shell_executable") in (None, "sh") and not any(
        value for key, value in arguments.items() if key not in _NOT_IN_THE_COMMAND
    )


def _stdin_bytes(value: Any) -> bytes | None:
    """Return what a command gets by stdin; text as pyinfra sends it, each line ending in a newline."""
    if value is None or isinstance(value, bytes):
        return value
    if hasattr(value, "readlines"):
        value = value.readlines()
    lines = value if isinstance(value, (list, tuple)) else [value]
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines).encode()


def _lines(stream: str, data: bytes) -> list[OutputLine]:
    text = data.decode("utf-8", "replace")
    lines = text.removesuffix("\n").split("\n") if text else []
    return [OutputLine(stream, line) for line in lines]
