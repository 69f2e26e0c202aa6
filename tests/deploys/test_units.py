"""Units: what the inventory says reaches the program byte for byte, in a sandbox that leaves GPUs visible."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.domain.problem import LabctlError
from labctl.inventory import (
    Command,
    Gpu,
    Host,
    LlamaServer,
    Model,
    Ollama,
    Rack,
    Secret,
    Sglang,
    TabbyApi,
    Vllm,
    wanted,
)
from labctl.render import HEADER, units

UUID = "GPU-11111111-2222-3333-4444-555555555555"
MODEL = Model(id="tiny", source="file:///srv/tiny.gguf", path="/srv/tiny.gguf", aliases=("small",))
CHAT = LlamaServer(name="chat", binary="/bin/true", model="tiny", port=8081)
WEB = Command(name="web", argv=("/bin/true", "--port", "8000"), port=8000)
ODD = Command(name="odd", argv=("/bin/true", "50% of $HOME", 'a "b" \\ c', "'"), env={"A": "%n \\ $X"})
PLACED = Command(name="placed", argv=("/bin/true",), working_dir="/srv/a b%c\\", user="root")
KEY = Secret(file="keys/any")
FOLDER = Model(id="folder", source="/srv/models/folder")
VLLM = Vllm(name="vllm", binary="/bin/true", model="folder", port=8001, api_key=KEY)
SGLANG = Sglang(name="sglang", binary="/bin/true", model="folder", port=8002, api_key=KEY)
TABBY = TabbyApi(name="tabby", binary="/bin/true", model="folder", port=8003, api_key=KEY)
OLLAMA = Ollama(name="ollama", binary="/bin/true", models=("tiny",))
KEYED = CHAT.model_copy(update={"name": "keyed", "api_key": KEY})
PYTHONS = (VLLM, SGLANG, TABBY)
WITHOUT_GPU = Host(name="mini", address="10.0.0.1")
WITH_GPU = Host(name="rig", address="10.0.0.2", gpus=(Gpu(model="RTX 3090", slot="slot0", uuid=UUID),))
WITH_SHARED_MEMORY = Host(name="strix", address="10.0.0.3", unified_memory_gib=128)
HOSTS = (WITHOUT_GPU, WITH_GPU, WITH_SHARED_MEMORY)
SERVICES = (CHAT, WEB, ODD, PLACED, KEYED, *PYTHONS, OLLAMA)
RACK = Rack(name="rack", hosts=HOSTS, models=(MODEL, FOLDER))

needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed"
)


def settings(content: str) -> dict[str, list[str]]:
    """Return what a unit sets, as systemd adds up repeated lines."""
    found: dict[str, list[str]] = {}
    for line in content.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def words_as_systemd_reads_them(line: str) -> list[str]:
    """Undo quoting, then specifiers, then variables, as systemd.service(5) and systemd.syntax(7) say."""
    assert not re.search(r'(?<!\\)(?:\\\\)*\\[^"\\]', line), "an escape that systemd may know"
    quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', line)
    assert line == " ".join(f'"{word}"' for word in quoted)
    plain = [re.sub(r'\\(["\\])', r"\1", word) for word in quoted]
    for word in plain:
        assert "%" not in word.replace("%%", "")
        assert "$" not in word.replace("$$", "")
    return [word.replace("%%", "%").replace("$$", "$") for word in plain]


TEXTS = st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)


@given(st.lists(TEXTS | st.text("$%\"\\'; nt", min_size=1), max_size=8))
def test_any_argument_reaches_the_program_as_it_is(arguments: list[str]) -> None:
    argv = ("/bin/echo", *arguments)
    assert words_as_systemd_reads_them(units.command_line(argv)) == list(argv)


@needs_systemd
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_systemd_finds_nothing_to_say_about_a_unit_and_rates_it_safe(
    host: Host, service: units.Service, tmp_path: Path
) -> None:
    unit = units.service(RACK, host, service)
    file = tmp_path / unit.name
    file.write_text(unit.content)
    verified = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    rating = ["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", str(file)]
    rated = subprocess.run(rating, capture_output=True, text=True)
    assert rated.returncode == 0, rated.stdout[-200:]


def test_a_host_with_gpus_names_their_devices_and_never_hides_all() -> None:
    for host in (WITH_GPU, WITH_SHARED_MEMORY):
        for service in SERVICES:
            found = settings(units.service(RACK, host, service).content)
            assert "PrivateDevices" not in found
            assert found["DevicePolicy"] == ["closed"]
            allowed = {line.split()[0] for line in found["DeviceAllow"]}
            assert {"char-nvidia", "char-nvidiactl", "char-nvidia-uvm", "char-drm", "char-kfd"} <= allowed
            assert found["SupplementaryGroups"] == ["video render"]
            assert "labctl-caps.service" in found["After"], "no work before the caps"
    for service in SERVICES:
        found = settings(units.service(RACK, WITHOUT_GPU, service).content)
        assert found["PrivateDevices"] == ["yes"]
        assert not {"DeviceAllow", "SupplementaryGroups"} & set(found)
        assert not any("nvidia-modprobe" in line for line in found.get("ExecStartPre", ()))
        assert found["After"] == ["network-online.target"]


def test_a_clock_is_protected_only_where_the_devices_are_listed_or_hidden() -> None:
    # Alone it turns "all devices" into "the clock's device only", which hides GPUs without an error.
    for host in HOSTS:
        found = settings(units.service(RACK, host, CHAT).content)
        assert found["ProtectClock"] == ["yes"]
        assert "DeviceAllow" in found or "PrivateDevices" in found


def test_only_programs_that_may_compile_get_writable_code() -> None:
    def forbids(host: Host, service: units.Service) -> bool:
        return "MemoryDenyWriteExecute" in settings(units.service(RACK, host, service).content)

    assert forbids(WITHOUT_GPU, CHAT)
    assert not forbids(WITH_GPU, CHAT)
    assert not forbids(WITHOUT_GPU, WEB)
    assert not any(forbids(host, service) for host in HOSTS for service in PYTHONS), "Triton compiles"


def test_a_crash_loop_ends() -> None:
    found = settings(units.service(RACK, WITH_GPU, CHAT).content)
    assert (found["Restart"], found["StartLimitBurst"], found["StartLimitIntervalSec"]) == (
        ["on-failure"],
        ["5"],
        ["300"],
    )
    starts_in_the_window = int(found["StartLimitIntervalSec"][0]) / int(found["RestartSec"][0])
    assert starts_in_the_window > int(found["StartLimitBurst"][0]), "else the limit is never reached"


def test_a_llama_server_says_all_that_the_inventory_says() -> None:
    full = LlamaServer(
        name="chat",
        model="small",
        port=8081,
        ctx_size=4096,
        n_gpu_layers=99,
        gpus=("slot0",),
        extra_args=("--jinja",),
    )
    found = settings(units.service(RACK, WITH_GPU, full).content)
    words = words_as_systemd_reads_them(found["ExecStart"][0])
    assert words == [
        *("/usr/bin/llama-server", "--model", "/srv/tiny.gguf", "--host", "127.0.0.1", "--port", "8081"),
        *("--alias", "tiny,small", "--metrics", "--ctx-size", "4096", "--n-gpu-layers", "99", "--jinja"),
    ]
    assert f'"CUDA_VISIBLE_DEVICES={UUID}"' in found["Environment"]


def test_a_gpu_whose_uuid_is_unknown_cannot_be_picked() -> None:
    host = Host(name="rig", address="10.0.0.2", gpus=(Gpu(model="RTX 3090", slot="slot0"),))
    with pytest.raises(LabctlError, match="GPU slot0, whose UUID is not known"):
        units.engine(RACK, host, CHAT.model_copy(update={"gpus": ("slot0",)}))


def test_a_model_with_another_sha256_makes_another_unit() -> None:
    other = MODEL.model_copy(update={"sha256": "0" * 64})
    moved = Rack(name="rack", hosts=HOSTS, models=(other,))
    assert units.engine(RACK, WITH_GPU, CHAT) != units.engine(moved, WITH_GPU, CHAT)


def test_a_model_is_fetched_only_by_its_sha256_and_only_where_it_is_read() -> None:
    pinned = Model(id="tiny", source="https://example.org/t.gguf", sha256="a" * 64, path="/srv/t.gguf")
    served = Host(name="rig", address="10.0.0.2", services=(CHAT, CHAT.model_copy(update={"name": "again"})))
    assert wanted.fetched(Rack(name="rack", hosts=(served,), models=(pinned,)), served) == (pinned,)
    assert wanted.fetched(Rack(name="rack", hosts=(served,), models=(pinned,)), WITHOUT_GPU) == ()
    assert wanted.fetched(Rack(name="rack", hosts=(served,), models=(MODEL,)), served) == ()
    loose = MODEL.model_copy(update={"source": "file:///elsewhere/tiny.gguf"})
    with pytest.raises(LabctlError, match="no sha256="):
        wanted.fetched(Rack(name="rack", hosts=(served,), models=(loose,)), served)


def test_a_service_writes_where_it_starts_unless_that_is_the_systems() -> None:
    def writes(folder: str) -> list[str]:
        service = Command(name="web", argv=("/bin/true",), working_dir=folder)
        return settings(units.command(RACK, WITHOUT_GPU, service).content).get("ReadWritePaths", [])

    assert writes("/srv/web") == ['"-/srv/web"']
    assert writes("/usr/share/doc") == writes("/etc") == writes("/") == []


def test_homes_are_hidden_unless_the_service_reads_there() -> None:
    def home(*argv: str) -> list[str]:
        return settings(units.command(RACK, WITHOUT_GPU, Command(name="x", argv=argv)).content)["ProtectHome"]

    assert home("/usr/bin/x") == ["yes"]
    assert home("/home/ann/x") == home("/usr/bin/x", "--dir=/root/models") == ["read-only"]


def test_units_are_known_by_their_first_two_lines() -> None:
    first, second, *_ = units.service(RACK, WITH_GPU, WEB).content.splitlines()
    assert (first, second) == (HEADER, f"{units.MARKER} web")


def test_engines_that_talk_among_their_cards_may_look_at_the_networks_interfaces() -> None:
    for service in PYTHONS:
        families = settings(units.service(RACK, WITH_GPU, service).content)["RestrictAddressFamilies"]
        assert "AF_NETLINK" in families[0].split()


@pytest.mark.parametrize("service", [KEYED, SGLANG, TABBY], ids=lambda service: service.kind)
def test_a_key_comes_as_a_credential_of_the_unit(service: units.Service) -> None:
    unit = units.service(RACK, WITH_GPU, service)
    (secret,) = unit.secrets
    assert settings(unit.content)["LoadCredential"] == [
        f"{secret.name}:/etc/labctl/secrets/{service.name}.{secret.name}"
    ]


def test_vllms_key_comes_by_a_file_of_variables_since_it_takes_it_no_other_way() -> None:
    unit = units.service(RACK, WITH_GPU, VLLM)
    assert settings(unit.content)["EnvironmentFile"] == ["/etc/labctl/secrets/vllm.env"]
    assert "LoadCredential" not in settings(unit.content)


def test_tabbyapi_finds_its_keys_and_templates_in_its_folder() -> None:
    before = [
        words_as_systemd_reads_them(line)
        for line in settings(units.service(RACK, WITHOUT_GPU, TABBY).content)["ExecStartPre"]
    ]
    assert before[1] == [
        *("/bin/ln", "-sfnT", "--", "/run/credentials/labctl-tabby.service/api_tokens.yml", "api_tokens.yml")
    ]


def test_a_unit_waits_for_the_file_systems_of_its_models() -> None:
    assert settings(units.service(RACK, WITH_GPU, CHAT).content)["RequiresMountsFor"] == ['"/srv/tiny.gguf"']
    assert "RequiresMountsFor" not in settings(units.service(RACK, WITH_GPU, WEB).content)


def test_every_kind_that_is_rendered_has_a_renderer() -> None:
    for where in units.KINDS.values():
        module, _, function = where.partition(":")
        assert callable(getattr(import_module(module), function))
