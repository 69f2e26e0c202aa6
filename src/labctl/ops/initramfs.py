"""Settings that the early boot reads: rebuilt into the initial ramdisk once for each content.

A module that is loaded from the initial ramdisk takes its options from the copy in there. Whether that copy
is current cannot be asked cheaply, so a stamp remembers which content it was last built with; the stamp is
written after the build, so a run that is cut in between builds again. A host without ``update-initramfs`` (a
container, another builder) has nothing to rebuild here.
"""

from __future__ import annotations

import hashlib

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.facts import FactBase
from pyinfra.context import host
from typing_extensions import override

from labctl.ops.command import Commands, Script, operation

_STAMPS = "/var/lib/labctl/initramfs"
_LOOK = """\
if [ ! -e /run/systemd/container ] && command -v update-initramfs >/dev/null; then echo tool; fi
[ ! -r "$1" ] || sed 's/^/stamp /' "$1"
"""


class BuiltWith(FactBase[tuple[bool, str]]):
    """Whether the host builds initial ramdisks, and the sha256 that the last one was built with, or ""."""

    @override
    @staticmethod
    def default() -> tuple[bool, str]:
        """Return a host that builds none."""
        return False, ""

    @override
    def command(self, subject: str) -> StringCommand:
        """Return the command, which starts at most one process."""
        stamp = f"{_STAMPS}/{subject}"
        return StringCommand("sh", "-c", QuoteString(_LOOK), "labctl-initramfs", QuoteString(stamp))

    @override
    def process(self, output: list[str]) -> tuple[bool, str]:
        """Read the lines of the command."""
        stamps = [line.removeprefix("stamp ") for line in output if line.startswith("stamp ")]
        return "tool" in output, stamps[0] if stamps else ""


@operation
def built_with(subject: str, content: str | None, timeout_s: int = 900) -> Commands:
    """Have the initial ramdisks built with ``content``, or after its removal where it is None.

    Args:
        subject: a name for what the content is about, part of the stamp's path.
        content: of the files that lie on the host already.
        timeout_s: limit of the build, which takes seconds for each kernel.
    """
    tool, stamp = host.get_fact(BuiltWith, subject=subject)
    digest = "" if content is None else hashlib.sha256(content.encode()).hexdigest()
    if tool and stamp != digest:
        yield Script("initramfs", f"{_STAMPS}/{subject}", digest, timeout_s=timeout_s)
