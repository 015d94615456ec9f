"""Every op of the CPU program against NumPy float64, on every instruction set, rows of awkward widths.

Inputs come from an f32 table through `embed`, which copies, so an op sees exactly the arrays of the test. Bounds: u is the unit
roundoff of float32, 2^-24; a formula of n rounded steps is off by about n u of the terms it adds.
"""

import math

import numpy as np
import pytest

import graphs
import programs
from tokamak import _native
from tokamak.executors.reference import Meaning
from tokamak.ir import ops
from tokamak.ir.graph import Graph, Type, Value
from tokamak.nn import Step
from tokamak.types import KV_DTYPES

U = 2.0**-24
ISAS = _native.isas()
WIDTHS = (1, 7, 16, 33, 256)


def run(isa, emit, arrays, vectors=(), consts=(), **limits):
    """Rows of `emit(step, values, params, constants)`, where values are the 2-d `arrays` as activations."""
    graph = Graph()
    step = Step(graph)
    params = {}

    def param(name, array):
        params[name] = programs.weight(array)
        kind = Type("f32", array.shape[0], array.shape[1:])
        graph.params[name] = Value(name, kind, graph)
        return graph.params[name]

    values = [ops.embed(step.token_ids, param(f"x{i}", a)) for i, a in enumerate(arrays)]
    weights = [param(f"w{i}", v) for i, v in enumerate(vectors)]
    constants = [step.const(f"c{i}", c) for i, c in enumerate(consts)]
    out = emit(step, values, weights, constants)
    if len(out.type.tail) == 2:
        out = ops.merge_heads(out)
    graph.outputs = (ops.take_rows(out, step.logit_rows),)
    rows = len(arrays[0])
    program = programs.compiled(graph, params, isa, max_rows=rows, **limits)
    blocks = list(range(5, 5 + -(-rows // 32)))
    return program.run(graphs.batch((blocks, list(range(rows)), rows), every_row=True, block=32)).astype(
        np.float64
    )


def normal(*shape, scale=1.0):
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * scale).astype(np.float32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("width", WIDTHS)
def test_elementwise_sums_and_products_round_once(isa, width):
    x, y = normal(5, width), normal(5, width, scale=3.0)
    assert np.array_equal(run(isa, lambda _, v, *__: ops.add(*v), [x, y]), x + y)
    assert np.array_equal(run(isa, lambda _, v, *__: ops.mul(*v), [x, y]), x * y)
    assert np.array_equal(run(isa, lambda _, v, *__: ops.scale(v[0], factor=0.3), [x]), x * np.float32(0.3))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("act", sorted(ops.ACTIVATIONS))
def test_activations_over_their_whole_range(isa, act):
    """Relative error 1e-6, or 1e-14 absolute, below which the oracle rounds 1 + tanh to 0.

    gelu's exponent is itself rounded, which costs 4 u of it; gelu_erf's tail formula is absolute, 3e-7 of x.
    """
    x = np.concatenate([np.linspace(-100, 100, 4001), np.linspace(-8, 8, 4001), [0.0, -0.0, 1e-30, -1e-30]])
    x = x.astype(np.float32).reshape(1, -1)
    expected = getattr(Meaning, act)(x.astype(np.float64))
    exponent = np.abs(x) * (1.6 + 0.0714 * x**2) if act == "gelu" else 0.0
    bound = (1e-6 + 4 * U * exponent) * np.abs(expected) + (3e-7 * np.abs(x) if act == "gelu_erf" else 1e-14)
    assert (np.abs(run(isa, lambda _, v, *__: getattr(ops, act)(v[0]), [x]) - expected) <= bound).all()
    y = normal(1, x.size)
    both = np.concatenate([x, y], axis=1)
    gated = run(isa, lambda _, v, *__: ops.gated(v[0], act=act), [both])
    assert (np.abs(gated - expected * y) <= (bound + U * np.abs(expected)) * np.abs(y)).all()


@pytest.mark.parametrize("isa", ISAS)
def test_activations_pass_nan_and_infinities_on(isa):
    x = np.array([[np.nan, np.inf, -np.inf]], np.float32)
    for act in ("silu", "gelu", "gelu_erf", "relu2"):
        y = run(isa, lambda _, v, *__, act=act: getattr(ops, act)(v[0]), [x])[0]
        assert np.isnan(y[0])
        assert y[1] == np.inf
        assert y[2] == 0 or np.isnan(y[2]), "0 * inf has no better answer"


@pytest.mark.parametrize("isa", ISAS)
def test_softcap_is_a_scaled_tanh(isa):
    """tanh is off by at most 2e-7 of itself, division and product by u each."""
    x = (
        np.concatenate([np.linspace(-300, 300, 999), np.logspace(-8, 1, 999)])
        .astype(np.float32)
        .reshape(1, -1)
    )
    expected = 30 * np.tanh(x.astype(np.float64) / 30)
    found = run(isa, lambda _, v, *__: ops.softcap(v[0], cap=30.0), [x])
    assert (np.abs(found - expected) <= (3e-7 + 3 * U) * np.abs(expected)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("width", WIDTHS)
def test_norms(isa, width):
    """Sums of n squares in chains of n / 32 or so: 1e-6 of the largest normed value is ten times that."""
    x, residual, weight, bias = normal(6, width, scale=4), normal(6, width), normal(width), normal(width)
    x[3] *= 1e-3
    args = [a.astype(np.float64) for a in (x, weight)]
    expected = Meaning.rms_norm(*args, eps=1e-5)
    found = run(isa, lambda _, v, w, __: ops.rms_norm(v[0], w[0], eps=1e-5), [x], [weight])
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
    if width == 1:
        return  # the variance of one number is zero, and the norm a quotient of roundings
    expected = Meaning.layer_norm(*args, bias.astype(np.float64), eps=1e-5)
    found = run(isa, lambda _, v, w, __: ops.layer_norm(v[0], *w, eps=1e-5), [x], [weight, bias])
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()
    total = x + residual
    expected = Meaning.rms_norm(total.astype(np.float64), args[1], eps=1e-5)
    found = run(isa, lambda _, v, w, __: ops.add_rms_norm(*v, w[0], eps=1e-5)[1], [x, residual], [weight])
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
    found = run(
        isa, lambda _, v, w, __: ops.add_layer_norm(*v, *w, eps=1e-5)[0], [x, residual], [weight, bias]
    )
    assert np.array_equal(found, total)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("head_dim", "rotary_dim"), [(8, 8), (8, 4), (20, 20), (64, 64), (128, 96)])
def test_rope(isa, head_dim, rotary_dim):
    """Angles are exact to double; each output is two products and a sum."""
    x = normal(70, 3 * head_dim)
    inv_freq = (10000.0 ** (-np.arange(0, rotary_dim, 2) / rotary_dim)).astype(np.float32)

    def emit(step, v, _, c):
        return ops.rope(ops.split_heads(v[0], heads=3), step.positions, c[0], mscale=1.25)

    heads = x.astype(np.float64).reshape(70, 3, head_dim)
    expected = Meaning.rope(heads, np.arange(70), inv_freq.astype(np.float64), mscale=1.25).reshape(70, -1)
    assert np.abs(run(isa, emit, [x], consts=[inv_freq]) - expected).max() <= 8 * U * np.abs(expected).max()


def attention_inputs(head_dim, heads=4, kv_heads=2, rows=70):
    rng = np.random.default_rng(head_dim)
    return [rng.standard_normal((rows, h * head_dim)).astype(np.float32) for h in (heads, kv_heads, kv_heads)]


def attend(isa, arrays, head_dim, kv="f32", heads=4, kv_heads=2, **attrs):
    scale = head_dim**-0.5

    def emit(step, v, *_):
        q, k, w = (ops.split_heads(x, heads=h) for x, h in zip(v, (heads, kv_heads, kv_heads), strict=True))
        return step.attend(q, k, w, scale=scale, **attrs)

    found = run(isa, emit, arrays, kv_dtype=kv, threads=2)
    q, k, v = (
        a.astype(np.float64).reshape(len(a), h, head_dim)
        for a, h in zip(arrays, (heads, kv_heads, kv_heads), strict=True)
    )
    k, v = k.repeat(heads // kv_heads, 1), v.repeat(heads // kv_heads, 1)
    scores = np.einsum("qhd,khd->hqk", q, k) * scale
    if cap := attrs.get("softcap"):
        scores = cap * np.tanh(scores / cap)
    i, j = np.mgrid[: len(q), : len(q)]
    visible = (j <= i) & (i - j < (attrs.get("window") or len(q)))
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return found, np.einsum("hqk,khd->qhd", weights, v).reshape(len(q), -1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("head_dim", [4, 20, 32, 64, 80, 128, 256])
@pytest.mark.parametrize("attrs", [{}, {"window": 5}, {"window": 33}, {"softcap": 2.0}])
def test_attention(isa, head_dim, attrs):
    """Weights are off by the error of a score, |q||k| sqrt(head_dim) u or about 1e-6, and values are near 1."""
    found, expected = attend(isa, attention_inputs(head_dim), head_dim, **attrs)
    assert np.abs(found - expected).max() <= 3e-6


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (6, 6), (6, 1), (71, 1), (8, 2)])
def test_attention_of_any_grouping(isa, heads, kv_heads):
    arrays = attention_inputs(32, heads, kv_heads, rows=40)
    found, expected = attend(isa, arrays, 32, heads=heads, kv_heads=kv_heads)
    assert np.abs(found - expected).max() <= 3e-6


# What rounding K and V costs: half a step of the type relative to the largest value of a group (about 3.5 for 32
# normal numbers), on keys (times a score's slope, about 1) and on values.
ROUNDING = {"f32": 3e-6, "f16": 2**-10, "bf16": 2**-7, "q8_0": 3.5 / 127, "q4_0": 3.5 / 8}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kv", KV_DTYPES)
@pytest.mark.parametrize("head_dim", [32, 96])
def test_attention_over_a_rounded_cache(isa, kv, head_dim):
    found, expected = attend(isa, attention_inputs(head_dim), head_dim, kv)
    assert np.abs(found - expected).max() <= 2 * ROUNDING[kv]
    if kv != "f32":
        assert np.abs(found - expected).max() > ROUNDING["f32"], "and it is that type"


@pytest.mark.parametrize("isa", ISAS)
def test_scores_may_be_large_without_overflow(isa):
    q, k, v = attention_inputs(64)
    found, expected = attend(isa, [q * 100, k * 100, v], 64)
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() <= 100 * 100 * 64**0.5 * 8 * U * math.e
