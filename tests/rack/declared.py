"""A lent host with an inventory that a test writes and rewrites, driven by labctl and by plain pyinfra."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import indent
from typing import Any

from rack_driving import labctl

from labctl import content
from labctl.lab import Lab, LabHost
from labctl.lab.processes import wait_until

PYINFRA = str(Path(sys.executable).with_name("pyinfra"))
NAMES = (
    "Amd, Artifact, Circuit, Command, Gpu, Host, LlamaCpp, LlamaServer, Model, Nvidia, Psu, PythonEnv, Rack, "
    "Secret, Ssh, Vllm, WakeOnLan"
)


class DeclaredHost:
    """One host that labctl provisions; ``declare`` says how it shall be."""

    def __init__(self, rack: Lab, host: LabHost, file: Path) -> None:
        self.rack, self.host, self.file = rack, host, file

    def declare(self, services: str = "", models: str = "", fields: str = "", rack: str = "") -> None:
        """Write the inventory; ``fields`` (of the host) and ``rack`` are arguments with a comma behind."""
        self.file.write_text(
            f"from labctl.inventory import {NAMES}\n"
            "rack = Rack(\n"
            '    name="test", ssh=Ssh(user="admin", key="keys/operator"),\n'
            f"    {rack}models=[{models}],\n"
            f'    hosts=[Host(name="{self.host.name}", address="{self.host.address}", {fields}services=[\n'
            f"{indent(services, ' ' * 8)}    ])],\n"
            ")\n"
            "globals().update(rack.groups())\n"
        )

    def gpus(self, *, placed: bool = False, **fields: Any) -> str:
        """Return the host's cards for ``fields``, each by model and a slot's name, with these fields more.

        ``placed`` cards have their PCI address, too, so that nothing takes one for another.
        """
        more = "".join(f", {name}={value!r}" for name, value in fields.items())
        seen = self.rack.gpu_state(self.host.name)["cards"] if placed else ()
        where = [f', pci="{card["pci"]}"' for card in seen] or [""] * len(self.host.gpus)
        cards = zip(self.host.gpus, where, strict=True)
        return ", ".join(f'Gpu(model="{m}", slot="slot{n}"{at}{more})' for n, (m, at) in enumerate(cards))

    def reboot(self, within: float = 60) -> None:
        """Reboot the host in an orderly way and wait until it answers."""
        self.rack.stop(self.host.name, within)
        self.rack.start(self.host.name)

    def report(self, verb: str, *options: str) -> dict[str, Any]:
        """Run ``labctl plan`` or ``apply``; return what it says of the host, which must be well."""
        done = labctl(verb, str(self.file), "--json", *options)
        assert done.returncode == 0, done.stdout + done.stderr
        (report,) = json.loads(done.stdout)["hosts"]
        found: dict[str, Any] = report
        return found

    def apply(self, *only: str) -> int:
        """Apply all deploys or only these; return how many operations changed something."""
        return int(self.report("apply", "--yes", *(f"--only={name}" for name in only))["changed"])

    def fails(self, *only: str) -> str:
        """Apply, expect that the host fails, and return what is said about it."""
        done = labctl("apply", str(self.file), "--yes", *(f"--only={name}" for name in only))
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stdout + done.stderr

    def plan(self, *only: str) -> dict[str, str]:
        """Return the state that labctl plans for each operation."""
        planned = self.report("plan", *(f"--only={name}" for name in only))["plan"]
        return {op["name"]: op["state"] for op in planned}

    def pyinfra(self, deploy: str, *options: str) -> dict[str, Any]:
        """Run plain pyinfra as its own manual says, from the folder that holds ``deploys/``."""
        argv = [PYINFRA, "--json", str(self.file), f"deploys/{deploy}.py", *options]
        done = subprocess.run(
            argv, cwd=content.deploys_dir().parent, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def run(self, script: str, status: int = 0) -> str:
        """Run a shell script on the host as root, past SSH; return what it prints."""
        done = self.rack.run(self.host.name, ["sh", "-c", script], timeout=180)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout.strip()

    def ssh(self, user: str, key: Path, *command: str) -> subprocess.CompletedProcess[str]:
        """Log in by this key and nothing else, and run a command."""
        argv = [
            "ssh",
            "-n",
            "-F",
            "/dev/null",
            "-i",
            str(key),
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "BatchMode=yes",
        ]
        argv += ["-o", f"UserKnownHostsFile={self.file.parent / 'known_hosts'}", "-o", "ConnectTimeout=10"]
        return subprocess.run(
            [*argv, f"{user}@{self.host.address}", *command], capture_output=True, text=True, timeout=60
        )

    def fetch(self, url: str, *options: str) -> str:
        """Return what a web server on the host answers to the host itself, once it answers."""
        argv = ["curl", "-sS", "--fail-with-body", *options, url]
        assert wait_until(lambda: self.rack.run(self.host.name, argv).returncode == 0, within=30), url
        return self.rack.run(self.host.name, argv).stdout


GpuHost = Callable[[str], DeclaredHost]
