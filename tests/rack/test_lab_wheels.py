"""Which wheels a Python gets of a lock file that holds for several."""

from __future__ import annotations

from labctl import content
from labctl.lab.wheels import _for_python

LOCK = """\
# made by hand
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:aa \\
    --hash=sha256:ab
    # via gguf
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:bb
rich==14.0.0 \\
    --hash=sha256:cc
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:dd
"""


def test_each_python_gets_the_versions_that_are_for_it_with_all_of_their_hashes() -> None:
    old, new = (_for_python(LOCK, python).split("\n")[:-1] for python in ("3.11", "3.13"))
    assert [line.split()[0] for line in old] == ["numpy==2.4.6", "rich==14.0.0"]
    assert [line.split()[0] for line in new] == ["numpy==2.5.5", "rich==14.0.0"]
    assert old[0].split()[1:] == ["--hash=sha256:aa", "--hash=sha256:ab"]


def test_labctls_own_lock_file_names_each_package_once_for_each_python() -> None:
    for python in ("3.11", "3.13"):
        names = [
            line.partition("==")[0]
            for line in _for_python(content.requirements().read_text(), python).splitlines()
        ]
        assert len(names) == len(set(names)) > 30
        assert {"pydantic", "paramiko", "sqlalchemy"} <= set(names)
