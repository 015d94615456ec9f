"""Families trace into graphs that cut anywhere, refuse what they do not know, and cost little."""

import time

import numpy as np
import pytest

from graphs import CASES, LLAMA, batch, graph, reference
from tokamak import models
from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.ir.passes import optimize
from tokamak.ir.planner import plan
from tokamak.models.config import Rope, read
from tokamak.models.llama import Config
from tokamak.models.rope import frequencies

TOKENS = [3, 14, 15, 92, 6, 5, 35, 8, 9, 79]
# float64 rounding; sums are the same, einsum may order them by shape
TOLERANCE = 1e-9


@pytest.mark.parametrize("name", CASES)
def test_prompt_whole_chunked_or_token_by_token(name):
    g = optimize(graph(name))
    blocks = [2, 0, 7]
    whole = reference(g).run(batch((blocks, TOKENS, 10)))
    chunked, one = reference(g), reference(g)
    chunked.run(batch((blocks, TOKENS[:7], 7)))
    for i in range(1, 11):
        last = one.run(batch((blocks, TOKENS[:i], 1)))
    np.testing.assert_allclose(chunked.run(batch((blocks, TOKENS, 3))), whole, rtol=TOLERANCE, atol=1e-6)
    np.testing.assert_allclose(last, whole, rtol=TOLERANCE, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_batched_equals_alone(name):
    g = optimize(graph(name))
    a, b = ([2, 0, 7], [3, 14, 15, 92, 6, 5], 6), ([1, 4], [1, 2, 3, 4], 1)
    both = reference(g)
    both.run(batch(([1, 4], [1, 2, 3], 3)))
    np.testing.assert_allclose(
        both.run(batch(a, b))[0], reference(g).run(batch(a))[0], rtol=TOLERANCE, atol=1e-6
    )


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_matters(name):
    g = graph(name)
    step = batch(([0, 1, 2], TOKENS, 10), every_row=True)
    want = reference(g).run(step)
    for path in g.params:
        program = reference(g)
        program._params[path] = np.zeros_like(program._params[path])
        assert np.abs(program.run(step) - want).max() > 1e-4, f"{path} is not used"


def test_the_window_hides_what_lies_behind_it():
    full, windowed = (
        reference(graph(n)).run(batch(([0, 1, 2], TOKENS, 10), every_row=True)) for n in ("llama", "mistral")
    )
    np.testing.assert_allclose(full[:5], windowed[:5], rtol=1e-6)
    assert np.abs(full[9] - windowed[9]).max() > 1e-3


def test_tracing_and_planning_a_1b_model_takes_under_100_ms():
    sizes = {**LLAMA, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64}
    sizes |= {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
    CASES["1b"] = ("llama", sizes, False)
    try:
        best = min(_traced_in() for _ in range(8))
    finally:
        del CASES["1b"]
    assert best < 0.1


def _traced_in():
    began = time.thread_time()  # others may use the machine
    plan(optimize(graph("1b")))
    return time.thread_time() - began


def test_unknown_architectures_keys_and_tensors_are_refused():
    with pytest.raises(UnsupportedError, match="warp-drive"):
        models.build("warp-drive", LLAMA, {}, context=64)
    with pytest.raises(UnsupportedError, match="flux_capacitor"):
        read(Config, {**LLAMA, "flux_capacitor": 1}, context=64)
    with pytest.raises(UnsupportedError, match="spiral"):
        frequencies(Rope(scaling={"rope_type": "spiral"}), 8)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", None),
        ("hidden_size", "big"),
        ("head_dim", -4),
        ("num_hidden_layers", 10**7),
        ("head_dim", True),
    ],
)
def test_broken_configurations_are_refused(key, value):
    with pytest.raises(ModelFileError, match=key):
        models.build("llama", {**LLAMA, key: value}, {}, context=64)


def test_missing_and_misshapen_tensors_are_named():
    with pytest.raises(ModelFileError, match=r"embed_tokens\.weight"):
        models.build("llama", LLAMA, {}, context=64)
