"""Models that read a text to write another: one reading per request, the same bits in any company, nothing left behind."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import tiny
import tokamak
from tokamak.errors import ContextOverflow, InvalidParams, UnsupportedError
from tokamak.ir.buckets import buckets
from tokamak.types import Batch, Sources

TEXTS = [[5, 9, 11, 40], list(range(3, 60)), [7] * 33]
GREEDY = {"max_tokens": 12, "temperature": 0.0, "ignore_eos": True}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny.gguf(
        tmp_path_factory.mktemp("t5") / "t5.gguf",
        "t5",
        "f32",
        context=128,
        keys={"attention.relative_buckets_count": 32},
        num_buckets=32,
        num_decoder_layers=2,
    )


@pytest.fixture(scope="module")
def llm(path):
    with tokamak.load(path, threads=1) as loaded:
        yield loaded


def test_a_text_gets_the_same_tokens_alone_and_in_company(path, llm):
    alone = [llm.generate(text, **GREEDY).token_ids for text in TEXTS]
    assert len({tuple(ids) for ids in alone}) > 1  # the source matters
    with tokamak.load(path, threads=2) as other:
        together = [out.token_ids for out in other.generate([*TEXTS, *TEXTS], **GREEDY)]
    assert together == [*alone, *alone]


def test_logits_do_not_depend_on_how_the_beginning_was_cut(path, llm):
    begun = [0, *range(10, 90)]
    whole = llm.logits(begun, source=TEXTS[1])
    for rows in range(1, len(begun), 29):
        assert np.array_equal(llm.logits(begun[:rows], source=TEXTS[1]), whole[:rows])


def test_executors_agree(path, llm):
    with tokamak.load(path, executor="reference") as oracle, tokamak.load(path, kv_dtype="f32") as exact:
        expected = oracle.logits([0, 8, 9], source=TEXTS[1])
        assert np.abs(exact.logits([0, 8, 9], source=TEXTS[1]) - expected).max() < 1e-4 * expected.std()


def test_samples_and_beams_share_one_reading_and_give_it_back(llm):
    read = llm.program.records()[0].calls
    samples = llm.generate(TEXTS[0], n=4, max_tokens=5, temperature=1.0, seed=3)
    assert len(samples) == 4
    assert llm.generate(TEXTS[1], num_beams=3, max_tokens=5, temperature=0.0).token_ids
    assert llm.program.records()[0].calls > read
    assert llm.stats()["blocks_held"] == 0


def test_a_prefix_is_not_shared_between_texts(llm):
    begun = [0, *[6] * 70]
    first, second = (llm.logits(begun, source=text) for text in TEXTS[:2])
    assert not np.array_equal(first, second)
    a, b = (llm.generate(text, max_tokens=70, temperature=0.0, ignore_eos=True) for text in TEXTS[:2])
    assert llm.generate(TEXTS[0], max_tokens=70, temperature=0.0, ignore_eos=True).token_ids == a.token_ids
    assert llm.generate(TEXTS[1], max_tokens=70, temperature=0.0, ignore_eos=True).token_ids == b.token_ids


def test_usage_counts_the_text_that_was_read(llm):
    assert llm.generate(TEXTS[1], max_tokens=2).usage.prompt_tokens == len(TEXTS[1])


def test_more_requests_than_the_cache_holds_take_turns(path, llm):
    alone = [llm.generate(text, **GREEDY).token_ids for text in TEXTS]
    with tokamak.load(path, threads=1, max_sequences=64) as other:
        outs = other.generate(TEXTS * 12, **GREEDY)
        assert [o.token_ids for o in outs] == alone * 12
        assert other.stats()["blocks_held"] == 0


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda m: m.logits([0, 1]), InvalidParams),
        (lambda m: m.generate(list(range(1, 130))), ContextOverflow),
        (lambda m: m.generate([5], negative_prompt=[6], guidance_scale=2.0), UnsupportedError),
        (lambda m: m.embed([5]), UnsupportedError),
        (lambda m: m.save_state("nowhere", [5]), UnsupportedError),
    ],
)
def test_what_cannot_be_done_says_so(llm, call, error):
    with pytest.raises(error):
        call(llm)


def test_buckets_are_those_of_the_paper():
    """Values of mesh-tensorflow's function, computed by hand: exact up to a quarter, then logarithmic, the last for the rest."""
    both = buckets(32, 128, causal=False)
    assert [both[128 + d] for d in (0, -1, -7, -8, -11, -12, -127, -128)] == [0, 1, 7, 8, 8, 9, 15, 15]
    assert [both[128 + d] for d in (1, 8, 128)] == [17, 24, 31]
    past = buckets(32, 128, causal=True)
    assert [past[128 + d] for d in (5, 0, -15, -16, -128)] == [0, 0, 15, 16, 31]


def test_random_sources_are_run_or_refused(path):
    with tokamak.load(path, threads=1) as other:
        good = _step()
        names = list(good.sources.__slots__)
        rng = np.random.default_rng(7)
        for _ in range(200):
            name = names[rng.integers(len(names))]
            array = getattr(good.sources, name).copy()
            array.flat[rng.integers(array.size)] = rng.choice([-(2**31), -1, 0, 1, 31, 64, 2**31 - 1])
            with suppress(InvalidParams):
                other.program.run(replace(good, sources=replace(good.sources, **{name: array})))
        with pytest.raises(InvalidParams, match="sources is None"):
            other.program.run(replace(good, sources=None))
        assert np.isfinite(other.program.run(good)).all()


def _step():
    """One sequence of two tokens about a text of 40, in blocks 0 and 1, its own in block 2."""
    i32 = partial(np.array, dtype=np.int32)
    place = np.arange(40, dtype=np.int32)
    sources = Sources(place, place, place, i32([0, 40]), i32([40]), i32([[0, 1]]), i32([40]), i32([[0, 1]]))
    return Batch(
        i32([0, 5]), i32([0, 1]), i32([64, 65]), i32([0, 2]), i32([2]), i32([[2]]), i32([1]), sources
    )
