#!/usr/bin/python3
"""List the AMD cards that ROCm would use; stands in for rocminfo on hosts of the lab.

It reads what the real one's library reads: the kernel's topology below /sys/class/kfd. A user who may not
open /dev/kfd gets the real one's refusal.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

NODES = Path("/sys/class/kfd/kfd/topology/nodes")
KFD = Path("/dev/kfd")


def main() -> int:
    """Print the agents; return the exit status."""
    if not NODES.is_dir():
        sys.stdout.write("ROCk module is NOT loaded, possibly no GPU devices\n")
        return 1
    sys.stdout.write("ROCk module is loaded\n")
    if not os.access(KFD, os.R_OK | os.W_OK):
        sys.stdout.write(f"Unable to open {KFD} read-write: Permission denied\n")
        sys.stdout.write("Make sure the current user is in the render group\n")
        return 1
    sys.stdout.write("HSA Agents\n==========\n")
    for number, node in enumerate(sorted(NODES.iterdir(), key=lambda path: int(path.name)), 1):
        said = dict(line.split() for line in (node / "properties").read_text().splitlines())
        sys.stdout.write(f"*******\nAgent {number}\n*******\n{_agent(said)}")
    sys.stdout.write("*** Done ***\n")
    return 0


def _agent(said: dict[str, str]) -> str:
    version = int(said.get("gfx_target_version", 0))
    if not version:
        return "  Name:                    CPU\n  Device Type:             CPU\n"
    gfx = f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
    return (
        f"  Name:                    {gfx}\n"
        f"  Uuid:                    GPU-{int(said['unique_id']):016x}\n"
        "  Vendor Name:             AMD\n"
        "  Device Type:             GPU\n"
        f"  Chip ID:                 {said['device_id']}(0x{int(said['device_id']):x})\n"
        f"  BDFID:                   {said['location_id']}\n"
        f"  Compute Unit:            {int(said['simd_count']) // 2}\n"
        "  ISA Info:\n    ISA 1\n"
        f"      Name:                    amdgcn-amd-amdhsa--{gfx}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
