#!/usr/bin/python3
"""Load and unload (fake) modules of graphics cards; stands in for modprobe and rmmod on hosts of the lab.

A host in a container can't load modules. For the cards' modules this does what the kernel would do: it takes
the version from the module file on disk, binds the cards, shows the module in /sys/module and /proc/modules,
and tells the fake NVML. Loading a module that is loaded changes nothing, so an upgrade on disk meets the old
module until a reload or reboot. A module in use, or whose card another driver holds, is refused as the kernel
does. Whatever has nothing to do with graphics goes to the real program.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

GPU = Path("/opt/lab/gpu")
NVIDIA = "0x10de"
AFTER_NVIDIA = ("nvidia_modeset", "nvidia_drm", "nvidia_uvm")
OURS = ("nouveau", "nvidia", *AFTER_NVIDIA, "amdgpu")
DEVICES = "sys/devices/pci0000:00"
_FORGETS = re.compile(r"gpu\d+\.(lock_min|lock_max|procs)=")
_LIMIT = re.compile(r"(gpu\d+)\.power_limit_mw=")


class Refused(Exception):
    """The kernel would not do it; the text is what modprobe says."""


def put(path: Path, value: object, mode: int = 0o444) -> None:
    """Write one file of the tree."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")
    path.chmod(mode)


def is_loaded(tree: Path, module: str) -> bool:
    """Return whether the tree shows a module."""
    return (tree / "sys/module" / module / "initstate").exists()


def bind(tree: Path, driver: str, vendor: str) -> int:
    """Bind the cards of a maker that no driver holds; return how many are bound to ``driver`` then."""
    drivers = tree / "sys/bus/pci/drivers" / driver
    drivers.mkdir(parents=True, exist_ok=True)
    for device in (tree / DEVICES).iterdir():
        if (device / "vendor").read_text().strip() == vendor and not (device / "driver").is_symlink():
            (device / "driver").symlink_to(os.path.relpath(drivers, device))
            (drivers / device.name).symlink_to(os.path.relpath(device, drivers))
    return len(list(drivers.iterdir()))


def nodes(tree: Path) -> list[str]:
    """Return the device files that go with the loaded nvidia module."""
    if not is_loaded(tree, "nvidia"):
        return []
    number = len(list((tree / "sys/bus/pci/drivers/nvidia").iterdir()))
    return [f"/dev/nvidia{end}" for end in (*range(number), "ctl", "-uvm")]


def make_nodes(tree: Path) -> None:
    """Make the device files that are missing; they are /dev/null, so that no real card is ever reached."""
    for path in map(Path, nodes(tree)):
        if not path.exists():
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            path.chmod(0o666)


def show(tree: Path, module: str, version: str = "") -> None:
    """Show a module as loaded."""
    folder = tree / "sys/module" / module
    put(folder / "initstate", "live")
    put(folder / "refcnt", 0)
    if version:
        put(folder / "version", version)
    modules = tree / "proc/modules"
    text = modules.read_text() if modules.exists() else ""
    put(modules, f"{text}{module} 4194304 0 - Live 0x0000000000000000".strip())
    if module == "nvidia":
        put(
            tree / "proc/driver/nvidia/version",
            f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Mon Jan  1 00:00:00 UTC 2024\n"
            "GCC version:  gcc version 12.2.0",
        )


def hide(tree: Path, module: str) -> None:
    """Show a module as not loaded and its cards as nobody's."""
    shutil.rmtree(tree / "sys/module" / module, ignore_errors=True)
    modules = tree / "proc/modules"
    lines = [line for line in modules.read_text().splitlines() if line.split()[0] != module]
    modules.chmod(0o644)
    modules.write_text("".join(f"{line}\n" for line in lines))
    drivers = tree / "sys/bus/pci/drivers" / module
    if drivers.is_dir():
        for device in drivers.iterdir():
            (tree / DEVICES / device.name / "driver").unlink(missing_ok=True)
        shutil.rmtree(drivers)
    if module == "nvidia":
        shutil.rmtree(tree / "proc/driver/nvidia", ignore_errors=True)


def tell_nvml(state: Path, driver: str | None) -> None:
    """Tell the fake NVML which module is loaded; one that goes forgets what was set, persistence mode too."""
    with state.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lines = [line for line in file.read().splitlines() if not line.startswith(("driver=", "cuda="))]
        if driver is None:
            values = dict(line.split("=", 1) for line in lines if "=" in line)
            lines = [_fresh(line, values) for line in lines if not _FORGETS.match(line)]
        else:
            cuda = 13000 if int(driver.split(".")[0]) >= 580 else 12020
            lines = [f"driver={driver}", f"cuda={cuda}", *lines]
        file.seek(0)
        file.truncate()
        file.write("".join(f"{line}\n" for line in lines))


def _fresh(line: str, values: dict[str, str]) -> str:
    card = _LIMIT.match(line)
    if card:
        return f"{card[0]}{values[f'{card[1]}.power_default_mw']}"
    return re.sub(r"(gpu\d+\.persistence)=.*", r"\1=0", line)


def in_use(state: Path) -> bool:
    """Return whether some process is a client of the driver."""
    clients = state.with_name(f"{state.name}.clients")
    if not clients.exists():
        return False
    with clients.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def load(tree: Path, state: Path, module: str, version: str) -> None:
    """Load a module as the kernel would.

    Raises:
        Refused: its card is another driver's, or there is none.
    """
    if is_loaded(tree, module):
        return
    if module in AFTER_NVIDIA and not is_loaded(tree, "nvidia"):
        load(tree, state, "nvidia", version)
    if module in ("nvidia", "nouveau") and not bind(tree, module, NVIDIA):
        raise Refused(f"could not insert '{module}': No such device")
    show(tree, module, version)
    if module == "nvidia":
        tell_nvml(state, version)


def unload(tree: Path, state: Path, module: str) -> None:
    """Unload a module, unless something uses it.

    Raises:
        Refused: something uses it.
    """
    if not is_loaded(tree, module):
        return
    users = [other for other in AFTER_NVIDIA if module == "nvidia" and is_loaded(tree, other)]
    if users or (module == "nvidia" and in_use(state)):
        raise Refused(f"Module {module} is in use{' by: ' + ' '.join(users) if users else ''}.")
    hide(tree, module)
    if module == "nvidia":
        tell_nvml(state, None)


def on_disk(module: str) -> str | None:
    """Return the version of a module's file, or None where there is no file."""
    name = "nvidia" if module in AFTER_NVIDIA else module
    if module == "nouveau":
        return ""
    found = subprocess.run(["/usr/sbin/modinfo", "-F", "version", name], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


def main(argv: list[str]) -> int:
    """Do what modprobe or rmmod was asked for; return its exit status."""
    program = Path(argv[0]).name
    names = [word.replace("-", "_") for word in argv[1:] if not word.startswith("-")]
    flags = "".join(word for word in argv[1:] if word.startswith("-"))
    ours = [name for name in names if name in OURS]
    if not ours or "n" in flags.replace("-", "") or "show" in flags or "resolve" in flags:
        os.execv(f"/usr/sbin/{program}", [program, *argv[1:]])
    remove = program == "rmmod" or "r" in flags
    tree, state = GPU / "tree", GPU / "nvidia.state"
    try:
        for name in ours:
            if remove:
                unload(tree, state, name)
                continue
            version = on_disk(name)
            if version is None:
                where = f"/lib/modules/{os.uname().release}"
                raise Refused(f"Module {name} not found in directory {where}")
            load(tree, state, name, version)
            make_nodes(tree)
    except Refused as refusal:
        sys.stderr.write(
            f"{program}: FATAL: {refusal}\n" if program == "modprobe" else f"rmmod: ERROR: {refusal}\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
