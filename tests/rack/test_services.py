"""Services of the inventory on real hosts: they run, stay and go, and nobody else's files are touched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from declared import DeclaredHost
from tiny_model import tiny_gguf

from labctl import wiring
from labctl.lab import Lab, llama
from labctl.lab.processes import wait_until

pytestmark = pytest.mark.rack

DOCS = """\
Command(
    name="docs",
    argv=["/usr/bin/python3", "-m", "http.server", "8000", "--bind", "127.0.0.1"],
    port=8000,
    working_dir="/usr/share/doc",
),
"""
CHAT = f'LlamaServer(name="chat", binary="{llama.BINARY}", model="tiny", port=8081, ctx_size=512),\n'
UNIT = "/etc/systemd/system/labctl-docs.service"


BOTH = pytest.mark.parametrize("served", ["bookworm", "trixie"], indirect=True)


@pytest.fixture
def served(request: pytest.FixtureRequest, rack: Lab, hosts, rack_file: Callable[..., Path]) -> DeclaredHost:
    """One host, of the Debian that the test asks for."""
    (host,) = hosts(1, suite=getattr(request, "param", "trixie"))
    return DeclaredHost(rack, host, rack_file([host]))


@BOTH
def test_a_command_runs_as_a_service_on_loopback_until_it_leaves_the_inventory(served: DeclaredHost) -> None:
    served.declare(DOCS)
    assert served.apply("services") > 0
    assert (
        served.run("systemctl is-active labctl-docs; systemctl is-enabled labctl-docs") == "active\nenabled"
    )
    assert "Directory listing" in served.fetch("http://127.0.0.1:8000/")
    assert served.run("ps -o user= -C python3 | sort -u") == "labctl-svc"
    assert served.apply("services") == 0

    served.declare()
    assert served.apply("services") == 1
    served.run(f"test -e {UNIT}", status=1)
    assert served.run("systemctl show -p ActiveState,LoadState --value labctl-docs").split() == [
        "not-found",
        "inactive",
    ]
    served.run("curl -s http://127.0.0.1:8000/", status=7)
    assert served.apply("services") == 0


def test_a_changed_service_is_restarted_once_and_an_unchanged_one_not_at_all(served: DeclaredHost) -> None:
    started = "systemctl show -p MainPID,NRestarts --value labctl-docs"
    served.declare(DOCS)
    served.apply("services")
    first = served.run(started)
    served.apply("services")
    assert served.run(started) == first
    served.declare(DOCS.replace("8000", "8002"))
    assert served.apply("services") == 1
    assert served.run(started) != first
    assert served.run("journalctl -u labctl-docs -o cat | grep -c '^Started'") == "2"
    served.fetch("http://127.0.0.1:8002/")


def test_a_stopped_or_edited_service_is_brought_back(served: DeclaredHost) -> None:
    served.declare(DOCS)
    served.apply("services")
    served.run(f"systemctl stop labctl-docs; echo 'Nice=19' >> {UNIT}")
    assert served.apply("services") == 1
    assert served.run(f"systemctl is-active labctl-docs; grep -c Nice {UNIT} || :") == "active\n0"


def test_the_users_own_drop_ins_and_units_are_never_touched(served: DeclaredHost) -> None:
    own = "[Service]\nEnvironment=MINE=1\n"
    foreign = f"# by hand\n{own}ExecStart=/bin/sleep inf\n"
    served.declare(DOCS)
    served.apply("services")
    served.run(
        f"mkdir {UNIT}.d; printf '{own}' > {UNIT}.d/mine.conf; chmod 600 {UNIT}.d/mine.conf;"
        f"printf '{foreign}' > /etc/systemd/system/labctl-mine.service; systemctl daemon-reload;"
        "systemctl restart labctl-docs; systemctl start labctl-mine"
    )
    look = f"stat -c '%a %Y %n' {UNIT}.d/* /etc/systemd/system/labctl-mine.service; cat {UNIT}.d/*"
    before = served.run(look)
    assert served.apply("services") == 0
    assert "MINE=1" in served.run("tr '\\0' '\\n' < /proc/$(systemctl show -P MainPID labctl-docs)/environ")
    served.declare()
    assert served.apply("services") == 1
    assert served.run(look) == before
    assert served.run("systemctl is-active labctl-mine") == "active"


@BOTH
def test_a_service_gets_its_arguments_and_environment_byte_for_byte(served: DeclaredHost) -> None:
    words = [
        "100%",
        "%n",
        "$HOME",
        "${PATH}",
        "a b",
        "'",
        '"',
        "\\",
        "\\n",
        "",
        ";",
        "*",
        "é",
        "#",
        "-x",
        "@",
    ]
    environment = {"A": "50% of $HOME", "B": "'\"\\ #", "C": "ü \\t %%"}
    program = (
        "import json, os, sys, time; "
        "json.dump([sys.argv[1:], dict(os.environ)], open('told', 'w')); "
        "os.rename('told', 'done'); time.sleep(3600)"
    )
    argv = ["/usr/bin/python3", "-c", program, *words]
    served.declare(f'Command(name="echo", argv={argv!r}, env={environment!r}),\n')
    served.apply("services")
    told = "/var/lib/labctl-echo/done"
    assert wait_until(
        lambda: served.rack.run(served.host.name, ["test", "-e", told]).returncode == 0, within=20
    )
    seen_words, seen_environment = json.loads(served.run(f"cat {told}"))
    assert seen_words == words
    assert {name: seen_environment[name] for name in environment} == environment
    assert seen_environment["HOME"] == "/var/lib/labctl-echo"


@BOTH
def test_a_service_sees_and_writes_only_what_is_its_own(served: DeclaredHost) -> None:
    program = "touch mine; touch /etc/x /usr/x /srv/x /home/x /var/x; ls /home /root; sleep 3600"
    served.declare(f'Command(name="nosy", argv=["/bin/sh", "-c", "{program}"]),\n')
    served.apply("services")
    assert wait_until(
        lambda: (
            served.rack.run(served.host.name, ["test", "-e", "/var/lib/labctl-nosy/mine"]).returncode == 0
        ),
        within=20,
    )
    served.run(
        "test -e /etc/x || test -e /usr/x || test -e /srv/x || test -e /home/x || test -e /var/x", status=1
    )
    status = served.run(
        "grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/$(systemctl show -P MainPID labctl-nosy)/status"
    )
    assert status.split() == ["CapBnd:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2"]


def test_a_service_that_cannot_start_is_named_and_mended_by_the_next_run(served: DeclaredHost) -> None:
    served.declare('Command(name="broken", argv=["/bin/false"]),\n')
    assert "service broken" in served.fails("services")
    served.declare('Command(name="broken", argv=["/bin/sleep", "3600"]),\n')
    served.apply("services")
    assert served.run("systemctl is-active labctl-broken") == "active"


@BOTH
@pytest.mark.parametrize("gpu", ["", 'gpus=[Gpu(model="RTX 3090", slot="slot0")], '])
def test_a_real_llama_server_serves_a_model_after_apply(served: DeclaredHost, gpu: str) -> None:
    model = tiny_gguf()
    try:
        llama.install(wiring.cache_home() / "lab", served.rack.root(served.host.name))
    except llama.NoLlama as reason:
        pytest.skip(f"no llama-server: {reason}")
    incoming = served.rack.root(served.host.name) / "root/tiny.gguf"
    incoming.write_bytes(model)
    declared = (
        'Model(id="tiny", aliases=["small"], source="file:///root/tiny.gguf", path="/srv/models/tiny.gguf", '
        f'sha256="{hashlib.sha256(model).hexdigest()}")'
    )
    served.declare(CHAT, declared, fields=gpu)
    assert served.apply("services") > 0
    served.fetch("http://127.0.0.1:8081/health")
    body = json.dumps({"model": "small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3})
    said = served.fetch(
        "http://127.0.0.1:8081/v1/chat/completions", "-H", "Content-Type: application/json", "-d", body
    )
    assert json.loads(said)["usage"]["completion_tokens"] == 3
    assert "llamacpp:tokens_predicted_total" in served.fetch("http://127.0.0.1:8081/metrics")
    assert served.run("ss -Htln sport = :8081 | awk '{print $4}'") == "127.0.0.1:8081"
    assert served.apply("services") == 0


def test_a_model_that_is_not_the_pinned_one_starts_nothing(served: DeclaredHost) -> None:
    (served.rack.root(served.host.name) / "root/tiny.gguf").write_bytes(tiny_gguf(seed=1))
    pinned = hashlib.sha256(tiny_gguf()).hexdigest()
    declared = (
        f'Model(id="tiny", source="file:///root/tiny.gguf", path="/srv/models/t.gguf", sha256="{pinned}")'
    )
    served.declare(CHAT, declared)
    assert "model tiny" in served.fails("services")
    served.run("test -e /srv/models/t.gguf || test -e /etc/systemd/system/labctl-chat.service", status=1)
