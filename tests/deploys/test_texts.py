"""Every text that labctl writes to a host: marked as its own, complete, accepted by what reads it."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from labctl import content, render
from labctl.domain.driver_packages import Needs, choose
from labctl.domain.problem import LabctlError
from labctl.inventory import Command, Controller, Gateway, Gpu, Health, Host, Nvidia, Rack, WakeOnLan, Web
from labctl.render import (
    access,
    agent_config,
    amd,
    caps,
    controller,
    firewall,
    gateway,
    health,
    nvidia,
    system,
    unified,
    units,
    web,
    wol,
)

HOST = Host(name="rig", address="10.0.0.1", services=(Command(name="web", argv=("/bin/true",)),))
RACK = Rack(name="rack", hosts=(HOST,), ntp=("ntp.example.org",))
CARD = WakeOnLan(mac="52:54:00:66:00:11")
SECUREON = "01:23:45:67:89:ab"
GPU_HOST = Host(
    name="gpu",
    address="10.0.0.2",
    gpus=(Gpu(model="RTX 3090", slot="slot0"),),
    nvidia=Nvidia(suspend="preserve"),
    services=(Command(name="web", argv=("/bin/true",)),),
)
DRIVER = choose(Needs("debian", "12", "amd64", "6.1.0-40-amd64", ("Ampere",)))
GOES_TO_SLEEP, WAKES_UP = nvidia.sleep_units()
SLEEPING = RACK.model_copy(
    update={
        "controller": Controller(host="hub"),
        "gateway": Gateway(host="hub"),
        "web": Web(),
        "health": Health(textfile="/var/lib/prometheus/node-exporter/labctl.prom"),
    }
)
TEXTS = {
    "ping.conf.j2": controller.ping(),
    "controller.service.j2": controller.unit(SLEEPING, "0" * 64),
    "health.service.j2": health.unit(SLEEPING),
    "health.timer.j2": health.timer(SLEEPING),
    "gateway.socket.j2": gateway.socket(SLEEPING, "labctl-gateway@0-1.service"),
    "gateway@.service.j2": gateway.unit(SLEEPING, "0" * 64),
    "web.service.j2": web.unit(SLEEPING, web.Ready("{}", {})),
    "agent.rules.j2": agent_config.udev_rules(),
    "sshd.conf.j2": access.sshd("admin"),
    "sudoers-operator.j2": access.operator_sudoers(),
    "sudoers-agent.j2": access.agent_sudoers(access.ROOT_VERBS),
    "journald.conf.j2": system.journald(),
    "timesyncd.conf.j2": system.timesyncd(RACK),
    "unattended-upgrades.conf.j2": system.unattended_upgrades(),
    "firewall.nft.j2": firewall.rules(HOST, (22,)),
    "firewall.service.j2": firewall.unit().content,
    "wol.link.j2": wol.link(CARD, secureon=None),
    "caps.service.j2": caps.unit(),
    "caps.rules.j2": caps.udev_rules(),
    "nvidia-modprobe.conf.j2": nvidia.modprobe(GPU_HOST, DRIVER, "debian"),
    "nvidia-persistenced.conf.j2": nvidia.persistence(DRIVER),
    "nvidia-pin.pref.j2": nvidia.pin(),
    "nvidia-sleep.sh.j2": nvidia.sleep_script(GPU_HOST),
    "nvidia-sleep.service.j2": GOES_TO_SLEEP.content,
    "nvidia-wake.service.j2": WAKES_UP.content,
    "rocm.sources.j2": amd.rocm_source("https://example.org/rocm", "/etc/apt/keyrings/labctl-amd.asc"),
    "mesa.pref.j2": amd.backports_pin("bookworm-backports"),
    "ttm.conf.j2": unified.ttm(31457280),
    "earlyoom.conf.j2": unified.earlyoom(),
    "unified-services.conf.j2": unified.services(128),
    "service.service.j2": units.service(RACK, HOST, HOST.services[0]).content,
}


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed")


def test_every_template_is_rendered_somewhere_here() -> None:
    assert {path.name for path in content.templates_dir().iterdir()} == set(TEXTS)


@pytest.mark.parametrize("template", TEXTS)
def test_a_text_opens_with_the_header_and_has_no_trace_of_its_template(template: str) -> None:
    text = TEXTS[template]
    assert text.splitlines()[0] == render.HEADER
    assert text.endswith("\n")
    assert not re.search(r"\{\{|\{%|None|\bTrue\b|Undefined", text)


@pytest.mark.parametrize(
    "template", [name for name in TEXTS if "{{" in (content.templates_dir() / name).read_text()]
)
def test_a_template_without_its_values_is_an_error_and_not_an_empty_word(template: str) -> None:
    with pytest.raises(UndefinedError):
        render.text(template)


# Access.


@needs("visudo")
@pytest.mark.parametrize("template", ["sudoers-operator.j2", "sudoers-agent.j2"])
def test_visudo_accepts_the_rules(template: str, tmp_path: Path) -> None:
    file = tmp_path / "rules"
    file.write_text(TEXTS[template])
    assert subprocess.run([*access.CHECK_SUDOERS, str(file)]).returncode == 0


def test_the_agents_rules_are_whole_command_lines() -> None:
    rules = [line for line in TEXTS["sudoers-agent.j2"].splitlines() if not line.startswith("#")]
    agent = "labctl-agent ALL=(root) NOPASSWD: /usr/local/lib/labctl/agent.pyz"
    gate = ("suspend", "gate", "health", "mend --driver", "mend --engines", "mend --reboot")
    assert rules == [f"{agent} {verb}" for verb in ("caps", "caps --show", "caps --step", *gate)]


@pytest.mark.parametrize(
    "verb",
    [
        *("*", "suspend *", "a,b", "", "suspend\nALL", "su=pend", "a\\b", "!x", "caps --*", "caps --show,"),
        *(
            "caps  --show",
            " caps",
            "caps ",
            "caps -s",
            "caps --show=1",
            "--show",
            "caps\n--show",
            "caps --Show",
        ),
    ],
)
def test_a_verb_that_sudo_could_read_more_into_is_refused(verb: str) -> None:
    with pytest.raises(ValueError, match="not a verb with plain flags"):
        access.agent_sudoers((verb,))


def test_root_keeps_its_key_only_where_labctl_comes_as_root() -> None:
    assert "PermitRootLogin prohibit-password\n" in access.sshd("root")
    assert "PermitRootLogin no\n" in access.sshd("admin")


def keys(folder: Path, name: str, *options: str) -> Path:
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-f", str(path), *options], check=True)
    return path


@needs("ssh-keygen")
@pytest.mark.parametrize("options", ["-t ed25519 -N", "-t ed25519 -N secret", "-t ecdsa -N"])
def test_an_operators_key_is_known_by_its_other_half(tmp_path: Path, options: str) -> None:
    words = options.split() if "secret" in options else [*options.split(), ""]
    mine, other = keys(tmp_path, "mine", *words), keys(tmp_path, "other", *words)
    public, private = mine.with_suffix(".pub").read_text(), mine.read_bytes()
    stranger = other.with_suffix(".pub").read_text()
    line = access.operator_key(private=private, public=public, name="keys/operator")
    assert line.split()[:2] == public.split()[:2]
    for wrong in (
        stranger,
        "",
        "ssh-ed25519",
        "ssh-ed25519 !!",
        private.decode(),
    ):
        with pytest.raises(LabctlError, match=r"keys/operator\.pub is not the public key"):
            access.operator_key(private=private, public=wrong, name="keys/operator")


def test_a_private_key_is_never_part_of_an_error() -> None:
    private = b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + base64.b64encode(b"sesame" * 20) + b"\n-----END"
    with pytest.raises(LabctlError) as caught:
        access.operator_key(private=private, public="ssh-ed25519 AAAA", name="k")
    assert base64.b64encode(b"sesame").decode() not in str(caught.value)


# Firewall.

PORTS = st.integers(1, 65535)


@given(st.lists(PORTS, max_size=8), st.lists(PORTS, min_size=1, max_size=3))
def test_exactly_the_declared_ports_and_those_of_ssh_are_open(declared: list[int], ssh: list[int]) -> None:
    host = Host(name="rig", address="10.0.0.1", open_ports=tuple(declared))
    text = firewall.rules(host, ssh)
    groups = re.findall(r"tcp dport (?:\{ ([\d, ]+) \}|(\d+))", text)
    found = [int(port) for group in groups for port in ",".join(group).split(",") if port.strip()]
    assert set(found) == {*declared, *ssh}
    assert "policy drop" in text


def test_ssh_is_accepted_before_anything_looks_at_the_connections_state() -> None:
    text = TEXTS["firewall.nft.j2"]
    assert text.index('comment "ssh"') < text.index("ct state")


def test_a_firewall_that_would_lock_everybody_out_is_not_written() -> None:
    with pytest.raises(ValueError, match="lock everybody out"):
        firewall.rules(HOST, ())


def test_another_port_makes_another_marker_and_the_same_ports_the_same() -> None:
    def marker(*ssh: int) -> str:
        return firewall.marker(firewall.rules(HOST, ssh))

    assert marker(22) == marker(22, 22)
    assert marker(22) != marker(2222)


def test_a_host_reached_by_a_local_name_stays_findable() -> None:
    assert "udp dport 5353" in firewall.rules(Host(name="rig", address="rig.local"), (22,))
    assert "5353" not in TEXTS["firewall.nft.j2"]


def test_no_table_but_labctls_own_is_named() -> None:
    assert set(re.findall(r"^(?:delete )?table (\S+ \S+)", TEXTS["firewall.nft.j2"], re.M)) == {"inet labctl"}
    assert "flush" not in TEXTS["firewall.nft.j2"]


@needs("nft")
@needs("unshare")
def test_the_kernel_takes_the_rules_twice_and_shows_the_marker(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    host = HOST.model_copy(update={"address": "rig.local", "open_ports": (80, 443)})
    text = firewall.rules(host, (22, 2222))
    (tmp_path / "fw.nft").write_text(text)
    script = "set -e; nft -c -f fw.nft; nft -f fw.nft; nft -f fw.nft; nft list ruleset"
    argv = ["unshare", "-n", "sh", "-c", script]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"chain {firewall.marker(text)} {{") == 1


# The system.


@needs("apt-config")
def test_apt_reads_the_policy_of_updates_as_it_is_meant(tmp_path: Path) -> None:
    file = tmp_path / "52labctl"
    file.write_text(TEXTS["unattended-upgrades.conf.j2"])
    done = subprocess.run([*system.CHECK_APT_CONF, str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in done.stdout
    origins = re.findall(r'Origins-Pattern:: "(.*)";', done.stdout)
    assert len(origins) == 2
    assert all("security" in origin for origin in origins)
    file.write_text("Broken { x")
    assert subprocess.run([*system.CHECK_APT_CONF, str(file)], capture_output=True).returncode != 0


def test_neither_kernel_nor_gpu_driver_is_changed_automatically() -> None:
    held = re.findall(r'^  "([a-z-]+)";', TEXTS["unattended-upgrades.conf.j2"], re.M)
    for package in (
        "linux-image-amd64",
        "linux-headers-6.12",
        "linux-generic-hwe-24.04",
        "linux-nvidia-hwe-24.04",
        "linux-oem-24.04d",
        "nvidia-driver",
        "libnvidia-ml1",
        "firmware-nvidia-gsp",
        "cuda-toolkit",
        "rocm-smi",
        "amdrocm-core-sdk10.0-gfx1151",
    ):
        assert any(re.match(word, package) for word in held), package
    assert not any(re.match(word, "openssl") for word in held)


def test_packages_are_named_once_and_a_chosen_time_daemon_is_not_replaced() -> None:
    rack = Rack(name="rack", hosts=(HOST,), packages=("curl", "htop"))
    host = HOST.model_copy(update={"packages": ("htop", "nvtop")})
    names = system.packages(rack, host, timesyncd=True)
    assert len(names) == len(set(names))
    assert {"curl", "htop", "nvtop", "systemd-timesyncd", "sudo"} <= set(names)
    assert "systemd-timesyncd" not in system.packages(rack, host, timesyncd=False)


# Wake-on-LAN.


def test_a_card_keeps_the_name_that_the_distribution_gives_it() -> None:
    text = TEXTS["wol.link.j2"]
    for line in (
        "PermanentMACAddress=52:54:00:66:00:11",
        "WakeOnLan=magic",
        "NamePolicy=keep kernel database onboard slot path",
    ):
        assert f"{line}\n" in text
    assert wol.path(CARD) == "/etc/systemd/network/50-labctl-wol-525400660011.link"


def test_a_password_is_asked_of_the_card_and_is_in_no_error() -> None:
    assert f"WakeOnLan=secureon\nWakeOnLanPassword={SECUREON}\n" in wol.link(CARD, secureon=SECUREON)
    assert wol.password(" 01-23-45-67-89-AB\n") == SECUREON
    for wrong in ("", "sesame", SECUREON * 2):
        with pytest.raises(LabctlError) as caught:
            wol.password(wrong)
        assert not wrong or wrong not in str(caught.value)
