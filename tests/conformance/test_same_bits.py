"""Logits of a row are the same bits whatever runs beside it: batch, threads, chunks of the prompt, block placement.

For each weight format, cache type and instruction set of this machine, a two-layer model with grouped queries runs the
same two sequences in every way that must not matter.
"""

from functools import cache

import numpy as np
import pytest

import graphs
import programs
from tokamak import _native
from tokamak.ir import passes
from tokamak.types import KV_DTYPES

FORMATS = ("q4_k", "q8_0", "tq2_0", "f16")
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 97,
    "rms_norm_eps": 1e-5,
}
RNG = np.random.default_rng(5)
TOKENS = RNG.integers(0, 97, 75).tolist()
OTHERS = [RNG.integers(0, 97, n).tolist() for n in (40, 33, 1, 2, 31, 32)]


@cache
def model(fmt: str):
    graph = passes.optimize(graphs.traced("llama", SIZES, False))
    params = {n: a / 3 for n, a in graphs.params(graph).items()}
    return graph, programs.weights(params, fmt)


def program(fmt: str, kv: str, isa: str, threads: int = 1):
    graph, params = model(fmt)
    return programs.compiled(graph, params, isa, num_blocks=24, kv_dtype=kv, threads=threads)


def batch(*sequences):
    return graphs.batch(*sequences, every_row=True, block=programs.BLOCK)


def whole(p, blocks=(0, 1, 2)):
    """Logits of every row of TOKENS in one step."""
    return p.run(batch((list(blocks), TOKENS, len(TOKENS))))


def chunked(p, size: int, blocks=(0, 1, 2)):
    """The same in steps of `size` rows."""
    parts = []
    for begin in range(0, len(TOKENS), size):
        seen = TOKENS[: begin + size]
        parts.append(p.run(batch((list(blocks), seen, len(seen) - begin))))
    return np.concatenate(parts)


def beside_others(p, blocks=(5, 1, 9)):
    """The same with six other sequences before and after it."""
    taken = iter(b for b in range(24) if b not in blocks)
    others = [([next(taken) for _ in range(-(-len(t) // 32))], t, len(t)) for t in OTHERS]
    begin = sum(len(t) for t in OTHERS[:3])
    step = batch(*others[:3], (list(blocks), TOKENS, len(TOKENS)), *others[3:])
    return p.run(step)[begin : begin + len(TOKENS)]


KINDS = [(fmt, "f16") for fmt in FORMATS] + [("q4_k", kv) for kv in KV_DTYPES if kv != "f16"]


@pytest.mark.parametrize(("fmt", "kv"), KINDS)
@pytest.mark.parametrize("isa", _native.isas())
def test_a_row_is_the_same_bits_in_every_company(isa, fmt, kv):
    expected = whole(program(fmt, kv, isa))
    assert np.isfinite(expected).all()
    assert expected.std() > 0.01
    two = program(fmt, kv, isa, threads=2)
    assert np.array_equal(whole(two), expected), "two threads"
    assert np.array_equal(beside_others(two), expected), "in a batch, other blocks"
    assert np.array_equal(chunked(two, 7, (4, 11, 2)), expected), "chunks of 7, blocks used before"
    assert np.array_equal(chunked(two, 1, (23, 0, 7)), expected), "row by row"


@pytest.mark.parametrize("kv", KV_DTYPES)
def test_what_a_block_held_before_does_not_show(kv):
    clean = whole(program("q8_0", kv, ""))
    graph, params = model("q8_0")
    poisoned = dict(params)
    name = "embed_tokens.weight"
    table = programs.decoded({name: params[name]})[name]
    table[3] = np.nan
    poisoned[name] = programs.weight(table, "f32")
    p = programs.compiled(graph, poisoned, num_blocks=24, kv_dtype=kv)
    assert np.isnan(p.run(batch(([0, 1, 2], [3] * 90, 90)))).all()
    tokens = [t if t != 3 else 4 for t in TOKENS]
    q = programs.compiled(
        graph, {**params, name: programs.weight(np.nan_to_num(table), "f32")}, num_blocks=24, kv_dtype=kv
    )
    expected = q.run(batch(([0, 1, 2], tokens, len(tokens))))
    assert np.array_equal(p.run(batch(([2, 0, 1], tokens, len(tokens)))), expected)
    assert np.isfinite(clean).all()


@pytest.mark.parametrize("window", [0, 100])
def test_long_contexts_are_the_same_bits_split_over_threads_or_not(window):
    """Past 512 keys sums are merged per split; one row alone makes splits tasks, many rows walk them in turn."""
    config = {**SIZES, "sliding_window": window} if window else SIZES
    graph = passes.optimize(graphs.traced("llama", {**config, "num_hidden_layers": 1}, False, context=2048))
    params = programs.weights({n: a / 3 for n, a in graphs.params(graph).items()}, "q8_0")
    tokens = np.random.default_rng(6).integers(0, 97, 1300).tolist()
    blocks = list(range(41))
    limits = {"num_blocks": 48, "max_rows": 2048, "kv_dtype": "f16"}
    expected = programs.compiled(graph, params, **limits).run(batch((blocks, tokens, len(tokens))))
    p = programs.compiled(graph, params, threads=2, **limits)
    assert np.array_equal(p.run(batch((blocks, tokens[:1297], 1297))), expected[:1297])
    for n in (1298, 1299, 1300):
        assert np.array_equal(p.run(batch((blocks, tokens[:n], 1))), expected[n - 1 : n])
