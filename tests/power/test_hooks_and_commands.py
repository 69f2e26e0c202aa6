"""Webhooks and commands of one's own: they switch, cannot see, and keep their secrets."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from devices import Hook, serving
from redfish_bmc import certificate

from labctl.adapters.power.command import CommandSwitch
from labctl.adapters.power.nothing import NoSwitch
from labctl.adapters.power.programs import last_words
from labctl.adapters.power.webhook import WebhookSwitch
from labctl.inventory.wake import WakeCommand, Webhook
from labctl.ports.power import PowerError

Secret = Callable[[str, str], Path]
ID = "-7Zk3hunter2"


def hook(
    folder: Path, secret: Secret, address: str, *, deadline_s: float = 8, **fields: Any
) -> WebhookSwitch:
    spec = Webhook(on_file=secret("on", address + "\n"), **fields)
    return WebhookSwitch(spec, folder, deadline_s=deadline_s)


def test_a_webhook_is_posted_to(tmp_path: Path, secret: Secret) -> None:
    taker = Hook("/api/webhook/")
    with serving(taker) as served:
        base = f"http://127.0.0.1:{served.port}/api/webhook"
        switch = hook(tmp_path, secret, f"{base}/on{ID}", off_file=secret("off", f"{base}/off{ID}"))
        assert switch.can_cut
        switch.wake()
        switch.cut()
        assert switch.power() == "unclear"
    assert taker.taken == [f"/api/webhook/on{ID}", f"/api/webhook/off{ID}"]


def test_a_webhook_over_tls_is_checked_by_its_certificate(tmp_path: Path, secret: Secret) -> None:
    file, tls = certificate(tmp_path)
    taker = Hook("/")
    with serving(taker, tls=tls) as served:
        address = f"https://127.0.0.1:{served.port}/{ID}"
        hook(tmp_path, secret, address, ca_file=file).wake()
        with pytest.raises(PowerError, match="is not to be trusted") as caught:
            hook(tmp_path, secret, address).wake()
    assert (caught.value.code, len(taker.taken)) == ("certificate", 1)


def test_without_an_address_for_off_nothing_can_be_cut(tmp_path: Path, secret: Secret) -> None:
    switch = hook(tmp_path, secret, "http://127.0.0.1:1/")
    assert not switch.can_cut
    with pytest.raises(PowerError, match="nothing switches this host off"):
        switch.cut()


@pytest.mark.parametrize(
    ("fault", "code"),
    [("500", "server-error"), ("half", "bad-answer"), ("hang", "timeout"), ("redirect", "bad-answer")],
)
def test_no_error_of_a_webhook_shows_its_address(
    fault: str, code: str, tmp_path: Path, secret: Secret
) -> None:
    with serving(Hook("/")) as served:
        served.fault = fault
        address = f"http://me:{ID}@127.0.0.1:{served.port}/api/webhook/{ID}?key={ID}"
        with pytest.raises(PowerError, match=rf"the webhook at 127\.0\.0\.1:{served.port} ") as caught:
            hook(tmp_path, secret, address, deadline_s=0.1 if fault == "hang" else 8).wake()
    error = caught.value
    assert error.code == code
    assert ID not in f"{error}{error.hint}{error.__cause__}"
    assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize(
    "address", [ID, "ftp://h/x", "http://", "http://[::1", "http://h:port/", "file:///x"]
)
def test_what_is_no_address_is_refused_and_not_shown(address: str, tmp_path: Path, secret: Secret) -> None:
    with pytest.raises(PowerError, match="is no address") as caught:
        hook(tmp_path, secret, address).wake()
    assert caught.value.code == "no-secret"
    assert ID not in str(caught.value) + caught.value.hint


def python(program: str, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"exec({program!r})", *words)


def test_a_command_gets_its_words_as_they_are_and_no_shell(tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(repr(sys.argv[2:]))"
    CommandSwitch(WakeCommand(argv=python(program, str(out), "$HOME; *", "a b"))).wake()
    assert out.read_text() == "['$HOME; *', 'a b']"


def test_a_command_that_fails_shows_the_end_of_its_output_without_secrets() -> None:
    program = (
        "import sys; print('password: swordfish'); print('token=swordfish', sys.argv[1], 'is not', "
        "'Authorization: Bearer swordfish', 'http://u:swordfish@h/', 'hunter2', file=sys.stderr); sys.exit(3)"
    )
    switch = CommandSwitch(WakeCommand(argv=python(program, "--user=admin:hunter2")))
    with pytest.raises(PowerError, match="ends with 3: token=") as caught:
        switch.wake()
    assert caught.value.code == "refused"
    assert "swordfish" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("", ""),
        ("one\ntwo\n\n", "two"),
        ("API key: abc123 refused", "API key: *** refused"),
        ('{"password":"abc 123","x":1}', '{"password":***,"x":1}'),
        ("password='abc 123", "password=***"),
        ("https://me:abc@h/path failed", "https://***@h/path failed"),
        ("\x1b[31mred\x07", "?[31mred?"),
        ("x" * 1000, "x" * 300),
    ],
)
def test_what_is_shown_of_an_output(printed: str, shown: str) -> None:
    assert last_words(printed, []) == shown


def test_a_command_that_hangs_is_ended_with_all_of_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = (
        "import os, sys, time, pathlib\n"
        "if os.fork() == 0:\n    time.sleep(600)\n"
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpgid(0)))\n"
        "time.sleep(600)"
    )
    switch = CommandSwitch(WakeCommand(argv=python(program, str(pids))), deadline_s=0.5)
    with pytest.raises(PowerError, match=r"did not end in 0\.5 s, and was ended") as caught:
        switch.wake()
    assert (caught.value.code, caught.value.transient) == ("timeout", True)
    if pids.exists():  # else it was ended before it could say so
        assert not _alive(int(pids.read_text()))


def _alive(group: int) -> bool:
    """Return whether any process of a group runs; those that have ended and were not waited for do not."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                state, _, of = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(of) == group and state not in "ZX":
                return True
    return False


def test_a_command_is_done_when_it_ends_though_a_child_of_its_keeps_the_output(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program = (
        "import os, sys, time, pathlib\n"
        "child = os.fork()\n"
        "if child == 0:\n    time.sleep(600)\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child))"
    )
    try:
        CommandSwitch(WakeCommand(argv=python(program, str(pid))), deadline_s=60).wake()
    finally:
        os.kill(int(pid.read_text()), 9)


def test_a_command_that_is_not_there_is_said() -> None:
    with pytest.raises(PowerError, match="no-such cannot be run: No such file or directory") as caught:
        CommandSwitch(WakeCommand(argv=("/nowhere/no-such",))).wake()
    assert caught.value.code == "no-program"


def test_a_command_that_a_signal_ended_is_said() -> None:
    with pytest.raises(PowerError, match="was ended by signal 9"):
        CommandSwitch(WakeCommand(argv=python("import os; os.kill(os.getpid(), 9)"))).wake()


def test_a_command_cuts_only_where_one_is_named() -> None:
    switch = CommandSwitch(WakeCommand(argv=("true",)))
    assert (switch.can_cut, switch.power()) == (False, "unclear")
    with pytest.raises(PowerError, match="no command switches this host off"):
        switch.cut()
    CommandSwitch(WakeCommand(argv=("false",), off_argv=("true",))).cut()


def test_a_host_without_any_back_end_says_so() -> None:
    switch = NoSwitch()
    assert (switch.can_cut, switch.has_meter, switch.power()) == (False, False, "unclear")
    for act in (switch.wake, switch.cut):
        with pytest.raises(PowerError, match="nothing in the inventory") as caught:
            act()
        assert (caught.value.code, bool(caught.value.hint)) == ("unsupported", True)
