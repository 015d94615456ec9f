"""The same numbers under the names that llama-server's and vLLM's dashboards ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokamak.server.metrics import Histogram, Metrics

Number = int | float
HISTOGRAMS = (
    ("vllm:time_to_first_token_seconds", "ttft"),
    ("vllm:inter_token_latency_seconds", "inter_token"),
    ("vllm:request_queue_time_seconds", "queue"),
    ("vllm:e2e_request_latency_seconds", "e2e"),
)


def rate(amount: Number, seconds: float) -> float:
    """Per second; 0 before anything happened."""
    return amount / seconds if seconds > 0 else 0.0


def numbers(metrics: Metrics, stats: Mapping[str, Number]) -> Iterator[tuple[str, str, str, Number]]:
    """(name, help, type, value)."""
    computed = metrics.prompt_tokens.values.get(("computed",), 0)
    cached = metrics.prompt_tokens.values.get(("cached",), 0)
    made, steps = metrics.generated_tokens.values[()], stats.get("steps", 0)
    reading_s, writing_s = metrics.ttft.sum, metrics.inter_token.sum
    running, waiting = stats.get("running", 0), stats.get("waiting", 0)
    used = stats.get("blocks_held", 0) / max(1, stats.get("blocks_total", 0))
    yield "llamacpp:prompt_tokens_total", "Prompt tokens computed.", "counter", computed
    yield "llamacpp:prompt_tokens_cached_total", "Prompt tokens from the cache.", "counter", cached
    yield "llamacpp:prompt_seconds_total", "Time to first tokens, added up.", "counter", reading_s
    yield "llamacpp:tokens_predicted_total", "Tokens generated.", "counter", made
    yield "llamacpp:tokens_predicted_seconds_total", "Time between tokens, added up.", "counter", writing_s
    yield "llamacpp:n_decode_total", "Steps of the engine.", "counter", steps
    yield "llamacpp:n_tokens_max", "Most rows of one step.", "counter", stats.get("rows_max", 0)
    yield "llamacpp:prompt_tokens_seconds", "Prompt tokens per second.", "gauge", rate(computed, reading_s)
    yield "llamacpp:predicted_tokens_seconds", "Tokens per second.", "gauge", rate(made, writing_s)
    yield "llamacpp:requests_processing", "Sequences that are stepped.", "gauge", running
    yield "llamacpp:requests_deferred", "Completions that wait.", "gauge", waiting
    busy = stats.get("sequences_stepped", 0) / max(1, steps)
    yield "llamacpp:n_busy_slots_per_decode", "Sequences of a step on average.", "gauge", busy
    for name in ("num_draft_tokens", "num_accepted_tokens", "num_drafts"):
        text = f"Speculation: {name.replace('_', ' ')}."
        yield f"llamacpp:spec_decode_{name}_total", text, "counter", metrics.speculation[name]
    yield "vllm:num_requests_running", "Sequences that are stepped.", "gauge", running
    yield "vllm:num_requests_waiting", "Completions that wait.", "gauge", waiting
    yield "vllm:kv_cache_usage_perc", "Share of cache blocks that are held.", "gauge", used
    yield "vllm:prompt_tokens_total", "Tokens of prompts.", "counter", computed + cached
    yield "vllm:generation_tokens_total", "Tokens generated.", "counter", made
    yield (
        "vllm:num_preemptions_total",
        "Sequences that gave blocks back.",
        "counter",
        stats.get("preempted", 0),
    )
    for name, key in (("queries", "prefix_queried_tokens"), ("hits", "prefix_hit_tokens")):
        text = f"Prefix cache {name} in tokens."
        yield f"vllm:prefix_cache_{name}_total", text, "counter", stats.get(key, 0)


def histograms(metrics: Metrics) -> Iterator[tuple[str, Histogram]]:
    """(other name, histogram)."""
    for name, own in HISTOGRAMS:
        yield name, getattr(metrics, own)
