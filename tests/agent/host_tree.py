"""A host as a tree of files: what the kernel, logind and people leave there for signals to read."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from labctl.agent.signals.terms import Host

AGENT_UID = 987
_TCP_HEAD = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
)
SSHD = ("10.0.0.5", 22)


class Tree:
    """A quiet host: nobody is there, nothing runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = Host(root, AGENT_UID)
        self.write(
            {
                "proc/net/tcp": _TCP_HEAD,
                "proc/net/tcp6": _TCP_HEAD,
                "proc/locks": "",
                "proc/loadavg": "0.10 0.05 0.01 1/100 4242\n",
                "etc/passwd": f"root:x:0:0::/root:/bin/sh\nlabctl-agent:x:{AGENT_UID}:987::/:/bin/sh\n",
            }
        )
        for folder in ("run/systemd/sessions", "run/systemd/inhibit", "sys/fs/cgroup/system.slice"):
            (root / folder).mkdir(parents=True)

    def write(self, files: dict[str, str]) -> Path:
        for name, content in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return self.root

    def remove(self, name: str) -> None:
        path = self.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def process(
        self, pid: int, name: str, *words: str, group: str = "", parent: int = 1, **environment: str
    ) -> None:
        """Have a process; ``group`` is its unit's place in the tree of control groups."""
        self.write(
            {
                f"proc/{pid}/stat": f"{pid} ({name}) S {parent} {pid} {pid} 0\n",
                f"proc/{pid}/comm": f"{name}\n",
                f"proc/{pid}/cmdline": "".join(f"{word}\0" for word in words),
                f"proc/{pid}/environ": "".join(f"{key}={value}\0" for key, value in environment.items()),
                f"proc/{pid}/cgroup": f"0::/{group}\n" if group else "0::/init.scope\n",
            }
        )
        if group:
            place = self.root / "sys/fs/cgroup" / group / "cgroup.procs"
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("a") as file:
                file.write(f"{pid}\n")

    def session(self, name: str, uid: int = 1000, user: str = "alice", **fields: str) -> None:
        """Have a session of logind, by SSH unless the fields say otherwise."""
        known = {
            "UID": str(uid),
            "USER": user,
            "STATE": "active",
            "REMOTE": "1",
            "CLASS": "user",
            "REMOTE_HOST": "10.0.0.9",
            "SERVICE": "sshd",
            "SCOPE": f"session-{name}.scope",
            **fields,
        }
        lines = "".join(f"{key}={value}\n" for key, value in known.items() if value)
        self.write({f"run/systemd/sessions/{name}": f"# This is private data. Do not parse.\n{lines}"})

    def connections(self, *ends: tuple[tuple[str, int], tuple[str, int]], state: str = "01") -> None:
        """Have these connections and no others: this host's end and the other one."""
        four, six = [], []
        for here, there in ends:
            line = f"   0: {_end(*here)} {_end(*there)} {state} 00000000:00000000 00:00000000 0 0 0 1\n"
            (six if ":" in here[0] else four).append(line)
        self.write({"proc/net/tcp": _TCP_HEAD + "".join(four), "proc/net/tcp6": _TCP_HEAD + "".join(six)})


def _end(address: str, port: int) -> str:
    packed = ip_address(address).packed
    words: Iterable[tuple[int]] = struct.iter_unpack("=I", packed)
    return "".join(f"{word:08X}" for (word,) in words) + f":{port:04X}"
