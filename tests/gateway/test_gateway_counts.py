"""What is counted: read back by Prometheus' own parser."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from access_world import Timers, record, table
from prometheus_client.parser import text_string_to_metric_families

from labctl.gateway.meters.counts import Counts
from labctl.gateway.meters.lines import Lines

USAGE = (
    b'{"usage": {"prompt_tokens": 12, "completion_tokens": 21,'
    b' "prompt_tokens_details": {"cached_tokens": 4}}}'
)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def _counts(process: str = "") -> Counts:
    return Counts(table(), Lines(-1, Timers().later), process)


def _read(text: bytes) -> Samples:
    return {
        (sample.name.removeprefix("labctl_gateway_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def _labels(**named: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(named.items()))


def test_a_request_that_was_served_is_counted_by_model_host_and_key() -> None:
    counts = _counts()
    for _ in range(3):
        counts.took(record(stream=True), USAGE)
    read = _read(counts.text({}))
    asked = _labels(model="qwen3-8b", host="gpu-box", key="alice", status="200", how="served")
    assert read["requests_total", asked] == 3
    whose = {"model": "qwen3-8b", "host": "gpu-box", "key": "alice"}
    tokens = {
        kind: read["tokens_total", _labels(**whose, kind=kind)] for kind in ("prompt", "cached", "answer")
    }
    assert tokens == {"prompt": 36, "cached": 12, "answer": 63}
    where = {"model": "qwen3-8b", "host": "gpu-box"}
    assert read["received_bytes_total", _labels(**where)] == 900
    assert read["sent_bytes_total", _labels(**where)] == 12_000
    assert read["retries_total", _labels(**where)] == 0
    for name, total in (("request", 3.6), ("first_byte", 0.6), ("queue", 0.0)):
        assert read[f"{name}_seconds_count", _labels(**where)] == 3
        assert read[f"{name}_seconds_sum", _labels(**where)] == pytest.approx(total)
    # 20 tokens more in the second after the first one.
    assert read["tokens_per_second_sum", _labels(**where)] == pytest.approx(60.0)
    assert read["tokens_per_second_bucket", _labels(**where, le="10.0")] == 0
    assert read["tokens_per_second_bucket", _labels(**where, le="+Inf")] == 3


@pytest.mark.parametrize(
    ("changes", "tail", "absent"),
    [
        ({"stream": False}, USAGE, "tokens_per_second"),
        ({"first_s": -1.0, "status": 502, "how": "answered"}, b"", "first_byte_seconds"),
        ({"upstream": "", "status": 200, "how": "answered", "first_s": -1.0}, b"", "request_seconds"),
        (
            {"upstream": "", "status": 429, "how": "refused", "code": "too-many-requests"},
            b"",
            "queue_seconds",
        ),
    ],
)
def test_what_was_not_measured_is_not_counted(changes: dict[str, object], tail: bytes, absent: str) -> None:
    counts = _counts()
    counts.took(record(**changes), tail)
    assert not [name for name, _ in _read(counts.text({})) if name.startswith(absent)]


def test_refusals_are_counted_by_their_code_and_not_as_requests() -> None:
    counts = _counts()
    for _ in range(2):
        counts.took(
            record(upstream="", host="", status=401, key="", how="refused", code="no-key", model=""), b""
        )
    read = _read(counts.text({}))
    assert read["refused_total", _labels(model="", host="", key="", status="401", code="no-key")] == 2
    assert not [name for name, _ in read if name == "requests_total"]


def test_names_that_clients_made_up_are_counted_as_none(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as out:
        lines = Lines(out.fileno(), Timers().later)
        counts = Counts(table(), lines)
        for number in range(1000):
            counts.took(
                record(upstream="", host="", model=f"my secret {number}", status=404, code="no-such-model"),
                b"",
            )
            if number % 100 == 0:
                lines.close()
        counts.took(record(model="small"), b"")
        lines.close()
        assert len(counts._rows) == 2
        text = counts.text({})
        assert b"secret" not in text
        assert b'model="qwen3-8b"' in text  # an alias counts for its model
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(told) == 1001
    assert {line.get("model", "") for line in told} == {"", "qwen3-8b"}


def test_answers_that_do_not_say_their_tokens_are_counted_as_such() -> None:
    counts = _counts()
    counts.took(record(), b"RIFF....")
    read = _read(counts.text({}))
    assert read["tokens_unsaid_total", _labels(model="qwen3-8b", host="gpu-box", key="alice")] == 1
    assert not [name for name, _ in read if name == "tokens_total"]


@pytest.mark.parametrize("changes", [{"how": "cut"}, {"how": "left"}, {"status": 500}])
def test_an_answer_that_is_none_or_not_whole_need_not_say_them(changes: dict[str, object]) -> None:
    counts = _counts()
    counts.took(record(**changes), b"data: ...")
    assert b"tokens_unsaid" not in counts.text({})


def test_the_record_gets_its_tokens_and_times_that_a_person_can_read() -> None:
    counts = _counts()
    one = record(first_s=0.123456789, seconds=1.000000499, queued_s=0.1 + 0.2, woke_s=float("0"))
    counts.took(one, USAGE)
    assert (one.prompt_tokens, one.answer_tokens, one.cached_tokens) == (12, 21, 4)
    assert (one.at, one.first_s, one.seconds) == (1790000000.123, 0.123456, 1.0)
    line = json.loads(msgspec.json.encode(one))
    assert line["queued_s"] == 0.3
    assert "woke_s" not in line


def test_what_there_was_none_of_is_not_in_the_line() -> None:
    one = record(first_s=float("-1"), seconds=float("0"), queued_s=float("0"), woke_s=float("0"))
    _counts().took(one, b"")
    assert not {"first_s", "seconds", "queued_s", "woke_s"} & json.loads(msgspec.json.encode(one)).keys()


def test_a_client_can_not_make_a_line_as_long_as_it_likes() -> None:
    counts = _counts()
    one = record(path="/" + "x" * 60_000)
    counts.took(one, b"")
    assert len(one.path) == 200


def test_tries_in_vain_are_counted() -> None:
    counts = _counts()
    counts.took(record(tries=3), USAGE)
    counts.took(record(tries=1), USAGE)
    assert _read(counts.text({}))["retries_total", _labels(model="qwen3-8b", host="gpu-box")] == 2


def test_wakes_are_counted_by_whether_the_host_came() -> None:
    counts = _counts()
    counts.wake("gpu-box", "alice", 12.5, came=True)
    counts.wake("gpu-box", "alice", 900.5, came=True)
    counts.wake("gpu-box", "alice", 180.0, came=False)
    read = _read(counts.text({}))
    came = {"host": "gpu-box", "key": "alice", "came": "yes"}
    assert read["wake_seconds_count", _labels(**came)] == 2
    assert read["wake_seconds_sum", _labels(**came)] == 913.0
    assert read["wake_seconds_bucket", _labels(**came, le="10.0")] == 0
    assert read["wake_seconds_bucket", _labels(**came, le="30.0")] == 1
    assert read["wake_seconds_bucket", _labels(**came, le="900.0")] == 1
    assert read["wake_seconds_count", _labels(**came | {"came": "no"})] == 1


def test_gauges_of_others_and_the_process_stand_beside_them() -> None:
    counts = _counts("ab12cd34-1")
    counts.took(record(), USAGE)
    text = counts.text({"inside": {'key="alice"': 3.0}, "waiting": {"": 1.5}, "none": {}})
    read = _read(text)
    assert read["inside", _labels(key="alice", process="ab12cd34-1")] == 3
    assert read["waiting", _labels(process="ab12cd34-1")] == 1.5
    assert read["log_lost_lines_total", _labels(process="ab12cd34-1")] == 0
    assert read["resident_bytes", _labels(process="ab12cd34-1")] > 1_000_000
    assert read["cpu_seconds_total", _labels(process="ab12cd34-1")] > 0
    assert all(("process", "ab12cd34-1") in labels for _, labels in read)


def test_labels_are_escaped() -> None:
    counts = _counts()
    odd = 'a"b\\c\nd'
    counts.took(record(key=odd), USAGE)
    read = _read(counts.text({}))
    asked = _labels(model="qwen3-8b", host="gpu-box", key=odd, status="200", how="served")
    assert read["requests_total", asked] == 1


def test_buckets_add_up_and_every_family_says_what_it_is() -> None:
    counts = _counts()
    for millis in range(1, 2000, 7):
        counts.took(record(seconds=millis / 1000, first_s=millis / 2000), USAGE)
    for family in text_string_to_metric_families(counts.text({}).decode()):
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        buckets = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
        assert buckets == sorted(buckets)
        totals = [sample.value for sample in family.samples if sample.name.endswith("_count")]
        assert not buckets or buckets[-1] == totals[0] == 286


def test_nothing_here_loads_the_client_library() -> None:
    folder = Path(__file__).parents[2] / "src" / "labctl" / "gateway"
    assert not [path.name for path in folder.rglob("*.py") if "import prometheus_client" in path.read_text()]
