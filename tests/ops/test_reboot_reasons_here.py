"""Why a host needs a reboot, as the question answers it in a file system that a test made up."""

from __future__ import annotations

import pytest
from ops_hosts import Here

from labctl.ops import facts_reboot
from labctl.ops.facts_reboot import RebootReasons


@pytest.fixture
def asked(here: Here, monkeypatch: pytest.MonkeyPatch) -> Here:
    """A host whose /run, /sys and /usr/lib lie below the test's own folder."""
    look = facts_reboot._LOOK
    for folder in ("/run", "/sys", "/usr/lib"):
        (here.root / folder[1:]).mkdir(parents=True)
        look = look.replace(f"{folder}/", f"{here.root}{folder}/")
    monkeypatch.setattr(facts_reboot, "_LOOK", look)
    return here


def driver(host: Here, loaded: str, disk: str, library: str) -> None:
    """Have these versions of the kernel module and of the library; "" is none."""
    module = host.root / "sys/module/nvidia"
    module.mkdir(parents=True)
    (module / "version").write_text(f"{loaded}\n")
    host.stand_in("modinfo", f"echo {disk}" if disk else "exit 1")
    folder = host.root / "usr/lib/x86_64-linux-gnu"
    folder.mkdir()
    (folder / f"libnvidia-ml.so.{library}").touch()
    (folder / "libnvidia-ml.so.1").symlink_to(f"libnvidia-ml.so.{library}")


def test_without_a_reason_there_is_none(asked: Here) -> None:
    assert asked.get_fact(RebootReasons) == ()


def test_packages_and_notes_are_reasons(asked: Here) -> None:
    (asked.root / "run/reboot-required").touch()
    (asked.root / "run/reboot-required.pkgs").write_text("linux-image\nlinux-image\n")
    notes = asked.root / "run/labctl/reboot-required.d"
    notes.mkdir(parents=True)
    (notes / "one").write_text("graphics may take more memory\n")
    assert asked.get_fact(RebootReasons) == (
        "graphics may take more memory",
        "updated packages ask for it: linux-image",
    )


@pytest.mark.parametrize(
    ("loaded", "disk", "library", "reasons"),
    [
        ("535.1", "535.1", "535.1", ()),
        ("535.1", "535.2", "535.2", ("the NVIDIA kernel module 535.1 is loaded and 535.2 is installed",)),
        ("535.1", "", "535.2", ("the NVIDIA kernel module 535.1 is loaded and the library is 535.2",)),
        ("535.1", "535.1", "535.2", ()),
    ],
    ids=("fits", "updated", "module-file-unknown", "same-module-after-a-boot"),
)
def test_a_driver_is_a_reason_only_if_the_next_boot_loads_another(
    asked: Here, loaded: str, disk: str, library: str, reasons: tuple[str, ...]
) -> None:
    driver(asked, loaded, disk, library)
    assert asked.get_fact(RebootReasons) == reasons
