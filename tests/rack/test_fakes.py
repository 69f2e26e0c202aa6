"""Hosts with fake graphics cards behave as hosts with real ones: drivers, boots, removed cards, refusals."""

from __future__ import annotations

import pytest
from declared import DeclaredHost

from conftest import GpuHost
from labctl.lab import Lab

pytestmark = pytest.mark.rack

INSTALL = "apt-get install -qq -y --no-install-recommends {} >/dev/null 2>&1 </dev/null"
DRIVER = "nvidia-kernel-dkms libnvidia-ml1 nvidia-smi"


def install(box: DeclaredHost, packages: str = DRIVER) -> None:
    box.run(INSTALL.format(packages))


def test_a_host_has_cards_and_no_driver_until_one_is_installed(gpu_host: GpuHost) -> None:
    box = gpu_host("cuda")
    assert box.run("cat /sys/bus/pci/devices/*/vendor | grep -c 0x10de") == "4"
    assert box.run("systemctl is-system-running --wait") == "running"
    box.run("! command -v nvidia-smi && ! ls /usr/lib/*/libnvidia-ml*")
    install(box)
    box.run("modprobe nvidia")
    assert box.run("nvidia-smi -L").count("NVIDIA GeForce RTX 3090 (UUID: GPU-") == 4
    assert box.run("modinfo -F version nvidia") == box.run("cat /sys/module/nvidia/version")
    assert box.run("ls /dev/nvidia0 /dev/nvidiactl")


def test_a_removed_card_is_gone_at_once_and_over_boots_until_it_is_put_back(
    gpu_rack: Lab, gpu_host: GpuHost
) -> None:
    box = gpu_host("cuda")
    install(box)
    box.run("modprobe nvidia")
    gone = gpu_rack.gpu_state("cuda")["cards"][2]
    gpu_rack.remove_gpu("cuda", 2)
    for _ in range(2):
        assert gone["uuid"] not in box.run("nvidia-smi -L")
        assert box.run("nvidia-smi -L | wc -l") == "3"
        assert gone["pci"] not in box.run("ls /sys/bus/pci/devices")
        box.reboot()
    gpu_rack.restore_gpus("cuda")
    box.reboot()
    assert gone["uuid"] in box.run("nvidia-smi -L")


def test_a_boot_loads_the_driver_and_forgets_what_was_set(gpu_rack: Lab, gpu_host: GpuHost) -> None:
    box = gpu_host("cuda")
    install(box)
    box.run("modprobe nvidia")
    gpu_rack.set_gpu("cuda", 0, power_limit_mw=200000, persistence=1)
    box.reboot()
    card = gpu_rack.gpu_state("cuda")["cards"][0]
    assert (card["cap_w"], card["persistence"]) == (350, False)
    assert box.run("nvidia-smi -L | wc -l") == "4"


def test_amd_cards_are_complete_and_refuse_as_the_kernel_does(gpu_rack: Lab, gpu_host: GpuHost) -> None:
    box = gpu_host("rocm")
    cap = "/sys/class/drm/card0/device/hwmon/hwmon3/power1_cap"
    assert box.run(f"cat {cap}") == "303000000"
    box.run(f"echo 280000000 > {cap}")
    assert gpu_rack.gpu_state("rocm")["cards"][0]["cap_w"] == 280
    box.run(f"! echo 999000000 > {cap}")
    box.run(f"su nobody -s /bin/sh -c 'cat {cap}'")
    assert box.run("stat -c %G:%a /dev/kfd /dev/dri/renderD128") == "render:660\nrender:660"
    box.reboot()
    assert box.run(f"cat {cap}") == "303000000"


def test_a_strix_halo_has_memory_to_share_and_no_cap(gpu_host: GpuHost) -> None:
    box = gpu_host("strix")
    box.run("! ls /sys/class/hwmon/hwmon*/power1_cap")
    box.run("echo 27648000 > /sys/module/ttm/parameters/pages_limit")
    assert box.run("cat /sys/module/ttm/parameters/pages_limit") == "27648000"
    assert "gfx_target_version 110501" in box.run("cat /sys/class/kfd/kfd/topology/nodes/1/properties")
