"""Prometheus' own configuration, and the files of targets that it reads (``file_sd``)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml

from labctl.render import HEADER
from labctl.render.monitoring.places import Job

RULES = "labctl.rules.yml"
CONFIG = "prometheus.yml"
INTERVAL = "15s"


def targets_file(job: Job) -> str:
    """Return where a job's targets are, seen from the configuration."""
    return f"targets/{job.name}.json"


def key_file(job: Job) -> str:
    """Return where a job's key is to be put, seen from the configuration."""
    return f"keys/{job.name}"


def certificate_file(job: Job) -> str:
    """Return where the certificate that a job is checked by is, seen from the configuration."""
    return f"targets/{job.name}.pem"


def targets(job: Job) -> str:
    """Return a job's targets as ``file_sd`` reads them: JSON, without any comment."""
    groups = [{"targets": [one.address], "labels": dict(one.labels)} for one in job.targets]
    return json.dumps(groups, indent=2) + "\n"


def config(jobs: Sequence[Job]) -> str:
    """Return ``prometheus.yml``: how each job is scraped, and by which rules it is judged."""
    whole = {
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [RULES],
        "scrape_configs": [_scraped(job) for job in jobs],
    }
    return f"{HEADER}\n{yaml.safe_dump(whole, sort_keys=False)}"


def _scraped(job: Job) -> dict[str, Any]:
    said: dict[str, Any] = {"job_name": job.name, "file_sd_configs": [{"files": [targets_file(job)]}]}
    if job.tls:
        said["scheme"] = "https"
        name = {"server_name": job.known_as} if job.known_as else {}
        said["tls_config"] = {"ca_file": certificate_file(job), **name}
    if job.keyed:
        said["authorization"] = {"type": "Bearer", "credentials_file": key_file(job)}
    return said
