"""Who speaks SQL, and who pays for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lives import NOW

from labctl import wiring


def test_a_command_that_needs_no_store_does_not_load_its_libraries() -> None:
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from labctl.cli.main import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
        "loaded = {'sqlalchemy', 'alembic', 'psycopg', 'sqlite3'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_opening_a_store_that_is_as_it_should_be_does_not_load_alembic(tmp_path: Path) -> None:
    wiring.store(tmp_path / "store.db", create=True).close()
    program = (
        "import sys\n"
        "from labctl import wiring\n"
        "wiring.store(sys.argv[1]).close()\n"
        "assert 'alembic' not in sys.modules\n"
    )
    argv = [sys.executable, "-c", program, str(tmp_path / "store.db")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_store_is_kept_among_labctl_s_own_state(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    store = wiring.store(create=True)
    store.enlist(["box"], now=NOW)
    store.close()
    assert (tmp_path / "state" / "store.db").is_file()
