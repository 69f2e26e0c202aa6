"""Hosts with fake graphics cards behave as hosts with real ones: drivers, boots, removed cards, refusals."""

from __future__ import annotations

import json

import pytest
from declared import DeclaredHost, GpuHost

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


def test_a_driver_comes_and_goes_with_its_module(gpu_rack: Lab, gpu_host: GpuHost) -> None:
    box = gpu_host("cuda")
    install(box)
    assert "couldn't communicate with the NVIDIA driver" in box.run("nvidia-smi -L", status=9)
    box.run("modprobe nvidia && nvidia-smi -pm 1 && nvidia-smi -pl 200")
    assert [card["cap_w"] for card in gpu_rack.gpu_state("cuda")["cards"]] == [200] * 4
    box.run("modprobe -r nvidia && modprobe nvidia")
    assert [card["cap_w"] for card in gpu_rack.gpu_state("cuda")["cards"]] == [350] * 4


def test_without_persistence_mode_a_cap_is_forgotten_and_the_daemon_keeps_it(
    gpu_rack: Lab, gpu_host: GpuHost
) -> None:
    box = gpu_host("cuda")
    install(box, f"{DRIVER} nvidia-persistenced")
    box.run("modprobe nvidia && systemctl stop nvidia-persistenced && nvidia-smi -i 0 -pl 200")
    assert gpu_rack.gpu_state("cuda")["cards"][0]["cap_w"] == 350
    box.run("systemctl start nvidia-persistenced && nvidia-smi -i 0 -pl 200")
    assert gpu_rack.gpu_state("cuda")["cards"][0] | {"cap_w": 200} == gpu_rack.gpu_state("cuda")["cards"][0]
    assert "in use" in box.run("modprobe -r nvidia 2>&1", status=1)


def test_broken_cards_and_drivers_are_what_nvidia_smi_says_of_real_ones(
    gpu_rack: Lab, gpu_host: GpuHost
) -> None:
    box = gpu_host("cuda")
    install(box)
    box.run("modprobe nvidia")
    gpu_rack.gpu_fault("cuda", 1, "lost")
    assert "GPU is lost" in box.run("nvidia-smi -L", status=15)
    gpu_rack.gpu_fault("cuda", None, "heal")
    gpu_rack.gpu_fault("cuda", 1, "refuse")
    assert "Insufficient Permissions" in box.run("nvidia-smi -pl 300", status=4)
    gpu_rack.gpu_fault("cuda", None, "mismatch")
    assert "version mismatch" in box.run("nvidia-smi -L", status=18)
    box.reboot()
    assert box.run("nvidia-smi -pl 300").count("was set to 300.00 W") == 4


def test_the_free_driver_holds_the_cards_until_it_is_kept_from_them(gpu_rack: Lab, gpu_host: GpuHost) -> None:
    box = gpu_host("cuda")
    gpu_rack.gpu_fault("cuda", None, "nouveau")
    install(box)
    assert "No such device" in box.run("modprobe nvidia 2>&1", status=1)
    box.run("echo 'blacklist nouveau' > /etc/modprobe.d/nouveau.conf")
    box.reboot()
    assert box.run("nvidia-smi -L | wc -l") == "4"
    assert not box.run("ls /sys/module | grep nouveau || true")


def test_a_driver_of_another_branch_comes_in_another_release(gpu_host: GpuHost) -> None:
    box = gpu_host("blackwell")
    assert box.run("cat /sys/bus/pci/devices/*/vendor | grep -c 0x10de") == "2"
    said = box.run("apt-cache policy libnvidia-ml1")
    assert "1001 file:/opt/lab/packages/trixie" in said


def test_the_agent_reports_the_cards(gpu_rack: Lab, gpu_host: GpuHost) -> None:
    box = gpu_host("cuda")
    install(box)
    box.run("modprobe nvidia")
    box.declare(fields=f"gpus=[{box.gpus()}], ")
    box.apply("agent")
    report = json.loads(box.run("/usr/local/lib/labctl/agent.pyz report"))
    seen = {(card["uuid"], card["cap_w"]) for card in report["nvidia"]["gpus"]}
    assert seen == {(card["uuid"], 350) for card in gpu_rack.gpu_state("cuda")["cards"]}
