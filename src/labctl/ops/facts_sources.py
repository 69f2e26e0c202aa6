"""Which archives a host's apt uses: what it says of itself, and how each of them is signed.

apt is asked, because it alone knows how it reads its files; the signing key is then read from the very entry
that apt names, since two entries for one archive that state different keys are an error to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.facts import FactBase
from typing_extensions import override

_ASK = r"""
if ! said=$(apt-get indextargets --no-release-info \
  --format '$(SOURCESENTRY)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)' 'Created-By: Packages' 2>&1); then
  printf 'trouble %s\n' "$(printf '%s' "$said" | tr '\n' ' ')"
  exit 0
fi
printf '%s\n' "$said" | grep '|.*|.*|' | sort -u | while IFS='|' read -r entry uri release component; do
  file=${entry%:*} number=${entry##*:}
  case $file in
    *.sources) key=$(grep -v '^#' "$file" | awk -v n="$number" 'BEGIN { RS = "" } NR == n' |
      sed -n 's/^[Ss]igned-[Bb]y:[[:space:]]*//p') ;;
    *) key=$(sed -n "${number}s/.*[[ ]signed-by=\([^] ]*\).*/\1/p" "$file") ;;
  esac
  printf '%s|%s|%s|%s|%s\n' "$file" "$uri" "$release" "$component" "$key"
done
true
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One component of one suite of an archive, the file that names it, and its key ("" for apt's own)."""

    file: str
    uri: str
    suite: str
    component: str
    key: str


@dataclass(frozen=True, slots=True)
class Sources:
    """What a host's apt fetches lists of packages from; ``trouble`` is why it cannot say."""

    entries: tuple[Entry, ...] = ()
    trouble: str = ""


class Archives(FactBase[Sources]):
    """What a host's apt fetches lists of packages from."""

    @override
    def command(self) -> StringCommand:
        """Return the command; it never fails."""
        return StringCommand("sh", "-c", QuoteString(_ASK), "labctl-archives")

    @override
    @staticmethod
    def default() -> Sources:
        """Return that there are none."""
        return Sources()

    @override
    def process(self, output: list[str]) -> Sources:
        """Read one entry a line, or apt's trouble."""
        if output[0].startswith("trouble "):
            return Sources(trouble=output[0].removeprefix("trouble ").strip())
        return Sources(tuple(Entry(*line.split("|")) for line in output if line.count("|") == 4))
