"""All files for Prometheus and Grafana, and what a person has to do beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from labctl.domain.problem import LabctlError
from labctl.inventory import Rack
from labctl.render.monitoring import scraping
from labctl.render.monitoring.dashboard import dashboard
from labctl.render.monitoring.naming import name_for
from labctl.render.monitoring.places import GATEWAY, Job, Scraper, jobs
from labctl.render.monitoring.rules import rules

DASHBOARD = "grafana/labctl.json"


@dataclass(frozen=True, slots=True)
class Written:
    """Files by their place in the folder, and notes for whoever writes them."""

    files: Mapping[str, str]
    notes: tuple[str, ...]


def files(rack: Rack, folder: Path, scraper: Scraper) -> Written:
    """Return what Prometheus needs to watch a rack whose file lies in ``folder``.

    Raises:
        LabctlError: there is nothing to scrape, or a certificate cannot be read.
    """
    found = list(jobs(rack, scraper))
    certificates = {job.name: _certificate(rack, folder, job) for job in found if job.targets and job.tls}
    used = [_named(job, *certificates.get(job.name, ())) for job in found if job.targets]
    notes = [f"{job.name} is not scraped: {job.unreached}" for job in found if job.unreached]
    if not used:
        raise LabctlError(
            f"rack {rack.name} has nothing that Prometheus could scrape from there"
            + (f": {'; '.join(notes)}" if notes else ""),
            hint="declare Rack(gateway=...) or Rack(web=...), or say where Prometheus runs: --on HOST",
        )
    written = {
        scraping.CONFIG: scraping.config(used),
        scraping.RULES: rules(rack.health),
        DASHBOARD: dashboard(),
    }
    for job in used:
        written[scraping.targets_file(job)] = scraping.targets(job)
        if job.tls:
            written[scraping.certificate_file(job)] = certificates[job.name][1]
        if job.keyed:
            notes.append(f"put a key that {job.name} accepts into {scraping.key_file(job)}, mode 0600")
    return Written(written, tuple(notes))


def _named(job: Job, path: Path | None = None, pem: str = "") -> Job:
    """Return a job with the name that its certificate bears."""
    if path is None:
        return job
    address = urlsplit(f"//{job.targets[0].address}").hostname or ""
    return replace(job, known_as=name_for(path, pem, address))


def _certificate(rack: Rack, folder: Path, job: Job) -> tuple[Path, str]:
    """Return the certificate of a server, and where it is: who has pinned it needs no authority."""
    server = rack.gateway if job.name == GATEWAY else rack.web
    relative = None if server is None else server.certificate
    if relative is None:
        raise LabctlError(f"{job.name} speaks TLS, and the rack file names no certificate for it")
    path = folder / relative.expanduser()
    try:
        return path, path.read_text("ascii")
    except (OSError, UnicodeError) as error:
        raise LabctlError(f"{path}: the certificate cannot be read: {error}") from None
