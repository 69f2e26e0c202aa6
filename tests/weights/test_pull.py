"""Files go from host to host: real programs, real sockets, real faults."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from local_hosts import Hub, LocalHosts, loaded, sha256

from labctl.domain import parts
from labctl.inventory import Command, Host, Model, Rack
from labctl.weights import places
from labctl.weights.news import News, Result, Wish
from labctl.weights.pull import pull

CONTENT = os.urandom(5 * parts.MIB + 12345)
PATH = "/srv/models/m/m.gguf"
NAMES = tuple(f"h{number}" for number in range(8))


def rack(
    url: str, hosts: tuple[str, ...] = NAMES, content: bytes = CONTENT, mirror: str | None = None
) -> Rack:
    serves = (Command(name="any", argv=("/bin/true",), model="m"),)
    return Rack(
        name="r",
        hosts=tuple(Host(name=h, address=f"10.0.0.{n}", services=serves) for n, h in enumerate(hosts, 1)),
        models=(Model(id="m", source=url, sha256=sha256(content)),),
        mirror=mirror,
    )


class Driven:
    """A pull on local hosts."""

    def __init__(self, lan: LocalHosts, folder: Path) -> None:
        self.lan, self.folder = lan, folder
        self.news: list[News] = []

    def pull(self, rack: Rack, source: str | None = None, tokens: dict[str, str] | None = None) -> Result:
        self.news.clear()
        racked = loaded(rack, self.folder)
        wish = Wish(places.to_pull(racked, (), ()), source, tokens or {})
        return pull(racked, wish, self.lan, self.news.append)

    def right(self, *hosts: str, content: bytes = CONTENT) -> None:
        for host in hosts:
            place = self.lan.path(host, PATH)
            assert place.read_bytes() == content, host
            assert os.listdir(place.parent) == ["m.gguf"]


@pytest.fixture
def driven(lan: LocalHosts, tmp_path: Path) -> Driven:
    return Driven(lan, tmp_path)


def test_eight_hosts_get_it_and_it_leaves_the_source_once(driven: Driven, hub: Hub) -> None:
    hub.files["/m.gguf"] = CONTENT
    result = driven.pull(rack(f"{hub.url}/m.gguf"))
    assert {result.status(host) for host in NAMES} == {"ok"}
    driven.right(*NAMES)
    assert hub.sent == len(CONTENT)
