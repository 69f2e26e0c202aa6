"""Stand in for llama-swap 250: its command line, configuration, engines, endpoints, states and errors.

It starts the real commands and passes requests on, to its own engines and to peers. SIGHUP and -watch-config
reload as there: a bad file is logged and the old one stays, a good one stops every model. Left out: TLS,
-config-dir, profiles, the UI, captures, events, and choosing by a selector (it is listed only).
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from .config import Config
from .macros import BadConfig
from .process import Failed
from .router import Router, TooMany
from .server import Server

WATCH_S = 2.0
TTL_S = 0.5
DRAIN_S = 30.0


class Swap:
    """The configuration in force and its engines."""

    def __init__(self, path: str) -> None:
        """Read the configuration.

        Raises:
            BadConfig: it is refused.
        """
        self.path = path
        self.history: deque[str] = deque(maxlen=10_000)
        self.config = Config(path)
        self.router = Router(self.config, self.log)
        self._reloading = threading.Lock()

    def log(self, level: str, message: str) -> None:
        """Log a line, unless the configuration wants none."""
        line = f"[{level}] {message}\n"
        self.history.append(line)
        config = getattr(self, "config", None)
        if config is None or config.raw.get("logToStdout", "proxy") in ("proxy", "both"):
            sys.stdout.write(line)
            sys.stdout.flush()

    def preload(self) -> None:
        """Start what the configuration wants started, one after the other."""
        router = self.router
        for id_ in self.config.preload:
            self.log("INFO", f"preloading model: {id_}")
            try:
                router.leave(router.enter(id_))
            except (Failed, TooMany):
                self.log("ERROR", f"failed to preload model {id_}: status 500")

    def reload(self) -> None:
        """Read the configuration again, as on SIGHUP."""
        if not self._reloading.acquire(blocking=False):
            return
        try:
            self.log("INFO", "reloading configuration")
            try:
                fresh = Config(self.path)
            except BadConfig as error:
                self.log("WARN", f"failed to reload config: {error}")
                return
            old = self.router
            self.config, self.router = fresh, Router(fresh, self.log)
            threading.Thread(target=self.preload, daemon=True).start()
            old.close()
            self.log("INFO", "configuration reloaded")
        finally:
            self._reloading.release()

    def look_after(self) -> None:
        """Stop idle models, for ever."""
        while True:
            time.sleep(TTL_S)
            self.router.stop_idle()

    def watch(self) -> None:
        """Reload whenever the file changes, for ever."""
        last = Path(self.path).stat().st_mtime_ns
        while True:
            time.sleep(WATCH_S)
            try:
                now = Path(self.path).stat().st_mtime_ns
            except OSError:
                continue
            if now != last:
                last = now
                self.reload()

    def end(self) -> None:
        """Let requests end, at most for a while, and stop everything."""
        end = time.monotonic() + DRAIN_S
        while time.monotonic() < end and any(one.busy for one in self.router.processes.values()):
            time.sleep(0.05)
        self.router.close()


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llama-swap", allow_abbrev=False)
    for name in ("config", "listen"):
        parser.add_argument(f"-{name}", f"--{name}", default="")
    for name in ("watch-config", "version"):
        parser.add_argument(f"-{name}", f"--{name}", action="store_true")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run until told to end; return the exit status."""
    options = _options(argv)
    if options.version:
        sys.stdout.write("version: v250 (abcd1234), built at unknown\n")
        return 0
    if not options.config:
        return _refused("at least one of -config or -config-dir must be provided")
    try:
        swap = Swap(options.config)
    except BadConfig as error:
        text = str(error).replace("\\", "\\\\").replace('"', '\\"')
        return _refused(f'failed to load config config={options.config} config-dir="" error="{text}"')
    host, _, port = (options.listen or ":8080").rpartition(":")
    try:
        server = Server((host.strip("[]"), int(port)), swap)
    except OSError as error:
        why = (error.strerror or "").lower()
        return _refused(f'http server error error="listen tcp {options.listen}: bind: {why}"')
    for work in (swap.look_after, swap.preload, *((swap.watch,) if options.watch_config else ())):
        threading.Thread(target=work, daemon=True).start()
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=swap.reload).start())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    swap.log("INFO", f"llama-swap listening on http://{options.listen or ':8080'}")
    server.serve_forever(0.05)
    swap.end()
    return 0


def _refused(words: str) -> int:
    """Say why it does not start; the real one says the time in front."""
    sys.stderr.write(f"1970/01/01 00:00:00 ERROR {words}\n")
    return 1
