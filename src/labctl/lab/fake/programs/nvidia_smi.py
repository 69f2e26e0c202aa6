#!/usr/bin/python3
"""List the (fake) NVIDIA cards; stands in for nvidia-smi on hosts of the lab."""

from __future__ import annotations

import ctypes
import sys


def main(argv: list[str]) -> int:
    """Do ``nvidia-smi -L``; return the exit status."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        sys.stdout.write("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.\n")
        return 12
    status = nvml.nvmlInit_v2()
    if status:
        return int(status)
    number, card, text = ctypes.c_uint(), ctypes.c_void_p(), ctypes.create_string_buffer(96)
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(number))
    for index in range(number.value):
        nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(card))
        nvml.nvmlDeviceGetName(card, text, 96)
        name = text.value.decode()
        nvml.nvmlDeviceGetUUID(card, text, 96)
        sys.stdout.write(f"GPU {index}: {name} (UUID: {text.value.decode()})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
