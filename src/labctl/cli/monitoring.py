"""``labctl monitoring``: what Prometheus and Grafana need to watch the rack, as files.

``--json`` prints one document; fields may be added, and those here keep their names and meaning::

    {"folder": "/etc/prometheus/labctl", "written": ["labctl.rules.yml"], "unchanged": ["prometheus.yml"],
     "notes": ["..."]}
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labctl import wiring
from labctl.cli import asking, completion, printer

if TYPE_CHECKING:
    from labctl.inventory import Host, Rack


@click.group()
def monitoring() -> None:
    """Write what Prometheus and Grafana need to watch the rack."""


@monitoring.command(
    short_help="Write scrape configuration, rules, targets and a dashboard.",
    epilog="""\b
Examples:
  labctl monitoring write prometheus/
  labctl monitoring write /etc/prometheus/labctl --node-exporter 9100
  labctl monitoring write prometheus/ --on -      Prometheus runs on no host of the rack
  promtool check config prometheus/prometheus.yml
\b
Exit codes: 0 written, or nothing to change; 2 nothing could be scraped, or a file is not labctl's.
""",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@asking.inventory_option
@click.option(
    "--on",
    metavar="HOST",
    shell_complete=completion.complete_hosts_alone,
    help="Where Prometheus runs, - for elsewhere; default: the controller's host.",
)
@click.option(
    "--node-exporter",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Also scrape node_exporter, which listens on that port of every host.",
)
@click.option("--force", is_flag=True, help="Also replace files that somebody else wrote or changed.")
@asking.json_option
def write(
    folder: Path,
    inventory: str | None,
    *,
    on: str | None,
    node_exporter: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write prometheus.yml, labctl.rules.yml, targets/ and grafana/ into DIR, made from the rack file.

    Nothing is contacted, and no key is written: the configuration names files in DIR/keys, which you fill.
    Files that labctl did not write, or that were changed since, are left alone and named. To take up a change
    of the rack file, run it again; Prometheus reads targets by itself, and the rest when it is reloaded.
    """
    from labctl.adapters import shared_folder
    from labctl.inventory import load_rack
    from labctl.render.monitoring import Scraper, files

    loaded = load_rack(wiring.find_inventory(inventory))
    made = files(loaded.rack, loaded.folder, Scraper(_where(loaded.rack, on), node_exporter))
    written = shared_folder.write(folder, made.files, over=force)
    if as_json:
        unchanged = [name for name in made.files if name not in written]
        document = {"written": list(written), "unchanged": unchanged, "notes": list(made.notes)}
        printer.emit_json({"folder": str(folder), **document})
        return
    for name in written:
        printer.out(f"wrote {folder / name}")
    if not written:
        printer.out(f"{folder} is up to date")
    for note in made.notes:
        printer.err(f"note: {note}")


def _where(rack: Rack, on: str | None) -> Host | None:
    """Return the host on which Prometheus runs; None: elsewhere."""
    from labctl.domain.problem import LabctlError
    from labctl.inventory.explain import did_you_mean

    if on is None:
        return rack.host(rack.controller.host) if rack.controller is not None else None
    if on == "-":
        return None
    try:
        return rack.host(on)
    except KeyError:
        names = [host.name for host in rack.hosts]
        raise LabctlError(f"the rack has no host {on!r}", hint=did_you_mean(on, names)) from None
