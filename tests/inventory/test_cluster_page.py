"""The page on clusters: its rack file loads, and what it says of ports is what is so."""

from __future__ import annotations

import re
from pathlib import Path

from labctl.inventory import clusters, load_rack
from labctl.render import cluster

PAGE = (Path(__file__).resolve().parents[2] / "docs/clusters.md").read_text()


def test_the_rack_file_of_two_sparks_loads_and_can_be_rendered(tmp_path: Path) -> None:
    (whole,) = (text for text in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "rack = Rack(" in text)
    file = tmp_path / "rack.py"
    file.write_text(whole)
    (tmp_path / "vllm-aarch64.txt").write_text("ray==2.60.0 --hash=sha256:" + "0" * 64 + "\n")
    rack = load_rack(file).rack
    head = rack.host("spark1")
    assert [part.host.name for part in clusters.devices_of(rack, head.services[0], head)] == [
        "spark1",
        "spark2",
    ]
    for host in rack.hosts:
        assert cluster.node(rack, host) is not None
    (word,) = cluster.advice(rack, head)
    assert "tensor_parallel_size=2 is spread over hosts" in word


def test_the_ports_of_the_page_are_those_of_the_firewall() -> None:
    assert len(clusters.RAY_SERVICES) == 6
    for low, high in (clusters.WORKER_PORTS, clusters.KERNEL_PORTS):
        assert f"{low} to {high}" in PAGE
    assert f"{cluster.JOIN_S // 60} minutes" in PAGE.replace("four", "4")
