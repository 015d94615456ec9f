"""Laws of the cache: what a decoded token costs, what lies unused, who goes first, and that places do not matter."""

from __future__ import annotations

import numpy as np
import pytest

import tokamak
from graphs import batch
from tokamak import executors, models
from tokamak.engine.blocks import BlockPool
from tokamak.engine.quality import perplexity
from tokamak.ir.passes import optimize
from tokamak.loaders import open_checkpoint
from tokamak.types import Limits

BLOCK = 32
IDS = np.random.default_rng(7).integers(3, 380, 80).tolist()


@pytest.fixture
def program(tiny_gguf):
    checkpoint = open_checkpoint(tiny_gguf())
    graph = optimize(
        models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=128)
    )
    running = executors.get("cpu").compile(graph, checkpoint.weights, Limits(num_blocks=12))
    yield running
    running.close()


def run(program, blocks, ids, rows):
    return program.run(batch((blocks, ids, rows), every_row=True, block=BLOCK))


def test_a_decoded_token_costs_one_row_however_long_the_text(tiny_model):
    with tokamak.load(tiny_model, threads=1, context=128, prefix_cache_nbytes=0) as llm:
        for length in (3, 78):
            before = llm.stats()
            llm.generate(IDS[:length], max_tokens=9, temperature=0, ignore_eos=True)
            after = llm.stats()
            assert after["rows"] - before["rows"] == length + 8  # the first token comes with the prompt
            assert after["steps"] - before["steps"] == 9


def test_a_tail_that_is_cut_leaves_no_trace(program):
    kept, others = IDS[:37], IDS[60:75]
    run(program, [0, 1, 2], IDS[:80], 80)
    again = run(program, [0, 1, 2], [*kept, *others], len(others))  # written over from position 37 on
    whole = run(program, [3, 4], [*kept, *others], len(kept) + len(others))
    assert np.array_equal(again, whole[len(kept) :])


def test_a_text_whose_blocks_were_copied_or_moved_goes_on_with_the_same_bits(program):
    run(program, [0, 5, 9], IDS[:70], 70)
    program.copy_blocks([(0, 3), (5, 1), (9, 2)])  # close together, in another order
    expected = run(program, [0, 5, 9], IDS[:71], 1)
    run(program, [0, 5, 9], IDS[:70][::-1], 70)  # the old places hold something else
    assert np.array_equal(run(program, [3, 1, 2], IDS[:71], 1), expected)


def test_places_that_hold_nothing_are_counted(tiny_model):
    with tokamak.load(tiny_model, threads=1, context=128) as llm:
        stream = llm.stream(IDS[:40], max_tokens=8, ignore_eos=True)
        next(stream)
        found = llm.stats()
        stream.close()
        used = found["blocks_held"] * found["block_size"] - found["tokens_stored"]
        assert found["slots_unused"] == used
        assert 0 < used < found["block_size"]


def test_the_least_recently_used_prefix_goes_first():
    pool = BlockPool(3, 4)
    ids = [np.arange(i, i + 4, dtype=np.int32) for i in range(3)]
    for one in ids:
        pool.file(block := pool.take(), "", one)
        pool.release(np.array([block]))
    pool.release(np.array(pool.find(ids[0])[0]))  # used again
    pool.take()
    assert [len(pool.walk(one)) for one in ids] == [1, 0, 1]
    assert pool.counts.evicted_blocks == 1


# Bytes of a row of 32 numbers. Limits of the change of perplexity: halves hold 11 bits of keys whose scores are sums of
# many; q8_0 rounds to 1/254 of the largest of 32, q4_0 to 1/15.
KINDS = {"f32": (128, 0), "f16": (64, 1e-3), "bf16": (64, 5e-3), "q8_0": (34, 5e-3), "q4_0": (18, 0.1)}


def test_smaller_caches_take_the_bytes_they_say_and_cost_little_perplexity():
    with tokamak.load(threads=1) as llm:
        ids = llm.generate("Once upon a time", max_tokens=200, temperature=0.8, seed=1).token_ids
        story = llm.tokenizer.decode(ids)
    found, nbytes = {}, {}
    for kind in KINDS:
        with tokamak.load(threads=1, kv_dtype=kind) as llm:
            nbytes[kind] = llm.facts["kv_nbytes_per_token"]
            found[kind] = perplexity(llm, story, context=64).perplexity
    for kind, (row, limit) in KINDS.items():
        assert nbytes[kind] * 128 == nbytes["f32"] * row
        assert abs(found[kind] / found["f32"] - 1) <= limit, kind
