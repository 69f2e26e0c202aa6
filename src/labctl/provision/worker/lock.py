"""The lock on a host: one apply at a time, held by a process on the host itself.

The rule: whoever holds ``flock`` on /run/labctl/apply.lock may change the host. The holder is a small shell
on a channel of its own, fed a heartbeat, so the lock goes away with its owner: after an orderly end at once,
after a lost connection as soon as the command that was running then has ended. A heartbeat that is overdue
(``SUSPECT_S``) makes the next apply wait, one that is older than ``STALE_S`` belongs to a run that is gone:
the next apply waits for its last command, ends it after ``TAKEOVER_S``, and takes over. A living owner is
never pushed aside; the refusal says who and since when. In doubt (no heartbeat yet) it counts as living.
"""

from __future__ import annotations

import shlex

import gevent
import paramiko

from labctl.domain.failures import Failure, HostError

HEARTBEAT_S = 4
SUSPECT_S = 10
STALE_S = 25
TAKEOVER_S = 60
ORPHAN_S = 600
OPEN_TIMEOUT_S = 10

# $1 who asks. Heartbeats come by stdin, the first line of which is the pid of the shell that does the work.
_HOLD = f"""
umask 077; dir=/run/labctl; mkdir -p "$dir" && exec 9>>"$dir/apply.lock" || exit 1
busy() {{ [ -n "$(cat "/proc/$1/task/$1/children" 2>/dev/null)" ]; }}
await() {{ i=0; while busy "$1" && [ "$i" -lt "$2" ]; do sleep 1; i=$((i+1)); done; }}
reap() {{
  kill -TERM $(cat "/proc/$1/task/$1/children" 2>/dev/null) 2>/dev/null; sleep 1; kill -KILL "$1" 2>/dev/null
}}
age() {{ echo $(( $(date +%s) - $(stat -c %Y "$dir/apply.beat" 2>/dev/null || date +%s) )); }}
refuse() {{ echo "locked $(cat "$dir/apply.holder" 2>/dev/null)"; exit 75; }}
while ! flock -n 9; do
  [ "$(age)" -ge {SUSPECT_S} ] || refuse
  if [ "$(age)" -lt {STALE_S} ]; then sleep 1; continue; fi
  read -r keeper runner <"$dir/apply.pids"
  await "$runner" {TAKEOVER_S}; reap "$runner"; kill -KILL "$keeper" 2>/dev/null
  flock -w 10 9 || refuse
  break
done
touch "$dir/apply.beat"
printf '%s since %s\\n' "$1" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$dir/apply.holder"
read -r runner || exit 1
echo "$$ $runner" >"$dir/apply.pids"
echo held
while read -r -t {STALE_S} _; do touch "$dir/apply.beat"; done
await "$runner" {ORPHAN_S}; busy "$runner" && reap "$runner"
rm -f "$dir/apply.holder" "$dir/apply.pids" "$dir/apply.beat"
"""

# Read only, for planning: who holds the lock now, if anybody who is alive does.
WHO_HOLDS = f"""
dir=/run/labctl; [ -e "$dir/apply.lock" ] || exit 0
if ! flock -n "$dir/apply.lock" true; then
  beat=$(stat -c %Y "$dir/apply.beat" 2>/dev/null || date +%s)
  [ $(( $(date +%s) - beat )) -ge {SUSPECT_S} ] || cat "$dir/apply.holder"
fi
"""


class HostLock:
    """The lock of one host, held from construction until ``release`` or until the connection ends."""

    def __init__(self, transport: paramiko.Transport, become: str, owner: str, runner_pid: int) -> None:
        """Take the lock for ``owner``; raise ``HostError`` with code ``locked`` when somebody else has it."""
        self._channel = transport.open_session(timeout=OPEN_TIMEOUT_S)
        self._channel.exec_command(f"{become}bash -c {shlex.quote(_HOLD)} labctl-lock {shlex.quote(owner)}")
        self._channel.sendall(f"{runner_pid}\n".encode())
        self._channel.settimeout(STALE_S + TAKEOVER_S + 30)
        said = self._answer()
        if said != "held":
            self._channel.close()
            raise HostError(_refusal(said))
        self._beat = gevent.spawn(self._heartbeat)

    def _answer(self) -> str:
        data = b""
        while not data.endswith(b"\n"):
            try:
                chunk = self._channel.recv(4096)
            except (TimeoutError, OSError):
                break
            if not chunk:
                break
            data += chunk
        if not data:
            data = self._channel.recv_stderr(4096)
        return data.decode("utf-8", "replace").strip()

    def _heartbeat(self) -> None:
        while not self._channel.closed:
            gevent.sleep(HEARTBEAT_S)
            try:
                self._channel.sendall(b"\n")
            except (OSError, EOFError, paramiko.SSHException):
                return

    def release(self) -> None:
        """Let go of the lock; harmless when the connection is gone already."""
        self._beat.kill(block=False)
        try:
            self._channel.shutdown_write()
            self._channel.settimeout(3)
            self._channel.recv(1)
        except (OSError, EOFError, paramiko.SSHException):
            return
        finally:
            self._channel.close()


def refused_by(holder: str) -> Failure:
    """Return the failure of a host on which ``holder`` ("who since when") is applying now."""
    return Failure(
        "locked",
        f"another apply is at work here: {holder or 'by an unknown owner'}",
        "wait until it has ended, then run labctl apply again",
    )


def _refusal(said: str) -> Failure:
    if said.startswith("locked"):
        return refused_by(said.removeprefix("locked").strip())
    return Failure("op-failed", f"the lock /run/labctl/apply.lock could not be taken: {said or 'no answer'}")
