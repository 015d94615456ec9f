"""Suites count what the engine says and what the kernels recorded, never what was hoped for."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tokamak import models
from tokamak.bench.probes import Limits
from tokamak.bench.suites import Case, Suite, by_kernel, linear_macs, percentiles, since, summary
from tokamak.loaders import open_checkpoint
from tokamak.types import KernelRecord

LIMITS = Limits(1, "scalar", 1e9, 1e9, (1e9,), (1e9,))


@pytest.fixture(scope="module")
def graph(tiny_gguf):
    checkpoint = open_checkpoint(tiny_gguf("llama", "q8_0"))
    return models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=64)


class Counting:
    """A model that reads and makes what it is told and counts bytes for it."""

    vocab_size, context = 50, 64

    def __init__(self, cached=0):
        self.program, self.prompts, self.cached = self, [], cached
        self.calls = 0

    def records(self):
        return [
            KernelRecord("a", "linear", "linear.q8_0.scalar", self.calls, 7 * self.calls, 1000 * self.calls)
        ]

    def generate(self, prompts, max_tokens, **_):
        self.calls += 1
        self.prompts.append(prompts)
        usage = [
            SimpleNamespace(prompt_tokens=len(p), completion_tokens=max_tokens, cached_tokens=self.cached)
            for p in prompts
        ]
        return [SimpleNamespace(usage=u) for u in usage]

    def stream(self, _, max_tokens, **__):
        return SimpleNamespace(events=lambda: iter(range(max_tokens)))


def test_prompts_are_fresh_every_time_so_that_the_prefix_cache_has_nothing_to_give(graph):
    model = Counting()
    Suite(model, graph).run(Case("prompt", 16, 2), repeats=3)
    seen = [tuple(p) for prompts in model.prompts for p in prompts]
    assert len(set(seen)) == len(seen) == 8
    assert all(0 <= token < 50 for prompt in seen for token in prompt)


def test_cached_prompt_tokens_do_not_count(graph):
    result = Suite(Counting(cached=6), graph).run(Case("prompt", 16, 2), repeats=1)
    assert result.series.samples[0].amount == 20


def test_decoding_counts_what_was_made_and_keeps_latencies_of_one_request(graph):
    result = Suite(Counting(), graph).run(Case("decode", 8, 1), repeats=2)
    assert [s.amount for s in result.series.samples] == [8, 8]
    assert len(result.latencies_s) == 7


def test_kernel_records_leave_the_warm_up_out(graph):
    result = Suite(Counting(), graph).run(Case("prompt", 4, 1), repeats=3)
    assert [(k.calls, k.nbytes) for k in result.kernels] == [(3, 3000)]
    seconds = sum(s.seconds for s in result.series.samples)
    assert result.facts(LIMITS)["share_of_limit"]["bandwidth"] == pytest.approx(3000 / seconds / 1e9)


def test_multiply_adds_are_rows_times_the_weights_of_every_linear(graph):
    linears = [n for n in graph.nodes if n.op == "linear"]
    head = linears[-1]
    sizes = {n: int(np.prod(n.inputs[1].type.shape)) for n in linears}
    body = sum(size for node, size in sizes.items() if node is not head)
    assert linear_macs(graph, 5, 0) == 5 * body
    assert linear_macs(graph, 0, 3) == 3 * sizes[head]


def test_records_between_two_moments_are_their_difference():
    old = [KernelRecord("a", "linear", "k", 1, 10, 100)]
    new = [KernelRecord("a", "linear", "k", 3, 50, 300), KernelRecord("b", "embed", "e", 1, 5, 2)]
    assert since(old, new) == (KernelRecord("a", "linear", "k", 2, 40, 200), new[1])
    assert since(new, new) == ()
    assert by_kernel(new)[0] == {"kernel": "k", "calls": 3, "nanoseconds": 50, "nbytes": 300}


def test_totals_of_a_run(graph):
    suite = Suite(Counting(), graph)
    results = [suite.run(Case(kind, 4, 2), repeats=2) for kind in ("prompt", "decode")]
    assert summary(results)["prompt_tokens"] == summary(results)["generated_tokens"] == 16
    assert summary(results)["nbytes_read"] == 4000


def test_percentiles_are_milliseconds():
    assert percentiles([0.001] * 9 + [0.002])["p50"] == pytest.approx(1.0)
    assert percentiles([]) is None
