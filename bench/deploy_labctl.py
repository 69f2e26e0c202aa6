"""The workload with labctl's operations; run by ``labctl apply RACK bench/deploy_labctl.py --yes``.

The end state is that of ``deploy_pyinfra.py`` to the byte, which ``run.py`` checks. ``systemd.unit`` is one
operation where pyinfra needs three: put the file, reload systemd, enable and start.
"""

from __future__ import annotations

from pathlib import Path

from bench.is_active import is_active
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pyinfra import host
from pyinfra.facts.server import LinuxDistribution

from labctl.ops import apt, files, systemd, users

HERE = Path(__file__).parent
TEMPLATES = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,
)
distribution = host.get_fact(LinuxDistribution)["release_meta"]["ID"]

users.group(name="group", group="bench", system=True)
users.user(
    name="user",
    user="benchsvc",
    uid=4242,
    system=True,
    home="/var/lib/labctl-bench",
    shell="/usr/sbin/nologin",
    groups=("bench",),
    create_home=False,
)
apt.packages(name="packages", names=("ca-certificates", "curl", "logrotate", "procps"))
files.directory(name="directory etc", path="/etc/labctl-bench")
files.directory(name="directory opt", path="/opt/labctl-bench", mode="750", group="bench")
files.directory(
    name="directory var", path="/var/lib/labctl-bench", mode="700", user="benchsvc", group="bench"
)
files.put(
    name="template config",
    dest="/etc/labctl-bench/bench.conf",
    content=TEMPLATES.get_template("bench.conf.j2").render(
        node_name=host.name, distribution=distribution, sizes=[1, 5, 20]
    ),
    mode="640",
    group="bench",
)
files.put(name="copy limits", dest="/etc/labctl-bench/limits.conf", src=HERE / "files/limits.conf")
files.put(
    name="copy notice",
    dest="/opt/labctl-bench/notice.txt",
    src=HERE / "files/notice.txt",
    mode="640",
    group="bench",
)
for unit in ("bench-a", "bench-b"):
    systemd.unit(
        name=f"service {unit}",
        unit=unit,
        content=TEMPLATES.get_template(f"{unit}.service.j2").render(node_name=host.name),
        watch_s=0,  # the check below looks, as for the other tools
    )
is_active(name="check", units=["bench-a", "bench-b"])
