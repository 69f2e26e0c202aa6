"""What the controller's host gets: the rack as data, few secrets, labctl itself, a unit."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from labctl.adapters.power import secret
from labctl.domain.problem import LabctlError
from labctl.inventory import (
    Controller,
    Gateway,
    Gpu,
    Host,
    IdlePolicy,
    Ipmi,
    Model,
    NoWake,
    Rack,
    SmartPlug,
    Ssh,
    WakeOnLan,
    controlling,
)
from labctl.inventory.controlling import agent_data
from labctl.inventory.data import load_data
from labctl.render import controller

RACK = Rack(
    name="test",
    ssh=Ssh(user="admin", key=Path("keys/operator")),
    controller=Controller(host="hub", wheels="file:///srv/wheels", operators=("ann",)),
    controller_key=Path("keys/controller.pub"),
    models=(Model(id="m", source="/models/m.gguf"),),
    hosts=(
        Host(name="hub", address="10.0.0.1", roles=("always-on",)),
        Host(
            name="box",
            address="10.0.0.2",
            gpus=(Gpu(model="RTX 3090", slot="slot0"),),
            wake=WakeOnLan(mac="52:54:00:00:00:02", secureon_file=Path("keys/secureon"), relay="hub"),
            power=SmartPlug(
                driver="shelly", address="10.0.0.9", password_file=Path("keys/plug"), may_cut=True
            ),
            idle=IdlePolicy(suspend=True, after="20m", awake=("mon-fri 8-18",)),  # type: ignore[arg-type]
        ),
        Host(
            name="big",
            address="10.0.0.3",
            wake=Ipmi(address="10.0.0.8", user="admin", password_file=Path("keys/bmc")),
        ),
    ),
)


def test_the_rack_that_the_controller_reads_is_the_rack_but_for_where_its_own_secrets_lie(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rack.json"
    path.write_text(controller.rack_json(RACK))
    loaded = load_data(path)
    box, big = loaded.rack.host("box"), loaded.rack.host("big")
    assert isinstance(box.wake, WakeOnLan)
    assert isinstance(box.power, SmartPlug)
    assert isinstance(big.wake, Ipmi)
    assert box.wake.secureon_file == Path("box.wake.secureon_file")
    assert box.power.password_file == Path("box.power.password_file")
    assert big.wake.password_file == Path("big.wake.password_file")
    undone = loaded.rack.model_copy(
        update={
            "controller_key": RACK.controller_key,
            "hosts": (loaded.rack.hosts[0], RACK.hosts[1], RACK.hosts[2]),
        }
    )
    assert undone == RACK
    assert isinstance(loaded.rack.host("hub").wake, NoWake)
    assert controller.rack_json(RACK) == controller.rack_json(RACK.model_copy())


def test_only_what_switches_power_and_the_controllers_own_key_go_there() -> None:
    sent = {str(one.source): (one.dest, one.secret) for one in controller.copied(RACK)}
    assert sent == {
        "keys/controller": ("/etc/labctl/controller/key", True),
        "keys/secureon": ("/etc/labctl/controller/box.wake.secureon_file", True),
        "keys/plug": ("/etc/labctl/controller/box.power.password_file", True),
        "keys/bmc": ("/etc/labctl/controller/big.wake.password_file", True),
    }
    others = {"/etc/labctl/controller/rack.json", "/etc/labctl/controller/known_hosts"}
    assert set(controller.read(RACK)) == others | {dest for dest, _ in sent.values()}


def test_secrets_lie_there_so_that_the_back_ends_take_them(tmp_path: Path) -> None:
    for one in controller.copied(RACK):
        file = tmp_path / one.name
        file.write_text("12:34:56:78:9a:bc\n")
        file.chmod(int(one.mode, 8))
        assert secret.read(file) == "12:34:56:78:9a:bc"
        assert one.owner == "labctl-controller"


def _copied(key: Path) -> controller.Copied:
    return controller.Copied(key, "key", secret=True)


def _keygen(path: Path, *how: str) -> Path:
    argv = ["ssh-keygen", "-q", *how, "-f", str(path)]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return path


@pytest.mark.parametrize("kind", [("ed25519",), ("ecdsa", "-m", "PEM"), ("ecdsa", "-m", "PKCS8")])
def test_the_controllers_key_is_one_that_opens_without_a_person(
    tmp_path: Path, kind: tuple[str, ...]
) -> None:
    free = _keygen(tmp_path / "free", "-N", "", "-t", *kind)
    assert controller.content_of(_copied(free), tmp_path) == free.read_bytes()
    locked = _keygen(tmp_path / "locked", "-N", "a phrase", "-t", *kind)
    with pytest.raises(LabctlError, match=r"wants a passphrase.*ssh-keygen -p"):
        controller.content_of(_copied(locked), tmp_path)


def test_what_the_controller_cannot_use_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LabctlError, match=r"keys/c: the controller needs it: No such file.*ssh-keygen -t"):
        controller.content_of(_copied(Path("keys/c")), tmp_path)
    (tmp_path / "c").write_text("ssh-ed25519 AAAA\n")
    (tmp_path / "c").chmod(0o644)
    with pytest.raises(LabctlError, match=r"others may read the secret in .*c \(mode 644\).*chmod 600"):
        controller.content_of(_copied(Path("c")), tmp_path)
    (tmp_path / "c").chmod(0o600)
    with pytest.raises(LabctlError, match="is no private key"):
        controller.content_of(_copied(Path("c")), tmp_path)
    plug = controller.Copied(Path("keys/plug"), "box.power.password_file", secret=True)
    with pytest.raises(
        LabctlError, match=r"keys/plug: the controller needs it.*take it out of the rack file"
    ):
        controller.content_of(plug, tmp_path)


def test_a_controller_without_a_key_of_its_own_is_refused_with_the_way_out() -> None:
    with pytest.raises(LabctlError, match=r"needs a key of its own.*ssh-keygen"):
        controller.copied(RACK.model_copy(update={"controller_key": None}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Invalid JSON"),
        ('{"name": "x", "hosts": [], "colour": 1}', "colour"),
        ('{"hosts": []}', "name"),
    ],
)
def test_data_that_is_no_rack_is_refused_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "rack.json"
    path.write_text(text)
    with pytest.raises(LabctlError) as caught:
        load_data(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "labctl apply --only controller" in str(caught.value)


def test_the_controller_logs_in_as_the_agents_user_with_its_own_key_and_as_strictly() -> None:
    data = RACK.host_data(RACK.host("box"), Path("/r"))
    own = agent_data(data, Path("/etc/labctl/controller"))
    assert own["ssh_user"] == "labctl-agent"
    assert own["ssh_key"] == "/etc/labctl/controller/key"
    assert own["ssh_known_hosts_file"] == "/etc/labctl/controller/known_hosts"
    assert own["_sudo"] is False
    assert own["ssh_forced"] is True
    changed = {"ssh_user", "ssh_key", "ssh_known_hosts_file", "_sudo"}
    assert {key for key in data if data[key] is not own[key]} <= changed


def test_the_bundle_holds_labctl_and_its_pins_and_is_the_same_each_time() -> None:
    packed = controller.bundle()
    assert packed == controller.bundle()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        names = tar.getnames()
    for name in (
        "requirements.txt",
        "src/labctl/cli/main.py",
        "src/labctl/_content/deploys/site.py",
        "src/labctl/_content/templates/controller.service.j2",
        "src/labctl/_content/requirements.lock",
    ):
        assert name in names
    assert not [name for name in names if name.endswith(".pyc") or name.startswith("/") or ".." in name]


def test_another_python_or_another_labctl_is_another_environment() -> None:
    assert RACK.controller is not None
    other = RACK.controller.model_copy(update={"python": "/usr/bin/python3.13"})
    digests = {
        controller.digest(RACK, b"one"),
        controller.digest(RACK, b"two"),
        controller.digest(RACK.model_copy(update={"controller": other}), b"one"),
    }
    assert len(digests) == 3


@pytest.mark.parametrize("operators", [(), ("ann",)])
@pytest.mark.parametrize("gateway", [None, Gateway(host="nas")])
def test_the_unit_may_do_little(tmp_path: Path, operators: tuple[str, ...], gateway: Gateway | None) -> None:
    assert RACK.controller is not None
    own = RACK.controller.model_copy(update={"operators": operators})
    rack = RACK.model_copy(update={"controller": own, "gateway": gateway})
    program = shutil.which("systemd-analyze")
    assert program is not None, "install systemd"
    unit = tmp_path / controller.UNIT
    unit.write_text(controller.unit(rack, "0" * 64))
    # In a user namespace it could not tell whether who comes is the gateway's user.
    assert ("PrivateUsers=yes" in unit.read_text()) is (not operators and gateway is None)
    assert f"ReadWritePaths={controlling.STORE_FOLDER}\n" in unit.read_text()
    argv = [program, "security", "--offline=true", "--threshold=15", "--no-pager", "--json=short", str(unit)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)
