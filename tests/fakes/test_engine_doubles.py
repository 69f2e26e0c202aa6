"""The doubles of vLLM and SGLang: command lines, starts, endpoints, metrics and wheels."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from labctl import wiring
from labctl.lab import llama
from labctl.lab.fake.engines import wheels
from labctl.lab.fake.engines.double import sglang_server, vllm_flags
from labctl.lab.fake.engines.double.metrics import Seen, SglangMetrics, VllmMetrics
from labctl.lab.processes import wait_until
from labctl.render.gguf import tiny

VLLM_NAMES = {
    *("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prompt_tokens"),
    *("generation_tokens", "num_preemptions", "prefix_cache_queries", "prefix_cache_hits", "request_success"),
    *("time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds"),
    *("request_queue_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds"),
    *("request_inference_time_seconds", "request_prompt_tokens", "request_generation_tokens"),
    *("request_params_max_tokens", "iteration_tokens_total"),
}
SGLANG_NAMES = {
    *("num_running_reqs", "num_queue_reqs", "num_used_tokens", "max_total_num_tokens", "token_usage"),
    *("gen_throughput", "cache_hit_rate", "utilization", "prompt_tokens", "generation_tokens"),
    *("cached_tokens", "num_requests", "num_aborted_requests", "time_to_first_token_seconds"),
    *("inter_token_latency_seconds", "e2e_request_latency_seconds", "queue_time_seconds"),
}


@pytest.fixture(scope="session")
def llama_server() -> Path:
    """A real llama-server; the test is skipped where none can be had."""
    try:
        return llama.tree(wiring.cache_home() / "lab") / "llama-server"
    except (llama.NoLlama, OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"llama-server cannot be had here: {error}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, as an engine is given it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.gguf").write_bytes(tiny())
    return tmp_path / "model"


class Running:
    """A double that runs."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def ask(
        self, method: str, path: str, body: object = None, key: str = "", timeout: float = 60
    ) -> tuple[int, Any]:
        """Return status and body, the body as JSON where it is some."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            said = answer.read()
            is_json = answer.headers.get_content_type() == "application/json" and said
            return answer.status, json.loads(said) if is_json else said.decode()

    def status(self, path: str) -> int:
        """Return the status of a GET; 0 where nobody listens."""
        try:
            return self.ask("GET", path)[0]
        except ConnectionRefusedError:
            return 0

    def up(self, path: str = "/health") -> None:
        """Wait until it is well."""
        assert wait_until(lambda: self.status(path) == 200, within=60), self.log.read_text()

    def metric(self, name: str, **labels: str) -> float:
        """Return one sample."""
        (found,) = (
            sample.value
            for family in text_string_to_metric_families(self.ask("GET", "/metrics")[1])
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
        return float(found)

    def counts(self, name: str, value: float, **labels: str) -> bool:
        """Return whether a sample gets to a value: an answer is counted when its last byte has left."""
        return wait_until(lambda: self.metric(name, **labels) == value, within=20)

    def llama_servers(self) -> list[int]:
        """Return the process ids of the llama-servers that it runs."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for file in children for pid in file.read_text().split()]


Start = Callable[..., Running]


def command(engine: str, *words: str) -> list[str]:
    program = f"import sys; from labctl.lab.fake.engines.double.{engine}_server import main; sys.exit(main())"
    return [sys.executable, "-c", program, *words]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(llama_server: Path, tmp_path: Path) -> Iterator[Start]:
    """Start doubles; they end with the test."""
    running: list[Running] = []

    def begin(engine: str, *words: str, port: int | None = None, **environment: str) -> Running:
        chosen = port or free_port()
        log = tmp_path / f"{engine}-{len(running)}.log"
        own = {"LABCTL_DOUBLE_LLAMA_SERVER": str(llama_server), **environment}
        argv = command(engine, *words, "--host", "127.0.0.1", "--port", str(chosen))
        with log.open("w") as out:
            process = subprocess.Popen(
                argv, stdout=out, stderr=subprocess.STDOUT, text=True, env={**os.environ, **own}
            )
        running.append(Running(process, chosen, log))
        return running[-1]

    yield begin
    for one in running:
        one.process.send_signal(signal.SIGTERM)
    ended = [one.process.wait(20) for one in running]
    assert all(status in (0, 1) for status in ended)


def ends(one: Running) -> tuple[int, str]:
    status = one.process.wait(30)
    return status, one.log.read_text()


CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "ignore_eos": True}


def events(text: str) -> list[Any]:
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(one) for one in data[:-1]]


# vLLM.


def test_vllm_serves_real_tokens_under_its_names_and_counts_them(start: Start, folder: Path) -> None:
    one = start("vllm", "serve", str(folder), "--served-model-name", "big", "also", "--max-model-len", "256")
    one.up()
    status, models = one.ask("GET", "/v1/models")
    assert status == 200
    assert [(card["id"], card["max_model_len"], card["owned_by"]) for card in models["data"]] == [
        ("big", 256, "vllm"),
        ("also", 256, "vllm"),
    ]
    assert one.ask("GET", "/version")[1] == {"version": "0.33.0"}
    status, answer = one.ask("POST", "/v1/chat/completions", {**CHAT, "model": "big"})
    assert status == 200
    assert answer["usage"]["completion_tokens"] == 5
    prompt = answer["usage"]["prompt_tokens"]
    assert one.counts("vllm:prompt_tokens_total", prompt, model_name="big", engine="0")
    assert one.counts("vllm:generation_tokens_total", 5)
    assert one.counts("vllm:request_success_total", 1, finished_reason="length")
    assert one.counts("vllm:e2e_request_latency_seconds_count", 1)
    assert one.counts("vllm:num_requests_running", 0)


def test_vllm_streams_and_tells_the_usage_only_to_who_asks(start: Start, folder: Path) -> None:
    one = start("vllm", "serve", str(folder), "--served-model-name", "big")
    one.up()
    plain = events(one.ask("POST", "/v1/chat/completions", {**CHAT, "stream": True})[1])
    assert plain
    assert not any(chunk.get("usage") for chunk in plain)
    asked = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    told = events(one.ask("POST", "/v1/chat/completions", asked)[1])
    assert told[-1]["usage"]["completion_tokens"] == 5
    assert one.counts("vllm:generation_tokens_total", 10)
    assert one.counts("vllm:time_to_first_token_seconds_count", 2)


def test_vllm_refuses_in_its_own_words(start: Start, folder: Path) -> None:
    one = start("vllm", "serve", str(folder), "--served-model-name", "big", "--max-model-len", "256")
    one.up()
    status, refusal = one.ask("POST", "/v1/chat/completions", {**CHAT, "model": "small"})
    assert (status, refusal["error"]["message"]) == (404, "The model `small` does not exist.")
    long = {"model": "big", "prompt": "x" * 500, "max_tokens": 1}
    status, refusal = one.ask("POST", "/v1/completions", long)
    assert status == 400
    assert "maximum context length is 256 tokens" in refusal["error"]["message"]
    assert one.ask("GET", "/nothing")[0] == 404
    assert one.ask("GET", "/v1/chat/completions")[0] == 405
    assert one.ask("POST", "/sleep?level=1")[0] == 404, "sleep is a development endpoint"
    count = one.ask("POST", "/tokenize", {"prompt": "hello"})[1]
    assert count["count"] == len(count["tokens"]) > 0


@pytest.mark.parametrize(
    ("words", "environment"), [(("--api-key", "a", "b"), {}), ((), {"VLLM_API_KEY": "b"})]
)
def test_vllm_asks_for_a_key_below_v1_and_nowhere_else(
    words: tuple[str, ...], environment: dict[str, str], start: Start, folder: Path
) -> None:
    one = start("vllm", "serve", str(folder), *words, **environment)
    one.up()
    assert one.ask("GET", "/metrics")[0] == 200
    assert one.ask("GET", "/v1/models") == (401, {"error": "Unauthorized"})
    assert one.ask("GET", "/v1/models", key="wrong")[0] == 401
    assert one.ask("GET", "/v1/models", key="b")[0] == 200


def test_vllm_sleeps_and_wakes_and_requests_wait_meanwhile(start: Start, folder: Path) -> None:
    one = start("vllm", "serve", str(folder), "--enable-sleep-mode", VLLM_SERVER_DEV_MODE="1")
    one.up()
    assert len(one.llama_servers()) == 1
    assert one.ask("GET", "/is_sleeping")[1] == {"is_sleeping": False}
    assert one.ask("POST", "/sleep?level=9")[0] == 400
    assert one.ask("POST", "/sleep?level=1")[0] == 200
    assert one.ask("GET", "/is_sleeping")[1] == {"is_sleeping": True}
    assert one.llama_servers() == []
    assert one.ask("GET", "/health")[0] == 200
    with pytest.raises(TimeoutError):
        one.ask("POST", "/v1/chat/completions", CHAT, timeout=0.5)
    assert one.ask("POST", "/wake_up")[0] == 200
    assert one.ask("POST", "/v1/chat/completions", CHAT)[0] == 200


def test_vllm_sleeps_only_when_both_switches_are_on(start: Start, folder: Path) -> None:
    one = start("vllm", "serve", str(folder), VLLM_SERVER_DEV_MODE="1")
    one.up()
    assert one.ask("GET", "/is_sleeping")[0] == 404


def test_vllm_ends_when_its_engine_dies(start: Start, folder: Path) -> None:
    one = start("vllm", "serve", str(folder))
    one.up()
    (child,) = one.llama_servers()
    os.kill(child, signal.SIGKILL)
    assert ends(one)[0] == 1


def test_vllm_does_not_listen_before_it_has_loaded_and_takes_no_taken_port(
    start: Start, folder: Path, tmp_path: Path
) -> None:
    never = tmp_path / "never"
    never.write_text("#!/bin/sh\nexec sleep 60\n")
    never.chmod(0o755)
    one = start("vllm", "serve", str(folder), LABCTL_DOUBLE_LLAMA_SERVER=str(never))
    assert wait_until(lambda: len(one.llama_servers()) == 1, within=20)
    assert one.status("/health") == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        other = start("vllm", "serve", str(folder), port=int(taken.getsockname()[1]))
        status, said = ends(other)
    assert (status, "Address already in use" in said) == (1, True)


def test_vllm_ends_at_once_without_its_model_or_without_a_model_that_loads(
    start: Start, folder: Path
) -> None:
    status, said = ends(start("vllm", "serve", "/no/such/model"))
    assert status == 1
    assert "Invalid repository ID or local directory specified: '/no/such/model'" in said
    (folder / "model.gguf").write_bytes(b"GGUF and nothing more")
    status, said = ends(start("vllm", "serve", str(folder)))
    assert status == 1
    assert "Engine core initialization failed" in said


def test_vllm_on_ray_needs_ray(start: Start, folder: Path) -> None:
    if shutil.which("ray"):
        pytest.skip("Ray is installed here")
    status, said = ends(start("vllm", "serve", str(folder), "--distributed-executor-backend", "ray"))
    assert (status, "Ray is not installed" in said) == (1, True)


def test_vllm_knows_its_flags_by_both_spellings_and_refuses_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = vllm_flags.parse(
        [
            "serve",
            "m",
            "-tp",
            "2",
            "--max_model_len=32K",
            "--no-enable-prefix-caching",
            "--kv-cache-dtype",
            "fp8",
        ]
    )
    assert (asked.model, asked.tensor_parallel_size, asked.enable_prefix_caching) == ("m", 2, False)
    assert [vllm_flags.tokens(text) for text in ("32k", "32K", "4096", "auto", None)] == [
        *(32000, 32768, 4096, None, None)
    ]
    for words, said in (
        (["serve", "m", "--max-model-length", "1"], "unrecognized arguments: --max-model-length 1"),
        (["serve", "m", "--dtype", "fp99"], "argument --dtype: invalid choice: 'fp99'"),
        (["serve", "--port", "1"], "a model is needed"),
    ):
        with pytest.raises(SystemExit) as left:
            vllm_flags.parse(words)
        assert left.value.code == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "shown", "hidden"),
    [
        ("--help", "CacheConfig", "--max-num-seqs"),
        ("--help=all", "--max-num-seqs MAX_NUM_SEQS", "No group"),
        ("--help=CacheConfig", "--kv-cache-dtype", "--max-num-seqs"),
        ("--help=max_num", "--max-num-batched-tokens", "--port"),
        ("--help=nothing", "No group or arguments matching 'nothing'", "--port"),
    ],
)
def test_vllms_help_shows_what_is_asked_for(
    word: str, shown: str, hidden: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        vllm_flags.parse(["serve", word])
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert shown in said
    assert hidden not in said


# SGLang.


def test_sglang_serves_and_counts_only_where_metrics_are_on(start: Start, folder: Path) -> None:
    words = ("--model-path", str(folder), "--served-model-name", "big", "--context-length", "256")
    quiet = {"SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false"}
    one, other = start("sglang", *words, "--enable-metrics", **quiet), start("sglang", *words, **quiet)
    for running in (one, other):
        running.up("/ready")
    assert other.ask("GET", "/metrics")[0] == 404
    assert one.ask("GET", "/v1/models")[1]["data"][0]["max_model_len"] == 256
    assert one.ask("GET", "/model_info")[1] == one.ask("GET", "/get_model_info")[1]
    assert one.ask("GET", "/server_info")[1]["version"] == "0.5.23"
    status, answer = one.ask("POST", "/v1/chat/completions", {**CHAT, "model": "big"})
    assert (status, answer["usage"]["completion_tokens"]) == (200, 5)
    assert one.counts("sglang:generation_tokens_total", 5, model_name="big", tp_rank="0")
    assert one.counts("sglang:num_requests_total", 1)
    assert one.ask("POST", "/v1/chat/completions", {**CHAT, "model": "small"})[1]["object"] == "error"
    assert one.ask("GET", "/flush_cache") == (200, "Cache flushed.\n")


def test_sglangs_health_generates_unless_told_otherwise(start: Start, folder: Path) -> None:
    words = ("--model-path", str(folder), "--enable-metrics")
    busy = start("sglang", *words)
    quiet = start("sglang", *words, SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION="false")
    for one in (busy, quiet):
        one.up("/ready")
        assert one.ask("GET", "/health")[0] == 200
    assert busy.metric("sglang:generation_tokens_total") == 1
    assert quiet.metric("sglang:generation_tokens_total") == 0
    assert quiet.ask("GET", "/health_generate")[0] == 200
    assert quiet.metric("sglang:generation_tokens_total") == 1


def test_sglang_is_503_while_it_loads(start: Start, folder: Path, tmp_path: Path) -> None:
    never = tmp_path / "never"
    never.write_text("#!/bin/sh\nexec sleep 60\n")
    never.chmod(0o755)
    one = start("sglang", "--model-path", str(folder), LABCTL_DOUBLE_LLAMA_SERVER=str(never))
    assert wait_until(lambda: one.status("/ready") == 503, within=20), one.log.read_text()
    assert one.status("/health") == 503


def test_sglang_frees_its_memory_and_takes_it_again(start: Start, folder: Path) -> None:
    one = start("sglang", "--model-path", str(folder), "--enable-memory-saver")
    one.up("/ready")
    assert one.ask("POST", "/release_memory_occupation")[0] == 200
    assert one.llama_servers() == []
    assert one.ask("GET", "/ready")[0] == 503
    assert one.ask("POST", "/resume_memory_occupation")[0] == 200
    assert one.ask("POST", "/v1/chat/completions", CHAT)[0] == 200


def test_sglang_reads_its_key_from_a_file_and_wants_it_everywhere_but_at_the_door(
    start: Start, folder: Path, tmp_path: Path
) -> None:
    config = tmp_path / "sglang.yaml"
    config.write_text('api-key: "secret"\nenable-metrics: true\n')
    one = start("sglang", "--model-path", str(folder), "--config", str(config))
    one.up("/ready")
    assert one.ask("GET", "/metrics")[0] == 200
    assert one.ask("GET", "/server_info")[0] == 401
    told = one.ask("GET", "/server_info", key="secret")[1]
    assert "secret" not in json.dumps(told)


def test_sglang_refuses_unknown_flags_and_a_missing_model(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--model-path", "m", "--foo"], "unrecognized arguments: --foo"),
        ([], "--model-path"),
    ):
        with pytest.raises(SystemExit) as left:
            sglang_server.parse(words)
        assert left.value.code == 2
        assert said in capsys.readouterr().err


# Metrics and wheels.


@pytest.mark.parametrize(
    ("metrics", "prefix", "names"),
    [
        (VllmMetrics("big"), "vllm:", VLLM_NAMES),
        (SglangMetrics("big", 4096), "sglang:", SGLANG_NAMES),
    ],
    ids=["vllm", "sglang"],
)
def test_metrics_have_the_engines_names_and_promtool_reads_them(
    metrics: VllmMetrics | SglangMetrics, prefix: str, names: set[str], promtool: Path
) -> None:
    metrics.count(Seen(3, 5, 1, 0.1, 0.4, [0.1, 0.1], "length", 5))
    families = text_string_to_metric_families(metrics.text().decode())
    told = {family.name for family in families if not family.name.endswith("_created")}
    assert told == {f"{prefix}{name}" for name in names}
    checked = subprocess.run(
        [str(promtool), "check", "metrics"], input=metrics.text(), capture_output=True, timeout=60
    )
    # Of style promtool may complain: the engines' own names have colons, and one histogram ends in _total.
    style = re.compile(r"should not contain ':'|non-counter metrics should not have \"_total\" suffix")
    said = [line for line in checked.stderr.decode().splitlines() if not style.search(line)]
    assert said == []
    assert checked.returncode in (0, 3)


def test_promtool_would_tell_of_a_broken_text(promtool: Path) -> None:
    broken = b"a{b=1} c\n"
    checked = subprocess.run(
        [str(promtool), "check", "metrics"], input=broken, capture_output=True, timeout=60
    )
    assert checked.returncode not in (0, 3)


@pytest.fixture(scope="session")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prometheus' own checker, from Debian's package, which is unpacked and not installed."""
    installed = shutil.which("promtool")
    if installed:
        return Path(installed)
    where = tmp_path_factory.mktemp("promtool")
    for argv in (["apt-get", "download", "prometheus"], ["sh", "-c", "dpkg-deb -x *.deb ."]):
        try:
            done = subprocess.run(argv, cwd=where, capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"promtool cannot be had here: {error}")
        if done.returncode:
            pytest.skip(f"promtool cannot be had here: {done.stderr.strip()[-200:]}")
    return where / "usr/bin/promtool"


def test_wheels_are_the_same_each_time_and_say_that_they_are_doubles(tmp_path: Path) -> None:
    for make in (wheels.vllm, wheels.sglang):
        first, second = make(tmp_path / "one"), make(tmp_path / "two")
        assert first.read_bytes() == second.read_bytes()
        with zipfile.ZipFile(first) as wheel:
            (metadata,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
            assert "DOUBLE" in wheel.read(metadata).decode()


def test_a_virtual_environment_is_made_of_the_wheels_by_their_hashes(tmp_path: Path, folder: Path) -> None:
    folder_of_wheels = tmp_path / "wheels"
    made = [
        wheels.vllm(folder_of_wheels),
        wheels.sglang(folder_of_wheels),
        wheels.repacked(folder_of_wheels, "prometheus-client"),
    ]
    listed = tmp_path / "requirements.txt"
    listed.write_text(wheels.requirements(made))
    target = tmp_path / "env"
    argv = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--target", str(target)]
    argv += ["--find-links", str(folder_of_wheels), "--require-hashes", "-r", str(listed)]
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("there is no pip here")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    bare = {"PYTHONPATH": str(target), "PATH": os.environ["PATH"]}
    helped = [sys.executable, "-S", "-m", "sglang.launch_server", "--help"]
    said = subprocess.run(helped, capture_output=True, text=True, timeout=60, env=bare)
    assert (said.returncode, "--enable-metrics" in said.stdout) == (0, True)
    version = [sys.executable, "-S", str(target / "bin/vllm"), "--version"]
    said = subprocess.run(version, capture_output=True, text=True, timeout=60, env=bare)
    assert (said.returncode, said.stdout) == (0, "0.33.0\n")
    listed.write_text(re.sub("sha256:.", "sha256:x", wheels.requirements(made), count=1))
    assert subprocess.run(argv, capture_output=True, timeout=120).returncode != 0
