"""Counting real requests under the engines' own names of metrics.

What the engines count and llama-server cannot tell (preemptions, cache hits) stays at zero; what it takes to
make a request's numbers is told by the proxy (``Seen``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)


@dataclass(slots=True)
class Seen:
    """What the proxy saw of one request; times in seconds."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    cached_tokens: int = 0
    first_token_s: float = 0.0
    whole_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)
    reason: str = "stop"
    asked_tokens: int | None = None


class Metrics:
    """A registry with the names of one engine; ``labels`` stand on every series."""

    def __init__(self, prefix: str, labels: Mapping[str, str]) -> None:
        """Make an empty registry."""
        self._prefix, self._labels = prefix, dict(labels)
        self.registry = CollectorRegistry(auto_describe=True)

    def gauge(self, name: str, text: str) -> Gauge:
        """Return a gauge with the engine's labels."""
        made = Gauge(f"{self._prefix}{name}", text, [*self._labels], registry=self.registry)
        return made.labels(**self._labels)

    def counter(self, name: str, text: str, *more: str) -> Counter:
        """Return a counter; with ``more`` labels, one that still needs them."""
        names = [*self._labels, *more]
        made = Counter(f"{self._prefix}{name}", text, names, registry=self.registry)
        return made if more else made.labels(**self._labels)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
        """Return a histogram with the engine's labels."""
        names = [*self._labels]
        made = Histogram(f"{self._prefix}{name}", text, names, registry=self.registry, buckets=buckets)
        return made.labels(**self._labels)

    def with_labels(self, metric: Counter, **more: str) -> Counter:
        """Return the series of a counter with these labels more."""
        return metric.labels(**self._labels, **more)

    def text(self) -> bytes:
        """Return everything as Prometheus reads it."""
        return generate_latest(self.registry)


class VllmMetrics(Metrics):
    """Names of vLLM's metrics (v1/metrics/loggers.py)."""

    def __init__(self, model: str) -> None:
        """Begin with all zero."""
        super().__init__("vllm:", {"model_name": model, "engine": "0"})
        self.running = self.gauge("num_requests_running", "Requests that are being computed.")
        self.waiting = self.gauge("num_requests_waiting", "Requests that wait.")
        self.usage = self.gauge("kv_cache_usage_perc", "KV-cache usage, 1 is full.")
        self.prompt = self.counter("prompt_tokens", "Prompt tokens.")
        self.generated = self.counter("generation_tokens", "Generated tokens.")
        self.counter("num_preemptions", "Preemptions.")
        self.queries = self.counter("prefix_cache_queries", "Tokens looked for in the prefix cache.")
        self.hits = self.counter("prefix_cache_hits", "Tokens found in the prefix cache.")
        self.success = self.counter("request_success", "Requests that ended well.", "finished_reason")
        for reason in ("stop", "length", "abort", "error"):
            self.with_labels(self.success, finished_reason=reason)
        self.first = self.histogram("time_to_first_token_seconds", "Time to the first token.")
        self.gap = self.histogram("inter_token_latency_seconds", "Time between tokens.")
        self.whole = self.histogram("e2e_request_latency_seconds", "Time of whole requests.")
        self.queue = self.histogram("request_queue_time_seconds", "Time in the queue.")
        self.prefill = self.histogram("request_prefill_time_seconds", "Time of the prompt.")
        self.decode = self.histogram("request_decode_time_seconds", "Time of generating.")
        self.inference = self.histogram("request_inference_time_seconds", "Time of computing.")
        self.prompts = self.histogram("request_prompt_tokens", "Prompt tokens of a request.", TOKENS)
        self.answers = self.histogram("request_generation_tokens", "Generated tokens of a request.", TOKENS)
        self.limits = self.histogram("request_params_max_tokens", "max_tokens of a request.", TOKENS)
        self.steps = self.histogram("iteration_tokens_total", "Tokens of a step.", TOKENS)

    def count(self, seen: Seen) -> None:
        """Count a request that was answered."""
        self.prompt.inc(seen.prompt_tokens)
        self.generated.inc(seen.generated_tokens)
        self.queries.inc(seen.prompt_tokens)
        self.hits.inc(seen.cached_tokens)
        self.with_labels(self.success, finished_reason=seen.reason).inc()
        self.first.observe(seen.first_token_s)
        for gap in seen.gaps_s:
            self.gap.observe(gap)
        decode = max(0.0, seen.whole_s - seen.first_token_s)
        self.whole.observe(seen.whole_s)
        self.queue.observe(0)
        self.prefill.observe(seen.first_token_s)
        self.decode.observe(decode)
        self.inference.observe(seen.whole_s)
        self.prompts.observe(seen.prompt_tokens)
        self.answers.observe(seen.generated_tokens)
        self.limits.observe(seen.generated_tokens if seen.asked_tokens is None else seen.asked_tokens)
        self.steps.observe(seen.prompt_tokens + seen.generated_tokens)


class SglangMetrics(Metrics):
    """Names of SGLang's metrics (srt/observability/metrics_collector.py)."""

    def __init__(self, model: str, capacity: int) -> None:
        """Begin with all zero; ``capacity`` is what the cache holds in tokens."""
        labels = {"model_name": model, "engine_type": "unified", "tp_rank": "0", "pp_rank": "0"}
        super().__init__("sglang:", {**labels, "moe_ep_rank": "0"})
        self.running = self.gauge("num_running_reqs", "Requests that are being computed.")
        self.waiting = self.gauge("num_queue_reqs", "Requests that wait.")
        self.used = self.gauge("num_used_tokens", "Tokens in the cache.")
        self.gauge("max_total_num_tokens", "Tokens that the cache holds.").set(capacity)
        self.usage = self.gauge("token_usage", "Share of the cache that is in use.")
        self.rate = self.gauge("gen_throughput", "Tokens generated in a second.")
        self.hit_rate = self.gauge("cache_hit_rate", "Share of the prompt that was in the cache.")
        self.gauge("utilization", "How busy the engine is.")
        self.prompt = self.counter("prompt_tokens", "Prompt tokens.")
        self.generated = self.counter("generation_tokens", "Generated tokens.")
        self.cached = self.counter("cached_tokens", "Prompt tokens from the cache.")
        self.requests = self.counter("num_requests", "Requests.")
        self.counter("num_aborted_requests", "Requests that were aborted.")
        self.first = self.histogram("time_to_first_token_seconds", "Time to the first token.")
        self.gap = self.histogram("inter_token_latency_seconds", "Time between tokens.")
        self.whole = self.histogram("e2e_request_latency_seconds", "Time of whole requests.")
        self.queue = self.histogram("queue_time_seconds", "Time in the queue.")

    def count(self, seen: Seen) -> None:
        """Count a request that was answered."""
        self.requests.inc()
        self.prompt.inc(seen.prompt_tokens)
        self.generated.inc(seen.generated_tokens)
        self.cached.inc(seen.cached_tokens)
        self.hit_rate.set(seen.cached_tokens / seen.prompt_tokens if seen.prompt_tokens else 0)
        self.rate.set(seen.generated_tokens / seen.whole_s if seen.whole_s else 0)
        self.first.observe(seen.first_token_s)
        for gap in seen.gaps_s:
            self.gap.observe(gap)
        self.whole.observe(seen.whole_s)
        self.queue.observe(0)
