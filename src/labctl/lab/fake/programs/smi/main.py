"""Show and set what NVIDIA's cards do, through NVML; stands in for nvidia-smi on hosts of the lab.

Its words, columns and exit statuses are those of the real program (550), as far as it goes: -L, the query
of columns (--query-gpu), the XML report (-q -x, the part that programs read), power limits (-pl), persistence
mode (-pm), locked clocks (-lgc, -rgc), and -i to choose cards. Like the real one it changes card after card
and stops at the first that refuses, and one lost card hides all others from its queries. What it does not
know, it refuses. It shares no code with labctl and needs only Python.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from ctypes import byref, c_uint

from .cards import INVALID, NOT_LOADED, UNSUPPORTED, WORDS, Card, Failed, count, version
from .columns import COLUMNS, REPORT
from .ends import End, say
from .orders import change, limit_power, lock_clocks, refused, set_persistence, unlock_clocks

NONE_FOUND, NO_LIBRARY = 6, 12


def open_nvml() -> ctypes.CDLL:
    """Return NVML, initialised."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        raise End(
            NO_LIBRARY,
            "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that the "
            "NVIDIA Display Driver is properly installed and present in your system.\nPlease also try adding "
            "directory that contains libnvidia-ml.so to your system PATH.",
        ) from None
    code = nvml.nvmlInit_v2()
    if code == NOT_LOADED:
        raise End(
            code,
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that "
            "the latest NVIDIA driver is installed and running.\n",
        )
    if code:
        nvml.nvmlErrorString.restype = ctypes.c_char_p
        raise End(code, f"Failed to initialize NVML: {nvml.nvmlErrorString(code).decode()}")
    return nvml


def lost(name: str, code: int) -> str:
    """Return what is said of a card whose handle can't be had."""
    reason = f"{WORDS.get(code, 'Unknown Error')}.  Reboot the system to recover this GPU\n\n"
    return f"Unable to determine the device handle for {name}: {reason}"


def chosen(nvml: ctypes.CDLL, wanted: str | None) -> list[Card]:
    """Return the cards that ``-i`` names by number, UUID or address; one that is lost ends it all."""
    found = []
    for index in range(count(nvml)):
        if wanted is not None and wanted.isdecimal() and int(wanted) != index:
            continue
        try:
            card = Card(nvml, index)
            if wanted in (None, str(index), card.text("UUID")) or (wanted or "").upper() == card.bus:
                found.append(card)
        except Failed as failure:
            raise End(failure.code, lost(f"GPU{index}", failure.code)) from None
    if not found:
        raise End(NONE_FOUND, "No devices were found")
    return found


def show_list(nvml: ctypes.CDLL) -> int:
    """Print one line for each card; return the exit status."""
    status = 0
    for index in range(count(nvml)):
        try:
            card = Card(nvml, index)
            say(f"GPU {index}: {card.text('Name')} (UUID: {card.text('UUID')})")
        except Failed as failure:
            say(lost(f"gpu {index}", failure.code))
            status = failure.code
    if not count(nvml):
        say("No devices found.")
    return status


def cell(card: Card, fill: Callable[[Card], str], unit: str = "", around: str = "{}") -> str:
    """Return a value with its unit, or why there is none."""
    try:
        value = fill(card)
    except Failed as failure:
        words = WORDS.get(failure.code, "Unknown Error")
        return around.format("N/A" if failure.code == UNSUPPORTED else words)
    return f"{value} {unit}" if unit else value


def show_columns(cards: list[Card], names: list[str], form: list[str]) -> None:
    """Print the columns as CSV."""
    for name in names:
        if name not in COLUMNS and name != "timestamp":
            raise End(INVALID, f'Field "{name}" is not a valid field to query.\n')
    bare = "nounits" in form
    known = [("timestamp", "", _now) if name == "timestamp" else COLUMNS[name] for name in names]
    if "noheader" not in form:
        say(", ".join(head + (f" [{unit}]" if unit and not bare else "") for head, unit, _ in known))
    for card in cards:
        say(", ".join(cell(card, fill, "" if bare else unit, "[{}]") for _, unit, fill in known))


def _now(_card: Card) -> str:
    return time.strftime("%Y/%m/%d %H:%M:%S.000")


def show_report(nvml: ctypes.CDLL, cards: list[Card]) -> None:
    """Print the XML report."""
    cuda = c_uint()
    nvml.nvmlSystemGetCudaDriverVersion_v2(byref(cuda))
    say('<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n<nvidia_smi_log>')
    say(f"\t<timestamp>{time.strftime('%a %b %d %H:%M:%S %Y')}</timestamp>")
    say(f"\t<driver_version>{version(nvml, 'Driver')}</driver_version>")
    say(f"\t<cuda_version>{cuda.value // 1000}.{cuda.value % 1000 // 10}</cuda_version>")
    say(f"\t<attached_gpus>{count(nvml)}</attached_gpus>")
    for card in cards:
        say(f'\t<gpu id="{card.bus}">')
        for line in report(card):
            say(line)
        say("\t</gpu>\n")
    say("</nvidia_smi_log>")


def report(card: Card) -> Iterator[str]:
    """Yield the lines of one card's report."""
    within: list[str] = []
    for depth, name, source in REPORT:
        while len(within) > depth - 2:
            yield "\t" * (len(within) + 1) + f"</{within.pop()}>"
        if source is None:
            yield "\t" * depth + f"<{name}>"
            within.append(name)
            continue
        unit, fill = COLUMNS[source][1:] if isinstance(source, str) else ("", source)
        yield "\t" * depth + f"<{name}>{cell(card, fill, unit)}</{name}>"
    while within:
        yield "\t" * (len(within) + 1) + f"</{within.pop()}>"


def numbers(flag: str, text: str, kind: type[float] | type[int] = int) -> list[float]:
    """Return the numbers behind a flag."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise End(
            INVALID, f"ERROR: Option {text} is invalid for {flag}. Please run 'nvidia-smi -h' for help.\n"
        ) from None


def parse(argv: list[str]) -> dict[str, str]:
    """Return the options by name; those with a value take the next word, or what stands behind ``=``."""
    found: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("-i", "--id", "-pl", "-pm", "-lgc"):
            found["-i" if name == "--id" else name] = value if equals else next(words, "")
        elif name in ("--query-gpu", "--format", "-L", "-q", "-x", "-rgc"):
            found[name] = value
        else:
            raise End(255, f"ERROR: Option {word} is not recognized. Please run 'nvidia-smi -h'.\n")
    return found


def obey(options: dict[str, str]) -> int:
    """Do what the options ask for; return the exit status."""
    wanted = options.pop("-i", None)
    changes: list[Callable[[Card], str]] = []
    if "-pl" in options:
        changes.append(limit_power(numbers("-pl", options["-pl"], float)[0]))
    if "-pm" in options:
        if options["-pm"] not in ("0", "1"):
            raise refused(INVALID, f"Invalid persistence mode: {options['-pm']}")
        changes.append(set_persistence(int(options["-pm"])))
    if "-lgc" in options:
        clocks = [int(clock) for clock in numbers("-lgc", options["-lgc"])]
        changes.append(lock_clocks(clocks[0], clocks[-1]))
    if "-rgc" in options:
        changes.append(unlock_clocks)
    if "-L" in options and wanted is not None:
        raise End(
            INVALID, "ERROR: Option -i is not valid for this command. Please run 'nvidia-smi -h' for help.\n"
        )
    nvml = open_nvml()
    if "-L" in options:
        return show_list(nvml)
    cards = chosen(nvml, wanted)
    for act in changes:
        change(cards, act)
    if "--query-gpu" in options:
        show_columns(cards, options["--query-gpu"].split(","), options.get("--format", "csv").split(","))
    elif "-q" in options or not changes:
        show_report(nvml, cards)
    return 0


def main(argv: list[str]) -> int:
    """Do what the command line asks for; return the exit status."""
    try:
        return obey(parse(argv[1:]))
    except End as end:
        say(end.words)
        return end.status
