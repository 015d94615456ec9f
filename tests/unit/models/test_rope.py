"""Rope scalings against their formulas, worked by hand or by transformers."""

import numpy as np
import pytest

from tokamak.errors import ModelFileError
from tokamak.models.config import Rope
from tokamak.models.rope import frequencies

SIZE = 16
PLAIN = 10000.0 ** (-np.arange(0, SIZE, 2) / SIZE)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "original_max_position_embeddings": 128,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
LONG = {"rope_type": "longrope", "short_factor": [2] * 8, "long_factor": [4] * 8, "factor": 16.0}
LONG["original_max_position_embeddings"] = 256

# float32 of frequencies computed in float64
RTOL = 1e-6


def test_plain_linear_and_file_factors():
    np.testing.assert_allclose(frequencies(Rope(), SIZE)[0], PLAIN, rtol=RTOL)
    np.testing.assert_allclose(
        frequencies(Rope(scaling={"rope_type": "linear", "factor": 4.0}), SIZE)[0], PLAIN / 4, rtol=RTOL
    )
    np.testing.assert_allclose(frequencies(Rope(freq_factors=[2.0] * 8), SIZE)[0], PLAIN / 2, rtol=RTOL)


def test_llama3_keeps_fast_columns_and_divides_slow_ones():
    got = frequencies(Rope(scaling=LLAMA3), SIZE)[0] / PLAIN
    turns = 128 * PLAIN / (2 * np.pi)
    np.testing.assert_allclose(got[turns > 4], 1, rtol=RTOL)
    np.testing.assert_allclose(got[turns < 1], 1 / 8, rtol=RTOL)
    middle = (turns > 1) & (turns < 4)
    assert middle.any()
    assert np.all((got[middle] > 1 / 8) & (got[middle] < 1))


def test_longrope_factors_follow_the_context_and_scale_both():
    short, mscale = frequencies(Rope(scaling=LONG, context=256), SIZE)
    np.testing.assert_allclose(short, PLAIN / 2, rtol=RTOL)
    np.testing.assert_allclose(frequencies(Rope(scaling=LONG, context=257), SIZE)[0], PLAIN / 4, rtol=RTOL)
    assert mscale == pytest.approx(np.sqrt(1 + np.log(16) / np.log(256)))


def test_dynamic_grows_the_base_beyond_the_trained_context():
    scaling = {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 128}
    np.testing.assert_allclose(frequencies(Rope(scaling=scaling, context=128), SIZE)[0], PLAIN, rtol=RTOL)
    base = 10000.0 * (2 * 256 / 128 - 1) ** (SIZE / (SIZE - 2))
    want = base ** (-np.arange(0, SIZE, 2) / SIZE)
    np.testing.assert_allclose(frequencies(Rope(scaling=scaling, context=256), SIZE)[0], want, rtol=RTOL)


@pytest.mark.parametrize(
    "scaling",
    [
        YARN,
        {**YARN, "truncate": False},
        {**YARN, "mscale": 0.7, "mscale_all_dim": 0.4},
        LLAMA3,
        LONG,
        {"rope_type": "linear", "factor": 3.0},
    ],
)
def test_equals_transformers(scaling):
    pytest.importorskip("torch")
    utilities = pytest.importorskip("transformers.modeling_rope_utils")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=SIZE * 2, num_attention_heads=2, max_position_embeddings=4096
    )
    config.rope_parameters = {"rope_theta": 10000.0, **scaling}
    want, factor = utilities.ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, device="cpu")
    got, mscale = frequencies(Rope(scaling=scaling, context=128), SIZE)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-5)
    assert mscale == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize("context", [128, 200, 4096])
def test_dynamic_equals_transformers_at_every_length(context):
    pytest.importorskip("torch")
    utilities = pytest.importorskip("transformers.modeling_rope_utils")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=SIZE * 2, num_attention_heads=2, max_position_embeddings=128
    )
    config.rope_parameters = {"rope_theta": 10000.0, "rope_type": "dynamic", "factor": 3.0}
    want, factor = utilities.ROPE_INIT_FUNCTIONS["dynamic"](config, device="cpu", seq_len=context)
    scaling = {"rope_type": "dynamic", "factor": 3.0, "original_max_position_embeddings": 128}
    got, mscale = frequencies(Rope(scaling=scaling, context=context), SIZE)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-5)
    assert mscale == factor == 1


@pytest.mark.parametrize(
    "rope",
    [
        Rope(rotary_dim=3),
        Rope(rotary_dim=18),
        Rope(freq_factors=[1.0]),
        Rope(freq_factors=[0.0] * 8),
        Rope(scaling={"rope_type": "linear"}),
        Rope(scaling={**LONG, "short_factor": None}),
    ],
)
def test_inconsistent_values_are_refused(rope):
    with pytest.raises(ModelFileError):
        frequencies(rope, SIZE)
