"""Gateways and vector stores on real hosts: PostgreSQL is the distribution's, gateways are stand-ins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from declared import DeclaredHost

from labctl.lab import Lab
from labctl.lab.processes import wait_until

pytestmark = pytest.mark.rack

STORE = 'PgVector(name="vectors", port=5433, password=Secret(file="keys/vectors")),\n'
PASSWORD = "an-0rdinary-passw0rd"
PSQL = "/opt/labctl/postgresql/bin/psql -XAtq -v ON_ERROR_STOP=1 -h 127.0.0.1 -p 5433"
# What a gateway's program would read: its variables and its arguments; then it stays.
STAND_IN = """\
#!/usr/bin/python3
import json, os, sys, time
told = {"argv": sys.argv[1:], "env": dict(os.environ)}
with open("told.new", "w") as file:
    json.dump(told, file)
os.rename("told.new", "told")
time.sleep(3600)
"""
GATEWAY = """\
LlamaServer(name="chat", binary="/bin/sleep", model="m", port=8001),
LiteLlm(name="gate", binary="/usr/local/bin/gate", port=4000, api_key=Secret(file="keys/gate")),
"""


class Declared(DeclaredHost):
    """A host whose inventory may hold gateways and secrets."""

    def declare(self, services: str = "", models: str = "", fields: str = "", rack: str = "") -> None:
        super().declare(services, models, fields, rack)
        more = "from labctl.inventory import LiteLlm, PgVector, Secret\n"
        self.file.write_text(more + self.file.read_text())

    def secret(self, name: str, value: str) -> None:
        path = self.file.parent / "keys" / name
        path.write_text(f"{value}\n")
        path.chmod(0o600)


@pytest.fixture
def served(request: pytest.FixtureRequest, rack: Lab, hosts, rack_file: Callable[..., Path]) -> Declared:
    """One host, of the Debian that the test asks for."""
    (host,) = hosts(1, suite=getattr(request, "param", "trixie"))
    return Declared(rack, host, rack_file([host]))


def ask(served: Declared, sql: str, password: str = PASSWORD, status: int = 0) -> str:
    """Ask the database as its owner would, over TCP."""
    return served.run(f'PGPASSWORD={password} {PSQL} -U rag -d rag -c "{sql}"', status)


def test_a_vector_store_answers_after_apply_and_a_second_apply_changes_nothing(served: Declared) -> None:
    served.declare(STORE)
    served.secret("vectors", PASSWORD)
    assert served.apply("gateways", "services") > 0
    ask(served, "create table texts (id int, place vector(3))")
    ask(served, "insert into texts values (1, '[1,0,0]'), (2, '[0,1,0]'), (3, '[0,0,1]')")
    ask(served, "create index on texts using hnsw (place vector_cosine_ops)")
    assert ask(served, "select id from texts order by place <=> '[0.1,0.9,0.1]' limit 1") == "2"
    assert served.apply("gateways", "services") == 0

    # Only what was asked for listens, as its own user, and the package's own cluster is not there.
    listening = served.run("ss -Htlnp | grep postgres | awk '{print $4}' | sort")
    assert listening == "127.0.0.1:5433"
    assert served.run("pg_lsclusters -h") == ""
    assert served.run("ps -o user= -C postgres | sort -u") == "labctl-pg"
    assert served.run("systemctl is-active labctl-vectors; systemctl is-enabled labctl-vectors") == (
        "active\nenabled"
    )


def test_the_password_is_nowhere_on_the_host_and_a_wrong_one_is_refused(served: Declared) -> None:
    served.declare(STORE)
    served.secret("vectors", PASSWORD)
    served.apply("gateways", "services")
    assert ask(served, "select 1") == "1"
    ask(served, "select 1", password="wrong", status=2)
    # Nobody is superuser over TCP, and the owner is none.
    assert ask(served, "select rolsuper from pg_roles where rolname = current_user") == "f"
    served.run(
        f"PGPASSWORD={PASSWORD} {PSQL} -U labctl-pg -d postgres -c 'select 1'",
        status=2,
    )
    found = served.run(f"grep -rl {PASSWORD} /etc /var/lib /var/log /run/labctl 2>/dev/null || :")
    assert found == ""
    assert PASSWORD not in served.run("journalctl -o cat | tail -n 2000; cat /proc/*/cmdline | tr '\\0' ' '")


def test_another_password_is_set_without_a_restart_and_data_outlives_the_service(served: Declared) -> None:
    pid = "systemctl show -p MainPID --value labctl-vectors"
    served.declare(STORE)
    served.secret("vectors", PASSWORD)
    served.apply("gateways", "services")
    ask(served, "create table kept (id int)")
    before = served.run(pid)

    served.secret("vectors", "another")
    assert served.plan("gateways")["Vector stores | database rag"] == "change"
    assert served.apply("gateways") == 1
    assert ask(served, "select 1", password="another") == "1"
    ask(served, "select 1", status=2)
    assert served.run(pid) == before

    served.declare()
    assert served.apply("services", "gateways") == 2  # the unit, and the rules of who may log in
    served.run("systemctl is-active labctl-vectors", status=4)
    served.declare(STORE)
    served.apply("services", "gateways")
    assert ask(served, "select count(*) from kept", password="another") == "0"


def test_a_cluster_that_somebody_has_stays_as_it_is(served: Declared) -> None:
    served.run(
        "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y postgresql >/dev/null"
    )
    look = "pg_lsclusters -h; systemctl show -p MainPID --value postgresql@17-main"
    before = served.run(look)
    assert before.split()[:4] == ["17", "main", "5432", "online"]
    served.declare(STORE)
    served.secret("vectors", PASSWORD)
    served.apply("gateways", "services")
    assert ask(served, "select 1") == "1"
    assert served.run(look) == before
    served.run("test -e /etc/postgresql-common/createcluster.d/labctl.conf", status=1)


@pytest.mark.parametrize("served", ["bookworm"], indirect=True)
def test_a_release_without_pgvector_is_refused_in_words(served: Declared) -> None:
    served.declare(STORE)
    served.secret("vectors", PASSWORD)
    said = served.fails("gateways")
    assert "Debian 12 has no package of pgvector; those that do: Debian 13" in " ".join(said.split())
    served.run("dpkg -l | grep -q postgresql", status=1)


def test_a_gateway_gets_its_keys_by_variables_alone_and_restarts_once_when_one_changes(
    served: Declared,
) -> None:
    program = served.rack.root(served.host.name) / "usr/local/bin/gate"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    served.secret("gate", "key-of-the-gateway")
    served.declare(
        GATEWAY.replace('"/bin/sleep"', '"/usr/local/bin/gate"'), 'Model(id="m", source="/srv/m.gguf")'
    )
    served.run("touch /srv/m.gguf")
    assert served.apply("services", "gateways") > 0
    told = "/var/lib/labctl-gate/told"
    assert wait_until(
        lambda: served.rack.run(served.host.name, ["test", "-e", told]).returncode == 0, within=20
    )
    seen = served.run(f"cat {told}")
    assert '"LABCTL_GATEWAY_KEY": "key-of-the-gateway"' in seen
    assert '"--config", "/etc/labctl/litellm/gate.yaml", "--host", "127.0.0.1", "--port", "4000"' in seen
    assert "http://127.0.0.1:8001/v1" in served.run("cat /etc/labctl/litellm/gate.yaml")
    assert served.run("stat -c '%a %U' /etc/labctl/secrets /etc/labctl/secrets/*") == "700 root\n600 root"
    shown = served.run(
        "systemctl cat labctl-gate; systemctl show labctl-gate; cat /etc/labctl/litellm/gate.yaml; "
        "cat /proc/$(systemctl show -P MainPID labctl-gate)/cmdline | tr '\\0' ' '"
    )
    assert "key-of-the-gateway" not in shown
    assert served.apply("services", "gateways") == 0

    pid = served.run("systemctl show -P MainPID labctl-gate")
    served.secret("gate", "another-key")
    assert served.apply("services", "gateways") == 2
    assert served.run("systemctl show -P MainPID labctl-gate") != pid
    assert served.run("journalctl -u labctl-gate -o cat | grep -c '^Started'") == "2"
    assert served.apply("services", "gateways") == 0
