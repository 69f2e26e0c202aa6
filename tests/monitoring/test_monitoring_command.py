"""``labctl monitoring write``: what it writes from a rack, what it leaves alone, and what it says."""

from __future__ import annotations

import datetime
import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from labctl.adapters import shared_folder
from labctl.cli.main import main
from labctl.domain.problem import LabctlError
from labctl.inventory import Gateway, GatewayKey, Host, Rack, Web, WebKey
from labctl.render.monitoring import Scraper, files
from labctl.render.monitoring.dashboard import PANELS, dashboard
from monitoring_kit import HUB, RACK, RIG

HASH = "0" * 64
FILES = {
    "prometheus.yml",
    "labctl.rules.yml",
    "grafana/labctl.json",
    "targets/labctl.json",
    "targets/labctl-gateway.json",
}
FOLDER = Path("/nowhere")


def racked(**changes: Any) -> Rack:
    return RACK.model_copy(update=changes)


def targets(written: Any, job: str) -> Any:
    return json.loads(written.files[f"targets/{job}.json"])


def jobs(written: Any) -> dict[str, Any]:
    config = yaml.safe_load(written.files["prometheus.yml"])
    return {one["job_name"]: one for one in config["scrape_configs"]}


# --- what is scraped ---


def test_a_rack_with_a_page_and_a_gateway_has_both_scraped() -> None:
    made = files(RACK, FOLDER, Scraper(HUB))
    assert set(made.files) == FILES
    assert made.notes == ()
    assert targets(made, "labctl") == [{"targets": ["127.0.0.1:8090"], "labels": {"rack": "desk"}}]
    assert targets(made, "labctl-gateway") == [{"targets": ["127.0.0.1:8000"], "labels": {"rack": "desk"}}]


@pytest.mark.parametrize(
    ("listen", "viewer", "address"),
    [
        ("127.0.0.1", HUB, "127.0.0.1:8090"),
        ("::1", HUB, "[::1]:8090"),
        ("0.0.0.0", HUB, "127.0.0.1:8090"),
        ("0.0.0.0", RIG, "10.0.0.2:8090"),
        ("0.0.0.0", None, "10.0.0.2:8090"),
        ("10.0.0.2", None, "10.0.0.2:8090"),
    ],
)
def test_the_address_is_the_one_that_prometheus_reaches(
    listen: str, viewer: Host | None, address: str
) -> None:
    rack = racked(web=Web(listen=listen), gateway=None)
    (group,) = targets(files(rack, FOLDER, Scraper(viewer)), "labctl")
    assert group["targets"] == [address]


def test_a_page_that_prometheus_does_not_reach_is_left_out_and_said() -> None:
    rack = racked(gateway=Gateway(host="hub", listen="0.0.0.0"))
    made = files(rack, FOLDER, Scraper(None))
    assert set(made.files) == FILES - {"targets/labctl.json"}
    assert made.notes == (
        "labctl is not scraped: it listens on 127.0.0.1 of hub, which elsewhere does not reach",
    )


def test_where_nothing_is_reached_nothing_is_written() -> None:
    with pytest.raises(LabctlError, match="nothing that Prometheus could scrape") as refused:
        files(RACK, FOLDER, Scraper(RIG))
    assert "hub, which rig does not reach" in str(refused.value)


@pytest.mark.parametrize(
    ("listen", "keys", "asks"),
    [
        ("127.0.0.1", (), False),
        ("127.0.0.1", (WebKey(name="ann", sha256=HASH),), False),
        ("0.0.0.0", (WebKey(name="ann", sha256=HASH),), True),
    ],
)
def test_a_key_is_shown_where_the_page_asks_for_one(listen: str, keys: Any, asks: bool) -> None:
    made = files(racked(web=Web(listen=listen, keys=keys)), FOLDER, Scraper(HUB))
    wanted = {"type": "Bearer", "credentials_file": "keys/labctl"} if asks else None
    assert jobs(made)["labctl"].get("authorization") == wanted
    assert bool(made.notes) == asks


def test_no_key_and_no_hash_is_in_any_file() -> None:
    canary = "c0ffee" * 10 + "0000"
    keys = (GatewayKey(name="ann", sha256=canary),)
    made = files(
        racked(gateway=Gateway(host="hub", keys=keys), web=Web(keys=(WebKey(name="ann", sha256=canary),))),
        FOLDER,
        Scraper(HUB),
    )
    assert jobs(made)["labctl-gateway"]["authorization"]["credentials_file"] == "keys/labctl-gateway"
    assert canary not in json.dumps(dict(made.files))


def certificate(*names: x509.GeneralName) -> str:
    """Return a certificate that signs itself and bears names."""
    key, day = ec.generate_private_key(ec.SECP256R1()), datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    called = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hub")])
    made = x509.CertificateBuilder(called, called, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(day).not_valid_after(day + datetime.timedelta(days=36500))
    if names:
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("names", "known_as"),
    [
        ([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("hub.home")], None),
        ([x509.DNSName("hub.home"), x509.DNSName("hub")], "hub.home"),
        ([x509.DNSName("*.home")], "labctl.home"),
        ([x509.IPAddress(ip_address("10.0.0.1"))], "10.0.0.1"),
    ],
)
def test_a_page_with_tls_is_known_by_its_certificate_and_a_name_in_it(
    names: list[x509.GeneralName], known_as: str | None, tmp_path: Path
) -> None:
    pem = certificate(*names)
    (tmp_path / "hub.pem").write_text(pem)
    made = files(secured(), tmp_path, Scraper(HUB))
    job = jobs(made)["labctl-gateway"]
    expected = {"ca_file": "targets/labctl-gateway.pem"} | ({"server_name": known_as} if known_as else {})
    assert (job["scheme"], job["tls_config"]) == ("https", expected)
    assert made.files["targets/labctl-gateway.pem"] == pem


def secured() -> Rack:
    return racked(gateway=Gateway(host="hub", certificate=Path("hub.pem"), private_key=Path("hub.key")))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "the certificate cannot be read"),
        ("-----BEGIN CERTIFICATE-----\n", "holds no certificate as PEM"),
        (certificate(), "bears no name that Prometheus checks"),
    ],
)
def test_a_certificate_by_which_nobody_is_known_is_said(text: str | None, why: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "hub.pem").write_text(text)
    with pytest.raises(LabctlError, match=rf"hub\.pem: .*{why}"):
        files(secured(), tmp_path, Scraper(HUB))


def test_hosts_are_scraped_themselves_where_wanted_and_it_is_said_which_may_sleep() -> None:
    made = files(RACK, FOLDER, Scraper(HUB, 9100))
    assert targets(made, "labctl-node") == [
        {"targets": [address], "labels": {"rack": "desk", "host": name, "sleeps": sleeps}}
        for name, address, sleeps in (("hub", "10.0.0.2:9100", "no"), ("rig", "10.0.0.3:9100", "yes"))
    ]


def test_without_a_controller_no_host_may_sleep() -> None:
    made = files(racked(controller=None, web=None), FOLDER, Scraper(HUB, 9100))
    assert {group["labels"]["sleeps"] for group in targets(made, "labctl-node")} == {"no"}


# --- the dashboard ---


def test_panels_lie_beside_each_other_and_none_on_another() -> None:
    panels = json.loads(dashboard())["panels"]
    assert len(panels) == len(PANELS) == len({panel["id"] for panel in panels})
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        taken |= cells


def test_the_dashboard_names_no_data_source_and_nothing_of_a_rack() -> None:
    whole = json.loads(dashboard())
    sources = [one["datasource"] for panel in whole["panels"] for one in (panel, *panel["targets"])]
    assert {json.dumps(source) for source in sources} == {'{"type": "prometheus", "uid": "${source}"}'}
    assert whole["id"] is None
    expressions = [one["expr"] for panel in whole["panels"] for one in panel["targets"]]
    assert all('rack=~"$rack"' in expr for expr in expressions)


# --- the folder ---


def test_writing_again_changes_nothing_and_a_change_is_taken_up(tmp_path: Path) -> None:
    assert shared_folder.write(tmp_path, {"a/b": "1", "c": "1"}) == ("a/b", "c")
    before = (tmp_path / "c").stat().st_mtime_ns
    assert shared_folder.write(tmp_path, {"a/b": "2", "c": "1"}) == ("a/b",)
    assert (tmp_path / "a" / "b").read_text() == "2"
    assert (tmp_path / "c").stat().st_mtime_ns == before
    assert shared_folder.write(tmp_path, {"a/b": "2", "c": "1"}) == ()


@pytest.mark.parametrize("known", [True, False])
def test_what_somebody_else_wrote_is_left_alone_and_so_is_all_else(known: bool, tmp_path: Path) -> None:
    if known:
        shared_folder.write(tmp_path, {"a": "1", "b": "1"})
    (tmp_path / "a").write_text("mine")
    with pytest.raises(LabctlError, match="a was not written by labctl"):
        shared_folder.write(tmp_path, {"a": "2", "b": "2"})
    assert (tmp_path / "a").read_text() == "mine"
    assert [path.read_text() for path in [tmp_path / "b"] if path.exists()] == (["1"] if known else [])
    assert shared_folder.write(tmp_path, {"a": "2", "b": "2"}, over=True) == ("a", "b")
    assert (tmp_path / "a").read_text() == "2"


def test_a_run_that_was_cut_off_anywhere_is_simply_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = {"a": "1", "b": "1"}, {"a": "2", "b": "2"}
    done = shared_folder._replace
    for cut in range(3):
        folder = tmp_path / str(cut)
        shared_folder.write(folder, old)
        left = iter(range(cut))

        def cutting(path: Path, text: str, left: Any = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            done(path, text)

        with monkeypatch.context() as patched:
            patched.setattr(shared_folder, "_replace", cutting)
            with pytest.raises(KeyboardInterrupt):
                shared_folder.write(folder, new)
        shared_folder.write(folder, new)
        assert {name: (folder / name).read_text() for name in new} == new
        assert sorted(path.name for path in folder.iterdir()) == [shared_folder.NOTE, "a", "b"]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabctlError, match="file"):
        shared_folder.write(tmp_path / "file", {"a": "1"})


# --- the command ---

RACK_FILE = """
from labctl.inventory import Controller, Gateway, Host, Rack, WakeOnLan, Web

rack = Rack(
    name="desk",
    hosts=[
        Host(name="hub", address="10.0.0.2", roles=["always-on"]),
        Host(name="rig", address="10.0.0.3", wake=WakeOnLan(mac="52:54:00:66:00:11")),
    ],
    controller=Controller(host="hub"),
    controller_key="keys/controller.pub",
    web=Web(),
)
globals().update(rack.groups())
"""


@pytest.fixture
def rack_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("LABCTL_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "rack.py"
    file.write_text(RACK_FILE)
    return file


def test_the_command_writes_and_says_what_it_wrote(
    rack_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "prometheus"
    argv = ["monitoring", "write", str(folder), "--inventory", str(rack_file)]
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert said.splitlines() == [
        f"wrote {folder / name}"
        for name in ("prometheus.yml", "labctl.rules.yml", "grafana/labctl.json", "targets/labctl.json")
    ]
    assert main(argv) == 0
    assert capsys.readouterr().out == f"{folder} is up to date\n"
    assert main([*argv, "--json", "--node-exporter", "9100"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(folder),
        "written": ["prometheus.yml", "targets/labctl-node.json"],
        "unchanged": ["labctl.rules.yml", "grafana/labctl.json", "targets/labctl.json"],
        "notes": [],
    }


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--on", "-"], "nothing that Prometheus could scrape"),
        (["--on", "hubb"], "the rack has no host 'hubb'"),
        (["--node-exporter", "0"], "0 is not in the range"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    more: list[str], words: str, rack_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["monitoring", "write", str(tmp_path / "p"), "--inventory", str(rack_file), *more]) == 2
    assert words in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "p").exists()
