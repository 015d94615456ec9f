"""The sampler of one completion: greedy, draws, bias, penalties, log-probabilities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokamak.errors import InvalidParams, ModelFileError
from tokamak.sampling import Sampler, SamplingParams, filters
from tokamak.sampling.mirostat import Mirostat
from tokamak.sampling.random import uniform
from tokamak.sampling.sampler import draw

EMPTY = np.zeros(0, dtype=np.int32)


def history(*ids):
    return np.array(ids, dtype=np.int32)


def plain(**fields):
    """Parameters with every filter off but those named."""
    base = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 0}
    return SamplingParams(**(base | fields))


def frequencies(logits, params, draws=4000, **options):
    counts = np.zeros(len(logits))
    sampler = Sampler(params, seed=5, **options)
    for position in range(draws):
        tokens = np.zeros(position, dtype=np.int32)
        counts[sampler.sample(logits, tokens).token_id] += 1
    return counts / draws


def test_greedy_takes_the_lowest_id_on_ties():
    logits = np.array([0, 3, 1, 3, 3], dtype=np.float32)
    assert Sampler(plain(temperature=0.0), seed=1).sample(logits, EMPTY).token_id == 1


def test_a_draw_depends_on_seed_index_and_position_only():
    logits = np.random.default_rng(0).normal(size=300).astype(np.float32)
    a = [Sampler(plain(), seed=3, index=i).sample(logits, EMPTY).token_id for i in range(20)]
    b = [Sampler(plain(), seed=3, index=i).sample(logits, EMPTY).token_id for i in reversed(range(20))]
    assert a == b[::-1]
    assert len(set(a)) > 5
    other_seed = [Sampler(plain(), seed=4, index=i).sample(logits, EMPTY).token_id for i in range(20)]
    assert other_seed != a


def test_the_draw_follows_the_distribution():
    """4,000 draws: the standard error of a frequency is at most 0.008, so 0.04 is five of them."""
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))
    np.testing.assert_allclose(frequencies(logits, plain()), [0.5, 0.3, 0.15, 0.05], atol=0.04)
    hot = np.array([0.5, 0.3, 0.15, 0.05]) ** 0.5
    np.testing.assert_allclose(frequencies(logits, plain(temperature=2.0)), hot / hot.sum(), atol=0.04)


def test_uniform_numbers_are_uniform_over_each_argument():
    """Kolmogorov's distance of n numbers exceeds 1.95 / sqrt(n) once in a thousand."""
    n = 4000
    for numbers in (
        [uniform(i, 0, 0) for i in range(n)],
        [uniform(7, i, 0) for i in range(n)],
        [uniform(7, 0, i) for i in range(n)],
        [uniform(7, 0, 0, i) for i in range(n)],
    ):
        distance = np.abs(np.sort(numbers) - (np.arange(n) + 0.5) / n).max()
        assert distance < 1.95 / np.sqrt(n)


def test_the_generator_is_the_documented_one():
    """Written anew from the documentation: SplitMix64's finaliser folded over the four numbers."""

    def mix(z):
        z = np.uint64(z)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    with np.errstate(over="ignore"):
        gamma = np.uint64(0x9E3779B97F4A7C15)
        word = mix(np.uint64(42) + gamma)
        for part in (3, 17, 0):
            word = mix(word + np.uint64(part + 1) * gamma)
    assert uniform(42, 3, 17) == float(word >> np.uint64(11)) / 2**53


def test_bias_moves_and_bans():
    logits = np.array([5, 1, 0], dtype=np.float32)
    greedy = plain(temperature=0.0)
    assert Sampler(greedy, seed=0, bias={0: -np.inf}).sample(logits, EMPTY).token_id == 1
    assert Sampler(greedy, seed=0, bias={2: 10.0}).sample(logits, EMPTY).token_id == 2
    assert Sampler(greedy, seed=0, banned=[0, 1]).sample(logits, EMPTY).token_id == 2
    assert Sampler(greedy, seed=0).sample(logits, EMPTY, banned_now=[0]).token_id == 1
    assert logits.tolist() == [5, 1, 0]


def test_banning_everything_is_refused():
    with pytest.raises(InvalidParams, match="bans every token"):
        Sampler(plain(), seed=0, banned=[0, 1]).sample(np.zeros(2, dtype=np.float32), EMPTY)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_are_refused(bad, temperature):
    logits = np.array([0, bad, 1], dtype=np.float32)
    with pytest.raises(ModelFileError, match="logit"):
        Sampler(plain(temperature=temperature), seed=0).sample(logits, EMPTY)


def test_repetition_penalty_counts_each_token_once_within_its_window():
    logits = np.array([4.0, 3.0, 2.9], dtype=np.float32)
    params = plain(temperature=0.0, repetition_penalty=2.0, repetition_last_n=2)
    assert Sampler(params, seed=0).sample(logits, history(0, 0)).token_id == 1
    assert Sampler(params, seed=0).sample(logits, history(0, 1, 2)).token_id == 0  # 0 is out of the window
    gentle = plain(temperature=0.0, repetition_penalty=1.3)
    assert logits[0] / 1.3 > 3.0  # so once leaves 0 ahead, thrice would not
    assert Sampler(gentle, seed=0).sample(logits, history(0, 0, 0)).token_id == 0


def test_logprobs_are_of_the_raw_logits():
    logits = np.random.default_rng(1).normal(size=50).astype(np.float32)
    params = plain(temperature=0.2, top_k=3, logprobs=4, frequency_penalty=1.0)
    sampled = Sampler(params, seed=0, bias={3: 5.0}).sample(logits, history(1, 2))
    exact = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    assert sampled.logprob.logprob == pytest.approx(exact[sampled.token_id], abs=1e-6)
    assert [i for i, _ in sampled.logprob.top] == np.argsort(-logits)[:4].tolist()
    assert [x for _, x in sampled.logprob.top] == pytest.approx(exact[np.argsort(-logits)[:4]], abs=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.7, "top_k": 6, "top_p": 0.9},  # the native draw
        {"temperature": 1.3, "xtc_probability": 0.5, "xtc_threshold": 0.05},  # by turns
        {"temperature": 0.7, "adaptive_target": 0.3},
        {"top_k": 6, "frequency_penalty": 1.0, "samplers": ("top_k", "penalties", "temperature")},  # an adjustment after a filter
    ],
    ids=["top", "xtc", "adaptive", "late penalty"],
)  # fmt: skip
def test_post_sampling_probabilities_are_those_of_the_draw(fields):
    logits = 2 * np.random.default_rng(2).normal(size=30).astype(np.float32)
    params = plain(**fields, logprobs=30, post_sampling_probs=True)
    told, same, expected, counts = Sampler(params, seed=3), Sampler(plain(**fields), seed=3), 0.0, 0.0
    for position in range(2000):
        drawn = told.sample(logits, history(4), position=position)
        assert same.sample(logits, history(4), position=position).token_id == drawn.token_id
        top = {i: np.exp(p) for i, p in drawn.logprob.top}
        assert top[drawn.token_id] == pytest.approx(np.exp(drawn.logprob.logprob))
        probability = np.zeros(30)
        probability[list(top)] = list(top.values())
        assert probability.sum() == pytest.approx(1.0, abs=1e-6)
        expected, counts = expected + probability, counts + (np.arange(30) == drawn.token_id)
    assert not counts[expected == 0].any()
    seen = expected > 0
    deviation = (counts - expected)[seen] ** 2 / expected[seen]
    assert deviation.sum() < 70  # chi-square of at most 29 degrees: 1e-5 are above


def test_a_greedy_token_has_the_whole_post_sampling_probability():
    params = plain(temperature=0.0, logprobs=3, post_sampling_probs=True)
    drawn = Sampler(params, seed=0).sample(np.array([0, 2, 1], np.float32), EMPTY)
    assert (drawn.logprob.logprob, drawn.logprob.top) == (0.0, ((1, 0.0),))
    with pytest.raises(InvalidParams, match="post_sampling_probs"):
        plain(mirostat=2, post_sampling_probs=True)
    adaptive = plain(adaptive_target=0.3, logprobs=3, post_sampling_probs=True)
    with pytest.raises(ModelFileError):
        Sampler(adaptive, seed=0).sample(np.full(3, np.nan, np.float32), EMPTY)


def test_processors_run_first_and_in_order_on_a_copy():
    seen = []

    def first(tokens, logits):
        seen.append(tokens.tolist())
        logits[0] = 100.0
        return logits

    def second(tokens, logits):
        assert logits[0] == 100.0
        logits[2] = 200.0
        return logits

    logits = np.zeros(3, dtype=np.float32)
    params = plain(temperature=0.0, logits_processor=[first, second])
    assert Sampler(params, seed=0).sample(logits, history(7, 8)).token_id == 2
    assert (seen, logits.tolist()) == ([[7, 8]], [0, 0, 0])


def test_a_stage_that_is_not_named_is_off_and_order_counts():
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], dtype=np.float32))
    off = frequencies(logits, plain(top_k=1, samplers=["temperature"]), draws=500)
    assert (off > 0).sum() == 4
    # top-p 0.6 of (0.4, 0.3, ...) is two tokens; after top-k 1 it is one
    two = frequencies(logits, plain(top_p=0.6), draws=300)
    assert (two > 0).sum() == 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_adjustment_after_a_filter_sees_what_the_filter_left(temperature):
    """top-k 1 first leaves token 0 alone, so a penalty cannot bring another; before it, it does."""
    logits = np.array([5.0, 4.9, 0.0], dtype=np.float32)
    fields = {"temperature": temperature, "top_k": 1, "frequency_penalty": 2.0}
    for order, expected in ((["top_k", "penalties"], 0), (["penalties", "top_k"], 1)):
        params = plain(**fields, samplers=[*order, "temperature"])
        assert Sampler(params, seed=0).sample(logits, history(0, 0)).token_id == expected


@pytest.mark.parametrize("fields", [{"repetition_penalty": 1.5}, {"dry_multiplier": 2.0}])
def test_an_adjustment_of_all_candidates_does_not_depend_on_its_place(fields):
    logits = np.random.default_rng(5).normal(size=300).astype(np.float32) * 2
    tokens = np.array([7, 8, 9, 250, 7, 8], dtype=np.int32)
    first = plain(**fields, min_p=1e-9, samplers=["penalties", "dry", "min_p"])
    last = plain(**fields, min_p=1e-9, samplers=["min_p", "dry", "penalties"])
    for i in range(50):
        a, b = (Sampler(p, seed=1, index=i).sample(logits, tokens).token_id for p in (first, last))
        assert a == b


def test_xtc_applies_with_its_probability():
    """At p = 0.5 the likeliest token goes in half of the draws: 0.5 * 0.6 is left of it, +- five errors."""
    logits = np.log(np.array([0.6, 0.3, 0.1], dtype=np.float32))
    kept = frequencies(logits, plain(xtc_probability=0.5, xtc_threshold=0.2))[0]
    assert kept == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_holds_the_mean_surprise_at_its_target(version):
    """Over 2,000 tokens of a Zipf distribution the mean surprise, in bits, comes within 0.2 of tau."""
    logits = -1.1 * np.log(np.arange(1, 5001)).astype(np.float32)
    state = Mirostat(version, tau=4.0, eta=0.1)
    surprise = []
    for position in range(2000):
        _, p = draw(state.cut(filters.everything(logits), len(logits)), uniform(1, 0, position))
        surprise.append(-np.log2(p))
        state.accept(p)
    assert np.mean(surprise[200:]) == pytest.approx(4.0, abs=0.2)


def test_every_sampler_reaches_the_draw_through_the_parameters():
    logits = np.random.default_rng(3).normal(size=2000).astype(np.float32) * 3
    base = [Sampler(plain(), seed=1, index=i).sample(logits, EMPTY).token_id for i in range(200)]
    tokens = np.array([5, 6, 7, 5, 6], dtype=np.int32)
    for fields in (
        {"typical_p": 0.2},
        {"tfs_z": 0.5},
        {"eta_cutoff": 0.01},
        {"top_n_sigma": 1.0},
        {"top_k": 3},
        {"top_p": 0.3},
        {"min_p": 0.5},
        {"xtc_probability": 1.0, "xtc_threshold": 0.001},
        {"temperature": 0.3},
        {"dynatemp_range": 1.0},
        {"adaptive_target": 0.2},
        {"mirostat": 1, "mirostat_tau": 2.0},
        {"mirostat": 2, "mirostat_tau": 2.0},
    ):
        other = [Sampler(plain(**fields), seed=1, index=i).sample(logits, EMPTY).token_id for i in range(200)]
        assert other != base, fields
    greedy = plain(temperature=0.0, dry_multiplier=100.0)
    logits[7] = 50.0
    assert Sampler(greedy, seed=0).sample(logits, tokens).token_id != 7


@given(
    k=st.integers(1, 40),
    size=st.sampled_from([5, 50, 1024, 5000]),
    distinct=st.integers(1, 50),
    seed=st.integers(0, 5),
)
def test_top_k_equals_a_full_sort_with_ties_by_id(k, size, distinct, seed):
    logits = np.random.default_rng(seed).integers(0, distinct, size).astype(np.float32)
    kept = filters.ordered(filters.top_k(filters.everything(logits), k))
    expected = sorted(range(size), key=lambda i: (-logits[i], i))[:k]
    assert kept.ids.tolist() == expected


@given(p=st.floats(0.0, 0.999), scale=st.floats(0.01, 5.0), seed=st.integers(0, 5), keep=st.integers(1, 400))
def test_top_p_equals_a_full_sort(p, scale, seed, keep):
    logits = (np.random.default_rng(seed).normal(size=3000) * scale).astype(np.float32)
    kept = filters.top_p(filters.everything(logits), p, keep)
    probability = np.sort(filters.softmax(logits).astype(np.float64))[::-1]
    count = max(int(np.searchsorted(np.cumsum(probability), p)) + 1, keep)
    # float32 exponentials put the border within 1e-6 of p; at the flattest scale a token is 3e-4
    assert abs(len(kept) - count) <= 1
