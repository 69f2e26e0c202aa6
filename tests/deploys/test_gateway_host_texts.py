"""What the gateway's host gets: the rack as a table, few secrets, a socket, and a unit for each process."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from labctl.domain.gateway.table import Host as TableHost
from labctl.domain.gateway.table import Key, Kind, Limits, Model, Served, Table, Upstream, Waiting
from labctl.domain.problem import LabctlError
from labctl.gateway.reading import read_table
from labctl.inventory import (
    Controller,
    Gateway,
    GatewayHost,
    GatewayKey,
    GatewayLimits,
    GatewayModel,
    Gpu,
    Host,
    IdlePolicy,
    LlamaServer,
    LlamaSwap,
    ModelFile,
    Ollama,
    Outside,
    PrivateNet,
    Rack,
    Secret,
    Swapped,
    Vllm,
    WakeOnLan,
)
from labctl.inventory import (
    Model as RackModel,
)
from labctl.render import controller, firewall, gateway
from labctl.render.gateway_table import COUNTS, MAKES, Places, document, dropped, table_of

HASH = "a" * 64
BUILD = "b" * 64
MODELS = (
    RackModel(id="coder", source="/srv/coder.gguf", aliases=("gpt-4o",)),
    RackModel(
        id="big",
        source="/srv/big",
        files=(ModelFile(name="m.safetensors", sha256=HASH, size=90_000_000_000),),
    ),
    RackModel(id="tiny", source="/srv/tiny.gguf"),
    RackModel(id="far", source="/srv/far.gguf"),
    RackModel(id="embed", source="/srv/e.gguf", kind="embedding"),
)
HUB = Host(
    name="hub",
    address="10.0.0.1",
    roles=("always-on",),
    base_w=10,
    private=PrivateNet(interface="eth1", address="10.9.0.1"),
    services=(
        Ollama(name="ollama", port=11434, models=("tiny",), binary="/o", num_parallel=3),
        LlamaSwap(
            name="front", port=8081, binary="/s", peers=("back",), listen="0.0.0.0",
            api_key=Secret(env="FRONT_KEY"),
        ),
    ),
    open_ports=(8081,),
)  # fmt: skip
RIG = Host(
    name="rig",
    address="10.0.0.2",
    roles=("gpu",),
    gpus=(Gpu(model="RTX 3090", slot="slot0"), Gpu(model="RTX 3090", slot="slot1")),
    base_w=100,
    disk_mb_s=500,
    wake=WakeOnLan(mac="52:54:00:00:00:01"),
    idle=IdlePolicy(suspend=True, after="20m"),  # type: ignore[arg-type]
    open_ports=(8080, 8000),
    services=(
        LlamaServer(
            name="coder", model="coder", port=8080, listen="0.0.0.0", api_key=Secret(file=Path("keys/rig")),
            parallel=4, ctx_size=32768, binary="/l",
        ),
        Vllm(
            name="big", model="big", port=8000, listen="0.0.0.0", api_key=Secret(env="VLLM_KEY"), binary="/v",
            max_num_seqs=64, max_model_len=65536,
        ),
    ),
)  # fmt: skip
BACK = Host(
    name="back",
    address="10.0.0.3",
    wake=WakeOnLan(mac="52:54:00:00:00:02"),
    idle=IdlePolicy(suspend=True),
    private=PrivateNet(interface="eth1", address="10.9.0.3"),
    services=(
        LlamaSwap(
            name="swap", port=8080, binary="/s", listen="10.9.0.3", api_key=Secret(env="BACK_KEY"),
            models=(
                Swapped(engine=LlamaServer(name="far", model="far"), concurrency_limit=2, unlisted=True),
                Swapped(engine=LlamaServer(name="embed", model="embed")),
            ),
        ),
    ),
)  # fmt: skip


def rack(hosts: tuple[Host, ...] = (HUB, RIG, BACK), **fields: Any) -> Rack:
    return Rack(
        name="r",
        models=MODELS,
        hosts=hosts,
        controller=Controller(host="hub"),
        controller_key=Path("keys/controller.pub"),
        gateway=Gateway(host="hub", **fields),
    )


def table(given: Rack, hashes: dict[str, str] | None = None) -> Table:
    return table_of(given, hashes or {}, Places("/s/store.db", "/run/c"))


def upstream(given: Table, name: str) -> Upstream:
    (found,) = (one for one in given.upstreams if one.name == name)
    return found


def served(given: Table, model: str, upstream: str) -> Served:
    (found,) = (one for one in given.served if (one.model, one.upstream) == (model, upstream))
    return found


def model(given: Table, name: str) -> Model:
    (found,) = (one for one in given.models if one.id == name)
    return found


# --- the table --------------------------------------------------------------------------------------------


def test_what_is_written_is_what_the_gateway_reads(tmp_path: Path) -> None:
    full = table(
        rack(
            keys=(GatewayKey(name="ann", sha256=HASH, models=("gpt-4o",), wakes_per_hour=3),),
            outside=(Outside(name="cloud", url="https://openrouter.ai/api/v1", models={"coder": "x/coder"}),),
        )
    )
    (tmp_path / "table.json").write_text(document(full))
    assert read_table(tmp_path / "table.json") == full


def test_every_service_is_asked_where_the_gateways_host_reaches_it() -> None:
    found = table(rack())
    assert [(one.name, one.host, one.kind, one.address, one.port) for one in found.upstreams] == [
        ("hub", "hub", Kind.OLLAMA, "127.0.0.1", 11434),
        ("rig-coder", "rig", Kind.LLAMA_SERVER, "10.0.0.2", 8080),
        ("rig-big", "rig", Kind.VLLM, "10.0.0.2", 8000),
        ("back", "back", Kind.LLAMA_SWAP, "10.9.0.3", 8080),
    ]
    assert [one.key_file for one in found.upstreams] == [
        "", "upstream.rig-coder.key", "upstream.rig-big.key", "upstream.back.key",
    ]  # fmt: skip
    assert [one.slots for one in found.upstreams] == [3, 4, 64, 2]


def test_of_a_llama_server_alone_its_own_paths_are_let_through_and_only_work_wakes() -> None:
    found = table(rack())
    assert upstream(found, "rig-coder").passes == (*MAKES, *COUNTS)
    assert upstream(found, "rig-coder").wakes == MAKES
    assert not any("slots" in one for one in MAKES + COUNTS), "it shows what others ask"
    assert [upstream(found, name).passes for name in ("hub", "rig-big", "back")] == [(), (), ()]
    treated = table(
        rack(
            treats=(
                GatewayHost(host="rig", passes=("POST /completion", "GET /slots"), at_once=7, queue=9),
                GatewayHost(host="back", passes=("GET /running",), wakes=("GET /running",)),
            )
        )
    )
    rig = upstream(treated, "rig-coder")
    assert (rig.passes, rig.wakes) == (("POST /completion", "GET /slots"), ("POST /completion",))
    assert (rig.slots, rig.queue) == (7, 9)
    assert upstream(treated, "back").wakes == ("GET /running",)


def test_the_host_behind_a_llama_swap_is_the_one_that_must_be_awake() -> None:
    shut = HUB.model_copy(update={"private": None})
    found = table(rack((shut, RIG, BACK)))
    behind = upstream(found, "hub-front-to-back")
    assert (behind.host, behind.address, behind.port) == ("back", "127.0.0.1", 8081)
    assert behind.key_file == "upstream.hub-front-to-back.key"
    assert served(found, "far", "hub-front-to-back").asked_as == "far"
    assert dropped(rack((shut, RIG, BACK))) == ()


def test_a_front_that_may_be_asleep_itself_leads_nowhere() -> None:
    front = Host(
        name="front",
        address="10.0.0.4",
        wake=WakeOnLan(mac="52:54:00:00:00:04"),
        idle=IdlePolicy(suspend=True),
        private=PrivateNet(interface="eth1", address="10.9.0.4"),
        open_ports=(8081,),
        services=(HUB.services[1],),
    )
    hub = HUB.model_copy(update={"private": None, "services": HUB.services[:1]})
    given = rack((hub, front, RIG, BACK))
    assert "far" not in {one.id for one in table(given).models}
    assert dropped(given) == (
        "far of back: only front/front leads to it, which may be asleep itself",
        "embed of back: only front/front leads to it, which may be asleep itself",
    )


def test_times_are_generous_and_follow_from_what_must_happen() -> None:
    found = table(rack())
    assert model(found, "coder").wait_s == 180 + 180, "a boot, and the gate with its engines"
    assert model(found, "tiny").wait_s == 120, "its host never sleeps"
    assert served(found, "coder", "rig-coder").load_s == 0, "its unit loads it before the host is ready"
    assert served(found, "far", "back").load_s == 600, "llama-swap loads it when it is asked for"
    assert served(found, "big", "rig-big").first_byte_s == 600
    assert served(found, "far", "back").first_byte_s == 10 + 600 + 60
    assert all(one.whole_s >= 7200 for one in found.served)
    stated = table(
        rack(
            wait="5m",
            models=(GatewayModel(model="coder", wait="10m", first_byte="1h", whole="3h", waiting="loading"),),
        )
    )
    assert (model(stated, "coder").wait_s, model(stated, "big").wait_s) == (600, 300)
    coder = served(stated, "coder", "rig-coder")
    assert (coder.first_byte_s, coder.whole_s) == (3600, 10800)
    assert (model(stated, "coder").waiting, model(stated, "big").waiting) == (Waiting.LOADING, None)


def test_models_say_what_clients_need() -> None:
    found = table(rack())
    assert model(found, "coder").aliases == ("gpt-4o",)
    assert (model(found, "coder").context, model(found, "big").context) == (8192, 65536)
    assert model(found, "embed").kind == "embedding"
    assert (model(found, "far").listed, model(found, "coder").listed) == (False, True)


def test_hosts_come_with_what_waking_them_costs() -> None:
    hosts = {one.name: one for one in table(rack()).hosts}
    assert hosts["rig"] == TableHost("rig", True, True, 180.0, 100 + 2 * 350, 1200.0)
    assert (hosts["hub"].sleeps, hosts["hub"].wakeable) == (False, False)
    assert [one.name for one in table(rack()).watts.hosts] == ["hub", "rig", "back"]


def test_what_is_beyond_the_rack_comes_last_and_brings_models_of_its_own() -> None:
    cloud = Outside(
        name="cloud",
        url="https://openrouter.ai/api/v1",
        models={"gpt-4o": "x/coder", "huge": "x/huge"},
        api_key=Secret(env="CLOUD"),
        at_once=5,
    )
    lan = Outside(name="lan", url="http://10.1.0.1:9000/v1/", models={"coder": "c"}, ca_file=None)
    found = table(rack(outside=(cloud, lan)))
    assert upstream(found, "cloud") == Upstream(
        "cloud", "", Kind.OUTSIDE, "openrouter.ai", 443, tls=True, base_path="/api",
        key_file="upstream.cloud.key", slots=5,
    )  # fmt: skip
    near = upstream(found, "lan")
    assert (near.address, near.port, near.tls, near.base_path) == ("10.1.0.1", 9000, False, "")
    assert model(found, "coder").last_resort == ("cloud", "lan")
    assert served(found, "coder", "cloud").asked_as == "x/coder"
    assert model(found, "huge") == Model("huge", "chat", 120.0, last_resort=("cloud",))
    chosen = table(rack(outside=(cloud, lan), models=(GatewayModel(model="coder", last_resort=("lan",)),)))
    assert model(chosen, "coder").last_resort == ("lan",)


def test_keys_are_hashes_and_speak_of_models_by_their_ids() -> None:
    given = rack(
        keys=(
            GatewayKey(name="ann", sha256=HASH, models=("gpt-4o", "coder"), per_minute=60, outside=True),
            GatewayKey(
                name="bot",
                secret=Secret(env="BOT"),
                at_once=2,
                wakes_per_hour=0,
                waiting="refuse",
                sees=False,
            ),
        ),
        waiting="silent",
    )
    found = table(given, {"bot": "c" * 64})
    assert found.keys == (
        Key("ann", HASH, ("coder",), per_minute=60, outside=True),
        Key("bot", "c" * 64, at_once=2, wakes_per_hour=0, waiting=Waiting.REFUSE, sees=False),
    )
    assert (found.anonymous.waiting, found.anonymous.outside) == (Waiting.SILENT, True)


def test_limits_are_those_of_the_rack_file_and_otherwise_the_gateways_own() -> None:
    assert table(rack()).limits == Limits()
    stated = table(rack(drain="1m", limits=GatewayLimits(idle="30s", clients=9))).limits
    assert stated == Limits(drain_s=60, idle_s=30, clients=9)


# --- files beside it --------------------------------------------------------------------------------------

ENVIRONMENT = {"VLLM_KEY": "v-key", "BACK_KEY": "b-key", "FRONT_KEY": "f-key", "BOT": "bot-key"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A rack file's folder with what the rack's gateway needs."""
    (tmp_path / "keys").mkdir()
    certificate, key = pair()
    for name, content in (("keys/rig", b"r-key\n"), ("tls.key", key), ("tls.pem", certificate)):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def secured(**more: Any) -> Rack:
    return rack(
        keys=(GatewayKey(name="bot", secret=Secret(env="BOT")),),
        certificate=Path("tls.pem"),
        private_key=Path("tls.key"),
        **more,
    )


@cache
def pair(name: str = "hub") -> tuple[bytes, bytes]:
    """Return a certificate and its key, as PEM."""
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "3650", "-subj", f"/CN={name}", "-keyout", "-", "-out", "-"]
    made = subprocess.run(argv, capture_output=True, timeout=60, check=True).stdout
    key, mark, certificate = made.partition(b"-----BEGIN CERTIFICATE-----")
    return mark + certificate, key


PASSPHRASE = ("openssl", "pkcs8", "-topk8", "-passout", "pass:secret")


def encrypted(key: bytes) -> bytes:
    return subprocess.run(PASSPHRASE, input=key, capture_output=True, timeout=60, check=True).stdout


def ready(given: Rack, folder: Path) -> gateway.Ready:
    return gateway.ready(given, gateway.places(given), folder, ENVIRONMENT)


def test_secrets_lie_beside_the_table_and_keys_of_clients_nowhere(folder: Path) -> None:
    parts = ready(secured(), folder)
    assert parts.contents == {
        "upstream.rig-coder.key": b"r-key\n",
        "upstream.rig-big.key": b"v-key\n",
        "upstream.back.key": b"b-key\n",
        "certificate.pem": pair()[0],
        "private-key.pem": pair()[1],
    }
    assert {one.name: one.hidden for one in parts.beside}["certificate.pem"] is False
    everything = parts.table + "".join(map(str, parts.contents.values()))
    assert "bot-key" not in everything
    assert hashlib.sha256(b"bot-key").hexdigest() in parts.table
    assert not any(secret in parts.table for secret in ("r-key", "v-key", "b-key"))
    read = json.loads(parts.table)
    assert (read["certificate"], read["private_key"]) == ("certificate.pem", "private-key.pem")
    assert read["store"] == "/var/lib/labctl-store/store.db"
    assert read["controller"] == "/run/labctl-controller/socket"


def test_on_another_host_than_the_controllers_it_has_the_stores_address_and_no_socket(folder: Path) -> None:
    url = b"postgresql+psycopg://u:p@db/labctl\n"
    (folder / "url").write_bytes(url)
    (folder / "url").chmod(0o600)
    other = Host(name="other", address="10.0.0.9", roles=("always-on",))
    given = rack((HUB, RIG, BACK, other)).model_copy(
        update={"controller": Controller(host="other", store_url_file=Path("url"))}
    )
    parts = ready(given, folder)
    assert parts.contents["store-url"] == url
    read = json.loads(parts.table)
    assert (read["store"], read["store_url_file"], read["controller"]) == ("", "store-url", "")
    unit = gateway.unit(given, BUILD)
    assert "ReadWritePaths" not in unit
    assert "SupplementaryGroups" not in unit


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "tls.key").chmod(0o644), r"others may read the secret in .*tls.key"),
        (lambda folder: (folder / "tls.key").write_bytes(pair()[0]), r"tls.key: holds no private key as PEM"),
        (
            lambda folder: (folder / "tls.key").write_bytes(pair("b")[1]),
            r"no certificate and its private key: KEY",
        ),
        (
            lambda folder: (folder / "tls.key").write_bytes(encrypted(pair()[1])),
            r"tls.key: wants a passphrase",
        ),
        (
            lambda folder: (folder / "tls.pem").write_bytes(b"".join(pair())),
            r"tls.pem: holds a private key beside",
        ),
        (lambda folder: (folder / "tls.pem").write_bytes(b"x"), r"tls.pem: holds no certificate as PEM"),
        (lambda folder: (folder / "tls.pem").unlink(), r"tls.pem: the gateway needs it: No such file"),
        (lambda folder: (folder / "keys/rig").unlink(), r"the secret in .*keys/rig cannot be read"),
    ],
)
def test_what_cannot_be_used_is_said_before_a_host_is_touched(folder: Path, spoil: Any, words: str) -> None:
    spoil(folder)
    with pytest.raises(LabctlError, match=words):
        ready(secured(), folder)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (b"postgresql+psycopg://u:hunter2@db/labctl\n", ""),
        (b"hunter2", "url: holds no address of a PostgreSQL database"),
        (b"sqlite:///hunter2", "url: holds no address of a PostgreSQL database"),
    ],
)
def test_the_address_of_a_database_is_one_before_it_goes_to_a_host(
    folder: Path, url: bytes, words: str
) -> None:
    (folder / "url").write_bytes(url)
    (folder / "url").chmod(0o600)
    stated = Controller(host="hub", store_url_file=Path("url"))
    given = secured().model_copy(update={"controller": stated})
    if not words:
        assert ready(given, folder).contents["store-url"] == url
        return
    with pytest.raises(LabctlError, match=words) as told:
        ready(given, folder)
    assert "hunter2" not in str(told.value)


def test_a_key_that_two_have_is_refused_however_it_is_given(folder: Path) -> None:
    same = GatewayKey(name="ann", sha256=hashlib.sha256(b"bot-key").hexdigest())
    again = GatewayKey(name="bob", secret=Secret(file=Path("keys/bob")))
    (folder / "keys/bob").write_text("bot-key\n")
    (folder / "keys/bob").chmod(0o600)
    bot = GatewayKey(name="bot", secret=Secret(env="BOT"))
    with pytest.raises(LabctlError) as told:
        ready(rack(keys=(bot, same, again)), folder)
    assert [(one.field, one.reason) for one in told.value.problems] == [
        ("gateway.keys[1]", "is the same key as that of bot"),
        ("gateway.keys[2].secret", "is the same key as that of bot"),
    ]


def test_everything_that_cannot_be_read_is_told_at_once_with_the_field_that_says_so(folder: Path) -> None:
    for name in ("keys/rig", "tls.key"):
        (folder / name).unlink()
    given = secured(
        outside=(Outside(name="cloud", url="https://x.example", models={"m": "y"}, api_key=Secret(env="C")),)
    )
    with pytest.raises(LabctlError) as told:
        gateway.ready(given, gateway.places(given), folder, ENVIRONMENT, lambda at: ("rack.py", len(at)))
    assert [(one.file, one.line, one.host, one.field) for one in told.value.problems] == [
        ("rack.py", 5, "rig", "services[0].api_key"),
        ("rack.py", 4, "", "gateway.outside[0].api_key"),
        ("rack.py", 2, "", "gateway.private_key"),
    ]


def test_a_rack_without_gateway_or_controller_has_nothing_to_render(folder: Path) -> None:
    none = rack().model_copy(update={"gateway": None})
    with pytest.raises(LabctlError, match="this rack has no gateway"):
        gateway.beside(none)
    with pytest.raises(LabctlError, match="the gateway needs a controller"):
        gateway.places(rack().model_copy(update={"controller": None}))


# --- units ------------------------------------------------------------------------------------------------


def test_an_instance_is_named_after_everything_that_it_runs_on(folder: Path) -> None:
    given = secured()
    parts = ready(given, folder)
    names = {gateway.instances(given, BUILD, parts)}
    assert gateway.instances(given, BUILD, ready(given, folder)) in names
    (folder / "keys/rig").write_text("another\n")
    names.add(gateway.instances(given, BUILD, ready(given, folder)))
    names.add(gateway.instances(given, "c" * 64, parts))
    (folder / "keys/rig").write_text("r-key\n")
    for change in ({"port": 8001}, {"drain": "1m"}, {"keys": ()}):
        other = given.model_copy(
            update={"gateway": Gateway.model_validate({**given.gateway.model_dump(), **change})}  # type: ignore[union-attr]
        )
        names.add(gateway.instances(other, BUILD, ready(other, folder)))
    assert len(names) == 6


def test_each_process_is_an_instance_of_its_own(folder: Path) -> None:
    given = secured(processes=3)
    names = gateway.instances(given, BUILD, ready(given, folder))
    assert [name.rpartition("-")[2] for name in names] == ["1.service", "2.service", "3.service"]
    assert len({name.rpartition("-")[0] for name in names}) == 1
    assert f"Service={names[0]}" in gateway.socket(given, names[0])


@pytest.mark.parametrize(("listen", "said"), [("0.0.0.0", "0.0.0.0:8000"), ("::1", "[::1]:8000")])
def test_the_socket_listens_where_the_rack_file_says(listen: str, said: str) -> None:
    given = rack(listen=listen)
    assert gateway.listens(given) == said
    assert f"ListenStream={said}\n" in gateway.socket(given, "labctl-gateway@0-1.service")


def test_the_firewall_opens_its_port_only_beyond_loopback_and_only_there() -> None:
    key = GatewayKey(name="ann", sha256=HASH)
    for given, host, ports in (
        (rack(), HUB, {}),
        (rack(listen="0.0.0.0", keys=(key,)), HUB, {8000: "labctl gateway"}),
        (rack(listen="0.0.0.0", keys=(key,)), RIG, {}),
    ):
        more = firewall.own_ports(given, host)
        assert more == ports
        rules = firewall.rules(host, (22,), (), more)
        assert ('tcp dport 8000 accept comment "labctl gateway"' in rules) is bool(ports)


def test_who_may_use_the_gateway_is_no_business_of_the_controllers() -> None:
    assert "gateway" not in json.loads(controller.rack_json(secured()))


@pytest.mark.parametrize("database", [False, True])
def test_the_unit_may_do_little(tmp_path: Path, database: bool) -> None:
    given = rack()
    if database:
        stated = Controller(host="hub", store_url_file=Path("url"))
        given = given.model_copy(update={"controller": stated})
    program = shutil.which("systemd-analyze")
    assert program is not None, "install systemd"
    unit = tmp_path / "labctl-gateway@.service"
    unit.write_text(gateway.unit(given, BUILD))
    argv = [program, "security", "--offline=true", "--threshold=15", "--no-pager", "--json=short", str(unit)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)


def test_the_unit_reaches_its_store_and_nothing_of_the_controllers() -> None:
    unit = gateway.unit(rack(), BUILD)
    assert "ReadWritePaths=-/var/lib/labctl-store\n" in unit
    assert "InaccessiblePaths=-/etc/labctl/controller -/etc/labctl/secrets" in unit
    assert "PrivateDevices=yes" in unit
    assert "LimitCORE=0\n" in unit, "a dump would have keys and prompts in it"
    assert "-I -OO -X pycache_prefix=/opt/labctl/labctl/" in unit
    assert "TimeoutStopSec=930\n" in unit, "longer than it drains"
