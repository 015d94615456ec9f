"""Settings at the ends of their ranges draw what the rule says, and never a token that is banned."""

import time
import warnings

import numpy as np
import pytest

from tokamak import _native
from tokamak.errors import InvalidParams
from tokamak.sampling import Place, Sampler, SamplingParams, StopStrings, filters, sample_rows

OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
ROW = np.linspace(-5, 5, 100).astype(np.float32)
HALF = np.where(np.arange(100) < 50, -np.inf, ROW).astype(np.float32)
NONE = np.zeros(0, dtype=np.int32)


def drawn(row, **params):
    return Sampler(SamplingParams(**params), seed=1).sample(row, NONE).token_id


@pytest.mark.parametrize("temperature", [1e-10, 1e-38, 1e-45, 1e-300])
@pytest.mark.parametrize(
    "chain", [{}, OFF, {"mirostat": 2}, {"dynatemp_range": 1e-45}, {"samplers": ("temperature", "penalties")}]
)
def test_a_temperature_near_zero_is_greedy(temperature, chain):
    assert drawn(ROW, temperature=temperature, repetition_penalty=1.1, **chain) == 99
    assert filters.temperature(filters.everything(ROW), temperature).ids[-1] == 99


@pytest.mark.parametrize("chain", [OFF, OFF | {"top_k": 60}, OFF | {"min_keep": 90}])
def test_xtc_that_excludes_everything_keeps_the_least_likely_that_is_allowed(chain):
    wanted = {drawn(HALF, **chain, xtc_probability=1.0, xtc_threshold=0.0, seed=s) for s in range(3)}
    assert wanted == {50} or chain.get("min_keep")
    assert all(token >= 50 for token in wanted)
    assert filters.xtc(filters.everything(HALF), 0.0).ids[0] == 50


def test_the_last_coin_there_is_draws_no_banned_token():
    for chain in (OFF, {"top_k": 90, "top_p": 1.0, "min_p": 0.0}, OFF | {"top_p": 0.999999}):
        sampler = Sampler(SamplingParams(**chain), seed=1)
        due = sampler.due(Place(sampler, HALF, NONE, (), 0))
        for coin in (0.0, 1.0 - 2**-53):
            ((token, share),) = _native.draw_rows([(due.chain, HALF, coin, False, 0.0)])
            assert token >= 50
            assert share > 0.0


@pytest.mark.parametrize("value", [1e300, -1e300, 3e38, float("nan"), float("inf"), 10**400])
def test_a_bias_that_no_logit_can_hold_is_refused(value):
    with pytest.raises(InvalidParams, match="logit_bias"):
        SamplingParams(logit_bias={5: value})


def test_a_penalty_beyond_the_largest_number_warns_of_nothing():
    history = np.full(60, 7, dtype=np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = Sampler(SamplingParams(dry_multiplier=100.0, dry_base=100.0, temperature=0.0), seed=1)
        row = ROW.copy()
        row[7] = 90.0
        assert sampler.sample(row, history).token_id == 99


@pytest.mark.parametrize(
    "strange", [lambda x: x[None], lambda x: x[:3], lambda x: np.append(x, x), lambda _: None]
)
def test_a_processor_that_gives_other_logits_fails_its_own_row_only(strange):
    broken = Sampler(SamplingParams(logits_processor=lambda _, x: strange(x)), seed=1)
    fine = Sampler(SamplingParams(), seed=1)
    found, other = sample_rows([Place(broken, ROW, NONE, (), 0), Place(fine, ROW, NONE, (), 0)])
    assert isinstance(found, InvalidParams)
    assert other == fine.sample(ROW, NONE)


def test_a_call_that_is_refused_is_an_answer_and_no_end_of_the_engine():
    nothing = Place(Sampler(SamplingParams(), seed=1), np.zeros(0, dtype=np.float32), NONE, (), 0)
    fine = Place(Sampler(SamplingParams(), seed=1), ROW, NONE, (), 0)
    assert [type(found) for found in sample_rows([nothing, fine])] == [InvalidParams, InvalidParams]


def test_long_stop_strings_cost_what_their_length_is():
    """20,000 characters had 20,000 beginnings of their own: 200 MB."""
    stop = "a" * 20_000 + "b"
    began = time.thread_time()
    stops = StopStrings([stop] * 8)
    text = "".join(stops.push("a" * 50) for _ in range(500))
    text += stops.push("c") + stops.push(stop) + stops.flush()
    assert text == "a" * 25_000 + "c"
    assert stops.matched == stop
    assert time.thread_time() - began < 10.0
