"""The native draw is the chain of filters.py: top-k, top-p, min-p, temperature, then the draw."""

import numpy as np
import pytest

from tokamak import _native
from tokamak.sampling import filters
from tokamak.sampling.sampler import draw

COINS = np.linspace(0.0, 1.0 - 2**-53, 41)


def draw_token(logits, top_k, top_p, min_p, temperature, min_keep, coin):
    stages = [
        ("top_k", max(top_k, min_keep)),
        ("top_p", top_p),
        ("min_p", min_p),
        ("temperature", temperature),
    ]
    chain = _native.FilterChain([(n, a, 0, 0, min_keep) for n, a in stages if (n, a) != ("min_p", 0.0)])
    return _native.draw_rows([(chain, logits, coin, False, 0.0)])[0][0]


def twin(logits, top_k, top_p, min_p, temperature, min_keep):
    c = filters.top_k(filters.everything(logits), max(top_k, min_keep))
    c = filters.min_p(filters.top_p(c, top_p, min_keep), min_p, min_keep)
    return filters.ordered(filters.temperature(c, temperature))


@pytest.mark.parametrize("size", [1, 5, 63, 64, 65, 1000, 32000])
@pytest.mark.parametrize("scale", [0.01, 3.0, 30.0])
@pytest.mark.parametrize(
    "chain",
    [
        (40, 0.95, 0.05, 0.8, 1),
        (1, 1.0, 0.0, 1.0, 1),
        (1024, 1.0, 0.0, 1.0, 1),
        (100, 0.5, 0.0, 2.0, 1),
        (100, 1.0, 0.3, 0.1, 1),
        (3, 0.1, 0.9, 0.5, 8),
    ],
)
def test_the_native_draw_takes_the_token_of_the_plain_chain(size, scale, chain):
    rng = np.random.default_rng(size)
    logits = (rng.normal(size=size) * scale).astype(np.float32)
    logits[rng.random(size) < 0.1] = -np.inf
    logits[0] = scale
    kept = twin(logits, *chain)
    borders = np.cumsum(filters.softmax(kept.logits).astype(np.float64))
    for coin in COINS:
        native = draw_token(logits, *chain, coin)
        if (
            np.abs(borders - coin).min() > 1e-5
        ):  # float32 exponentials of the twin move a border by 1e-6 of it
            assert native == draw(kept, coin)[0]
        else:
            assert native in kept.ids


def test_ties_go_to_the_lower_id():
    logits = np.repeat(np.array([1, 2, 0], dtype=np.float32), [50, 200, 50])
    drawn = {draw_token(logits, 3, 1.0, 0.0, 1.0, 1, coin) for coin in COINS}
    assert drawn == {50, 51, 52}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 70, 299])
def test_a_logit_that_is_not_a_number_is_told(bad, at):
    logits = np.zeros(300, dtype=np.float32)
    logits[at] = bad
    assert draw_token(logits, 4, 1.0, 0.0, 1.0, 1, 0.5) == -1
    assert draw_token(np.full(300, -np.inf, dtype=np.float32), 4, 1.0, 0.0, 1.0, 1, 0.5) == -1
