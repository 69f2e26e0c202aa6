"""``labctl bundle``: no secret of the rack is in it in any form, and nothing is written but the whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from test_redaction import forms

from labctl import wiring
from labctl.bundle import archive, known
from labctl.cli.main import main
from labctl.domain.failures import Failure, HostError
from labctl.domain.problem import LabctlError
from labctl.domain.redaction import redactor
from labctl.fleet import sessions
from labctl.inventory import Rack, Secret
from labctl.inventory.fields import SecretFile
from labctl.ports import Said

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIIiI3TA0PgHfAVdEoPOZPTLZFzMDVGXGUPmFaAAu2uf8"
FLAG, OWN, SERVING, HOOK = "FlagC4nary-0001", "OwnVariableC4nary-2", "Serv+ing/C4n@ry=3", "HookC4nary-44"
RACK = f"""\
from labctl.inventory import Command, Health, Host, NtfyNotice, Rack, Secret, Webhook

rack = Rack(name="home", health=None, hosts=[
    Host(name="rig", address="10.0.0.1", wake=Webhook(on_file="keys/hook"), services=[
        Command(name="docs", argv=["/bin/true", "--api-key", "{FLAG}"], port=8000),
        Command(name="other", argv=["/bin/true"], port=8001, open=True),
    ]),
    Host(name="nas", address="10.0.0.2"),
])
globals().update(rack.groups())
"""


def models(kind: Any, seen: set[type[BaseModel]] | None = None) -> set[type[BaseModel]]:
    """Return every part of the inventory that a type may hold."""
    found = set() if seen is None else seen
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in found:
        found.add(kind)
        for hint in typing.get_type_hints(kind, include_extras=True).values():
            models(hint, found)
    for part in typing.get_args(kind):
        models(part, found)
    return found


def mentions(kind: Any, wanted: Any) -> bool:
    return kind == wanted or any(mentions(part, wanted) for part in typing.get_args(kind))


SECRET_FIELDS = sorted(
    (part.__name__, name, part, mentions(hint, Secret))
    for part in models(Rack)
    if part is not Secret
    for name, hint in typing.get_type_hints(part, include_extras=True).items()
    if mentions(hint, Secret) or mentions(hint, SecretFile)
)


@pytest.mark.parametrize(("part", "field", "kind", "whole"), SECRET_FIELDS)
def test_every_field_of_the_schema_that_holds_a_secret_is_found(
    part: str, field: str, kind: Any, *, whole: bool
) -> None:
    value = Secret(env="X") if whole else Path("keys/x")
    rack = Rack.model_construct(name="r", hosts=(kind.model_construct(**{field: value}),))
    (found,) = [one for one in known.references(rack) if one.field.endswith(f".{field}")]
    assert (found.variable, found.file) == (("X", None) if whole else (None, Path("keys/x")))


def test_the_schema_has_secrets_of_both_kinds() -> None:
    assert len(SECRET_FIELDS) > 12
    assert {whole for *_, whole in SECRET_FIELDS} == {True, False}


class Echo:
    """Hosts that print all that they should not, in every form, wherever they print something."""

    def __init__(self, canaries: list[str]) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.away: set[str] = set()
        self.canaries = canaries
        self.raises: BaseException | None = None

    def run(self, host: str, data: Any, argv: Any, **more: Any) -> Said:
        self.asked.append((host, tuple(argv)))
        if host in self.away:
            raise HostError(Failure("timeout", f"{host} did not answer", unreachable=True))
        said = [form for value in self.canaries for form in forms(value).values()]
        if argv[0] in ("journalctl", "systemctl"):
            lines = [f"Nov 29 rig x[1]: unit labctl-docs says {form} and more" for form in said]
            return Said(0, "\n".join(lines).encode(), "")
        document = {"engines": said, "nested": {one: {"why": f"it said {one}"} for one in said}}
        return Said(0, json.dumps(document).encode(), "")

    def stop(self) -> None:
        pass


@pytest.fixture
def canaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Plant a canary in each field of the schema that holds a secret, in a flag, and in a variable."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/hook").write_text(f"https://ha.lan:8123/api/webhook/{HOOK}\n")
    planted, extra = [FLAG, OWN, HOOK], []
    for number, (part, field, _, whole) in enumerate(SECRET_FIELDS):
        value = f"{SERVING}{part}{number}"
        planted.append(value)
        if whole and number % 2:
            monkeypatch.setenv(f"CANARY_{number}", value)
            extra.append(known.Reference(f"{part}.{field}", "rig", variable=f"CANARY_{number}"))
        else:
            (tmp_path / f"keys/{number}").write_text(f"{value}\n")
            extra.append(known.Reference(f"{part}.{field}", "rig", file=Path(f"keys/{number}")))
    walked = known.references
    monkeypatch.setattr(known, "references", lambda rack: [*walked(rack), *extra])
    monkeypatch.setenv("SOME_API_TOKEN", OWN)
    return planted


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, canaries: list[str]) -> Iterator[Echo]:
    (tmp_path / "rack.py").write_text(RACK.replace(", open=True", ""))
    (tmp_path / "known_hosts").write_text(f"10.0.0.1,10.0.0.2 ssh-ed25519 {KEY}\n")
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"LABCTL_{name}", str(tmp_path / name))
    monkeypatch.setenv("LABCTL_INVENTORY", str(tmp_path / "rack.py"))
    monkeypatch.chdir(tmp_path)
    made = Echo(canaries)
    monkeypatch.setattr(wiring, "remote", lambda: made)
    yield made
    assert not list(tmp_path.glob(".*.part")), "half a file was left behind"


def opened(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as packed:
        found = {}
        for entry in packed.getmembers():
            content = packed.extractfile(entry)
            assert content is not None
            found[entry.name.partition("/")[2]] = content.read()
    return found


def test_no_canary_is_in_it_in_any_form(echo: Echo, canaries: list[str], tmp_path: Path) -> None:
    assert main(["bundle", "-o", "out.tar.gz"]) == 0
    whole = gzip.decompress((tmp_path / "out.tar.gz").read_bytes()).decode("utf-8", "replace")
    dense = "".join(whole.split())
    for value in canaries:
        for name, form in forms(value).items():
            assert form not in whole, (value, name)
            assert form not in dense, (value, name)
    files = opened(tmp_path / "out.tar.gz")
    assert "unit labctl-docs says" in files["hosts/rig/journal.txt"].decode(), "what is no secret stays"


def test_the_manifest_says_what_is_in_it_and_what_was_taken_out(
    echo: Echo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", "-o", "out.tar.gz", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    files = opened(tmp_path / "out.tar.gz")
    manifest = json.loads(files.pop("manifest.json"))
    listed = {one["name"]: one for one in manifest["files"]}
    assert listed.keys() == files.keys()
    assert {"versions.json", "rack.json", "hosts/rig/report.json", "hosts/nas/units.txt"} <= files.keys()
    for name, content in files.items():
        assert listed[name]["bytes"] == len(content)
        assert listed[name]["sha256"] == hashlib.sha256(content).hexdigest()
    assert listed["hosts/rig/journal.txt"]["redacted"]["hosts.rig.wake.on_file"] > 0
    assert manifest["left_out"] == []
    assert said["files"] == manifest["files"]
    assert (tmp_path / "out.tar.gz").stat().st_mode & 0o777 == 0o600
    assert manifest["rack"] == "home"


def test_a_host_whose_secrets_are_not_known_here_keeps_its_journals(
    echo: Echo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keys/hook").unlink()
    assert main(["bundle", "-o", "out.tar.gz"]) == 4
    files = opened(tmp_path / "out.tar.gz")
    assert "hosts/rig/journal.txt" not in files
    assert "hosts/nas/journal.txt" in files
    assert (
        "left out: hosts/rig/journal.txt: hosts.rig.wake.on_file is not known here" in capsys.readouterr().out
    )


def test_a_host_that_cannot_be_reached_is_left_out_with_its_reason(echo: Echo, tmp_path: Path) -> None:
    echo.away.add("nas")
    assert main(["bundle", "-o", "out.tar.gz"]) == 4
    manifest = json.loads(opened(tmp_path / "out.tar.gz")["manifest.json"])
    assert {"name": "hosts/nas/report.json", "reason": "nas did not answer"} in manifest["left_out"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b'{"a":' * 900 + b"1" + b"}" * 900, "it is nested too deeply"),
        (json.dumps({"a": "x" * archive.LONGEST_PART}).encode(), "it is more than 4 MiB"),
    ],
)
def test_a_host_that_answers_beyond_reason_is_left_out_and_the_rest_is_packed(
    echo: Echo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, why: str
) -> None:
    run = echo.run

    def hostile(host: str, data: Any, argv: Any, **more: Any) -> Said:
        said = run(host, data, argv, **more)
        return Said(0, answer, "") if host == "nas" and argv[-1] == "report" else said

    monkeypatch.setattr(echo, "run", hostile)
    assert main(["bundle", "-o", "out.tar.gz"]) == 4
    files = opened(tmp_path / "out.tar.gz")
    assert json.loads(files["manifest.json"])["left_out"] == [
        {"name": "hosts/nas/report.json", "reason": why}
    ]
    assert "hosts/rig/report.json" in files


def test_ctrl_c_leaves_nothing(
    echo: Echo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unheard = sessions.Answer("rig", failure=Failure(sessions.INTERRUPTED, "not awaited"))
    monkeypatch.setattr(sessions, "ask", lambda *args, **more: {"rig": unheard})
    assert main(["bundle", "rig", "-o", "out.tar.gz"]) == 130
    assert not (tmp_path / "out.tar.gz").exists()


def test_a_failure_or_ctrl_c_in_the_middle_of_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = archive.Bundle(redactor({}))
    packed.add_text("x.txt", "x", "x")
    for fault, raised in (
        (OSError(28, "No space left on device"), LabctlError),
        (KeyboardInterrupt(),) * 2,
    ):

        def fails(_: int, fault: BaseException = fault) -> None:
            raise fault

        monkeypatch.setattr("os.fsync", fails)
        with pytest.raises(raised if isinstance(raised, type) else type(raised)):
            packed.write(tmp_path / "out.tar.gz", {}, 0.0)
        assert list(tmp_path.iterdir()) == []


def test_units_come_without_their_descriptions_which_may_be_command_lines(echo: Echo) -> None:
    assert main(["bundle"]) == 0
    (asked,) = {argv for _, argv in echo.asked if argv[0] == "systemctl"}
    (properties,) = (word for word in asked if word.startswith("--property="))
    assert "Description" not in properties and "ActiveState" in properties
    assert "list-units" not in asked and "status" not in asked


def test_nothing_is_ever_overwritten(echo: Echo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out.tar.gz").write_text("mine")
    assert main(["bundle", "-o", "out.tar.gz"]) == 2
    assert "out.tar.gz is there already" in capsys.readouterr().err
    assert echo.asked == []
    assert (tmp_path / "out.tar.gz").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "words"),
    [("link", "link is there already"), ("none/x", "there is no folder none"), ("", "it is empty")],
)
def test_a_place_that_cannot_be_written_is_refused_before_anybody_is_asked(
    echo: Echo, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert main(["bundle", "-o", name]) == 2
    assert words in capsys.readouterr().err
    assert echo.asked == []


def test_what_cannot_be_cleaned_is_left_out_whole() -> None:
    packed = archive.Bundle(redactor({"Zq3xA9wKqb7Zq3x": "a key"}))
    packed.add_text("x.txt", "x", "Zq3xA9w\nKqb7Zq3x")
    assert packed.left_out == {"x.txt": "a key shows in it in a form that cannot be taken out"}
    assert packed.files == {}


def test_what_is_too_long_loses_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LONGEST_PART", 20)
    packed = archive.Bundle(redactor({}))
    packed.add_text("x.txt", "x", "\n".join(f"line {n}" for n in range(9)))
    assert packed.files["x.txt"].decode() == "line 7\nline 8"
    monkeypatch.setattr(archive, "MOST", 20)
    packed.add_text("y.txt", "y", "a line too many")
    assert "y.txt" in packed.left_out


def test_a_bundle_is_a_plain_archive_in_a_folder_of_its_own(tmp_path: Path) -> None:
    packed = archive.Bundle(redactor({}))
    packed.add_document("x.json", "x", {"a": 1})
    size = packed.write(tmp_path / "out.tar.gz", {"rack": "home"}, 1_800_000_000.0)
    content = (tmp_path / "out.tar.gz").read_bytes()
    assert size == len(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as whole:
        assert whole.getnames() == ["out/manifest.json", "out/x.json"]


def test_whatever_the_file_is_called_it_unpacks_into_a_folder_here(tmp_path: Path) -> None:
    packed = archive.Bundle(redactor({}))
    for name, folder in ((".out.tar.gz", "out"), ("...", "bundle")):
        packed.write(tmp_path / name, {}, 0.0)
        with tarfile.open(tmp_path / name) as whole:
            assert whole.getnames() == [f"{folder}/manifest.json"]
