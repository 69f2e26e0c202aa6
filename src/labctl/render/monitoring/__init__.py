"""What Prometheus and Grafana need to watch a rack, made from the rack file: targets, rules, a dashboard.

Everything rests on one distinction: a host that sleeps on purpose is not down. Whether it is meant to be
asleep only the controller knows, so

1. nothing on a host that may sleep is needed for its numbers: they all come from ``labctl web`` and the
   gateway, which run on hosts that are always on;
2. where such a host is scraped itself (node_exporter), its being gone is an alert only while the controller
   says that it should be there; no word of the controller is no alert on the host, but one on the controller;
3. engines are not scraped at all: for their host that would be somebody who uses them.

Secrets stay out: a configuration names the files in which Prometheus finds its keys.
"""

from labctl.render.monitoring.files import Written, files
from labctl.render.monitoring.places import Scraper

__all__ = ["Scraper", "Written", "files"]
