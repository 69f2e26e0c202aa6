"""``labctl web``: run the web page of the rack, with its metrics."""

from __future__ import annotations

from pathlib import Path

import click

from labctl import wiring


@click.group()
def web() -> None:
    """Run the web page, which shows the rack, wakes hosts and gives Prometheus its numbers."""


@web.command(
    short_help="Run it in the foreground, as its unit does.",
    epilog="""\b
Examples:
  labctl web run /etc/labctl/web/table.json
  labctl web run inventory/rack.py        as it would run on the controller's host
  systemctl status labctl-web             where labctl apply has installed it
\b
Exit codes:
  0  it was stopped
  2  bad input, or it cannot listen there
""",
)
@click.argument("table", required=False, type=click.Path())
def run(table: str | None) -> None:
    """Run the web page of TABLE until it is stopped (Ctrl-C, SIGTERM).

    TABLE is the table that labctl apply writes to the controller's host, or a rack file, of which a table is
    made first. It asks the controller of this machine; one that is away is shown as such.
    """
    from labctl.cli import web_run

    path = Path(table) if table and table.endswith(".json") else None
    web_run.run(path or web_run.rendered(wiring.find_inventory(table)))
