"""Why a host needs a reboot, from everything that can tell: packages, drivers, and notes of our own.

An operation whose change takes effect at the next boot leaves a note below /run, which a reboot clears. A
driver that was updated under its loaded kernel module is seen by its versions, whoever updated it; but where
the next boot would load the same module again, a reboot mends nothing and is not asked for, else a host whose
packages do not fit each other would reboot at every run. What cannot be read is no reason: a reboot is never
guessed.
"""

from __future__ import annotations

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.facts import FactBase
from typing_extensions import override

NOTES = "/run/labctl/reboot-required.d"
# Debian calls the module nvidia-current, and its directory in sysfs nvidia or nvidia_current.
_LOOK = f"""\
for note in {NOTES}/*; do [ ! -f "$note" ] || cat -- "$note"; done
if [ -e /run/reboot-required ]; then
  names=$(sort -u /run/reboot-required.pkgs 2>/dev/null | head -n 5 | tr '\\n' ' ')
  echo "updated packages ask for it${{names:+: ${{names% }}}}"
fi
loaded=
for file in /sys/module/nvidia/version /sys/module/nvidia_current/version; do
  [ ! -r "$file" ] || read -r loaded <"$file"
done
[ -n "$loaded" ] || exit 0
for name in nvidia nvidia-current nvidia-current-open; do
  disk=$(modinfo -F version "$name" 2>/dev/null) && [ -n "$disk" ] && break
done
if [ -n "$disk" ]; then
  [ "$disk" = "$loaded" ] || echo "the NVIDIA kernel module $loaded is loaded and $disk is installed"
  exit 0
fi
for library in /usr/lib/*/libnvidia-ml.so.[0-9]*.* /usr/lib/*/nvidia/current/libnvidia-ml.so.[0-9]*.*; do
  [ -f "$library" ] || continue
  version=${{library##*/libnvidia-ml.so.}}
  [ "$version" = "$loaded" ] || echo "the NVIDIA kernel module $loaded is loaded and the library is $version"
done
true
"""


class RebootReasons(FactBase[tuple[str, ...]]):
    """The reasons for a reboot, as sentences; empty when there is none."""

    @override
    def command(self) -> StringCommand:
        """Return the command; it never fails."""
        return StringCommand("sh", "-c", QuoteString(_LOOK), "labctl-reboot-reasons")

    @override
    @staticmethod
    def default() -> tuple[str, ...]:
        """Return that there is no reason."""
        return ()

    @override
    def process(self, output: list[str]) -> tuple[str, ...]:
        """Return each reason once."""
        return tuple(dict.fromkeys(line.strip() for line in output if line.strip()))
