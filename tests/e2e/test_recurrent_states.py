"""Recurrent models through the engine: the same bits alone, among others, in chunks, from a cached prefix, after preemption."""

from __future__ import annotations

import numpy as np
import pytest

import tiny
from table_models import CASES, written
from tokamak import executors, models
from tokamak.engine.llm import LLM
from tokamak.ir import passes
from tokamak.loaders import open_checkpoint
from tokamak.sampling import SamplingParams
from tokamak.tokenizers import Tokenizer
from tokamak.types import Limits

PARAMS = SamplingParams(temperature=1.0, seed=5, max_tokens=40, ignore_eos=True, logprobs=3)
CONTEXT = 160


def ids_of(seed, length):
    return np.random.default_rng(seed).integers(3, tiny.VOCAB_SIZE, length).tolist()


def bits(completion):
    return completion.token_ids, completion.logprobs


@pytest.fixture(scope="module", params=["mamba2", "lfm2moe", "qwen35moe", "rwkv7", "falcon-h1"])
def make(request, tmp_path_factory):
    path = written(tmp_path_factory.mktemp("models") / "m.gguf", request.param, CASES[request.param])
    checkpoint = open_checkpoint(path)
    graph = passes.optimize(
        models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=CONTEXT)
    )

    def llm(**limits):
        limits = {"num_blocks": 60, "max_rows": 64, "max_sequences": 16, "threads": 1} | limits
        program = executors.get("cpu").compile(graph, checkpoint.weights, Limits(**limits))
        assert program.recurrent
        return LLM(program, Tokenizer.from_spec(checkpoint.tokenizer), context=CONTEXT, seed=0)

    return llm


def test_the_same_bits_whatever_else_happens(make):
    prompt = ids_of(1, 70)  # two full blocks and a part of one
    others = [ids_of(10 + i, 2 + 9 * i) for i in range(6)]
    with make() as llm:
        logits = llm.logits(prompt)
        expected = bits(llm.generate(prompt, PARAMS))
        warm = llm.generate(prompt, PARAMS)
        assert warm.usage.cached_tokens == 64
        assert bits(warm) == expected
        longer = llm.generate([*prompt, *expected[0]], PARAMS, max_tokens=4)
        assert longer.usage.cached_tokens == 96
        together = llm.generate([*others[:3], prompt, *others[3:]], PARAMS)
        assert bits(together[3]) == expected
    with make(threads=2, max_rows=7) as llm:
        assert np.array_equal(llm.logits(prompt), logits)
        assert bits(llm.generate(prompt, PARAMS)) == expected
        assert bits(llm.generate([*prompt, *expected[0]], PARAMS, max_tokens=4)) == bits(longer)
    with make(num_blocks=6) as llm:  # not enough for all: some give their blocks back and start over
        assert bits(llm.generate([prompt, *others], PARAMS)[0]) == expected


def test_a_row_at_a_time_gives_the_bits_of_the_whole(make):
    prompt = ids_of(3, 40)
    with make() as llm:
        logits = llm.logits(prompt)
    with make(max_rows=1, max_sequences=1) as llm:
        assert np.array_equal(llm.logits(prompt), logits)


def test_samples_of_one_prompt_do_not_share_what_follows(make):
    """The block in which they part is copied, and its state with it."""
    prompt = ids_of(2, 40)
    with make() as llm:
        (together,) = llm.generate([prompt], PARAMS, n=3)
        first = llm.generate(prompt, PARAMS)
    assert bits(together[0]) == bits(first)
    assert len({tuple(c.token_ids) for c in together}) == 3
    with make(max_rows=7) as llm:
        (again,) = llm.generate([prompt], PARAMS, n=3)
    assert [bits(c) for c in again] == [bits(c) for c in together]
