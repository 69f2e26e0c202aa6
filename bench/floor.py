"""The floor: what no tool can go below that logs in to each host over SSH and asks one question.

Connects to every host at once with paramiko, proves the host key against the pinned ones, logs in, and runs
``true``. Prints one JSON object: ``net_s`` is that alone, with the interpreter and paramiko loaded already;
the whole process is timed by whoever runs this. Usage: floor.py USER KEY KNOWN_HOSTS ADDRESS...
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import paramiko

from labctl.inventory.connect import nodelay_transport


def visit(address: str, user: str, key: str, known_hosts: str) -> float:
    """Log in to one host, run one command, and return the seconds that it took."""
    started = time.perf_counter()
    client = paramiko.SSHClient()
    client.load_host_keys(known_hosts)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(
        address,
        username=user,
        key_filename=key,
        allow_agent=False,
        look_for_keys=False,
        transport_factory=nodelay_transport,
    )
    _, stdout, _ = client.exec_command("true", timeout=30)
    if stdout.channel.recv_exit_status() != 0:
        raise RuntimeError(f"{address}: true failed")
    took = time.perf_counter() - started
    client.close()
    return took


def main() -> int:
    """Visit every host and print what it took."""
    user, key, known_hosts, *addresses = sys.argv[1:]
    cpu, started = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(len(addresses)) as pool:
        each = list(pool.map(lambda address: visit(address, user, key, known_hosts), addresses))
    took = {
        "net_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu,
        "slowest_s": max(each),
    }
    print(json.dumps(took))
    return 0


if __name__ == "__main__":
    sys.exit(main())
