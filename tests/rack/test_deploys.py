"""The deploys on real hosts: a bare Debian becomes what the inventory says, once, and nobody is locked out.

Making a bare host whole takes seconds, so one test asks a made host several things that belong together.
"""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from declared import DeclaredHost

from labctl.lab import Lab
from labctl.lab.processes import wait_until

pytestmark = pytest.mark.rack

# It says from where it would upgrade, and then looks for what, which takes a while.
ORIGINS = """
coproc SAYS { exec unattended-upgrade --dry-run --debug 2>&1; }
grep --max-count=1 "Allowed origins are" <&"${SAYS[0]}"
kill "$SAYS_PID"
"""

BOTH = pytest.mark.parametrize("bare", ["bookworm", "trixie"], indirect=True)
ROOTS = ("/etc", "/usr/local", "/var/lib/labctl", "/var/lib/labctl-agent", "/home", "/root", "/opt")
# Written by the clock, at random, or by sudo at a user's first visit, whatever labctl does.
VOLATILE = ("/etc/ld.so.cache", "*/__pycache__*", "/etc/.pwd.lock", "*-", "*/.sudo_as_admin_successful")
SERVICE = 'Command(name="docs", argv=["/usr/bin/python3", "-m", "http.server", "8000"], port=8000),\n'


@pytest.fixture
def bare(request: pytest.FixtureRequest, rack: Lab, hosts, rack_file: Callable[..., Path]) -> DeclaredHost:
    """One host as it was installed."""
    (host,) = hosts(1, suite=getattr(request, "param", "trixie"))
    return DeclaredHost(rack, host, rack_file([host]))


def declare_all(bare: DeclaredHost) -> Path:
    """Declare a bit of everything; return the controller's private key."""
    controller = bare.file.parent / "keys/controller"
    if not controller.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(controller)], check=True)
    bare.declare(
        SERVICE,
        fields=f'open_ports=[9100], wake=WakeOnLan(mac="{bare.host.mac}"), ',
        rack='controller_key="keys/controller.pub", timezone="Europe/Berlin", ntp=["192.0.2.1"], ',
    )
    return controller


def digest(bare: DeclaredHost) -> str:
    return bare.rack.digest(bare.host.name, ROOTS, VOLATILE)


def assert_same_plans(bare: DeclaredHost) -> None:
    """Compare name by name; what runs only after a change is never more than conditional to pyinfra."""
    theirs, ours = {}, bare.plan()
    for op in bare.pyinfra("site", "--dry")["plan"]:
        state = "change" if op["hosts_with_change"] else "no-change"
        theirs[op["name"]] = "conditional" if op["hosts_with_conditional_change"] else state
    assert list(ours) == list(theirs)
    different = {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
    assert all(state == "conditional" for _, state in different.values()), different


@BOTH
def test_a_bare_host_is_planned_wholly_then_changed_once_and_pyinfra_agrees(bare: DeclaredHost) -> None:
    declare_all(bare)
    bare_state = digest(bare)
    planned = bare.plan()
    deploys = {
        "Base",
        "Agent",
        "Cluster",
        "Controller",
        "Gateway",
        "Health",
        "Web page",
        "Engines",
        "llama-swap",
        "Services",
        "Wake-on-LAN",
        "Unified memory",
        "NVIDIA",
        "ROCm",
        "Vulkan",
    }
    assert {name.partition(" | ")[0] for name in planned} == {*deploys, "Restart", "Power caps", "Backend"}
    assert planned["Base | firewall rules"] == planned["Services | service docs"] == "change"
    assert_same_plans(bare)
    assert digest(bare) == bare_state, "a plan changes nothing"

    assert bare.apply() > 20
    made = digest(bare)
    assert set(bare.plan().values()) == {"no-change"}
    assert_same_plans(bare)
    assert bare.apply() == 0
    assert digest(bare) == made
    assert bare.run("systemctl --failed --plain --no-legend; visudo -c -q && sshd -t") == ""
    assert bare.run("date +%Z") in ("CET", "CEST")

    allowed = bare.run(f"bash -c {shlex.quote(ORIGINS)}")
    assert f"codename={bare.host.suite}-security" in allowed
    assert f"codename={bare.host.suite}," not in allowed, "updates that are no security updates are left out"


def test_plain_pyinfra_deploy_by_deploy_brings_a_host_to_the_same_state(bare: DeclaredHost) -> None:
    declare_all(bare)
    bare.apply()
    ours, packages = digest(bare), bare.rack.packages(bare.host.name)
    bare.rack.reset(bare.host.name)
    for deploy in ("base", "agent", "services", "wol"):
        bare.pyinfra(deploy, "-y")
        assert set(bare.plan(deploy).values()) == {"no-change"}
    assert bare.rack.packages(bare.host.name) == packages
    assert digest(bare) == ours


# Who gets in.


@BOTH
def test_each_key_opens_what_it_shall_and_no_more(bare: DeclaredHost) -> None:
    controller = declare_all(bare)
    operator = bare.file.parent / "keys/operator"
    bare.apply("base", "agent")

    for user in ("labctl", "admin"):
        assert bare.ssh(user, operator, "sudo", "-n", "id", "-un").stdout == "root\n"
    assert '"boot_id"' in bare.ssh("labctl-agent", controller, "report").stdout
    for order in ("id", "report; id", "", "sudo -n id", "suspend now"):
        refused = bare.ssh("labctl-agent", controller, order)
        assert (refused.returncode, "refused" in refused.stderr) == (126, True), order
    wrong = (("labctl", controller), ("labctl-agent", operator), ("admin", controller), ("root", operator))
    for user, key in wrong:
        bare.run("systemctl restart ssh")  # newer sshd holds failures against an address for a while
        refused = bare.ssh(user, key, "true")
        assert (refused.returncode, "(publickey)" in refused.stderr) == (255, True), refused.stderr
    bare.run("systemctl restart ssh")

    as_agent = "runuser -u labctl-agent -- sudo -n"
    granted = [line.strip() for line in bare.run(f"{as_agent} -l | grep NOPASSWD").splitlines()]
    mends = ("mend --driver", "mend --engines", "mend --reboot")
    verbs = ("caps", "caps --show", "caps --step", "suspend", "gate", "health", *mends)
    agent = "(root) NOPASSWD: /usr/local/lib/labctl/agent.pyz"
    assert granted == [f"{agent} {verb}" for verb in (*verbs, "signals --crontabs")]
    for more in ("agent.pyz", "agent.pyz report", "agent.pyz sleep", "agent.pyz caps --order"):
        bare.run(f"{as_agent} /usr/local/lib/labctl/{more}", status=1)

    bare.declare()
    # What the agent knows of its host changes with it.
    assert bare.apply("agent") == 2, "a controller's key that left the inventory is taken back"
    assert bare.ssh("labctl-agent", controller, "version").returncode == 255


def test_a_broken_sshd_configuration_is_refused_before_anybody_is_cut_off(bare: DeclaredHost) -> None:
    bare.declare()
    bare.run("echo 'Nonsense yes' >> /etc/ssh/sshd_config")
    assert "Nonsense" in bare.fails("base")
    bare.run("test -e /etc/ssh/sshd_config.d/10-labctl.conf", status=1)
    bare.run("sed -i '/Nonsense/d; /^Include/d' /etc/ssh/sshd_config")
    assert "does not include" in bare.fails("base")
    bare.run("echo 'Include /etc/ssh/sshd_config.d/*.conf' >> /etc/ssh/sshd_config")
    bare.apply("base")
    assert "passwordauthentication no" in bare.run("sshd -T")
    bare.run("echo Garbage yes >> /etc/ssh/sshd_config.d/10-labctl.conf")
    bare.run("echo 'Unattended {' > /etc/apt/apt.conf.d/52labctl-unattended-upgrades")
    bare.apply("base")
    bare.run("sshd -T && apt-config dump")


def test_a_key_pair_that_does_not_belong_together_changes_nothing(bare: DeclaredHost) -> None:
    declare_all(bare)
    keys = bare.file.parent / "keys"
    shutil.copy(keys / "controller.pub", keys / "operator.pub")
    before = digest(bare)
    assert "operator.pub is not the public key" in bare.fails("base")
    assert digest(bare) == before


# The firewall.


def opens(bare: DeclaredHost, port: int) -> bool:
    """Return whether the host answers: by a service, or by the refusal of a port that nothing listens on."""
    try:
        socket.create_connection((bare.host.address, port), 1).close()
    except ConnectionRefusedError:
        return True
    except TimeoutError:
        return False
    return True


@BOTH
def test_only_declared_ports_answer_and_neither_flush_nor_boot_changes_that(bare: DeclaredHost) -> None:
    bare.declare(fields="open_ports=[9100], ")
    assert opens(bare, 9101)
    bare.run("nft add table inet mine; nft add chain inet mine kept")
    key = bare.file.parent / "keys/operator"
    argv = bare.rack.ssh_argv(bare.host.name, "read line; echo got $line", key=key)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
        assert wait_until(lambda: bare.run("loginctl --no-legend | wc -l") != "0", within=20)
        bare.apply("base")
        assert session.communicate("word\n", timeout=30)[0] == "got word\n", "an older session goes on"
    closed = (True, True, False)
    assert tuple(opens(bare, port) for port in (22, 9100, 9101)) == closed
    assert "chain kept" in bare.run("nft list table inet mine"), "tables of others stay"

    bare.run("nft flush ruleset")
    assert opens(bare, 9101)
    assert bare.plan("base")["Base | firewall is loaded"] == "change"
    assert bare.apply("base") == 1
    assert tuple(opens(bare, port) for port in (22, 9100, 9101)) == closed

    bare.run("systemctl start nftables; systemctl restart nftables-labctl; systemctl restart nftables")
    # Debian's own ruleset starts with a flush; ours follows it.
    assert wait_until(lambda: not opens(bare, 9101), within=10)

    bare.rack.stop(bare.host.name)
    bare.rack.start(bare.host.name)
    assert tuple(opens(bare, port) for port in (22, 9100, 9101)) == closed

    mine = "/etc/labctl/firewall.d/mine.nft"
    bare.run(f"echo 'tcp dport 9101 accept' > {mine}; systemctl reload nftables-labctl")
    assert opens(bare, 9101)
    assert bare.apply("base") == 0, "rules that the user adds in the drop-in folder are the user's"


# The rest of the ground.


def test_what_others_decided_about_name_and_clock_is_kept(bare: DeclaredHost) -> None:
    bare.run("apt-get install -qy chrony")
    bare.declare(rack='ntp=["192.0.2.1"], ')
    bare.apply("base")
    packages = bare.rack.packages(bare.host.name)
    assert "chrony" in packages
    assert "systemd-timesyncd" not in packages
    assert bare.apply("base") == 0

    name = bare.host.name
    aliases = f"127.0.1.1 {name}.lan {name} box"
    bare.run(f"hostname other; echo other > /etc/hostname; sed -i 's/^127.0.1.1.*/{aliases}/' /etc/hosts")
    assert bare.apply("base") == 1
    assert bare.run("hostname; cat /etc/hostname; grep 127.0.1.1 /etc/hosts") == f"{name}\n{name}\n{aliases}"


# Wake-on-LAN.


def test_a_card_that_left_the_inventory_is_forgotten_and_the_users_file_stays(bare: DeclaredHost) -> None:
    declare_all(bare)
    bare.apply("wol")
    assert bare.run("ls /etc/systemd/network") == f"50-labctl-wol-{bare.host.mac.replace(':', '')}.link"
    bare.run("cp /etc/systemd/network/50-labctl-wol-*.link /etc/systemd/network/50-mine.link")
    bare.declare()
    assert bare.apply("wol") == 1
    assert bare.run("ls /etc/systemd/network") == "50-mine.link"


def test_a_password_of_a_card_is_shown_to_nobody(bare: DeclaredHost) -> None:
    (bare.file.parent / "secureon").write_text("01:23:45:67:89:AB\n")
    bare.declare(fields=f'wake=WakeOnLan(mac="{bare.host.mac}", secureon_file="secureon"), ')
    planned, applied = bare.report("plan", "--only=wol"), bare.report("apply", "--only=wol", "--yes")
    assert applied["changed"] == 1
    assert "01:23" not in f"{planned}{applied}".lower()
    link = f"/etc/systemd/network/50-labctl-wol-{bare.host.mac.replace(':', '')}.link"
    assert bare.run(f"stat -c '%a %U' {link}; grep Password {link}") == (
        "600 root\nWakeOnLanPassword=01:23:45:67:89:ab"
    )
    assert bare.apply("wol") == 0


def test_a_mac_that_no_card_has_is_named_before_anything_changes(bare: DeclaredHost) -> None:
    bare.declare(fields='wake=WakeOnLan(mac="52:54:00:99:99:99"), ')
    assert "52:54:00:99:99:99" in bare.fails("wol")
    assert "50-labctl" not in bare.run("ls /etc/systemd/network")
