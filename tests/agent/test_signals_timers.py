"""What is due soon, by systemd and by cron."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timedelta

import pytest
from host_tree import Tree
from hypothesis import given
from hypothesis import strategies as st

from labctl.agent.signals import cron, timers
from labctl.agent.signals.children import Done
from labctl.agent.signals.cron import Job
from labctl.agent.signals.terms import Unreadable
from labctl.agent.signals.timers import Timers, timers_of

NOW = datetime.fromisoformat("2026-12-02 08:30:30")  # a Wednesday


# --- the fields of cron ---


@pytest.mark.parametrize(
    ("fields", "moment", "runs"),
    [
        ("* * * * *", "2026-12-02 08:30", True),
        ("30 8 * * *", "2026-12-02 08:30", True),
        ("30 8 * * *", "2026-12-02 20:30", False),
        ("*/15 * * * *", "2026-12-02 08:45", True),
        ("*/15 * * * *", "2026-12-02 08:50", False),
        ("5/20 * * * *", "2026-12-02 08:25", True),
        ("5/20 * * * *", "2026-12-02 08:20", False),
        ("10-20/5 * * * *", "2026-12-02 08:15", True),
        ("10-20/5 * * * *", "2026-12-02 08:25", False),
        ("0,30 6-9 * * *", "2026-12-02 08:30", True),
        ("0 0 1 * *", "2026-12-01 00:00", True),
        ("0 0 * dec *", "2026-12-02 00:00", True),
        ("0 0 * JAN-nov *", "2026-12-02 00:00", False),
        ("0 0 * * wed", "2026-12-02 00:00", True),
        ("0 0 * * 7", "2026-12-06 00:00", True),
        ("0 0 * * 0", "2026-12-06 00:00", True),
        ("0 0 * * mon-fri", "2026-12-06 00:00", False),
        # either day is enough where both are restricted, and else both must fit
        ("0 0 13 * fri", "2026-12-04 00:00", True),
        ("0 0 13 * fri", "2026-12-13 00:00", True),
        ("0 0 13 * fri", "2026-12-05 00:00", False),
        ("0 0 */2 * fri", "2026-12-04 00:00", False),
        ("0 0 */2 * fri", "2026-12-11 00:00", True),
        ("@hourly", "2026-12-02 08:00", True),
        ("@daily", "2026-12-02 00:00", True),
        ("@weekly", "2026-12-06 00:00", True),
        ("@monthly", "2026-12-01 00:00", True),
        ("@yearly", "2026-01-01 00:00", True),
        ("@Midnight", "2026-12-02 00:00", True),
    ],
)
def test_fields_mean_what_crontab_says(fields: str, moment: str, runs: bool) -> None:
    times = cron.times_of(fields)
    assert times is not None
    assert times.at(datetime.fromisoformat(moment)) is runs


@pytest.mark.parametrize(
    "fields",
    [
        *("", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *"),
        *("*/0 * * * *", "a * * * *", "@reboot", "@often", "-1 * * * *", "1- * * * *", "1,,2 * * * *"),
        "\u0661 * * * *",
    ],
)
def test_what_is_no_time_never_runs(fields: str) -> None:
    assert cron.times_of(fields) is None


@given(st.text(max_size=30) | st.text("0123456789*/-, @abdefhijlmnorstuvwy", max_size=30))
def test_any_text_is_times_or_none(text: str) -> None:
    times = cron.times_of(text)
    assert times is None or times.minutes <= set(range(60))


def test_the_next_job_is_found_with_how_long_it_takes() -> None:
    jobs = [Job("a", "0 9 * * *"), Job("b", "35 8 * * *"), Job("c", "@reboot")]
    assert cron.next_due(jobs, NOW, 600) == (Job("b", "35 8 * * *"), 270.0)
    assert cron.next_due(jobs, NOW, 200) is None
    assert cron.next_due([Job("d", "30 8 * * *")], NOW, 60) == (Job("d", "30 8 * * *"), 0.0)
    assert cron.next_due([], NOW, 10**9) is None


# --- its tables ---

TABLE = """\
# m h dom mon dow user command
SHELL=/bin/sh
MAILTO = root
17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly
25 6 * * * root test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }
30 3 * * 0 root test -e /run/systemd/system || SERVICE_MODE=1 /usr/lib/e2scrub
*/5 * * * * backup /usr/bin/backup --key=SECRET
@reboot root /usr/bin/once
@daily root /usr/bin/daily
nonsense
1 2 3 root
"""


def test_a_table_is_read_without_its_commands_and_without_what_does_nothing(tree: Tree) -> None:
    tree.write(
        {"run/systemd/system/x": "", "etc/cron.daily/apt": "#!/bin/sh\n", "etc/cron.hourly/.placeholder": ""}
    )
    (tree.root / "etc/cron.daily/apt").chmod(0o755)
    found = cron.jobs(TABLE, "/etc/crontab", has_user=True, root=tree.root)
    assert [job.fields for job in found] == ["25 6 * * *", "*/5 * * * *", "@daily"]
    assert "SECRET" not in repr(found)


def test_where_systemd_does_not_run_its_jobs_do(tree: Tree) -> None:
    found = cron.jobs(TABLE, "/etc/crontab", has_user=True, root=tree.root)
    assert "30 3 * * 0" in [job.fields for job in found]


def test_a_users_line_has_no_user_and_so_its_command_is_no_user(tree: Tree) -> None:
    line = "0 4 * * * backup\n@daily backup\n0 5 * * *\n"
    assert len(cron.jobs(line, "x", has_user=False, root=tree.root)) == 2
    assert cron.jobs(line, "x", has_user=True, root=tree.root) == []


# --- the signal ---


class Asked:
    """Stands in for starting programs: says what it was told, and counts."""

    def __init__(self, *listed: dict[str, object], jobs: tuple[Job, ...] = (), status: int = 0) -> None:
        self.listed, self.jobs, self.status = list(listed), jobs, status
        self.calls: list[str] = []

    def __call__(self, argv: tuple[str, ...], limit_s: float) -> Done:
        self.calls.append(argv[0].rpartition("/")[2])
        if argv[0].endswith("systemctl"):
            return Done(self.status, json.dumps(self.listed))
        assert argv == ("/usr/bin/sudo", "-n", "/usr/local/lib/labctl/agent.pyz", "signals", "--crontabs")
        return Done(self.status, json.dumps({"format": 1, "jobs": [job._asdict() for job in self.jobs]}))


def timer(unit: str, in_s: float | None, starts: str = "") -> dict[str, object]:
    return {
        "unit": unit,
        "next": None if in_s is None else int((time.time() + in_s) * 1e6),
        "activates": starts,
    }


def looking(tree: Tree, asked: Asked, *ignored: str) -> Timers:
    return Timers(tree.host, 600, ignored, asked)


@pytest.fixture(autouse=True)
def unprivileged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 987)


def test_a_timer_that_is_due_soon_counts_and_an_ignored_one_does_not(tree: Tree) -> None:
    asked = Asked(timer("soon.timer", 300), timer("later.timer", 3600), timer("never.timer", None))
    assert looking(tree, asked).look() == (True, "soon.timer is due in 5 min")
    assert looking(tree, asked, "soon.timer").look() == (False, "nothing is due within 10 min")


def test_what_a_timer_started_counts_until_it_ends(tree: Tree) -> None:
    asked = Asked(timer("nightly.timer", 80_000, "nightly.service"))
    tree.process(50, "rsync", group="system.slice/nightly.service")
    assert looking(tree, asked).look() == (True, "nightly.service, which nightly.timer starts, is at work")
    assert not looking(tree, asked, "nightly.timer").look().busy


def test_a_job_of_cron_counts_until_it_ends(tree: Tree) -> None:
    tree.process(40, "cron", group="system.slice/cron.service")
    assert not looking(tree, Asked()).look().busy
    tree.process(41, "sh", group="system.slice/cron.service")
    assert looking(tree, Asked()).look() == (True, "a job of cron is at work")


def test_systemd_is_asked_again_when_something_may_have_changed(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(timers.time, "time", lambda: now)
    tree.write({"run/systemd/transient/a.timer": ""})
    asked = Asked(timer("a.timer", 1000))
    signal = looking(tree, asked)
    for later, calls in ((0, 1), (30, 1), (59, 1), (61, 2), (90, 2), (10, 3)):
        monkeypatch.setattr(timers.time, "time", lambda later=later: now + later)
        signal.look()
        assert len(asked.calls) == calls, later
    (tree.root / "run/systemd/transient/b.timer").write_text("")
    os.utime(tree.root / "run/systemd/transient", (1, 1))
    signal.look()
    assert len(asked.calls) == 4


def test_the_users_tables_are_asked_of_root_only_when_they_changed(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "sudo" not in _after_looks(tree, looking(tree, asked := Asked()), asked, 1)
    spool = tree.root / timers.SPOOL
    spool.mkdir(parents=True)
    asked = Asked(jobs=(Job("alice's crontab", "* * * * *"),))
    signal = looking(tree, asked)
    assert signal.look() == (True, "a job of alice's crontab is due in 0 s")
    assert _after_looks(tree, signal, asked, 3).count("sudo") == 1
    os.utime(spool, (1, 1))
    assert _after_looks(tree, signal, asked, 2).count("sudo") == 2
    later = time.monotonic() + 3601
    monkeypatch.setattr(timers.time, "monotonic", lambda: later)
    assert _after_looks(tree, signal, asked, 2).count("sudo") == 3


def _after_looks(tree: Tree, signal: Timers, asked: Asked, count: int) -> list[str]:
    for _ in range(count):
        signal.look()
    return asked.calls


def test_a_table_of_the_systems_is_named_and_can_be_ignored(tree: Tree) -> None:
    soon = datetime.fromtimestamp(time.time()) + timedelta(minutes=4)  # noqa: DTZ006 (cron's own time)
    line = f"{soon.minute} {soon.hour} * * * root /usr/bin/backup\n"
    tree.write({"etc/cron.d/backup": line, "etc/cron.d/backup.dpkg-old": "* * * * * root x\n"})
    busy, because = looking(tree, Asked()).look()
    assert busy and because.startswith("a job of /etc/cron.d/backup is due in")
    assert not looking(tree, Asked(), "/etc/cron.d/backup").look().busy


def test_root_reads_the_tables_itself(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    tree.write(
        {f"{timers.SPOOL}/alice": "* * * * * /bin/x SECRET\n", f"{timers.SPOOL}/tmp.XyZ": "* * * * * y\n"}
    )
    asked = Asked()
    assert looking(tree, asked).look() == (True, "a job of alice's crontab is due in 0 s")
    assert "sudo" not in asked.calls
    assert timers.users_document(tree.root) == {
        "format": 1,
        "jobs": [{"source": "alice's crontab", "fields": "* * * * *"}],
    }


def test_nothing_is_quiet_that_could_not_be_asked(tree: Tree) -> None:
    with pytest.raises(Unreadable, match="systemctl does not list the timers"):
        looking(tree, Asked(status=1)).look()
    (tree.root / timers.SPOOL).mkdir(parents=True)

    def no_sudo(argv: tuple[str, ...], limit_s: float) -> Done:
        return Done(0, "[]") if argv[0].endswith("systemctl") else Done(1, "")

    with pytest.raises(Unreadable, match="sudo does not let the agent"):
        Timers(tree.host, 600, (), no_sudo).look()
    tree.remove("sys/fs/cgroup")
    with pytest.raises(Unreadable, match="control groups are not there"):
        looking(tree, Asked()).look()


@pytest.mark.parametrize(
    "listing", ["", "{", "[1]", '[{"unit": "a"}]', '[{"next": 5}]', '[{"unit":"a","next":"x"}]']
)
def test_a_listing_that_is_not_understood_is_no_quiet(listing: str) -> None:
    with pytest.raises(Unreadable, match="not understood"):
        timers_of(listing)


def test_a_timer_without_a_next_time_is_never_due() -> None:
    for never in ("0", "null", str(2**64 - 1)):
        (found,) = timers_of(f'[{{"unit":"a.timer","next":{never},"activates":"a.service"}}]')
        assert found.next is None
