# ruff: noqa: E501 - one case a line reads best
"""A web page that could not work, or that anybody could look at, is refused with a cure."""

from __future__ import annotations

from pathlib import Path

import pytest
from rack_texts import loaded, problems, rack_text, write

IMPORTS = "from labctl.inventory import Gateway, LlamaServer, Secret, Web, WebKey\n"
HUB = 'controller=Controller(host="hub"), controller_key="keys/c.pub"'
KEY = f'WebKey(name="ann", sha256="{"a" * 64}")'


def rack(web: str, hub: str = "", more: str = HUB) -> str:
    """Return a rack whose line 8 is the web page."""
    return (
        f"{IMPORTS}rack = Rack(name='r', {more},\n"
        f"hosts=[Host(name='hub', address='10.0.0.1', roles=['always-on'], {hub})],\n"
        f"web=Web({web}))"
    )


@pytest.mark.parametrize(
    ("web", "more", "field", "reason", "hint"),
    [
        ('listen="0.0.0.0"', HUB, "listen", "listens on 0.0.0.0 without a key: anyone who reaches the host could look", "keys=[WebKey"),
        ("port=22", HUB, "port", "port 22 is taken already by sshd", "another port"),
        ("port=443", HUB, "port", "port 443 is for root alone, and the web page runs as labctl-web", "from 1024 on"),
        ("port=8001", HUB, "port", "port 8001 is taken already by service chat", "another port"),
        (f"keys=[{KEY}, {KEY.replace('a' * 64, 'b' * 64)}]", HUB, "keys[1].name", "is taken already by another key", ""),
        (f"keys=[{KEY}, {KEY.replace('ann', 'bob')}]", HUB, "keys[1]", "is taken already by key ann", ""),
        ("", 'timezone="Etc/UTC"', "", "needs a controller, whose host it runs on and which it asks", "add controller="),
        ('keys=[WebKey(name="ann")]', HUB, "keys[0]", "give either `secret` or `sha256`", "openssl rand"),
        ('certificate="c.pem"', HUB, "", "`certificate` and `private_key` go together", "give both"),
    ],
)  # fmt: skip
def test_what_could_not_work_is_refused_with_its_line(
    web: str, more: str, field: str, reason: str, hint: str, tmp_path: Path
) -> None:
    chat = 'services=[Command(name="chat", argv=["/bin/true"], port=8001)]'
    found = problems(write(tmp_path, rack_text(rack(web, chat, more))))
    (one,) = [problem for problem in found if reason in problem.reason]
    assert one.line == 8
    assert one.field == f"web.{field}".rstrip(".")
    assert hint in one.hint


def test_a_service_of_its_name_is_refused(tmp_path: Path) -> None:
    taken = 'services=[Command(name="web", argv=["/bin/true"])]'
    (one,) = problems(write(tmp_path, rack_text(rack("", taken))))
    assert one.field == "services[0].name"
    assert "is the name of the rack's own web page there: labctl-web.service" in one.reason


def test_a_page_with_a_key_may_be_reached_by_others(tmp_path: Path) -> None:
    text = rack(f'listen="0.0.0.0", keys=[{KEY}], names=["rack.home"]')
    web = loaded(tmp_path, text).rack.web
    assert web is not None
    assert web.keys[0].acts
