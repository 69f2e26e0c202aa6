"""The script behind ``systemd.unit`` against a stand-in of systemctl that notes what it is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from ops_hosts import ME, MY_GROUP, Done, Here

from labctl.ops.command import Script, content_on_stdin

UNIT = "labctl-echo.service"


class Systemd:
    """A host's systemd: ``calls`` lists what it was asked."""

    def __init__(self, here: Here) -> None:
        self.here = here
        self.file = here.root / "etc/systemd/system" / UNIT
        self.note = here.root / "run/restart" / UNIT
        self.behave()

    def behave(self, *, start: str = ":", shown: str = "active running") -> None:
        log = f'printf "%s\\n" "$*" >> {self.here.root}/log'
        shows = f"printf '%s\\n' {shown}"
        cases = f"start|restart) {start};; show) {shows};; status) echo 'it crashed here';;"
        self.here.stand_in("systemctl", f"{log}\ncase $1 in {cases} esac")

    def run(self, enable: str = "enable", act: str = "start", content: bytes = b"[Service]\n") -> Done:
        words = (
            UNIT,
            "reload",
            enable,
            act,
            "0.01",
            str(self.note),
            str(self.file),
            "644",
            f"{ME}:{MY_GROUP}",
        )
        return self.here.run(Script("unit", *words, stdin=content_on_stdin(content)))

    @property
    def calls(self) -> list[str]:
        lines = (self.here.root / "log").read_text().splitlines()
        return [line for line in lines if not line.startswith(("show", "reset-failed"))]


@pytest.fixture
def systemd(here: Here) -> Systemd:
    return Systemd(here)


def test_a_new_unit_is_written_known_enabled_and_started_once(systemd: Systemd) -> None:
    assert systemd.run().status == 0
    assert systemd.file.read_text() == "[Service]\n"
    assert systemd.calls == [f"-q --no-reload enable -- {UNIT}", "daemon-reload", f"start -- {UNIT}"]


@pytest.mark.parametrize(("needed", "reloads"), [("yes", 1), ("no", 0)])
def test_a_restart_has_systemd_read_its_units_again_only_if_one_changed(
    systemd: Systemd, needed: str, reloads: int
) -> None:
    systemd.behave(shown=needed)
    systemd.here.run(Script("unit", UNIT, "if-needed", "", "restart", "", str(systemd.note), ""))
    assert systemd.calls.count("daemon-reload") == reloads


def test_the_note_stands_while_a_restart_is_owed_and_goes_after_it(systemd: Systemd) -> None:
    systemd.behave(start=f"[ -e {systemd.note} ] || exit 9")
    assert systemd.run(act="restart").status == 0
    assert not systemd.note.exists()


@pytest.mark.parametrize("act", ["start", "restart"])
def test_a_failed_start_tells_its_journal_and_leaves_the_note(systemd: Systemd, act: str) -> None:
    systemd.behave(start="exit 1")
    done = systemd.run(act=act)
    assert done.status == 1
    assert "it crashed here" in done.stderr
    assert f"{UNIT} failed to {act}" in done.stderr
    assert systemd.note.exists()


@pytest.mark.parametrize("shown", ["failed failed", "activating auto-restart"])
def test_a_unit_that_dies_right_after_its_start_is_a_failure(systemd: Systemd, shown: str) -> None:
    systemd.behave(shown=shown)
    done = systemd.run()
    assert (done.status, f"{UNIT} failed right after its start" in done.stderr) == (1, True)


@pytest.mark.parametrize("shown", ["active running", "active exited", "inactive dead", "activating start"])
def test_a_unit_that_runs_or_is_done_is_a_success(systemd: Systemd, shown: str) -> None:
    systemd.behave(shown=shown)
    assert systemd.run().status == 0


def test_a_masked_unit_is_refused_before_anything_happens(systemd: Systemd) -> None:
    systemd.file.parent.mkdir(parents=True)
    systemd.file.symlink_to("/dev/null")
    done = systemd.run()
    assert (done.status, "somebody masked or linked this unit" in done.stderr) == (1, True)
    assert systemd.file.is_symlink()
    assert not (systemd.here.root / "log").exists()


def test_drop_ins_beside_the_unit_are_not_touched(systemd: Systemd) -> None:
    drop_in = Path(f"{systemd.file}.d/own.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nEnvironment=X=1\n")
    assert systemd.run().status == 0
    assert drop_in.read_text() == "[Service]\nEnvironment=X=1\n"
