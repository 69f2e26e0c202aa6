# ruff: noqa: E501 - one case a line reads best
"""A gateway of labctl's own that could not work, or that anybody could use, is refused with a cure."""

from __future__ import annotations

from pathlib import Path

import pytest
from rack_texts import loaded, problems, rack_text, write

from labctl.inventory import Outside
from labctl.inventory.upstreams import reach

IMPORTS = "from labctl.inventory import Gateway, GatewayHost, GatewayKey, GatewayLimits, GatewayModel, LlamaSwap, Outside, Secret\n"
MODELS = '[Model(id="m", source="/srv/m", aliases=["small"]), Model(id="n", source="/srv/n")]'
OPEN = (
    'open_ports=[8001], services=[LlamaServer(name="chat", model="m", port=8001, listen="0.0.0.0", '
    'api_key=Secret(file="keys/k"))]'
)
TWO = (
    f'{OPEN[:-1]}, LlamaServer(name="more", model="n", port=8002, listen="0.0.0.0", '
    'api_key=Secret(file="keys/k"))]'
).replace("8001]", "8001, 8002]")
SHUT = 'services=[LlamaServer(name="chat", model="m", port=8001)]'
CONTROLLER = 'controller=Controller(host="hub"), controller_key="keys/c.pub"'
KEY = f'GatewayKey(name="ann", sha256="{"a" * 64}")'
CLOUD = 'outside=[Outside(name="cloud", url="https://x.example/v1", models={"m": "y"})]'
BOTH = CLOUD.replace('"y"', '"y", "small": "z"')
OTHER = CLOUD.replace('"m"', '"n"')


def rack(gateway: str, rig: str = OPEN, hub: str = 'roles=["always-on"]', more: str = CONTROLLER) -> str:
    """Return a rack whose line 8 is the gateway."""
    return (
        f"{IMPORTS}rack = Rack(name='r', models={MODELS}, {more},\n"
        f"hosts=[Host(name='hub', address='10.0.0.1', {hub}), Host(name='rig', address='10.0.0.2', {rig})],\n"
        f"gateway=Gateway({gateway}))"
    )


@pytest.mark.parametrize(
    ("gateway", "rig", "field", "reason", "hint"),
    [
        ('host="hubb"', OPEN, "host", "there is no host called 'hubb'", "did you mean hub?"),
        ('host="hub", listen="0.0.0.0"', OPEN, "listen", "listens on 0.0.0.0 without a key: anyone who reaches the host could use it", "labctl gateway keys new"),
        ('host="hub", port=22', OPEN, "port", "port 22 is taken already by sshd", "choose another port"),
        (f'host="hub", keys=[{KEY}, {KEY.replace("a" * 64, "b" * 64)}]', OPEN, "keys[1].name", "is taken already by another key", ""),
        (f'host="hub", keys=[{KEY}, {KEY.replace("ann", "bob")}]', OPEN, "keys[1]", "is taken already by key ann", ""),
        ('host="hub", keys=[GatewayKey(name="a", secret=Secret(env="K")), GatewayKey(name="b", secret=Secret(env="K"))]', OPEN, "keys[1]", "is taken already by key a", ""),
        (f'host="hub", keys=[{KEY.replace("ann", "anonymous")}]', OPEN, "keys[0].name", "is what logs call clients without a key", "another name"),
        (f'host="hub", keys=[{KEY[:-1]}, models=["smal"])]', OPEN, "keys[0].models[0]", "there is no model that it serves called 'smal'", "did you mean small?"),
        ('host="hub", models=[GatewayModel(model="n")]', OPEN, "models[0].model", "there is no model that it serves called 'n'", ""),
        ('host="hub", models=[GatewayModel(model="m"), GatewayModel(model="m")]', OPEN, "models[1].model", "is taken already by another entry", ""),
        (f'host="hub", {CLOUD}, models=[GatewayModel(model="m", last_resort=["clod"])]', OPEN, "models[0].last_resort[0]", "there is no server in `outside` called 'clod'", "did you mean cloud?"),
        (f'host="hub", {OTHER}, models=[GatewayModel(model="m", last_resort=["cloud"])]', OPEN, "models[0].last_resort[0]", "cloud does not have m", "add it to `models` of cloud"),
        ('host="hub", outside=[Outside(name="rig", url="https://x.example", models={"m": "y"})]', OPEN, "outside[0].name", "is taken already by host rig", "another name"),
        ('host="hub", outside=[Outside(name="c", url="http://x.lan", models={"m": "y"}, ca_file="ca.pem")]', OPEN, "outside[0].ca_file", "http://x.lan shows no certificate", "use https://"),
        (f'host="hub", {CLOUD}, keys=[{KEY}]', OPEN, "outside", "may be asked for nobody: no key has outside=True", "add outside=True"),
        (f'host="hub", {BOTH}', OPEN, "outside[0].models", "m and small are one model", "remove one"),
        (f'host="hub", {CLOUD}, models=[GatewayModel(model="m", last_resort=["cloud", "cloud"])]', OPEN, "models[0].last_resort[1]", "cloud is in the list already", "remove it"),
        (f'host="hub", {CLOUD.replace("cloud", "rig-chat")}', TWO, "outside[0].name", "is taken already by rig/chat, which the gateway calls so", "another name"),
        ('host="hub", limits=GatewayLimits(held=1024)', OPEN, "limits.held", "one body may be 67108864 bytes, but all that are held only 1024", "`json_body` less"),
        ('host="hub", treats=[GatewayHost(host="hub")]', OPEN, "treats[0].host", "there is no host that it serves called 'hub'", ""),
        ('host="hub", treats=[GatewayHost(host="rig"), GatewayHost(host="rig")]', OPEN, "treats[1].host", "is taken already by another entry", ""),
        ('host="hub", treats=[GatewayHost(host="rig", passes=["GET /props"], wakes=["POST /infill"])]', OPEN, "treats[0].wakes[0]", "POST /infill is not let through", "add it to `passes`"),
        ('host="hub", hosts=["rig", "rig"]', OPEN, "hosts[1]", "rig is in the list already", "remove it"),
        ('host="hub", hosts=["hub"]', OPEN, "hosts[0]", "hub serves no model", "or remove it"),
        ('host="hub", hosts=["rog"]', OPEN, "hosts[0]", "there is no host called 'rog'", "did you mean rig?"),
        ('host="hub", hosts=["rig"]', SHUT, "hosts[0]", "cannot serve m of rig/chat: listens on 127.0.0.1 of rig, where hub cannot reach it", 'listen="0.0.0.0"'),
        ('host="hub"', SHUT, "", "has nothing to serve: m of rig/chat: listens on 127.0.0.1", "let it reach a server"),
        ('host="hub"', "", "", "has nothing to serve: no service of this rack serves a model", "let it reach a server"),
    ],
)  # fmt: skip
def test_what_could_not_work_is_refused_with_its_line(
    gateway: str, rig: str, field: str, reason: str, hint: str, tmp_path: Path
) -> None:
    (found,) = problems(write(tmp_path, rack_text(rack(gateway, rig))))
    assert found.line == 8
    assert found.field == f"gateway.{field}".rstrip(".")
    assert reason in found.reason
    assert hint in found.hint


@pytest.mark.parametrize(
    ("hub", "more", "field", "reason", "hint"),
    [
        ("", 'controller_key="keys/c.pub"', "gateway.host", "hub has not the role always-on", 'roles=["always-on"]'),
        ('roles=["always-on"]', 'controller_key="keys/c.pub"', "gateway", "needs a controller, which wakes the hosts that it asks for", "add controller="),
        ('roles=["always-on"]', CONTROLLER.replace("hub", "rig"), "gateway.host", "the store is a file on rig, where the controller runs", "run it on rig too"),
        ('roles=["always-on"], services=[Command(name="gateway", argv=["/bin/true"])]', CONTROLLER, "services[0].name", "is the name of the rack's own gateway there", "another name"),
    ],
)  # fmt: skip
def test_what_it_stands_on_must_be_there(
    hub: str, more: str, field: str, reason: str, hint: str, tmp_path: Path
) -> None:
    found = problems(write(tmp_path, rack_text(rack('host="hub"', hub=hub, more=more))))
    (one,) = [problem for problem in found if reason in problem.reason]
    assert one.field == field
    assert hint in one.hint


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ('GatewayKey(name="a")', "give either `secret` or `sha256`"),
        ('GatewayKey(name="a", sha256="x")', "must be a SHA-256 in hex"),
        ('Outside(name="c", url="ftp://x", models={"m": "y"})', "must be an https://"),
        ('Outside(name="c", url="file:///x", models={"m": "y"})', "must be an http:// or https:// address"),
        ('Outside(name="c", url="https://x/v1?key=1", models={"m": "y"})', "must end with its path"),
        ('Outside(name="c", url="https://x.example:99999", models={"m": "y"})', "a port from 1 to 65535"),
        ('Outside(name="c", url="https://x.example:eighty", models={"m": "y"})', "a port from 1 to 65535"),
        ('Outside(name="c", url="https://x.example:0", models={"m": "y"})', "a port from 1 to 65535"),
        ('Outside(name="c", url="https://:80/v1", models={"m": "y"})', "must have a host name"),
        ('Outside(name="c", url="https://[::1/v1", models={"m": "y"})', "must have a host name"),
        ('Outside(name="c", url="https://x/v1/chat/completions", models={"m": "y"})', "the path before what"),
        ('Outside(name="c", url="https://x/%0d%0a", models={"m": "y"})', "the path before what"),
        ('Outside(name="c", url="https://x//v1", models={"m": "y"})', "the path before what"),
        ('Outside(name="c", url="http://x.example/v1", models={"m": "y"})', "anyone on the way can read it"),
        ('Outside(name="c", url="http://8.8.8.8/v1", models={"m": "y"})', "anyone on the way can read it"),
        ('GatewayHost(host="rig", passes=["completion"])', "must be a method and a path"),
        ('GatewayHost(host="rig", passes=["POST /a/../b"])', "must be a method and a path"),
        ('Gateway(host="hub", certificate="c.pem")', "`certificate` and `private_key` go together"),
        ('Gateway(host="hub", processes=65)', "must be at most 64"),
    ],
)
def test_a_part_that_means_nothing_is_refused_where_it_stands(spec: str, reason: str, tmp_path: Path) -> None:
    (found,) = problems(write(tmp_path, rack_text(f"{IMPORTS}one = {spec}\nrack = Rack(name='r', hosts=[])")))
    assert reason in found.reason
    assert found.line == 6


@pytest.mark.parametrize(
    "url", ["http://10.0.0.9:8000", "http://[::1]:1/v1/", "http://100.64.0.7/v1", "http://box:8000/v1", "http://box.lan", "https://x.example/api/v1"]
)  # fmt: skip
def test_another_server_is_reached_in_the_clear_only_in_ones_own_network(url: str) -> None:
    assert Outside(name="c", url=url, models={"m": "y"}).url == url


def test_a_gateway_with_a_cloud_alone_serves_that(tmp_path: Path) -> None:
    found = loaded(tmp_path, rack(f'host="hub", {CLOUD}', "")).rack
    assert found.gateway is not None
    assert reach(found, found.host("hub"), found.gateway).upstreams == ()


@pytest.mark.parametrize("needs", ["", 'depends_on=["help"], '])
def test_hosts_that_lend_cards_to_what_it_serves_are_awake_with_it(needs: str, tmp_path: Path) -> None:
    cable = 'private=PrivateNet(interface="eth1", address="10.9.0.{}")'
    rig = OPEN.replace("port=8001, listen", 'port=8001, rpc=["help"], listen')
    lender = (
        f'Host(name="help", address="10.0.0.3", {cable.format(3)}, wake=WakeOnLan(mac="52:54:00:00:00:03"), '
        "idle=IdlePolicy(suspend=True), "
        'services=[RpcServer(name="rpc", port=50052, binary="/r")])'
    )
    text = rack('host="hub"', f"{needs}{cable.format(2)}, {rig}").replace(
        "],\ngateway", f", {lender}],\ngateway"
    )
    file = write(tmp_path, rack_text(f"from labctl.inventory import PrivateNet, RpcServer\n{text}"))
    found = [one for one in problems(file) if one.field == "depends_on"]
    if needs:
        assert found == []
    else:
        (one,) = found
        assert (one.host, one.field) == ("rig", "depends_on")
        assert "m also runs on help, which may sleep while rig is awake" in one.reason
        assert 'add depends_on=["help"] to rig' in one.hint
