"""Time ``labctl models pull`` to 8 hosts against 1, on a virtual rack, and count what the first host sends.

    .venv/bin/python bench/fanout.py --mib 256 --hosts 8 --rate-mbit 400

The file lies on one host; nothing is downloaded. All hosts run on this machine and share its processors, so
their cables are slowed to ``--rate-mbit``: then it is the network that counts, as in a real rack. Promised is
that the first host sends each byte at most twice. Needs root, like the lab.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from ipaddress import IPv4Network
from pathlib import Path

from labctl import wiring
from labctl.inventory import load_rack
from labctl.lab import Lab, LabHost
from labctl.lab.spec import LabSpec, mac_for
from labctl.weights import places
from labctl.weights.news import Result, Wish
from labctl.weights.pull import pull

NETWORK = IPv4Network("10.214.0.0/24")
PATH = "/srv/models/big/big.gguf"
MIB = 1 << 20
RACK = """\
from labctl.inventory import Command, Host, Model, Rack, Ssh
serves = [Command(name="any", argv=["/bin/true"], model="big")]
rack = Rack(name="bench", ssh=Ssh(user="admin", key="keys/operator"),
    models=[Model(id="big", source="file:///root/none", path="{path}", sha256="{sha256}")],
    hosts=[{hosts}])
globals().update(rack.groups())
"""


def described(folder: Path, number: int) -> LabSpec:
    """Return a rack of that many hosts, whose operator's key lies in ``folder``."""
    key = folder / "operator"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    addresses = [str(NETWORK[10 + index]) for index in range(number)]
    hosts = (LabHost(f"h{index}", ip, mac_for(ip), "trixie") for index, ip in enumerate(addresses))
    return LabSpec(
        name="fanout",
        hosts=tuple(hosts),
        network=NETWORK,
        state_dir=folder,
        cache_dir=wiring.cache_home() / "lab",
        operator_pubkey=key.with_suffix(".pub").read_text(),
    )


def inventory(lab: Lab, folder: Path, hosts: int, sha256: str) -> Path:
    """Write a rack file for the source and that many hosts more; return its path."""
    place = folder / f"rack-{hosts}"
    (place / "keys").mkdir(parents=True)
    for suffix, mode in (("", 0o600), (".pub", 0o644)):
        copy = place / "keys" / f"operator{suffix}"
        copy.write_text((folder / f"operator{suffix}").read_text())
        copy.chmod(mode)
    chosen = lab.spec.hosts[: hosts + 1]
    lines = (f'Host(name="{h.name}", address="{h.address}", services=serves)' for h in chosen)
    (place / "rack.py").write_text(RACK.format(path=PATH, sha256=sha256, hosts=", ".join(lines)))
    known = "".join(f"{h.address} {lab.host_key(h.name)}\n" for h in chosen)
    (place / "known_hosts").write_text(known)
    return place / "rack.py"


def timed(rack: Path) -> tuple[float, Result]:
    """Pull from h0 and return the seconds that it took, and how it ended."""
    loaded = load_rack(rack)
    started = time.monotonic()
    wish = Wish(places.to_pull(loaded, (), ()), source="h0")
    result = pull(loaded, wish, wiring.talker(), lambda news: None)
    bad = {host: list(result.reasons(host)) for host in result.hosts if result.status(host) != "ok"}
    if bad:
        sys.exit(f"it failed: {bad}")
    return time.monotonic() - started, result


def main() -> None:
    """Measure, print, and fail where the promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--rate-mbit", type=int, default=400)
    given = parser.parse_args()
    content = os.urandom(given.mib * MIB)
    sha256 = hashlib.sha256(content).hexdigest()
    with tempfile.TemporaryDirectory() as folder, Lab(described(Path(folder), given.hosts + 1)) as lab:
        source = lab.root("h0") / PATH.lstrip("/")
        source.parent.mkdir(parents=True)
        source.write_bytes(content)
        for host in lab.spec.hosts:
            lab.slow(host.name, rate_kbit=given.rate_mbit * 1000)
        # The first run hashes what lies on h0; neither figure shall hold that.
        single, _ = timed(inventory(lab, Path(folder), 1, sha256))
        lab.run("h1", ["rm", "-r", "/srv/models/big", "/var/lib/labctl/verified"])
        single, _ = timed(Path(folder) / "rack-1" / "rack.py")
        lab.run("h1", ["rm", "-r", "/srv/models/big", "/var/lib/labctl/verified"])
        many, result = timed(inventory(lab, Path(folder), given.hosts, sha256))
    times = result.sent["h0"] / len(content)
    print(f"{given.mib} MiB at {given.rate_mbit} Mbit/s:")
    print(f"1 host {single:.1f} s, {given.hosts} hosts {many:.1f} s")
    total = sum(result.sent.values()) / len(content)
    print(f"h0 sent {times:.2f} times the file (promised: at most 2); all together {total:.2f} times")
    if times > 2:
        sys.exit(1)


if __name__ == "__main__":
    main()
