"""The lock on a host: one apply at a time, held by a process on the host itself.

The rule: whoever holds ``flock`` on /run/labctl/apply.lock may change the host. The holder is a small shell
on a channel of its own, fed a heartbeat, so the lock goes away with its owner: after an orderly end at once,
after a lost connection as soon as the command that was running then has ended. Whoever finds it taken watches
for a heartbeat: with the first one the owner is alive, and the refusal says who it is and since when. No
clock is believed, since the host's may jump. An owner without a heartbeat for ``STALE_S``, or whose end the
keeper has noticed, is gone: the next apply waits for its last command, ends it after ``TAKEOVER_S``, and
takes over. A run whose own lock went away (it was stopped for too long) is told so by ``held`` and must not
change anything more.

Each owner leaves a word of its own in the lock file. Who finds another word there than while planning knows
that somebody else was at work since then.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Sequence

import gevent
import paramiko

from labctl.domain.failures import Failure, HostError
from labctl.provision.worker.session import answers, start

HEARTBEAT_S = 2
SUSPECT_S = 8
STALE_S = 25
TAKEOVER_S = 60
ORPHAN_S = 600
OPEN_TIMEOUT_S = 10
_WORD = b"labctl-lock "

# $2 who asks; $1 is for the reader of a process list. The script comes by stdin, since not every log-in shell
# takes it as an argument; after it come heartbeats, with the pid of a shell where one more does the work. A
# heartbeat counts when nothing follows it at once: those that a network held back come together with the end.
# A beat at 0 says that the owner is known to be gone.
_HOLD = f"""{{
umask 077; dir=/run/labctl; mkdir -p -m 755 "$dir" && exec 9>>"$dir/apply.lock" || exit 1
say() {{ echo "labctl-lock $*"; }}
work() {{ for p in "$@"; do cat "/proc/$p/task/$p/children" 2>/dev/null; done; }}
await() {{
  i=0; n=$1; shift
  while [ -n "$(work "$@")" ] && [ "$i" -lt "$n" ]; do sleep 1; i=$((i+1)); done
}}
reap() {{ kill -TERM $(work "$@") 2>/dev/null; sleep 1; kill -KILL "$@" 2>/dev/null; }}
beat() {{ stat -c %Y "$dir/apply.beat" 2>/dev/null || echo 0; }}
refuse() {{
  [ -s "$dir/apply.holder" ] || sleep 1
  say locked "$(cat "$dir/apply.holder" 2>/dev/null)"; exit 75
}}
seen=$(beat); watched=0
while ! flock -w 1 9; do
  now=$(beat); watched=$((watched+1))
  [ "$now" = "$seen" ] || [ "$now" = 0 ] || refuse
  [ "$watched" -ge {STALE_S} ] || [ "$now" = 0 -a "$watched" -ge {SUSPECT_S} ] || continue
  read -r keeper runners <"$dir/apply.pids"
  [ "$(readlink "/proc/$keeper/fd/9")" = "$dir/apply.lock" ] || refuse
  await {TAKEOVER_S} $runners; reap $runners; kill -KILL "$keeper" 2>/dev/null
  flock -w 10 9 || refuse
  break
done
touch "$dir/apply.beat"
before=$(cat "$dir/apply.lock"); cat /proc/sys/kernel/random/uuid >"$dir/apply.lock"
printf '%s since %s\\n' "$2" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$dir/apply.holder"
read -r runners || exit 1
echo "$$ $runners" >"$dir/apply.pids"
say held "$before"
wait={STALE_S}
while :; do
  read -r -t "$wait" more; got=$?
  if [ "$got" -eq 0 ]; then
    wait=1
    if [ -n "$more" ]; then runners="$runners $more"; echo "$$ $runners" >"$dir/apply.pids"; fi
  elif [ "$got" -gt 128 ] && [ "$wait" -eq 1 ]; then
    touch "$dir/apply.beat"; wait={STALE_S}
  else break; fi
done
touch -d @0 "$dir/apply.beat"
await {ORPHAN_S} $runners; [ -z "$(work $runners)" ] || reap $runners
rm -f "$dir/apply.holder" "$dir/apply.pids" "$dir/apply.beat"
exit
}}
"""

# Read only, for planning: the word in the lock file, and who holds the lock if he is seen to be alive.
WHO_HOLDS = f"""
dir=/run/labctl; echo "word $(cat "$dir/apply.lock" 2>/dev/null)"
[ -e "$dir/apply.holder" ] || exit 0
beat() {{ stat -c %Y "$dir/apply.beat" 2>/dev/null || echo 0; }}
seen=$(beat); watched=0
until flock -n "$dir/apply.lock" true; do
  now=$(beat); watched=$((watched+1))
  [ "$now" = "$seen" ] || [ "$now" = 0 ] || {{ cat "$dir/apply.holder"; exit 0; }}
  [ "$now" != 0 ] && [ "$watched" -le {HEARTBEAT_S + 2} ] || exit 0
  sleep 1
done
"""


class HostLock:
    """The lock of one host, held from construction until ``release`` or until the connection ends."""

    def __init__(
        self, transport: paramiko.Transport, become: str, owner: str, runners: Sequence[int]
    ) -> None:
        """Take the lock for ``owner``, whose commands the shells ``runners`` execute.

        Raises:
            HostError: with code ``locked`` when somebody else has it.
        """
        try:
            argv = f"{become}bash -s -- labctl-lock {shlex.quote(owner)}"
            self._channel = start(transport, argv, OPEN_TIMEOUT_S)
            pids = " ".join(str(pid) for pid in runners)
            self._channel.sendall(f"{_HOLD}{pids}\n".encode())
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise HostError(
                _refusal(f"sshd opened no channel for it ({error}); MaxSessions must be 4 or more")
            ) from None
        self._transport, self._beaten = transport, _now()
        self._channel.settimeout(STALE_S + TAKEOVER_S + 30)
        said = self._answer()
        if not said.startswith("held"):
            self._channel.close()
            raise HostError(_refusal(said))
        self.word_before = said.removeprefix("held").strip()
        self._beat = gevent.spawn(self._heartbeat)

    def held(self) -> bool:
        """Return whether the lock is still ours; the host is asked when we ourselves were silent for long."""
        if _now() - self._beaten > SUSPECT_S and not answers(self._transport, OPEN_TIMEOUT_S):
            return False
        return not (self._channel.closed or self._channel.eof_received)

    def watch(self, runner: int) -> None:
        """Count the shell ``runner`` among those whose commands the lock outlives."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.sendall(f"{runner}\n".encode())

    def _answer(self) -> str:
        """Return the holder's word; what a log-in shell prints before it is skipped."""
        data = b""
        while True:
            *lines, _ = data.split(b"\n")
            for line in lines:
                if line.startswith(_WORD):
                    return line.removeprefix(_WORD).decode("utf-8", "replace").strip()
            try:
                chunk = self._channel.recv(4096)
            except OSError:
                chunk = b""
            if not chunk:
                break
            data += chunk
        with contextlib.suppress(OSError):
            data = self._channel.recv_stderr(4096) or data
        return data.decode("utf-8", "replace").strip()

    def _heartbeat(self) -> None:
        while not self._channel.closed:
            gevent.sleep(HEARTBEAT_S)
            try:
                self._channel.sendall(b"\n")
            except (OSError, EOFError, paramiko.SSHException):
                return
            self._beaten = _now()

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


def _now() -> float:
    """Return seconds on a clock that goes on while this machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def lost() -> Failure:
    """Return the failure of a run whose lock the host gave up while it was at work."""
    return Failure(
        "locked",
        f"its lock is gone: labctl stood still for over {STALE_S} s, or its labctl-lock process was ended",
        "run labctl apply again: it resumes",
    )


def read_who_holds(said: str) -> tuple[str, str]:
    """Split what ``WHO_HOLDS`` printed: the word in the lock file, and the living holder or nothing."""
    word, _, holder = said.partition("\n")
    return word.removeprefix("word").strip(), holder.strip()


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
