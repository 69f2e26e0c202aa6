"""The workload with pyinfra's own operations, as its documentation has them; run by plain ``pyinfra -y``."""

from __future__ import annotations

from pathlib import Path

from bench.is_active import is_active
from pyinfra import host
from pyinfra.facts.server import LinuxDistribution
from pyinfra.operations import apt, files, server, systemd
from pyinfra.operations.util import any_changed

HERE = Path(__file__).parent
distribution = host.get_fact(LinuxDistribution)["release_meta"]["ID"]

server.group(name="group", group="bench", system=True)
server.user(
    name="user",
    user="benchsvc",
    uid=4242,
    system=True,
    home="/var/lib/labctl-bench",
    shell="/usr/sbin/nologin",
    groups=["bench"],
    create_home=False,
    ensure_home=False,
)
apt.packages(name="packages", packages=["ca-certificates", "curl", "logrotate", "procps"])
files.directory(name="directory etc", path="/etc/labctl-bench", mode="755", user="root", group="root")
files.directory(name="directory opt", path="/opt/labctl-bench", mode="750", user="root", group="bench")
files.directory(
    name="directory var", path="/var/lib/labctl-bench", mode="700", user="benchsvc", group="bench"
)
files.template(
    name="template config",
    src=str(HERE / "templates/bench.conf.j2"),
    dest="/etc/labctl-bench/bench.conf",
    mode="640",
    user="root",
    group="bench",
    node_name=host.name,
    distribution=distribution,
    sizes=[1, 5, 20],
)
unit_a = files.template(
    name="template bench-a",
    src=str(HERE / "templates/bench-a.service.j2"),
    dest="/etc/systemd/system/bench-a.service",
    mode="644",
    user="root",
    group="root",
    node_name=host.name,
)
unit_b = files.template(
    name="template bench-b",
    src=str(HERE / "templates/bench-b.service.j2"),
    dest="/etc/systemd/system/bench-b.service",
    mode="644",
    user="root",
    group="root",
    node_name=host.name,
)
files.put(
    name="copy limits",
    src=str(HERE / "files/limits.conf"),
    dest="/etc/labctl-bench/limits.conf",
    mode="644",
    user="root",
    group="root",
)
files.put(
    name="copy notice",
    src=str(HERE / "files/notice.txt"),
    dest="/opt/labctl-bench/notice.txt",
    mode="640",
    user="root",
    group="bench",
)
systemd.daemon_reload(name="daemon-reload", _if=any_changed(unit_a, unit_b))
systemd.service(name="service a", service="bench-a", running=True, enabled=True)
systemd.service(name="service b", service="bench-b", running=True, enabled=True)
is_active(name="check", units=["bench-a", "bench-b"])
