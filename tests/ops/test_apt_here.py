"""The script behind ``apt.packages`` against stand-ins of apt-get and dpkg that behave as told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ops_hosts import Done, Here

from labctl.ops.command import Script

LOCKED = (
    "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (unattended-upgr)\n"
    "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?"
)


class Apt:
    """A host's apt: ``calls`` lists what was run; each behaviour is a shell snippet."""

    def __init__(self, here: Here) -> None:
        self.here = here
        self.state = here.root / "lib"
        self.stamp = self.state / "apt/periodic/update-success-stamp"
        (self.state / "dpkg/updates").mkdir(parents=True)
        (self.state / "apt/lists").mkdir(parents=True)
        self.behave()

    def behave(self, *, update: str = ":", install: str = ":", fix: str = ":", configure: str = ":") -> None:
        log = f'printf "%s %s\\n" "${{0##*/}}" "$*" >> {self.here.root}/log'
        words = "for w; do case $w in update|install|remove|-f) verb=$w; break;; esac; done"
        self.here.stand_in(
            "apt-get",
            f"{log}\n{words}\ncase $verb in update) {update};; -f) {fix};; *) {install};; esac",
        )
        self.here.stand_in("dpkg", f"{log}\n{configure}")
        self.here.stand_in("dpkg-query", f"cat {self.here.root}/status 2>/dev/null || echo 'ii '")

    def fresh(self) -> None:
        (self.state / "apt/lists/deb.example.org_InRelease").write_text("x")
        self.stamp.parent.mkdir()
        self.stamp.touch()

    def run(self, verb: str = "install", lock_s: int = 0) -> Done:
        return self.here.run(Script("apt", verb, str(self.state), str(lock_s), "86400", "tool"))

    @property
    def calls(self) -> list[str]:
        lines = (self.here.root / "log").read_text().splitlines()
        verbs = ("update", "install", "remove", "-f", "--configure")
        return [" ".join(words[at:]) for words in map(str.split, lines) for at in [_first(words, verbs)]]


def _first(words: list[str], verbs: tuple[str, ...]) -> int:
    return next(index for index, word in enumerate(words) if word in verbs)


@pytest.fixture
def apt(here: Here) -> Apt:
    return Apt(here)


INSTALL = "install --no-install-recommends -- tool"


def test_fresh_lists_are_not_fetched_again(apt: Apt) -> None:
    apt.fresh()
    assert apt.run().status == 0
    assert apt.calls == [INSTALL]


def test_configuration_that_somebody_changed_is_kept_and_nobody_is_asked(apt: Apt) -> None:
    apt.fresh()
    apt.behave(install='[ "$DEBIAN_FRONTEND" = noninteractive ] || exit 9; [ ! -t 0 ] || exit 9')
    assert apt.run().status == 0
    line = (apt.here.root / "log").read_text()
    assert "Dpkg::Options::=--force-confold" in line
    assert "DPkg::Lock::Timeout=" in line


def test_missing_lists_are_fetched_first_and_remembered(apt: Apt) -> None:
    assert apt.run().status == 0
    assert apt.run().status == 0
    # The stand-in brings no lists, and a stamp without lists vouches for nothing.
    assert apt.calls == ["update", INSTALL, "update", INSTALL]
    apt.here.root.joinpath("log").unlink()
    (apt.state / "apt/lists/deb.example.org_InRelease").write_text("x")
    assert apt.run().status == 0
    assert apt.calls == [INSTALL]


def test_old_lists_are_fetched_first(apt: Apt) -> None:
    apt.fresh()
    os.utime(apt.stamp, (1, 1))
    assert apt.run().status == 0
    assert apt.calls == ["update", INSTALL]


@pytest.mark.parametrize(
    "said", ["E: Unable to locate package tool", "E: Failed to fetch http://x 404 Not Found"]
)
def test_lists_that_lack_the_package_are_fetched_once_more(apt: Apt, said: str) -> None:
    apt.fresh()
    apt.behave(
        install=f"[ -e {apt.here.root}/new ] || {{ echo '{said}' >&2; exit 100; }}",
        update=f"touch {apt.here.root}/new",
    )
    assert apt.run().status == 0
    assert apt.calls == [INSTALL, "update", INSTALL]


def test_a_package_that_does_not_exist_fails_with_the_words_of_apt(apt: Apt) -> None:
    apt.fresh()
    apt.behave(install="echo 'E: Unable to locate package tool' >&2; exit 100")
    done = apt.run()
    assert done.status == 1
    assert "E: Unable to locate package tool" in done.stderr
    assert apt.calls == [INSTALL, "update", INSTALL]


def test_another_failure_is_not_tried_again(apt: Apt) -> None:
    apt.fresh()
    apt.behave(install="echo 'E: You have no enough free space' >&2; exit 100")
    done = apt.run()
    assert (done.status, "no enough free space" in done.stderr) == (1, True)
    assert apt.calls == [INSTALL]


def test_a_held_lock_fails_in_bounded_time_and_says_who_holds_it(apt: Apt) -> None:
    apt.fresh()
    apt.behave(install=f"echo '{LOCKED}' >&2; exit 100")
    done = apt.run(lock_s=1)
    assert done.status == 1
    assert (
        "Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (unattended-upgr)"
        in done.stderr
    )
    assert "apt is locked by another process and still was after 1 s" in done.stderr


def test_a_lock_that_is_released_in_time_is_waited_for(apt: Apt) -> None:
    once = f"[ -e {apt.here.root}/go ] || {{ touch {apt.here.root}/go; echo '{LOCKED}' >&2; exit 100; }}"
    apt.behave(update=once)
    assert apt.run(lock_s=30).status == 0
    assert apt.calls == ["update", "update", INSTALL]


def test_having_waited_for_a_lock_does_not_hide_another_failure(apt: Apt) -> None:
    apt.fresh()
    waited = "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock. It is held by process 1 (apt)..."
    failed = "E: Sub-process /usr/bin/dpkg returned an error code (1)"
    apt.behave(install=f"echo '{waited}'; echo '{failed}' >&2; exit 100")
    done = apt.run(lock_s=30)
    assert (done.status, "still was after" in done.stderr) == (1, False)
    assert apt.calls == [INSTALL]


@pytest.mark.parametrize("trace", ["journal", "half-configured", "reinstall"])
def test_an_interrupted_dpkg_is_repaired_first(apt: Apt, trace: str) -> None:
    apt.fresh()
    if trace == "journal":
        (apt.state / "dpkg/updates/0001").write_text("x")
    else:
        (apt.here.root / "status").write_text(
            {"half-configured": "ii \niF \n", "reinstall": "ii \niHR\n"}[trace]
        )
    heal = f"rm -f {apt.state}/dpkg/updates/*; echo 'ii ' > {apt.here.root}/status"
    apt.behave(configure="exit 1" if trace == "reinstall" else heal, fix=heal)
    assert apt.run().status == 0
    repair = ["--configure -a --force-confdef --force-confold"]
    assert apt.calls == [*repair, *(["-f install"] if trace == "reinstall" else []), INSTALL]


def test_removing_needs_no_lists(apt: Apt) -> None:
    assert apt.run("remove").status == 0
    assert apt.calls == ["remove -- tool"]


def test_nothing_is_left_in_tmp(apt: Apt, tmp_path: Path) -> None:
    apt.fresh()
    apt.here.prefix = f"TMPDIR={tmp_path}/t; export TMPDIR; mkdir -p {tmp_path}/t; "
    apt.run()
    assert list((tmp_path / "t").iterdir()) == []


def test_the_lists_of_a_new_source_are_fetched_alone(here: Here) -> None:
    here.stand_in("apt-get", f'printf "%s\\n" "$@" > {here.root}/log; echo "E: not signed" >&2; exit 100')
    done = here.run(Script("apt-update", "0", "/x/.labctl-put.abc.sources"))
    assert (done.status, "E: not signed" in done.stderr) == (100, True)
    assert "Dir::Etc::sourcelist=/x/.labctl-put.abc.sources" in (here.root / "log").read_text()
