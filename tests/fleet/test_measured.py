"""What hosts tell of their running engines, and what is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted import Scripted

from fit_racks import engine, rack, shape, swap
from labctl.domain.fit.measured import Measured
from labctl.domain.fit.terms import GIB, MIB
from labctl.fitting import store
from labctl.fleet import measured
from labctl.inventory import Gpu
from labctl.inventory.fitting import Sizes, host_fit
from labctl.inventory.served import loads
from labctl.ports import Said

UUIDS = tuple(f"GPU-1111111{n}-2222-3333-4444-555555555555" for n in range(2))
CARDS = tuple(Gpu(model="RTX 3090", slot=f"slot{n}", uuid=uuid) for n, uuid in enumerate(UUIDS))
RACK = rack(engine("a", port=1), swap("b"), gpus=CARDS)
LOADED: Any = SimpleNamespace(rack=RACK, host_data={"rig": {}})
SIZES = Sizes({"a": shape(10), "b": shape(4)})


def entry(moment: float, text: str, unit: str = "labctl-e-a.service") -> str:
    return json.dumps(
        {"__REALTIME_TIMESTAMP": str(int(moment * 1e6)), "MESSAGE": text, "_SYSTEMD_UNIT": unit}
    )


LINES = [
    entry(1, "srv load_model: loading model '/srv/models/a/a.gguf'"),
    entry(2, "load_tensors: CUDA0 model buffer size = 5120.00 MiB"),
    entry(2, "load_tensors: CUDA1 model buffer size = 5120.00 MiB"),
    entry(3, "llama_kv_cache: CUDA0 KV buffer size = 300.00 MiB"),
    entry(6, "srv llama_server: model loaded"),
    "no JSON",
    json.dumps({"MESSAGE": "without a moment"}),
]


def host(journal: list[str], held: str = "", commands: str = "") -> Scripted:
    def answer(asked: Any) -> Said:
        text = {"journalctl": "\n".join(reversed(journal)), "nvidia-smi": held, "ps": commands}[asked.argv[0]]
        return Said(0, text.encode(), "")

    return Scripted({"rig": answer})


def measure(remote: Scripted) -> dict[str, measured.Measured]:
    (one,) = loads(RACK)
    told = measured.ask(LOADED, [one], remote)["rig"]
    assert isinstance(told, measured.Told)
    found = measured.measured(LOADED, one, told, SIZES, "2026-01-02T03:04:05+00:00")
    assert all(result.host == "rig" for _, result in found.values())
    return {result.model: result for _, result in found.values()}


def test_what_llama_server_said_when_it_loaded_is_read_from_its_journal() -> None:
    remote = host(LINES)
    found = measure(remote)
    assert set(found) == {"a"}
    assert found["a"].shares == {
        "slot0": {"weights": 5120 * MIB, "cache": 300 * MIB},
        "slot1": {"weights": 5120 * MIB},
    }
    assert (found["a"].load_s, found["a"].bytes_s) == (5.0, int(10 * GIB / 5))
    assert {one.argv[0] for one in remote.asked} == {"journalctl", "nvidia-smi", "ps"}


def test_of_a_model_under_llama_swap_what_its_process_holds_counts() -> None:
    held = f"77, {UUIDS[0]}, 4500\n77, {UUIDS[1]}, 100\n78, {UUIDS[0]}, 9\n79, {UUIDS[0]}, [N/A]\nnonsense\n"
    commands = "   77 /usr/bin/llama-server --model /srv/models/b/b.gguf --port 5800\n 78 Xorg\n"
    found = measure(host([], held, commands))
    assert found["b"].shares == {"slot0": {"process": 4500 * MIB}, "slot1": {"process": 100 * MIB}}
    assert found["b"].load_s is None


def test_a_host_that_tells_nothing_measures_nothing() -> None:
    assert measure(host([])) == {}


def test_a_measurement_is_kept_and_corrects_later_estimates_of_the_same_use(tmp_path: Path) -> None:
    (one,) = loads(RACK)

    told = measured.ask(LOADED, [one], host(LINES))["rig"]
    assert isinstance(told, measured.Told)
    found = measured.measured(LOADED, one, told, SIZES, "now")
    store.save(tmp_path, {key: result for key, (_, result) in found.items()})
    known = store.load(tmp_path)
    assert known == {key: result for key, (_, result) in found.items()}

    fit = host_fit(RACK, one, Sizes(SIZES.shapes, measured=known))
    first = next(row for row in fit.rows if row.served.model.id == "a")
    assert first.measured is not None
    assert first.estimate is not None
    assert "as measured on rig at now" in first.estimate.notes
    share = next(share for share in first.estimate.shares if share.device == "slot0")
    assert (share.weights, share.cache) == (5120 * MIB, 300 * MIB)
    other = rack(engine("a", port=1, ctx_size=8192), gpus=CARDS)
    again = host_fit(other, loads(other)[0], Sizes(SIZES.shapes, measured=known))
    assert again.rows[0].measured is None


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 9, "measured": {}}', '{"format": 1, "measured": {"x": 3}}']
)
def test_a_broken_file_of_measurements_costs_the_corrections_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / store.NAME).write_text(text)
    assert store.load(tmp_path) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"shares": [1]},
        {"shares": {"slot0": {"weights": -1}}},
        {"shares": {"slot0": {"weights": "much"}}},
        {"when": 5},
        {"load_s": "long"},
        {"loaded_bytes": 1.5},
    ],
)
def test_an_entry_that_is_no_measurement_costs_itself_alone(tmp_path: Path, wrong: dict[str, object]) -> None:
    good = Measured("now", "rig", "a", {"slot0": {"weights": 5}}, 2.0, 10)
    store.save(tmp_path, {"good": good, "bad": good})
    document = json.loads((tmp_path / store.NAME).read_text())
    document["measured"]["bad"].update(wrong)
    (tmp_path / store.NAME).write_text(json.dumps(document))
    assert store.load(tmp_path) == {"good": good}
