"""What the rack gives to pyinfra and paramiko: a wrong host key never gets so far as a login.

The five states of known_hosts times the kinds of keys, each against its own loopback server which counts
attempts to log in, over the two ways in which labctl connects: pyinfra's connector with the host data of the
rack, and paramiko's own client with the same file and a policy that refuses. The right key is the control:
there a login must be tried, or the zeros of the other rows would prove nothing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fake_sshd import Keys, Listen, MakeRack, RackDir, Server, generate, private_text, speaks_ssh

from labctl.domain.problem import LabctlError
from labctl.inventory import load_rack
from labctl.inventory.known_hosts import load

KINDS = ("ed25519", "ecdsa", "rsa")
ANOTHER = {"ed25519": "rsa", "ecdsa": "ed25519", "rsa": "ecdsa"}

# A process of its own: pyinfra's connector belongs to gevent, and the tests do not.
_PYINFRA = """
import sys
from gevent import monkey; monkey.patch_all()
from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.exceptions import PyinfraError
from labctl.inventory import load_rack
loaded = load_rack(sys.argv[1])
data = [(name, loaded.host_data[name]) for name in loaded.host_data]
state = State(Inventory((data, {})), Config(CONNECT_TIMEOUT=10))
try:
    connect_all(state)
except PyinfraError as error:
    print(error)
"""

_PARAMIKO = """
import sys
import paramiko
from labctl.inventory import load_rack
for name, data in load_rack(sys.argv[1]).host_data.items():
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    try:
        client.load_host_keys(data["ssh_known_hosts_file"])
        client.connect(data["ssh_hostname"], data["ssh_port"], data["ssh_user"], key_filename=data["ssh_key"],
                       allow_agent=False, look_for_keys=False, **data["ssh_paramiko_connect_kwargs"])
    except Exception as error:
        print(name, type(error).__name__, error)
    finally:
        client.close()
"""


def connect(how: str, rack: RackDir) -> str:
    """Connect to every host of the rack in a process of its own; return what it said."""
    argv = [sys.executable, "-c", how, str(rack.file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def give_operator_key(rack: RackDir) -> None:
    path = Path(next(iter(load_rack(rack.file).host_data.values()))["ssh_key"])
    path.parent.mkdir(exist_ok=True)
    path.write_text(private_text(generate("ed25519")))
    path.chmod(0o600)


@pytest.mark.parametrize("how", [_PYINFRA, _PARAMIKO], ids=["pyinfra", "paramiko"])
def test_only_the_pinned_key_gets_to_see_a_login(
    listen: Listen, keys: Keys, make_rack: MakeRack, how: str
) -> None:
    right = {f"right-{kind}": listen(speaks_ssh(keys.own[kind])) for kind in KINDS}
    wrong = {f"wrong-{kind}": listen(speaks_ssh(keys.other[kind])) for kind in KINDS}
    typed = {f"type-{kind}": listen(speaks_ssh(keys.own[ANOTHER[kind]])) for kind in KINDS}
    absent = {f"absent-{kind}": listen(speaks_ssh(keys.own[kind])) for kind in KINDS}
    rack = make_rack(**right, **wrong, **typed, **absent)
    give_operator_key(rack)
    for server, kind in zip((*right.values(), *wrong.values(), *typed.values()), KINDS * 3, strict=True):
        rack.pin(server, keys.own[kind])
    before = rack.known_hosts.read_bytes()

    said = connect(how, rack)

    attempts = {name: len(server.auth_attempts) for name, server in {**wrong, **typed, **absent}.items()}
    assert attempts == dict.fromkeys(attempts, 0), said
    assert all(server.connections for server in {**wrong, **typed, **absent}.values()), said
    assert all(server.auth_attempts for server in right.values()), said
    assert rack.known_hosts.read_bytes() == before


CORRUPT_LINES = {
    "truncated": "[127.0.0.1]:1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA",
    "not base64": "[127.0.0.1]:1 ssh-ed25519 !!!!",
    "no key": "[127.0.0.1]:1 ssh-ed25519",
    "glued": "[127.0.0.1]:1 ssh-rsa AAAA[127.0.0.1]:2 ssh-rsa AAAA",
    "hashed": "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-ed25519 AAAA",
    "marker": "@cert-authority * ssh-ed25519 AAAA",
    "pattern": "* ssh-ed25519 AAAA",
    "binary": "\x00\x01\x02",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("line", CORRUPT_LINES.values(), ids=CORRUPT_LINES)
@pytest.mark.parametrize("where", ["before", "after"])
def test_a_corrupt_file_stops_labctl_with_the_line_number(
    make_rack: MakeRack, keys: Keys, kind: str, line: str, where: str
) -> None:
    rack = make_rack(nas=Server("127.0.0.1", 2222))
    if where == "before":
        rack.known_hosts.write_text(line + "\n")
    rack.pin(Server("127.0.0.1", 2222), keys.other[kind])
    if where == "after":
        with rack.known_hosts.open("a") as stream:
            stream.write(line + "\n")
    with pytest.raises(LabctlError) as caught:
        load(rack.known_hosts)
    assert [problem.line for problem in caught.value.problems] == [1 if where == "before" else 2]


@pytest.mark.parametrize("how", [_PYINFRA, _PARAMIKO], ids=["pyinfra", "paramiko"])
def test_even_past_that_check_a_corrupt_file_lets_nobody_in(
    listen: Listen, keys: Keys, make_rack: MakeRack, how: str
) -> None:
    servers = {f"nas-{kind}": listen(speaks_ssh(keys.other[kind])) for kind in KINDS}
    rack = make_rack(**servers)
    give_operator_key(rack)
    rack.known_hosts.write_text(CORRUPT_LINES["truncated"] + "\n")
    for server, kind in zip(servers.values(), KINDS, strict=True):
        rack.pin(server, keys.own[kind])
    before = rack.known_hosts.read_bytes()
    said = connect(how, rack)
    assert [name for name, server in servers.items() if server.auth_attempts] == [], said
    assert rack.known_hosts.read_bytes() == before


def test_every_host_of_the_example_rack_is_connected_to_strictly() -> None:
    example = Path(__file__).parents[2] / "inventory" / "rack.py"
    loaded = load_rack(example)
    assert loaded.host_data
    for name, data in loaded.host_data.items():
        assert data["ssh_strict_host_key_checking"] == "yes", name
        assert data["ssh_known_hosts_file"] == str(loaded.known_hosts), name
        assert data["ssh_config_file"] == "/dev/null", name
        assert data["ssh_allow_agent"] is False and data["ssh_look_for_keys"] is False, name
        assert data["ssh_paramiko_connect_kwargs"]["disabled_algorithms"], name
