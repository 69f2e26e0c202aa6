"""Fetch a program from Debian's archive into a cache, for comparisons, without touching this machine's apt.

The archive is the one that the machine's own apt uses, its signatures are checked by Debian's keyring, and
nothing is installed: the package is unpacked. Where that can't be done, the test is skipped and says why.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from labctl.lab.aptsources import debian_lines

SUITE = "bookworm"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def unpacked(cache: Path, *packages: str, component: str = "main") -> Path:
    """Return the folder that holds these packages of Debian 12, unpacked."""
    folder = cache / "programs" / "-".join((SUITE, *packages))
    if folder.is_dir():
        return folder
    lines = debian_lines(SUITE) if shutil.which("apt-get") and KEYRING.exists() else ()
    if not lines:
        pytest.skip("this machine's apt does not know Debian's archive")
    state = cache / "programs" / ".apt"
    for part in (
        "etc/apt.conf.d",
        "etc/preferences.d",
        "etc/sources.list.d",
        "state/lists/partial",
        "cache/archives/partial",
    ):
        (state / part).mkdir(parents=True, exist_ok=True)
    archive = lines[0].split()[1]
    source = f"deb [signed-by={KEYRING}] {archive} {SUITE} {component}\n"
    (state / "etc/sources.list").write_text(source)
    (state / "apt.conf").write_text(
        f'Dir::Etc "{state}/etc"; Dir::Etc::sourcelist "sources.list";\n'
        'Dir::Etc::sourceparts "sources.list.d";\n'
        f'Dir::State "{state}/state"; Dir::State::status "/var/lib/dpkg/status";\n'
        f'Dir::Cache "{state}/cache"; APT::Sandbox::User "root";\n'
    )
    for argv in (["apt-get", "-qq", "update"], ["apt-get", "-qq", "download", *packages]):
        env = {"APT_CONFIG": str(state / "apt.conf"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        done = subprocess.run(argv, env=env, cwd=state, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"{packages[0]} can't be downloaded: {done.stderr.strip()[-200:]}")
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for package in packages:
        (deb,) = state.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(deb), str(partial)], check=True)
        deb.unlink()
    partial.rename(folder)
    return folder
