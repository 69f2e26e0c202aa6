"""Requirements files and secrets: read where labctl runs, and refused there if they could do harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.domain.problem import LabctlError
from labctl.inventory import Artifact, PythonEnv, Secret
from labctl.inventory.builds import requirements_of
from labctl.inventory.secrets import value_of
from labctl.render import python_env

HASH = f"--hash=sha256:{'0' * 64}"
GOOD = f"""\
# made by uv pip compile --generate-hashes
torch==2.14.1 \\
    {HASH} \\
    --hash=sha256:{"1" * 64}
    # via vllm
vllm==0.33.0 ; python_version >= "3.10" {HASH}
"""
BUILD = PythonEnv(
    kind="vllm",
    version="0.33.0",
    requirements="vllm.txt",
    uv=Artifact(url="https://example.org/uv.tar.gz", sha256="a" * 64),
)


def test_a_locked_file_is_taken_as_it_is() -> None:
    assert python_env.checked(GOOD, "vllm.txt") == GOOD.encode()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"litellm==1.82.7 {HASH}", "litellm 1.82.7 was published with malware that steals secrets"),
        (f"LiteLLM[proxy]==1.82.8 {HASH}", "litellm 1.82.8 was published with malware"),
        ("numpy==2.0", "numpy has no hash"),
        (f"numpy {HASH}", "does not pin one version: numpy"),
        (f"numpy>=2 {HASH}", "does not pin one version"),
        (f"numpy==2.0 {HASH[:-8]}", "numpy has no hash"),
        ("--index-url https://example.org/", "--index-url belongs into the inventory"),
        ("-r other.txt", "-r belongs into the inventory"),
        ("-e git+https://example.org/x", "-e belongs into the inventory"),
    ],
)
def test_a_line_that_is_not_locked_or_does_harm_is_refused_by_its_number(line: str, words: str) -> None:
    with pytest.raises(LabctlError) as raised:
        python_env.checked(f"{GOOD}{line}\n", "inventory/vllm.txt")
    (problem, *_) = raised.value.problems
    assert str(problem).startswith(f"inventory/vllm.txt:7: {words}")
    assert problem.hint


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(LabctlError, match="holds no requirement"):
        python_env.checked("# nothing\n", "x.txt")


def test_everything_that_goes_into_an_environment_is_in_its_digest() -> None:
    found = {
        python_env.digest(BUILD, b"a"),
        python_env.digest(BUILD, b"b"),
        python_env.digest(BUILD.model_copy(update={"python": "/usr/bin/python3.12"}), b"a"),
        python_env.digest(BUILD.model_copy(update={"archive": BUILD.uv}), b"a"),
    }
    assert len(found) == 4
    assert python_env.digest(BUILD.model_copy(update={"index": "https://e.org/simple"}), b"a") in found


def test_a_missing_requirements_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        LabctlError, match=f"requirements of vllm 0.33.0 in {tmp_path}/vllm.txt cannot be read"
    ):
        requirements_of(BUILD, tmp_path)


# --- secrets ---


def test_a_secret_is_the_first_line_of_a_file_or_a_variable(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("abc-123\nsecond line\n")
    file.chmod(0o600)
    assert value_of(Secret(file="key"), tmp_path, {}) == "abc-123"
    assert value_of(Secret(env="KEY"), tmp_path, {"KEY": "xyz"}) == "xyz"


@pytest.mark.parametrize(
    "content", ["", "\nabc\n", "a b\n", 'a"b\n', "a\\b\n", "a'b\n", "schlüssel\n", "a$b\n", "#a\n"]
)
def test_a_secret_that_a_file_format_could_misread_is_refused_without_showing_it(
    content: str, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(LabctlError, match="is empty or no plain key") as raised:
        value_of(Secret(file="key"), tmp_path, {})
    assert not content.strip() or content.strip() not in str(raised.value)


def test_a_secret_that_others_may_read_or_that_is_not_there_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    with pytest.raises(LabctlError, match=r"cannot be read: No such file or directory \(umask 077"):
        value_of(Secret(file="key"), tmp_path, {})
    file.write_text("abc\n")
    file.chmod(0o640)
    with pytest.raises(LabctlError, match=r"others may read the secret in .*/key \(mode 640\) \(chmod 600"):
        value_of(Secret(file="key"), tmp_path, {})
    with pytest.raises(LabctlError, match=r"variable KEY is not set \(export KEY="):
        value_of(Secret(env="KEY"), tmp_path, {})
