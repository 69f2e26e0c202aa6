"""The tools that are compared: how each is set up for a number of hosts, called, and understood.

All log in as the same user with the same key, check host keys strictly against the same pinned keys, become
root by sudo, and write to a pipe. Beyond that each runs as it comes, but for what "tuned" means for Ansible:
as many forks as hosts, pipelining, no fact gathering, the interpreter named. Its ssh masters live through one
run only: a second run in a fresh terminal an hour later does not find them either.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Command

from labctl.lab import Lab, LabHost

REPO = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
TOOLS = ("labctl", "pyinfra", "ansible")


@dataclass(frozen=True)
class Tool:
    """One tool, ready for some hosts. ``changes`` reads from its output how much it changed."""

    name: str
    command: Command
    changes: Callable[[str], int]


def prepare(lab: Lab, hosts: tuple[LabHost, ...], work: Path) -> tuple[Tool, ...]:
    """Write what each tool needs for ``hosts`` below ``work`` and return the tools."""
    work.mkdir(parents=True)
    known = work / "known_hosts"
    known.write_text("".join(f"{host.address} {lab.host_key(host.name)}\n" for host in hosts))
    key = lab.spec.operator_key
    assert key is not None
    user = lab.spec.login_user
    return (
        _labctl(hosts, work / "labctl", (user, key, known)),
        _pyinfra(hosts, work / "pyinfra", (user, key, known)),
        _ansible(hosts, work / "ansible", (user, key, known)),
    )


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the same clean environment for every tool."""
    path = f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8", "LABCTL_STATE": str(home / "state"), **more}


Login = tuple[str, Path, Path]


def _labctl(hosts: tuple[LabHost, ...], folder: Path, login: Login) -> Tool:
    rack = write_rack(hosts, folder, login)
    argv = (str(BIN / "labctl"), "apply", str(rack), str(REPO / "bench/deploy_labctl.py"), "--yes")
    return Tool("labctl", Command(argv, REPO, environment(folder)), _labctl_changes)


def write_rack(hosts: tuple[LabHost, ...], folder: Path, login: Login) -> Path:
    """Write a rack file with its keys, and return its path."""
    user, key, known = login
    inventory = folder / "inventory"
    (inventory / "keys").mkdir(parents=True)
    for suffix in ("", ".pub"):
        (inventory / f"keys/operator{suffix}").write_bytes(Path(f"{key}{suffix}").read_bytes())
        (inventory / f"keys/operator{suffix}").chmod(0o600)
    (inventory / "known_hosts").write_text(known.read_text())
    described = "".join(f'        Host(name="{h.name}", address="{h.address}"),\n' for h in hosts)
    rack = inventory / "rack.py"
    rack.write_text(
        "from labctl.inventory import Host, Rack, Ssh\n\n"
        f'rack = Rack(\n    name="bench",\n    ssh=Ssh(user="{user}", key="keys/operator"),\n'
        f"    hosts=[\n{described}    ],\n)\nglobals().update(rack.groups())\n"
    )
    return rack


def _labctl_changes(output: str) -> int:
    found = re.search(r"Result: (\d+) changes? on (\d+) hosts? in", output)
    if found is None:
        raise ValueError("labctl printed no result")
    return int(found[1])


def _pyinfra(hosts: tuple[LabHost, ...], folder: Path, login: Login) -> Tool:
    user, key, known = login
    folder.mkdir()
    rows = "".join(f'    ("{h.name}", {{"ssh_hostname": "{h.address}"}}),\n' for h in hosts)
    common = {
        "ssh_user": user,
        "ssh_key": str(key),
        "ssh_known_hosts_file": str(known),
        "ssh_strict_host_key_checking": "yes",
        "_sudo": user != "root",
    }
    (folder / "inventory.py").write_text(f"bench = (\n    [\n{rows}    ],\n    {common!r},\n)\n")
    argv = (str(BIN / "pyinfra"), "-y", str(folder / "inventory.py"), "bench/deploy_pyinfra.py")
    return Tool("pyinfra", Command(argv, REPO, environment(folder)), _pyinfra_changes)


def _pyinfra_changes(output: str) -> int:
    # The table's last row: Grand total, hosts, changed, no change, errors ("-" for none).
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    total = re.search(r"Grand total\W+(\d+|-)\W+?(\d+|-)\W+?(\d+|-)\W+?(\d+|-)", plain)
    if total is None:
        raise ValueError("pyinfra printed no result")
    return 0 if total[2] == "-" else int(total[2])


def _ansible(hosts: tuple[LabHost, ...], folder: Path, login: Login) -> Tool:
    user, key, known = login
    control = folder / "cp"
    control.mkdir(parents=True)
    rows = "".join(f"{host.name} ansible_host={host.address}\n" for host in hosts)
    (folder / "hosts.ini").write_text(
        f"[bench]\n{rows}\n[bench:vars]\nansible_user={user}\nansible_ssh_private_key_file={key}\n"
        "ansible_python_interpreter=/usr/bin/python3\n"
    )
    options = (
        "-F /dev/null -o ControlMaster=auto -o ControlPersist=60s -o StrictHostKeyChecking=yes"
        f" -o UserKnownHostsFile={known} -o GlobalKnownHostsFile=/dev/null -o IdentitiesOnly=yes"
    )
    (folder / "ansible.cfg").write_text(
        f"[defaults]\ninventory = {folder}/hosts.ini\nforks = {len(hosts)}\ngathering = explicit\n"
        f"host_key_checking = True\n\n[ssh_connection]\npipelining = True\nssh_args = {options}\n"
        f"control_path_dir = {control}\n"
    )

    def close_masters() -> None:
        for socket in control.iterdir():
            quiet = ["ssh", "-F", "/dev/null", "-O", "exit", "-o", f"ControlPath={socket}", "host"]
            subprocess.run(quiet, stderr=subprocess.DEVNULL, check=False)

    argv = (str(BIN / "ansible-playbook"), str(REPO / "bench/ansible/play.yml"))
    env = environment(folder, ANSIBLE_CONFIG=str(folder / "ansible.cfg"))
    return Tool("ansible", Command(argv, REPO, env, close_masters), _ansible_changes)


def _ansible_changes(output: str) -> int:
    rows = re.findall(r"ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", output)
    if not rows or any((unreachable, failed) != ("0", "0") for _, unreachable, failed in rows):
        raise ValueError("ansible printed no result, or hosts failed")
    return sum(int(changed) for changed, _, _ in rows)


def version(tool: str) -> str:
    """Return the first line of a tool's ``--version``."""
    program = {"ansible": "ansible-playbook"}.get(tool, tool)
    said = subprocess.run(
        [str(BIN / program), "--version"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    return said.stdout.splitlines()[0].strip()
