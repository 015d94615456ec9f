"""Every chain draws natively what its definition in NumPy draws: same survivors, same token for the same coin."""

import numpy as np
import pytest

from tokamak import _native
from tokamak.errors import InvalidParams, ModelFileError
from tokamak.sampling import Place, Sampler, SamplingParams, filters, penalties, sample_rows
from tokamak.sampling.adaptive import AdaptiveP
from tokamak.sampling.chain import build
from tokamak.sampling.mirostat import Mirostat
from tokamak.sampling.random import XTC, uniform
from tokamak.sampling.sampler import draw

OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
CHAINS = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.9, "top_p": 0.9},
    {"top_p": 0.999},
    {"top_p": 0.2, "min_keep": 5},
    {"min_p": 0.05},
    {"min_p": 0.9, "min_keep": 30, "temperature": 1.3},
    {"top_k": 3000, "temperature": 1.2},
    {"top_k": 5000, "top_p": 0.8, "min_p": 0.01},
    {"typical_p": 0.8},
    {"typical_p": 0.3, "min_keep": 4, "top_k": 200},
    {"top_k": 100, "typical_p": 0.9, "top_p": 0.9, "temperature": 0.6},
    {"tfs_z": 0.95},
    {"tfs_z": 0.6, "min_keep": 9, "top_p": 0.9},
    {"eta_cutoff": 3e-4},
    {"eta_cutoff": 0.2, "min_keep": 12},
    {"top_n_sigma": 1.5, "temperature": 1.5},
    {"xtc_probability": 0.6, "xtc_threshold": 0.01},
    {"xtc_probability": 1.0, "xtc_threshold": 0.05, "min_p": 0.02, "min_keep": 3},
    {"temperature": 0.9, "dynatemp_range": 0.5, "dynatemp_exponent": 1.3},
    {"temperature": 0.5, "dynatemp_range": 0.5, "min_p": 0.01},
    {"samplers": ("temperature", "top_p", "min_p"), "temperature": 0.6, "top_p": 0.9, "min_p": 0.02},
    {"samplers": ("top_k", "penalties", "top_p"), "top_k": 90, "repetition_penalty": 1.4, "top_p": 0.8},
    {"adaptive_target": 0.1},
    {"adaptive_target": 0.4, "adaptive_decay": 0.5, "top_k": 60, "min_p": 0.01, "temperature": 1.2},
    {"mirostat": 2, "temperature": 0.8},
    {"mirostat": 1, "mirostat_tau": 3.0},
    {"mirostat": 2, "mirostat_tau": 0.5, "mirostat_eta": 0.5},
]


def rows(size, scale):
    """Logits with banned tokens and, in the last two, ties."""
    rng = np.random.default_rng(size)
    logits = (rng.standard_normal((4, size)) * scale).astype(np.float32)
    logits[1, rng.random(size) < 0.3] = -np.inf
    logits[2] = np.round(logits[2])
    logits[3] = logits[3].max()
    return logits


def plain(params, logits, history, state, coin, with_xtc):
    """What the definitions draw, and the candidates left in the order of the draw with their p."""
    candidates = filters.everything(logits)
    if isinstance(state, Mirostat):
        candidates = state.cut(filters.temperature(candidates, params.temperature), len(logits))
        token_id, probability = draw(candidates, coin)
        state.accept(probability)
        return token_id, candidates, filters.softmax(candidates.logits)
    for name, stage in build(params, {}, penalties.Breakers()).stages:
        if name != "xtc" or with_xtc:
            candidates = stage(candidates, history)
    if state is None:
        return draw(candidates, coin)[0], candidates, filters.softmax(candidates.logits)
    reshaped, before = state.reshape(candidates)
    token_id = draw(reshaped, coin)[0]
    state.accept(float(before[reshaped.ids == token_id][0]))
    return token_id, candidates, filters.softmax(reshaped.logits)


@pytest.mark.parametrize("size", [1, 7, 300, 5000])
@pytest.mark.parametrize("chain", CHAINS, ids=lambda c: "+".join(map(str, c)) or "draw")
def test_a_chain_draws_natively_what_its_definition_draws(chain, size):
    """A border moves by what float32 exponentials round, a few 1e-7 of the whole: a coin within 1e-5 of one may fall either way."""
    params = SamplingParams(**(OFF | chain))
    history = np.arange(0, size, 3, dtype=np.int32)
    sampler = Sampler(params, seed=size)
    state = Mirostat(params.mirostat, params.mirostat_tau, params.mirostat_eta) if params.mirostat else None
    if params.adaptive_target >= 0.0:
        state = AdaptiveP(params.adaptive_target, params.adaptive_decay)
    position = 0
    for scale in (0.3, 3.0, 12.0):
        for logits in rows(size, scale):
            for _ in range(4):
                position += 1
                coin = uniform(size, 0, position)
                with_xtc = uniform(size, 0, position, XTC) < params.xtc_probability
                token_id, left, p = plain(params, logits, history, state, coin, with_xtc)
                found = sampler.sample(logits, history, position=position).token_id
                if found != token_id:
                    at = {int(i): k for k, i in enumerate(left.ids)}
                    near = np.abs(np.cumsum(p.astype(np.float64)) - coin).min()
                    assert found in at, (scale, token_id, found)
                    assert near < 1e-5, (scale, near, token_id, found)


def test_a_chain_that_goes_on_in_python_leaves_what_its_definition_leaves():
    logits = rows(3000, 3.0)[0]
    chain = _native.FilterChain([("top_p", 0.9, 0, 0, 1), ("temperature", 0.5, 0, 0, 1)])
    ids, kept, ordered = chain.filtered(logits, False)
    expected = filters.temperature(filters.top_p(filters.everything(logits), 0.9), 0.5)
    assert ordered
    np.testing.assert_array_equal(ids, expected.ids)
    np.testing.assert_array_equal(kept, expected.logits)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_told_by_every_chain(bad):
    logits = np.full(300, -np.inf if bad == -np.inf else 0.0, dtype=np.float32)
    logits[77] = bad
    error = InvalidParams if bad == -np.inf else ModelFileError
    for chain in CHAINS:
        with pytest.raises(error):
            Sampler(SamplingParams(**(OFF | chain)), seed=1).sample(logits, np.zeros(0, dtype=np.int32))


def test_settings_out_of_range_are_refused():
    for stage in [("top_p", float("nan"), 0, 0, 1), ("min_p", 0.0, 0, 0, 1), ("none", 1, 0, 0, 1)]:
        with pytest.raises(InvalidParams):
            _native.FilterChain([stage])
    chain = _native.FilterChain([])
    with pytest.raises(InvalidParams):
        _native.draw_rows([(chain, np.zeros(0, dtype=np.float32), 0.5, False, 0.0)])
    with pytest.raises(InvalidParams):
        _native.draw_rows([(chain, np.zeros(4, dtype=np.float32), 1.0, False, 0.0)])
    with pytest.raises(InvalidParams):
        _native.log_rows([(np.zeros(4, dtype=np.float32), 0, 1025)])
    with pytest.raises(InvalidParams):
        _native.log_rows([(np.zeros(4, dtype=np.float32), 4, 1)])


def test_exponentials_and_their_sum_are_those_of_numpy():
    logits = rows(70_000, 9.0)[1]
    exact = logits.max() + np.log(np.exp(logits.astype(np.float64) - logits.max()).sum())
    assert _native.log_rows([(logits, 0, 0)])[0][0] == pytest.approx(exact, abs=3e-7)


@pytest.mark.parametrize("limit", [0, 3, 1000])
def test_repetitions_are_found_as_the_readable_twin_finds_them(limit):
    tokens = np.random.default_rng(1).integers(0, 3, 400).astype(np.int32)
    found = _native.suffix_matches(tokens, limit)
    assert found.tolist() == penalties.suffix_matches(tokens.tolist(), limit)


def test_what_has_to_stay_stays_where_one_token_has_nearly_everything():
    logits = np.linspace(-90, 0, 300).astype(np.float32)
    ids, _, _ = _native.FilterChain([("top_p", 0.5, 0, 0, 5)]).filtered(logits, False)
    assert ids.tolist() == [299, 298, 297, 296, 295]


def test_the_lowest_logits_there_are_still_share_the_whole():
    logits = np.full(3, -3e38, dtype=np.float32)
    drawn = _native.draw_rows([(_native.FilterChain([]), logits, c, False, 0.0) for c in (0.1, 0.5, 0.9)])
    assert drawn == [(i, pytest.approx(1 / 3)) for i in range(3)]


def samplers():
    """One of each chain, of chains that go on in Python, of what looks at the history, and greedy ones."""
    more = [
        {"temperature": 0.0},
        {"temperature": 0.0, "samplers": ("top_k", "penalties"), "top_k": 5, "repetition_penalty": 2.0},
        {"samplers": ("top_p", "dry", "xtc"), "dry_multiplier": 1.0, "top_p": 0.9, "adaptive_target": 0.2},
        {"top_k": 40, "top_p": 0.95, "logprobs": 5, "logit_bias": {3: 2.0}},
        {"repetition_penalty": 1.3, "logprobs": 0},
    ]
    return [
        Sampler(params, seed=i, bias=params.logit_bias)
        for i, params in enumerate(SamplingParams(**(OFF | chain)) for chain in CHAINS + more)
    ]


def program():
    """A native program with three threads, which computes nothing here."""
    return _native.CpuProgram(
        num_blocks=1,
        num_recent_blocks=1,
        max_rows=1,
        max_sequences=1,
        threads=3,
        row_nbytes=(64, 0, 0),
        result_width=1,
    )


@pytest.mark.parametrize("has_workers", [False, True])
def test_rows_drawn_together_are_those_drawn_one_by_one(has_workers):
    workers = program() if has_workers else None
    logits = np.concatenate([rows(3000, 3.0), rows(3000, 12.0)])
    history = np.arange(40, dtype=np.int32) % 7
    together, alone = samplers(), samplers()
    for step in range(12):
        own = [logits[(step + i) % 8] for i in range(len(together))]
        found = sample_rows(
            [Place(s, row, history, (), 40 + step) for s, row in zip(together, own, strict=True)], workers
        )
        assert found == [
            s.sample(row, history, position=40 + step) for s, row in zip(alone, own, strict=True)
        ]


def test_a_row_that_cannot_be_drawn_leaves_the_others_alone():
    good, bad = rows(300, 3.0)[0], np.full(300, np.nan, dtype=np.float32)

    def broken(_history, _logits):
        raise ZeroDivisionError

    strange = Sampler(SamplingParams(logits_processor=broken), seed=1)
    first, second, third, last = sample_rows(
        [
            Place(sampler, row, np.zeros(0, dtype=np.int32), (), 0)
            for sampler, row in [
                (Sampler(SamplingParams(), seed=1), good),
                (Sampler(SamplingParams(), seed=1), bad),
                (strange, good),
                (Sampler(SamplingParams(), seed=1), good),
            ]
        ]
    )
    assert first == last
    assert isinstance(second, ModelFileError)
    assert isinstance(third, ZeroDivisionError)


def test_the_likeliest_tokens_are_those_of_the_readable_twin():
    logits = np.round(rows(5000, 3.0)[1], 1)
    for count in (1, 20, 1024):
        best = filters.ordered(filters.top_k(filters.everything(logits), count))
        ranks = []
        for token in best.ids[-3:].tolist():
            _, rank, top = _native.log_rows([(logits, token, count)])[0]
            assert top == best.ids.tolist()
            ranks.append(rank)
        assert ranks == list(range(count + 1 - len(ranks), count + 1))
