#!/usr/bin/python3
"""List what Vulkan would draw on; stands in for ``vulkaninfo --summary`` on hosts of the lab.

Every AMD card with a render node that the user may open is a device of Mesa's RADV; without one there is only
the processor, as llvmpipe, which is what a real host shows too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CLASS = Path("/sys/class/drm")


def main() -> int:
    """Print the devices; return the exit status."""
    nodes = sorted(CLASS.glob("renderD*")) if CLASS.is_dir() else []
    cards = [node for node in nodes if os.access(Path("/dev/dri", node.name), os.R_OK | os.W_OK)]
    sys.stdout.write(
        "==========\nVULKANINFO\n==========\n\nVulkan Instance Version: 1.3.239\n\nDevices:\n========\n"
    )
    for number, node in enumerate(cards):
        device = (node / "device/device").read_text().strip()
        sys.stdout.write(_device(number, "0x1002", device, "PHYSICAL_DEVICE_TYPE_DISCRETE_GPU", "radv"))
    sys.stdout.write(_device(len(cards), "0x10005", "0x0000", "PHYSICAL_DEVICE_TYPE_CPU", "llvmpipe"))
    return 0


def _device(number: int, vendor: str, device: str, kind: str, driver: str) -> str:
    name = f"AMD Radeon Graphics (RADV {device})" if driver == "radv" else "llvmpipe (LLVM 15.0.6, 256 bits)"
    said = {
        "apiVersion": "1.3.230",
        "vendorID": vendor,
        "deviceID": device,
        "deviceType": kind,
        "deviceName": name,
        "driverName": driver,
    }
    return f"GPU{number}:\n" + "".join(f"\t{key:<18} = {value}\n" for key, value in said.items())


if __name__ == "__main__":
    sys.exit(main())
