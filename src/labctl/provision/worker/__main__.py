"""Start a worker: patch first, read the job, run it, stop when the parent is gone.

stdout carries events only; whatever a rack file or a deploy prints goes to stderr, which the parent keeps in
a log. End of file on stdin means that the parent died: the worker then cancels, as if by Ctrl-C.
"""

from __future__ import annotations

import gc

# Hardly any of what is imported is garbage, and looking for that takes a tenth of the start.
gc.disable()

from gevent import events, monkey

# patch_all would look through the entry points of every installed package for listeners to each of its steps.
events.notify_and_call_entry_points = events.notify
monkey.patch_all()

# ruff: noqa: E402 - gevent must patch before anything else is imported
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

# A third of the start and 6 MB go to modules that nothing here uses: paramiko wants invoke for "Match exec"
# in an ssh_config, which we never read, and typeguard wants two names of unittest.mock, which brings asyncio.
sys.modules["invoke"] = None  # type: ignore[assignment]
sys.modules["unittest.mock"] = _mock = ModuleType("unittest.mock")
vars(_mock).update(Mock=type("Mock", (), {}), patch=None)

import gevent
from gevent.fileobject import FileObject
from pyinfra.api.state import State
from pyinfra.context import ctx_state

from labctl.domain.problem import LabctlError
from labctl.inventory import load_rack
from labctl.provision.events import Cancel, Event, Go, HostEnded, Job, WorkerEnded, decode_order
from labctl.provision.worker.planning import LogTap
from labctl.provision.worker.pyinfra_state import build
from labctl.provision.worker.run import Run
from labctl.provision.worker.voice import Voice

del sys.modules["unittest.mock"]
# What was imported stays, and a run is short: it need not be looked through for garbage again and again.
gc.freeze()
gc.set_threshold(20_000, 20, 20)
gc.enable()


def main() -> int:
    """Run one job given by stdin; return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.dup(1)
    os.dup2(2, 1)
    voice = Voice(out)
    orders = FileObject(0, "rb", close=False)
    job = decode_order(orders.readline().decode() or "{}")
    if not isinstance(job, Job):
        raise ValueError("the first order must be a job")
    try:
        run = _prepare(job, voice.say)
    except LabctlError as error:
        for host in job.hosts:
            reason = "; ".join(str(problem) for problem in error.problems)
            voice.say(HostEnded(host, "failed", "deploy-error", reason))
        voice.finish()
        return 0
    gevent.spawn(_listen, orders, run)
    run.run()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    voice.say(WorkerEnded(round(usage.ru_utime + usage.ru_stime, 3), usage.ru_maxrss))
    voice.finish()
    return 0


def _prepare(job: Job, emit: Callable[[Event], None]) -> Run:
    tap = LogTap(emit)
    log = logging.getLogger("pyinfra")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(tap)
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    loaded = load_rack(Path(job.rack))
    for name, data in loaded.host_data.items():
        data["allow_reboot"] = job.allow_reboot
        data["forced"] = job.forced.get(name, "")
        data["places"] = loaded.place
    state = build(loaded, job.hosts, diff=job.diff, timeout_s=job.connect_timeout_s)
    ctx_state.set(state)
    root = Path(job.deploys[0]).resolve().parent.parent
    sys.path.insert(0, str(root))
    state.cwd = str(root)
    return Run(state, job, [_deploy(state, path) for path in job.deploys], tap, emit)


def _deploy(state: State, path: str) -> Callable[[], None]:
    """Return a function that runs a deploy file the way pyinfra does: as code without a module name."""
    try:
        code = compile(Path(path).read_bytes(), path, "exec")
    except (OSError, SyntaxError, ValueError) as error:
        raise LabctlError(f"the deploy {path} cannot be read: {error}") from None

    def deploy() -> None:
        state.current_deploy_filename = path
        exec(code, {"__file__": path})

    return deploy


def _listen(orders: FileObject, run: Run) -> None:
    for line in orders:
        order = decode_order(line.decode())
        if isinstance(order, Go):
            run.go(order.hosts)
        elif isinstance(order, Cancel):
            run.cancel(order.grace_s)
    run.cancel(grace_s=10.0)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Open transports hold threads which would be waited for.
    os._exit(code)
