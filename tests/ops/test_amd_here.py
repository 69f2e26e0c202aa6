"""AMD's operations against this machine: real shells, real keys, a real llama.cpp where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ops_hosts import Done, Here

from labctl.domain import backend as proof
from labctl.ops import backend, initramfs, vendor_source
from labctl.ops.command import Script, content_on_stdin
from labctl.ops.facts_amd import Amd
from labctl.render import gguf

# Runs what comes behind "--" and ends as systemd-run does.
SYSTEMD_RUN = """\
while [ "$1" != -- ]; do shift; done
shift
"$@"
rc=$?
case $rc in
  0) echo 'Finished with result: success' >&2 ;;
  75 | 124) echo 'Finished with result: timeout' >&2 ;;
  *) echo 'Finished with result: exit-code' >&2
     echo "Main processes terminated with: code=exited/status=$rc" >&2 ;;
esac
exit $rc
"""


def tried(here: Here, program: Path, stdin: str | None = None) -> Done:
    here.stand_in("systemd-run", SYSTEMD_RUN)
    model = content_on_stdin(gguf.tiny()) if stdin is None else stdin
    return here.run(Script("backend-try", "vulkan", str(program), "20", stdin=model))


def judged(done: Done) -> proof.Run:
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    said: dict[str, list[str]] = {}
    for key, _, value in lines:
        said.setdefault(key, []).append(value)
    ended = [said.get(key, [""])[0] for key in ("result", "detail")]
    parts = [*ended, *("\n".join(said.get(key, [])) for key in ("out", "err"))]
    return proof.judge("vulkan", proof.Raw(*parts, backend.answers(parts[2])))


@pytest.fixture(scope="session")
def llama() -> Path:
    """The folder of a real llama.cpp, if a virtual rack has fetched one on this machine before."""
    from labctl import wiring

    folder = wiring.cache_home() / "lab/llama"
    if not (folder / "llama-server").is_file():
        pytest.skip("no llama-server in the cache; tests/rack fetches it")
    return folder


def test_a_real_llama_server_without_a_card_is_judged_as_computing_on_the_processor(
    here: Here, llama: Path
) -> None:
    run = judged(tried(here, llama / "llama-server"))
    assert (run.outcome, "the model lay in CPU" in run.why) == ("cpu", True)
    assert (run.tokens_per_s or 0) > 0


def test_a_program_that_dies_or_is_no_engine_is_a_failure(here: Here) -> None:
    dead, mute = here.root / "llama-server", here.root / "llama-bench"
    dead.write_text("#!/bin/sh\necho no device >&2; exit 3\n")
    mute.write_text("#!/bin/sh\nhead -c 300000 /dev/urandom\n")
    for program in (dead, mute):
        program.chmod(0o755)
    died = judged(tried(here, dead))
    assert (died.outcome, died.why) == ("not-detected", "code=exited/status=3: no device")
    assert judged(tried(here, mute)).outcome == "faulted"


def test_an_engine_that_is_cut_in_the_middle_of_a_line_has_run_out_of_time(here: Here) -> None:
    slow = here.root / "llama-bench"
    slow.write_text("#!/bin/sh\nprintf 'found 1 Vulkan devices: and then' >&2; exit 75\n")
    slow.chmod(0o755)
    assert judged(tried(here, slow)).outcome == "timeout"


def test_a_model_that_arrives_damaged_is_not_tried(here: Here) -> None:
    done = tried(here, Path("/bin/true"), stdin=content_on_stdin(b"GGUF").replace("R", "S"))
    assert done.status == 1
    assert "incomplete or damaged" in done.stderr
    # Other tests may have an engine at work at this moment, on a model that is larger.
    left = [model for model in Path("/run").glob("labctl-backend.*/model.gguf") if model.stat().st_size < 100]
    assert not left


def test_the_best_engine_of_each_backend_is_found_and_a_change_beside_it_is_seen(here: Here) -> None:
    folder = here.root / "engine/bin"
    folder.mkdir(parents=True)
    for name in ("llama-bench", "llama-server"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    (folder / "libggml-hip.so").write_text("one")
    places = backend.candidates((str(folder / "llama-server"),))
    _, before, found = here.get_fact(backend.Ground, candidates=places)
    assert found == {name: str(folder / "llama-bench") for name in ("rocm", "vulkan")}
    assert here.get_fact(backend.Ground, candidates=places)[1] == before
    (folder / "libggml-hip.so").write_text("another")
    _, after, _ = here.get_fact(backend.Ground, candidates=places)
    record = proof.Record("rocm", "", (), before)
    assert proof.stale(record, after) == ("the engine for rocm changed", "the engine for vulkan changed")


def test_a_host_without_engines_is_nothing_to_do(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    assert list(backend.proved._inner(programs=(), model=b"")) == []
    assert "no backend is proved yet" in caplog.text


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An armored public key and its fingerprint, as gpg sees it."""
    if not shutil.which("gpg"):
        pytest.skip("gpg is not installed")
    home = tmp_path_factory.mktemp("gpg")
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    subprocess.run(
        [*gpg, "--passphrase", "", "--quick-generate-key", "a@example.org", "ed25519", "sign", "never"],
        check=True,
        capture_output=True,
    )
    armored = home / "key.asc"
    armored.write_bytes(subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True).stdout)
    listed = subprocess.run(
        [*gpg, "--with-colons", "--list-keys"], check=True, capture_output=True, text=True
    )
    fingerprint = next(line.split(":")[9] for line in listed.stdout.splitlines() if line.startswith("fpr"))
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)
    return armored, fingerprint


def test_a_vendors_key_is_kept_only_with_the_fingerprint_that_is_known(
    here: Here, key: tuple[Path, str]
) -> None:
    armored, fingerprint = key
    ring = here.root / "ring.asc"
    wrong = here.run(vendor_source.key_script(str(ring), armored.as_uri(), "0" * 40))
    assert (wrong.status, ring.exists()) == (1, False)
    assert f"has the fingerprint {fingerprint}, expected 000" in wrong.stderr
    right = here.run(vendor_source.key_script(str(ring), armored.as_uri(), fingerprint))
    assert (right.status, ring.read_bytes()) == (0, armored.read_bytes())
    assert ring.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("content", ["<html>404</html>", ""])
def test_what_is_no_key_is_refused_and_leaves_the_old_one(here: Here, content: str) -> None:
    ring, page = here.root / "ring.asc", here.root / "page"
    ring.write_text("old")
    page.write_text(content)
    done = here.run(vendor_source.key_script(str(ring), page.as_uri(), "0" * 40))
    assert (done.status, ring.read_text()) == (1, "old")
    assert "is no key" in done.stderr
    assert sorted(path.name for path in here.root.iterdir()) == ["bin", "page", "ring.asc"]


def test_the_initial_ramdisk_is_rebuilt_once_for_each_content(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initramfs, "_STAMPS", str(here.root / "stamps"))
    arguments: dict[str, Any] = {"subject": "ttm", "content": "options ttm\n"}
    assert here.plan(initramfs.built_with, **arguments) == [] or shutil.which("update-initramfs")
    here.stand_in("update-initramfs", f"echo built >>{here.root}/log; exit ${{FAIL:-0}}")
    here.must(initramfs.built_with, **arguments)
    here.must(initramfs.built_with, subject="ttm", content=None)
    assert (here.root / "log").read_text() == "built\nbuilt\n"
    here.stand_in("update-initramfs", "exit 1")
    (failed,) = here.apply(initramfs.built_with, **arguments)
    assert failed.status == 1
    assert len(here.plan(initramfs.built_with, **arguments)) == 1, "it is tried again"


def test_what_a_host_says_of_packages_and_memory_is_read() -> None:
    seen = Amd().process(
        [
            *("old rocm-core", "old hip-runtime-amd", "dkms", "firmware 20251125-1", "mesa 25.0.7-2"),
            *(
                "backports",
                "offered amdrocm10.0-gfx1100",
                "own_source",
                "memory_kib 131072000",
                "ttm_pages 42",
            ),
            "something new",
        ]
    )
    assert (seen.old, seen.dkms, seen.firmware) == (("hip-runtime-amd", "rocm-core"), True, "20251125-1")
    assert (seen.mesa, seen.backports, seen.own_source) == ("25.0.7-2", True, True)
    assert (seen.offered, seen.memory_mib, seen.ttm_pages) == (
        {"amdrocm10.0-gfx1100"},
        128000,
        42,
    )
    assert Amd().process([]) == Amd.default()


def test_asking_never_fails_on_a_host_that_has_none_of_it(here: Here) -> None:
    assert here.get_fact(Amd, source="/nowhere").memory_mib > 0
