"""Counters and histograms of one server in Prometheus' text form. Touched by the event loop's thread only."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tokamak import __version__
from tokamak.engine.completion import Completion
from tokamak.server import metric_names

if TYPE_CHECKING:
    from tokamak.server.state import State

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
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[tuple[str, str], ...]


def sample(name: str, labels: Labels, value: float) -> str:
    """One line: name{label="value"} number."""
    escaped = (v.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for _, v in labels)
    inside = ",".join(f'{k}="{v}"' for (k, _), v in zip(labels, escaped, strict=True))
    number = str(value) if isinstance(value, int) else repr(float(value))
    return f"{name}{{{inside}}} {number}" if inside else f"{name} {number}"


class Counter:
    """Numbers that only rise, one per set of labels."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self.name, self.text, self.labels = name, text, labels
        self.values: dict[tuple[str, ...], int] = {} if labels else {(): 0}

    def add(self, *values: str, by: int = 1) -> None:
        """More of what has these label values."""
        self.values[values] = self.values.get(values, 0) + by

    def lines(self) -> Iterator[str]:
        """In Prometheus' form."""
        yield f"# HELP {self.name} {self.text}"
        yield f"# TYPE {self.name} counter"
        for values, number in sorted(self.values.items()):
            yield sample(self.name, tuple(zip(self.labels, values, strict=True)), number)


class Histogram:
    """How often a number of seconds was at most each bound."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self.counts = [0] * (len(SECONDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.sum += seconds

    @property
    def count(self) -> int:
        """All of them."""
        return sum(self.counts)

    def lines(self, other: str = "") -> Iterator[str]:
        """In Prometheus' form: cumulative, with +Inf. other: a name in the place of its own."""
        name = other or self.name
        yield f"# HELP {name} {self.text}"
        yield f"# TYPE {name} histogram"
        running = 0
        for bound, count in zip((*map(str, SECONDS), "+Inf"), self.counts, strict=True):
            running += count
            yield sample(f"{name}_bucket", (("le", bound),), running)
        yield sample(f"{name}_sum", (), self.sum)
        yield sample(f"{name}_count", (), running)


class Metrics:
    """What the server counts itself; the engine's own numbers are asked for at each scrape."""

    def __init__(self) -> None:
        self.requests = Counter("tokamak_requests_total", "HTTP requests answered.", "route", "status")
        self.rejections = Counter("tokamak_rejections_total", "Generations refused for load.", "reason")
        self.completions = Counter("tokamak_completions_total", "Completions that ended.", "finish_reason")
        self.cancelled = Counter("tokamak_cancelled_total", "Generations whose client went away.")
        self.prompt_tokens = Counter("tokamak_prompt_tokens_total", "Tokens of prompts.", "source")
        self.generated_tokens = Counter("tokamak_generated_tokens_total", "Tokens generated.")
        self.ttft = Histogram(
            "tokamak_ttft_seconds", "From the request in the engine's queue to its first token."
        )
        self.inter_token = Histogram(
            "tokamak_inter_token_seconds", "Between tokens of one completion, as sent."
        )
        self.queue = Histogram("tokamak_queue_seconds", "From the engine's queue to the first step.")
        self.speculation = dict.fromkeys(("num_drafts", "num_draft_tokens", "num_accepted_tokens"), 0)
        self.e2e = Histogram("tokamak_e2e_seconds", "From the engine's queue to the last token.")

    def finished(self, completions: list[Completion]) -> None:
        """The completions of one prompt, ended or cut short; their prompt counts once."""
        usage = completions[0].usage
        self.prompt_tokens.add("cached", by=usage.cached_tokens)
        self.prompt_tokens.add("computed", by=usage.prompt_tokens - usage.cached_tokens)
        self.generated_tokens.add(by=sum(c.usage.completion_tokens for c in completions))
        for done in completions:
            self.completions.add(done.finish_reason)
            if done.timings.ttft_s is not None:
                self.ttft.observe(done.timings.ttft_s)
        if usage.drafted_tokens:
            self.speculation["num_drafts"] += 1
            self.speculation["num_draft_tokens"] += usage.drafted_tokens
            self.speculation["num_accepted_tokens"] += usage.accepted_tokens
        self.queue.observe(completions[0].timings.queue_s)
        self.e2e.observe(max(c.timings.total_s for c in completions))

    def text(self, state: State) -> str:
        """The whole page: what was counted here, and what the engines say now, added up."""
        lines = [
            line for m in vars(self).values() if isinstance(m, Counter | Histogram) for line in m.lines()
        ]
        stats = state.models.stats()
        for name, histogram in metric_names.histograms(self):
            lines += histogram.lines(name)
        for name, text, kind, number in metric_names.numbers(self, stats):
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", sample(name, (), number)]
        for name, text, kind, labels, value in _engine(stats, state.num_admitted, state.config.read_bytes_s):
            if f"# TYPE {name} {kind}" not in lines:
                lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines.append(sample(name, labels, value))
        return "\n".join(lines) + "\n"


def _engine(
    stats: Mapping[str, int | float], num_admitted: int, read_bytes_s: float
) -> Iterator[tuple[str, str, str, Labels, int | float]]:
    yield "tokamak_completions_admitted", "Completions being answered.", "gauge", (), num_admitted
    yield "tokamak_requests_running", "Sequences that the engine steps.", "gauge", (), stats.get("running", 0)
    yield "tokamak_requests_waiting", "Completions that wait for the engine.", "gauge", (), stats["waiting"]
    yield "tokamak_models_loaded", "Models in memory.", "gauge", (), stats["models_loaded"]
    yield (
        "tokamak_models_nbytes",
        "Bytes that models and their caches hold.",
        "gauge",
        (),
        stats["memory_nbytes"],
    )
    blocks = "K/V cache blocks: held by sequences, kept for prefixes, all."
    for state, key in (("held", "blocks_held"), ("kept", "blocks_kept"), ("all", "blocks_total")):
        yield "tokamak_kv_blocks", blocks, "gauge", (("state", state),), stats.get(key, 0)
    if read_bytes_s:
        text = "What this machine reads from memory, measured at the start."
        yield "tokamak_read_bandwidth_bytes_per_second", text, "gauge", (), read_bytes_s
        share = stats.get("read_nbytes", 0) / max(1e-9, stats.get("step_s", 0)) / read_bytes_s
        text = "Of that, what steps read of weights, on average since the start."
        yield "tokamak_bandwidth_share", text, "gauge", (), share
    yield "tokamak_step_rows", "Rows of the step now: the batch.", "gauge", (), stats.get("rows_last", 0)
    for name, text, key in (
        ("tokamak_steps_total", "Steps of the engine.", "steps"),
        ("tokamak_step_rows_total", "Rows of all steps.", "rows"),
        ("tokamak_step_seconds_total", "Seconds in steps.", "step_s"),
        (
            "tokamak_weights_read_bytes_total",
            "Bytes of weights read, all of them by each step.",
            "read_nbytes",
        ),
        (
            "tokamak_prefix_cache_queried_tokens_total",
            "Tokens looked up in the prefix cache.",
            "prefix_queried_tokens",
        ),
        ("tokamak_prefix_cache_hit_tokens_total", "Tokens found in the prefix cache.", "prefix_hit_tokens"),
        ("tokamak_engine_restarts_total", "Engines that a defect ended and that go on.", "engine_restarts"),
        ("tokamak_preemptions_total", "Sequences that had to give their blocks back.", "preempted"),
    ):
        yield name, text, "counter", (), stats.get(key, 0)
    yield "tokamak_build_info", "The version.", "gauge", (("version", __version__),), 1
