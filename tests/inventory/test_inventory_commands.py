"""The commands init, validate and schema, as a person types them."""

from __future__ import annotations

import itertools
import json
import socket
import stat
import subprocess
import sys
from pathlib import Path

import jsonschema
import paramiko
import pytest
from rack_texts import rack_text, write

from labctl import content
from labctl.cli.main import main
from labctl.domain.problem import ExitCode, LabctlError
from labctl.inventory import load_rack, scaffold

HOST = 'rack = Rack(name="r", hosts=[Host(name="a", address="10.0.0.1")])'
KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): stat.filemode(path.lstat().st_mode)
        for path in sorted(folder.rglob("*"))
    }


def test_init_makes_a_rack_that_is_valid_and_says_what_to_type_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "lab/mine"]) == 0
    told = capsys.readouterr().out
    positions = [told.index(f"cd lab/mine && labctl {verb}") for verb in ("validate", "enroll", "plan")]
    assert positions == sorted(positions)
    assert tree(tmp_path / "lab" / "mine") == {
        "inventory": "drwxr-xr-x",
        "inventory/.gitignore": "-rw-r--r--",
        "inventory/keys": "drwx------",
        "inventory/keys/operator": "-rw-------",
        "inventory/keys/operator.pub": "-rw-r--r--",
        "inventory/rack.py": "-rw-r--r--",
    }
    monkeypatch.chdir(tmp_path / "lab" / "mine")
    assert main(["validate"]) == 0
    assert "rack example is valid (7 hosts, 11 GPUs, 1 service, 0 models)" in capsys.readouterr().out


def test_the_new_key_pair_is_one_that_ssh_can_use(tmp_path: Path) -> None:
    made = scaffold.create(tmp_path, b"")
    private = paramiko.Ed25519Key.from_private_key_file(str(made.public_key.with_suffix("")))
    keytype, public, comment = made.public_key.read_text().split()
    assert (keytype, public, comment) == ("ssh-ed25519", private.get_base64(), "labctl-operator")


def test_git_keeps_private_keys_out_and_host_keys_in(tmp_path: Path) -> None:
    scaffold.create(tmp_path, b"")
    (tmp_path / "inventory" / "known_hosts").write_text("")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    listed = subprocess.run(
        ["git", "-C", str(tmp_path), "ls-files", "-o", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert "inventory/keys/operator" not in listed
    assert {"inventory/keys/operator.pub", "inventory/known_hosts"} <= set(listed)


def test_init_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path)]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["init", str(tmp_path)]) == ExitCode.BAD_INPUT
    assert "exists already; nothing was changed" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_init_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def full_disk(path: Path, data: bytes, mode: int) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(scaffold, "_write", full_disk)
    with pytest.raises(LabctlError, match="No space left"):
        scaffold.create(tmp_path / "new" / "rack", b"x")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("mine")
    calls.clear()
    with pytest.raises(LabctlError):
        scaffold.create(tmp_path / "old", b"x")
    assert tree(tmp_path) == {"old": "drwxr-xr-x", "old/file": "-rw-r--r--"}


def test_init_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LabctlError, match="cannot be made"):
        scaffold.create(tmp_path / "file" / "rack", b"x")
    assert (tmp_path / "file").read_text() == "mine"


def test_validate_shows_every_error_with_its_line_and_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path, rack_text('rack = Rack(name="r", hosts=[\n    Host(name="A", address="10.0.0.1", cap=3)])')
    )
    assert main(["validate", "rack.py"]) == ExitCode.BAD_INPUT
    told = capsys.readouterr()
    assert told.out == ""
    assert "error: rack.py:6: host A: name: must be a host name label" in told.err
    assert "error: rack.py:6: host A: cap: is not a known field" in told.err
    assert "Traceback" not in told.err


def test_validate_tells_scripts_the_same_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(
        tmp_path, rack_text('rack = Rack(name="r", hosts=[\n    Host(name="A", address="10.0.0.1")])')
    )
    assert main(["validate", str(path), "--json"]) == ExitCode.BAD_INPUT
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    (problem,) = told["problems"]
    assert (problem["line"], problem["host"], problem["field"]) == (6, "A", "name")
    path = write(tmp_path, rack_text(HOST))
    assert main(["validate", str(path), "--json"]) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["hosts"], told["problems"], told["not_enrolled"]) == (True, 1, [], ["a"])


def test_validate_says_who_is_not_enrolled_yet_and_does_not_mind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(
        tmp_path,
        rack_text(HOST.replace("])", ', ), Host(name="b", address="10.0.0.2")])')).replace(
            '"10.0.0.1"), )', '"10.0.0.1")'
        ),
    )
    write(tmp_path, f"10.0.0.1 ssh-ed25519 {KEY}\n", "known_hosts")
    assert main(["validate", str(path)]) == ExitCode.OK
    assert "not enrolled yet: b (labctl enroll b)" in capsys.readouterr().out


def test_validate_tells_a_bad_line_of_known_hosts_beside_the_rack_s_own_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, f"10.0.0.1 ssh-ed25519 {KEY}\n10.0.0.1 ssh-ed25519 AAAA\n", "known_hosts")
    path = write(tmp_path, rack_text(HOST))
    assert main(["validate", str(path)]) == ExitCode.BAD_INPUT
    assert "known_hosts:2: this line holds" in capsys.readouterr().err
    path = write(tmp_path, rack_text(HOST.replace("name=", "nam=", 1)))
    assert main(["validate", str(path)]) == ExitCode.BAD_INPUT
    told = capsys.readouterr().err
    assert "known_hosts:2" in told
    assert "nam: is not a known field" in told


def test_validate_without_a_rack_file_says_how_to_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["validate", "nowhere/rack.py"]) == ExitCode.BAD_INPUT
    assert "labctl init" in capsys.readouterr().err


def test_the_schema_describes_every_field_and_accepts_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--indent", "0"]) == 0
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    schema = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    for name, part in [*schema["$defs"].items(), ("Rack", schema)]:
        assert part["description"], name
        assert part["additionalProperties"] is False
        for field, details in part["properties"].items():
            assert details.get("description"), f"{name}.{field}"
    rack = load_rack(content.example_rack()).rack
    jsonschema.validate(rack.to_json(), schema)
    wrong = rack.to_json()
    wrong["hosts"][0]["base_w"] = "250"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_what_ships_is_found_in_a_checkout_and_in_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert content.example_rack().is_file()
    assert content.deploys_dir().is_dir()
    assert content.templates_dir().is_dir()
    package = tmp_path / "site-packages" / "labctl"
    shipped = package / "_content" / "inventory"
    shipped.mkdir(parents=True)
    write(shipped, "", "rack.py")
    monkeypatch.setattr(content, "_PACKAGE", package)
    assert content.example_rack() == shipped / "rack.py"
    with pytest.raises(LabctlError, match="lacks deploys") as caught:
        content.deploys_dir()
    assert caught.value.code is ExitCode.INTERNAL


def test_loading_a_rack_imports_no_engine(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from labctl.inventory import load_rack, known_hosts\n"
        f"load_rack({str(content.example_rack())!r})\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert not {"gevent", "pyinfra", "paramiko", "cryptography", "rich", "click"} & set(ended.stdout.split())


@pytest.mark.parametrize("command", [["validate"], ["plan"], ["apply", "--yes"]])
def test_no_command_touches_anything_when_a_card_is_declared_wrongly(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a host was contacted")

    monkeypatch.setattr(socket.socket, "connect", never)
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    rack = tmp_path / "rack"
    rack.mkdir()
    card = 'Host(name="a", address="127.0.0.1",\n    gpus=[Gpu(model="RTX 5090", slot="s0",\n    {})])'
    for wrong, field in (
        ('cap_w=300, cap_reason="noise"', "gpus[0].cap_w"),
        ('cap_w="300", cap_reason="noise"', "gpus[0].cap_w"),
        ('uuid="GPU-12"', "gpus[0].uuid"),
    ):
        path = write(rack, rack_text(f'rack = Rack(name="r", hosts=[{card.format(wrong)}])'))
        before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
        assert main([*command, str(path)]) == ExitCode.BAD_INPUT
        told = capsys.readouterr()
        assert f"rack.py:7: host a: {field}: " in told.err
        assert "hint:" in told.err
        assert "Traceback" not in told.err + told.out
        assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_the_schema_describes_what_cards_and_circuits_may_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    parts = json.loads(capsys.readouterr().out)["$defs"]
    for part, fields in {
        "Gpu": "model uuid pci slot cap_w cap_reason clocks_mhz vendor tdp_w",
        "Host": "cap_w cap_reason nvidia amd backend",
        "Circuit": "upstream",
        "Psu": "spike_tolerance feeds",
        "Nvidia": "branch flavour source mirror suspend suspend_path",
        "Amd": "rocm source mirror",
        "AptMirror": "url key fingerprint",
    }.items():
        assert set(fields.split()) <= parts[part]["properties"].keys(), part


CHAIN = """\
rack = Rack(name="big", circuits=[Circuit(name=f"c{{i}}") for i in range(1, {hosts} + 1)], hosts=[
    Host(name=f"n{{i}}", address=f"10.66.0.{{i}}", roles=["gpu"], base_w=200,
        gpus=[Gpu(model="RTX 3090", slot=f"slot{{n}}", cap_w=200, cap_reason="circuit") for n in range(8)],
        psus=[Psu(name="p", watts=2400, circuit=f"c{{i}}")],
        wake=WakeOnLan(mac=f"52:54:00:00:00:{{i:02x}}", relay="n{hosts}" if i < {hosts} else None),
        depends_on=[f"n{{i + 1}}"] if i < {hosts} else [],
        services=[Command(name="web", argv=["/bin/true"], port=8000)])
    for i in range(1, {hosts} + 1)])
"""


def calls_to_load(path: Path) -> int:
    """Return how many functions of Python are entered while a rack file is loaded and checked."""
    entered = itertools.count()
    sys.setprofile(lambda frame, event, arg: next(entered) if event == "call" else None)
    try:
        load_rack(path)
    finally:
        sys.setprofile(None)
    return next(entered)


def test_a_rack_of_ten_times_the_hosts_is_ten_times_the_work(tmp_path: Path) -> None:
    # What it costs in seconds is measured by bench/render_rack.py.
    few, many = (
        write(tmp_path, rack_text(CHAIN.format(hosts=hosts)), f"rack{hosts}.py") for hosts in (10, 100)
    )
    load_rack(few)  # whatever is only done once
    assert calls_to_load(many) < 12 * calls_to_load(few)
