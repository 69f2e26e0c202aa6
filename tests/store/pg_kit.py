"""A real PostgreSQL for tests: Debian's programs, a cluster of its own, gone when the tests end.

It runs as a user without rights, in a directory of its own, and dies with the process that started it. Local
connections are let in, those by TCP need a password. The server can be killed, stopped and started again.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

PASSWORD = "correct-horse"
_HBA = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
_SETTINGS = {
    # Nobody keeps this data; what is tested is who sees what.
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "autovacuum": "off",
    "jit": "off",
    "password_encryption": "scram-sha-256",
}


def programs() -> Path:
    """Return the folder of PostgreSQL's programs; skip the test where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3]))
    if not found:
        if os.environ.get("CI"):
            pytest.fail("there is no PostgreSQL: ./lab test, as root, installs it")
        pytest.skip("no PostgreSQL; `sudo ./lab test` installs it")
    return found[-1].parent


def _user() -> str | None:
    """Return who runs the server: it refuses to be root's."""
    return "nobody" if os.geteuid() == 0 else None


def _dies_with_us() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class PostgresKit:
    """A cluster, and the server that serves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0

    def make(self) -> None:
        """Make the cluster, with a user ``labctl`` who may make databases."""
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if user := _user():
            entry = pwd.getpwnam(user)
            for path in (self.folder, secret):
                os.chown(path, entry.pw_uid, entry.pw_gid)
        argv = ["initdb", "-D", "data", "-U", "labctl", f"--pwfile={secret}", "-E", "UTF8", "--no-locale"]
        self._run(*argv, "--no-sync", "--auth=scram-sha-256")
        (self.folder / "data" / "pg_hba.conf").write_text(_HBA)

    def _run(self, program: str, *argv: str) -> None:
        done = subprocess.run(
            [str(programs() / program), *argv],
            cwd=self.folder,
            user=_user(),
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, **settings: str) -> None:
        """Start the server and wait until it takes connections."""
        options = {**_SETTINGS, **settings}
        process = subprocess.Popen(
            [
                *(str(programs() / "postgres"), "-D", "data", "-k", str(self.folder), "-p", str(self.port)),
                *("-h", "127.0.0.1"),
                *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
            ],
            cwd=self.folder,
            user=_user(),
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=_dies_with_us,
        )
        self._process = process
        assert process.stderr is not None
        said = []
        too_long = threading.Timer(60, process.kill)
        too_long.start()
        for line in process.stderr:
            said.append(line.decode(errors="replace"))
            if b"ready to accept" in line:  # connections, or read-only ones
                break
        else:
            pytest.fail("PostgreSQL did not start:\n" + "".join(said))
        too_long.cancel()
        threading.Thread(target=_drain, args=(process,), daemon=True).start()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server, at once, and wait until it is gone; SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=60)
            self._process = None

    def sql(self, *statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run statements as the owner of all; return the rows of the last."""
        where = f"host={self.folder} port={self.port} user=labctl dbname={database}"
        with psycopg.connect(where, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def terminate_in_transaction(self) -> None:
        """End the connections of labctl that are within a transaction."""
        self.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'labctl' AND state = 'idle in transaction'"
        )

    def someone_waits(self, database: str) -> bool:
        """Return whether somebody in a database waits for a lock."""
        waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND "
        return self.sql(f"{waits} wait_event_type = 'Lock'", database=database) != [(0,)]

    def database(self, template: str | None = None) -> str:
        """Make a database and return its name."""
        self._made += 1
        name = f"d{self._made}"
        self.sql(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return name

    def address(self, database: str) -> str:
        """Return the address of a database, by the local socket."""
        return f"postgresql://labctl@/{database}?host={self.folder}&port={self.port}"

    def address_by_tcp(self, database: str, password: str = PASSWORD) -> str:
        """Return the address of a database, with a password."""
        return f"postgresql+psycopg://labctl:{password}@127.0.0.1:{self.port}/{database}"


@contextmanager
def postgres_kit() -> Iterator[PostgresKit]:
    """Lend a running server."""
    programs()
    # Not in pytest's directory: a socket has a short path, and another user may not enter that one.
    folder = Path(tempfile.mkdtemp(prefix="labctl-pg-"))
    kit = PostgresKit(folder)
    try:
        kit.make()
        kit.start()
        yield kit
    finally:
        kit.stop(signal.SIGQUIT)
        shutil.rmtree(folder)


def _drain(process: subprocess.Popen[bytes]) -> None:
    assert process.stderr is not None
    with process.stderr as pipe:
        for _ in pipe:
            pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
