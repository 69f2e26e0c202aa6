# ruff: noqa: E501 - one case a line reads best
"""What health expects of a host follows from the rack file; limits that cannot be meant are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rack_texts import loaded, problems, rack_text, write

import labctl
from labctl.domain.health.thresholds import USUAL, Thresholds
from labctl.inventory import Gateway
from labctl.inventory.data import load_data
from labctl.inventory.gatewaying import FOLDER
from labctl.render import agent_config
from labctl.render.expected import certificates, expected, expected_rack
from labctl.render.health import rack_json

IMPORT = "from labctl.inventory import Gateway, Health, Limits\n"
UUID = "GPU-11111111-2222-3333-4444-555555555555"
BODY = f"""{IMPORT}
rack = Rack(name="r",
    controller=Controller(host="hub"), controller_key="keys/controller.pub",
    circuits=[Circuit(name="office")],
    health=Health(limits=Limits(hotspot_warn_c=95.0, disk_free_warn_gib=5, certificate_warn="3d"),
        replace_by={{"hugging face": "2027-01-31"}}),
    models=[Model(id="m", source="/srv/models/llm/m.gguf"), Model(id="n", source="/srv/models/other/n.gguf")],
    hosts=[
        Host(name="hub", address="10.0.0.1", roles=["always-on"], certificates=["/etc/nas.pem"]),
        Host(name="a", address="10.0.0.2", cap_w=250, cap_reason="noise",
            gpus=[Gpu(model="RTX 3090", slot="s0", uuid="{UUID}", pcie_width=4, pcie_gen=3), Gpu(model="RTX 4090", slot="s1")],
            psus=[Psu(name="psu0", watts=1200, circuit="office")],
            wake=WakeOnLan(mac="52:54:00:00:00:01"), idle=IdlePolicy(suspend=True),
            services=[LlamaServer(name="chat", model="m", gpus=["s1"], binary="/usr/bin/llama-server", port=8001),
                LlamaServer(name="slow", model="n", n_gpu_layers=0, binary="/usr/bin/llama-server", port=8002)]),
        Host(name="b", address="10.0.0.3", wake=WakeOnLan(mac="52:54:00:00:00:02"), idle=IdlePolicy(suspend=True, how="unload")),
        Host(name="spark", address="10.0.0.4", gpus=[Gpu(model="GB10", slot="only")]),
    ])
"""


def test_a_host_is_expected_as_the_rack_file_declares_it(tmp_path: Path) -> None:
    rack = loaded(tmp_path, BODY)
    found = expected(rack, rack.rack.host("a"))
    first, second = found.gpus
    assert (first.label, first.uuid, first.cap_w, first.width, first.gen) == ("s0", UUID, 250.0, 4, 3)
    assert (first.linked, first.counted_w, first.declared.patterns != ()) == (True, 250.0, True)
    assert (second.uuid, second.width, second.declared.slot) == (None, None, "s1")
    assert [(one.service, one.gpus) for one in found.engines] == [("chat", ("s1",)), ("slow", ())]
    assert found.model_mount == "/srv/models"
    assert (found.sleeps, found.wakeable, found.armed, found.controlled) == (True, True, True, True)
    assert found.agent == labctl.__version__


def test_who_may_be_dark_is_whoever_sleeps_and_can_be_woken(tmp_path: Path) -> None:
    rack = loaded(tmp_path, BODY)
    sleeps = {host.name: expected(rack, host).sleeps for host in rack.rack.hosts}
    assert sleeps == {"hub": False, "a": True, "b": False, "spark": False}


def test_the_link_of_a_chip_with_its_own_memory_is_not_judged(tmp_path: Path) -> None:
    rack = loaded(tmp_path, BODY)
    assert [one.linked for one in expected(rack, rack.rack.host("spark")).gpus] == [False]


def test_what_hosts_share_follows_too(tmp_path: Path) -> None:
    found = expected_rack(loaded(tmp_path, BODY))
    assert [circuit.name for circuit in found.power.circuits] == ["office"]
    assert found.replace_by == {"hugging face": 1801353600.0}  # 2027-01-31 in UTC
    assert found.controlled


def test_the_host_that_looks_by_itself_expects_the_same_from_the_rack_as_data(tmp_path: Path) -> None:
    rack = loaded(tmp_path, BODY)
    path = tmp_path / "rack.json"
    path.write_text(rack_json(rack.rack))
    data = load_data(path)
    for host in rack.rack.hosts:
        assert expected(data, data.rack.host(host.name)) == expected(rack, host)
    assert expected_rack(data) == expected_rack(rack)


def test_certificates_are_those_of_the_host_and_of_the_gateway_and_the_agent_is_told(tmp_path: Path) -> None:
    rack = loaded(tmp_path, BODY)
    hub = rack.rack.host("hub")
    assert expected(rack, hub).certificates == ("/etc/nas.pem",)
    assert expected(rack, rack.rack.host("a")).certificates == ()
    gateway = Gateway(host="hub", certificate=Path("c.pem"), private_key=Path("k.pem"))
    with_gateway = rack.rack.model_copy(update={"gateway": gateway})
    files = (f"{FOLDER}/certificate.pem", "/etc/nas.pem")
    assert certificates(with_gateway, hub) == files
    assert json.loads(agent_config.config(with_gateway, hub))["health"] == {"certificates": list(files)}


def test_limits_replace_labctls_own_and_leave_the_others(tmp_path: Path) -> None:
    rack = loaded(tmp_path, BODY)
    assert expected(rack, rack.rack.host("a")).thresholds == Thresholds(
        hotspot_warn_c=95.0,
        disk_free_warn_mib=5 * 1024,
        disk_free_crit_mib=5 * 1024,
        certificate_warn_s=3 * 86400.0,
        certificate_crit_s=3 * 86400.0,
    )
    plain = loaded(tmp_path, 'rack = Rack(name="r", hosts=[Host(name="a", address="10.0.0.1")])\n')
    assert expected(plain, plain.rack.hosts[0]).thresholds == USUAL


@pytest.mark.parametrize(
    ("limits", "reason", "hint"),
    [
        (
            "temperature_warn_c=95.0",
            "`temperature_warn_c` is above `temperature_crit_c` (92)",
            "give `temperature_crit_c` as well",
        ),
        (
            "disk_free_crit_percent=20.0",
            "`disk_free_crit_percent` is above `disk_free_warn_percent` (10)",
            "as well",
        ),
        ("hotspot_crit_c=900.0", "must be at most 150", ""),
        ("memory_warn_c=90", "", ""),
        ("colour=1", "is not a known field", ""),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(tmp_path: Path, limits: str, reason: str, hint: str) -> None:
    body = f'{IMPORT}rack = Rack(name="r", health=Health(limits=Limits({limits})), hosts=[Host(name="a", address="10.0.0.1")])\n'
    found = problems(write(tmp_path, rack_text(body)))
    if not reason:
        assert found == []  # a whole number of degrees is a number
        return
    assert any(reason in one.reason and hint in one.hint for one in found), found


@pytest.mark.parametrize(
    ("gpu", "reason"),
    [("pcie_width=3", "pcie_width"), ("pcie_gen=0", "pcie_gen"), ('pcie_width="x4"', "pcie_width")],
)
def test_a_link_that_no_slot_has_is_refused(tmp_path: Path, gpu: str, reason: str) -> None:
    body = f'rack = Rack(name="r", hosts=[Host(name="a", address="10.0.0.1", gpus=[Gpu(model="RTX 3090", slot="s0", {gpu})])])\n'
    assert any(reason in str(one) for one in problems(write(tmp_path, rack_text(body))))
