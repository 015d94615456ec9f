"""What `tokamak bench` measures: reading prompts and making tokens, through the engine as a user calls it.

A prompt of P random tokens is read and gives one token: P tokens in the time until it is there. Decoding makes N
tokens one by one from a prompt of one token. A batch is so many requests at once. Greedy, past end-of-text tokens,
with fresh token ids each time, so that the prefix cache has nothing to give. The engine counts the tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from tokamak.bench.harness import Sample, Series, repeat
from tokamak.bench.probes import Limits
from tokamak.ir.graph import Graph, T
from tokamak.observe.profile import Row, profile
from tokamak.types import KernelRecord, Program


class Model(Protocol):
    """What a suite needs of a loaded model; `LLM` is one."""

    program: Program
    vocab_size: int
    context: int

    def generate(self, prompt: Any, params: Any = None, **changes: Any) -> Any:
        """A completion per prompt."""

    def stream(self, prompt: Any, params: Any = None, **changes: Any) -> Any:
        """An iterator with `events()` and `completion`."""


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement. kind: "prompt" (num_tokens are read) or "decode" (num_tokens are made), by `batch` requests."""

    kind: str
    num_tokens: int
    batch: int

    @property
    def name(self) -> str:
        """ "prompt 128 x 4": 4 prompts of 128 tokens."""
        return f"{self.kind} {self.num_tokens} x {self.batch}"


@dataclass(frozen=True, slots=True)
class Result:
    """A case, measured."""

    case: Case
    series: Series
    kernels: tuple[KernelRecord, ...]  # of the recorded repetitions together
    macs: float  # multiply-adds of weight matrices per repetition
    latencies_s: tuple[float, ...] = field(default=())  # seconds per token, of decoding one request

    @property
    def seconds(self) -> float:
        """Of the recorded repetitions together."""
        return sum(s.seconds for s in self.series.samples)

    @property
    def read_bytes_s(self) -> float:
        """Weight and cache bytes that the kernels had to read, per second."""
        return sum(k.nbytes for k in self.kernels) / self.seconds

    @property
    def macs_s(self) -> float:
        """Multiply-adds of weight matrices per second."""
        return self.macs * len(self.series.samples) / self.seconds

    def shares(self, limits: Limits) -> dict[str, float]:
        """Shares of the two limits of the machine: the larger says what holds this case back."""
        return {
            "bandwidth": self.read_bytes_s / limits.read_bytes_s,
            "arithmetic": self.macs_s / limits.int8_macs_s,
        }

    def profile(self, limits: Limits) -> tuple[Row, ...]:
        """Where the time went, per op and kernel; see `observe.profile`."""
        return profile(self.kernels, self.seconds, limits.read_bytes_s, limits.int8_macs_s)

    def facts(self, limits: Limits) -> dict[str, object]:
        """Plain data for JSON."""
        return {
            "kind": self.case.kind,
            "num_tokens": self.case.num_tokens,
            "batch": self.case.batch,
            **self.series.facts(),
            "read_bytes_s": self.read_bytes_s,
            "macs_s": self.macs_s,
            "share_of_limit": self.shares(limits),
            "latency_ms": percentiles(self.latencies_s),
        }


def percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """p50, p90 and p99 in milliseconds; None without samples."""
    if not seconds:
        return None
    values = np.percentile(np.asarray(seconds) * 1e3, [50, 90, 99])
    return dict(zip(("p50", "p90", "p99"), map(float, values), strict=True))


def linear_macs(graph: Graph, num_rows: int, num_logit_rows: int) -> float:
    """Multiply-adds of every `linear` of a graph for so many rows of tokens and of logits."""
    total = 0
    for node in graph.nodes:
        if node.op == "linear":
            rows = num_rows if node.outputs[0].type.lead == T else num_logit_rows
            weights = node.inputs[1 : 1 + int(node.attrs["num_weights"])]
            total += rows * sum(prod(w.type.shape) for w in weights)
    return float(total)


def since(before: Sequence[KernelRecord], after: Sequence[KernelRecord]) -> tuple[KernelRecord, ...]:
    """What was counted between two calls of `Program.records()`; records are matched by node and kernel."""
    start = {(r.node, r.op, r.kernel): r for r in before}
    out = []
    for r in after:
        old = start.get((r.node, r.op, r.kernel))
        old = old or KernelRecord(r.node, r.op, r.kernel, 0, 0, 0)
        if r.calls > old.calls:
            counts = (r.calls - old.calls, r.nanoseconds - old.nanoseconds, r.nbytes - old.nbytes)
            out.append(KernelRecord(r.node, r.op, r.kernel, *counts, r.macs - old.macs))
    return tuple(out)


def by_kernel(records: Sequence[KernelRecord]) -> list[dict[str, object]]:
    """Records summed per kernel id, the slowest first."""
    sums: dict[str, list[int]] = {}
    for r in records:
        entry = sums.setdefault(r.kernel, [0, 0, 0])
        for i, value in enumerate((r.calls, r.nanoseconds, r.nbytes)):
            entry[i] += value
    order = sorted(sums.items(), key=lambda item: -item[1][1])
    return [{"kernel": k, "calls": c, "nanoseconds": ns, "nbytes": n} for k, (c, ns, n) in order]


class Suite:
    """Measures cases on one model."""

    def __init__(self, model: Model, graph: Graph, num_tokens: int | None = None) -> None:
        """graph: what the model's program was compiled from. num_tokens: ids below it are tokens (default: all)."""
        self.model, self.graph = model, graph
        self.num_tokens = num_tokens or model.vocab_size
        self._seeds = itertools.count(1)

    def prompts(self, batch: int, length: int) -> list[list[int]]:
        """Fresh random token ids, never the same twice."""
        rng = np.random.default_rng(next(self._seeds))
        ids: list[list[int]] = rng.integers(0, self.num_tokens, (batch, length)).tolist()
        return ids

    def once(self, case: Case) -> Sample:
        """One repetition of a case; only the call of the engine is timed."""
        reading = case.kind == "prompt"
        prompts = self.prompts(case.batch, case.num_tokens if reading else 1)
        start = perf_counter()
        made = self.model.generate(
            prompts, max_tokens=1 if reading else case.num_tokens, temperature=0.0, ignore_eos=True
        )
        seconds = perf_counter() - start
        if reading:
            return Sample(sum(m.usage.prompt_tokens - m.usage.cached_tokens for m in made), seconds)
        return Sample(sum(m.usage.completion_tokens for m in made), seconds)

    def run(self, case: Case, repeats: int, watch: Callable[[str, int, int], None] | None = None) -> Result:
        """Measure a case. Raises: ContextOverflow if it does not fit the model's context."""
        self.once(case)  # warm-up: what is recorded begins after it
        before = self.model.program.records()
        series = repeat(case.name, lambda: self.once(case), repeats=repeats, warmups=0, watch=watch)
        kernels = since(before, self.model.program.records())
        rows = case.num_tokens * case.batch
        logit_rows = case.batch if case.kind == "prompt" else rows
        alone = case.kind == "decode" and case.batch == 1
        latencies = self.latencies(case.num_tokens) if alone else ()
        return Result(case, series, kernels, linear_macs(self.graph, rows, logit_rows), latencies)

    def latencies(self, num_tokens: int) -> tuple[float, ...]:
        """Seconds between the tokens of one stream, as its reader sees them."""
        stream = self.model.stream(
            self.prompts(1, 1)[0], max_tokens=num_tokens, temperature=0.0, ignore_eos=True
        )
        times = [perf_counter() for _ in stream.events()]
        return tuple(b - a for a, b in itertools.pairwise(times))


def summary(results: Sequence[Result]) -> Mapping[str, object]:
    """Totals of a run for its receipt."""
    amount = {
        kind: sum(s.amount for r in results if r.case.kind == kind for s in r.series.samples)
        for kind in ("prompt", "decode")
    }
    return {
        "prompt_tokens": int(amount["prompt"]),
        "generated_tokens": int(amount["decode"]),
        "seconds": sum(r.seconds for r in results),
        "nbytes_read": sum(k.nbytes for r in results for k in r.kernels),
    }
