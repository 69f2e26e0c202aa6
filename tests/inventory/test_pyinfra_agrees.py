# ruff: noqa: E501 - the rack files in here read best with one thing a line
"""The same file under plain pyinfra: groups and data must be those that labctl's loader finds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rack_texts import rack_text, write

from labctl import content
from labctl.inventory import LoadedRack, load_rack

RICH = """\
from recipes.boxes import box

_nodes = [box("a", "10.0.0.1", 22), box("b", "2001:db8::2", 2222)]
rack = Rack(
    name="r", ssh=Ssh(user="root", key="/etc/keys/k"), circuits=[Circuit(name="c")],
    models=[Model(id="m", source="file:///srv/m", path="/m")],
    hosts=[*_nodes, Host(name="c", address="c.lan", roles=["storage"], idle=IdlePolicy(suspend=True, after="1h30m"),
        wake=WakeOnLan(mac="52-54-00-00-00-01", relay="a"),
        services=[LlamaServer(name="s", model="m", port=80), Command(name="t", argv=["/bin/true"], env={"A": "b"})])],
)
backup = ["c", "a"]
tuned = ([("b", {"extra": 1, "ssh_port": 7}), "c"], {"level": 3, "rack_note": "x"})
"""


def rich(folder: Path) -> Path:
    (folder / "recipes").mkdir()
    recipe = "from labctl.inventory import Host, Ssh\ndef box(n, a, p): return Host(name=n, address=a, ssh=Ssh(port=p))\n"
    write(folder / "recipes", recipe, "boxes.py")
    (folder / "group_data").mkdir()
    write(folder / "group_data", "import os\nlevel = 4\n_hidden = 5\nplace = 'x'\n", "tuned.py")
    write(
        folder / "group_data", "from os import path\n__all__ = ['zone']\nzone = 1\nother = 2\n", "storage.py"
    )
    write(folder / "group_data", "only = 1\n", "nobody.py")
    write(folder / "group_data", "level = 1\n", "all.py")
    return write(folder, rack_text(RICH))


def example(folder: Path) -> Path:
    return write(folder, content.example_rack().read_bytes())


def all_in_order(folder: Path) -> Path:
    body = """\
rack = Rack(name="r", hosts=[Host(name="a", address="x"), Host(name="b", address="y")])
late = ["b"]
globals().update(all=(["b", "a"], {"seen": True}))
"""
    return write(folder, rack_text(body), "site.py")


def told_by_pyinfra(path: Path) -> list[dict[str, Any]]:
    program = str(Path(sys.executable).with_name("pyinfra"))
    ended = subprocess.run(
        [program, "--json", path.name, "debug-inventory"],
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told: list[dict[str, Any]] = json.loads(ended.stdout)
    return told


def told_by_labctl(loaded: LoadedRack) -> list[dict[str, Any]]:
    """Put together what pyinfra shows of a host: data of all, of its groups in order, then its own."""
    told = []
    for name in loaded.groups["all"]:
        groups = [group for group, members in loaded.groups.items() if name in members and group != "all"]
        data = dict(loaded.group_data["all"])
        for group in groups:
            data |= loaded.group_data[group]
        told.append({"name": name, "groups": groups, "data": data | loaded.host_data[name]})
    return told


def as_json(value: object) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    return f"Function: {value.__name__}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", [example, rich, all_in_order])
def test_groups_and_data_are_the_same(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path)
    monkeypatch.chdir(tmp_path)
    ours = json.loads(json.dumps(told_by_labctl(load_rack(path)), default=as_json))
    assert ours == told_by_pyinfra(path)


def test_connections_are_strict_and_start_from_the_rack_s_folder(tmp_path: Path) -> None:
    loaded = load_rack(rich(tmp_path))
    data = loaded.host_data["a"]
    assert data["ssh_strict_host_key_checking"] == "yes"
    assert data["ssh_known_hosts_file"] == str(loaded.known_hosts) == str(tmp_path / "known_hosts")
    assert (data["ssh_allow_agent"], data["ssh_look_for_keys"], data["ssh_config_file"]) == (
        False,
        False,
        "/dev/null",
    )
    assert data["ssh_key"] == str(tmp_path / "keys/operator")
    assert (data["_sudo"], loaded.host_data["c"]["_sudo"]) == (True, False)
    assert loaded.host_data["c"]["ssh_key"] == "/etc/keys/k"
    refused = data["ssh_paramiko_connect_kwargs"]["disabled_algorithms"]
    assert "ssh-rsa" in refused["pubkeys"]


def test_the_refused_algorithms_are_known_to_paramiko_and_leave_a_choice() -> None:
    import paramiko

    from labctl.inventory.rack import _WEAK

    for kind, names in _WEAK.items():
        preferred = getattr(paramiko.Transport, f"_preferred_{kind}")
        assert set(names) <= set(preferred)
        left = set(preferred) - set(names)
        assert left
        assert not [
            name for name in left if "sha1" in name or "md5" in name or "cbc" in name or name == "ssh-rsa"
        ]


def test_connections_do_not_wait_for_nagle() -> None:
    import socket

    from labctl.inventory.connect import nodelay_transport

    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            transport = nodelay_transport(client, disabled_algorithms={"keys": ["ssh-rsa"]})
            assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert transport.disabled_algorithms == {"keys": ["ssh-rsa"]}
            transport.close()


def test_a_link_to_a_rack_file_means_the_folder_of_the_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").mkdir()
    example(tmp_path / "real")
    (tmp_path / "link" / "rack.py").symlink_to(tmp_path / "real" / "rack.py")
    loaded = load_rack(tmp_path / "link" / "rack.py")
    assert loaded.known_hosts == tmp_path / "link" / "known_hosts"
    assert loaded.host_data["rig"]["ssh_known_hosts_file"] == str(loaded.known_hosts)
