"""The virtual rack: real Debian hosts on one machine, to try labctl with no hardware and to test it.

Each host runs systemd as PID 1, sshd and apt, and has its own address, MAC, SSH host key, machine id and
boot id. All of them live in one sandbox (mount, network and process namespaces); when its first process
dies, the kernel removes every process, mount and interface of the rack. Unsure whether something belongs to
a rack, the lab leaves it alone: it ends only processes which it recorded itself, known by number *and*
start time.

The parts: ``spec`` says what a rack is, ``bases`` builds the Debian trees, ``daemon`` (outside) owns
``sandbox`` (inside), ``proxy`` lets hosts use the machine's own apt archives, and ``Lab`` is what callers
hold.
"""

from __future__ import annotations

from labctl.lab.client import Lab
from labctl.lab.spec import LabHost, LabSpec

__all__ = ["Lab", "LabHost", "LabSpec"]
