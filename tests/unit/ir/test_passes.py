"""Passes keep meaning on every family, fire where they should and hold back where they must."""

import numpy as np
import pytest

from graphs import CASES, batch, graph, reference
from tokamak.errors import GraphError
from tokamak.ir import ops
from tokamak.ir.check import check
from tokamak.ir.graph import Graph, Node, T, Type, Value
from tokamak.ir.passes import PASSES, fuse_add_norm, fuse_gated, merge_linears, optimize

# float64 rounding of sums of a few hundred terms, reassociated
TOLERANCE = 1e-10


def names(g):
    return [n.op for n in g.nodes]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", range(1, len(PASSES) + 1))
def test_passes_keep_meaning(name, count):
    step = batch(([0, 2, 5], list(range(1, 10)), 9), ([1, 3], [7, 8, 9], 3))
    want = reference(graph(name)).run(step)
    g = graph(name)
    for rewrite in PASSES[:count]:
        g = rewrite(g)
        check(g)
    np.testing.assert_allclose(reference(g).run(step), want, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_every_pass_fires_where_the_family_has_its_pattern(name):
    plain, fused = names(graph(name)), names(optimize(graph(name)))
    norms_first = name not in (
        "exaone4",
        "olmo2",
        "granite",
        "gemma3",
        "glm4",
    )  # these norm or scale before they add
    norms_between_layers = 2  # the last sum goes to take_rows
    found = fused.count("add_rms_norm") + fused.count("add_layer_norm")
    assert found >= norms_between_layers or not norms_first
    assert fused.count("gated") == plain.count("mul")
    assert fused.index("take_rows") < len(fused) - 2  # before the last norm
    assert fused.count("linear") < plain.count("linear") or name in ("phi3", "gpt2", "falcon", "gptneox")


def test_query_key_value_gate_and_up_merge():
    g = optimize(graph("llama"))
    merged = [n for n in g.nodes if n.op == "linear" and n.attrs["num_weights"] > 1]
    assert sorted({n.attrs["num_weights"] for n in merged}) == [2, 3]
    assert names(g).count("linear") == 3 * 4 + 1


def test_linears_with_and_without_bias_stay_apart():
    g = Graph()
    x, w, b = (Value(n, t, g) for n, t in (("x", f32(T, 8)), ("w", f32(4, 8)), ("b", f32(4))))
    g.inputs["x"], g.params["w"], g.params["b"] = x, w, b
    g.outputs = (ops.add(ops.linear(x, w), ops.linear(x, w, biases=(b,))),)
    assert names(merge_linears(g)).count("linear") == 2


def test_gated_needs_adjacent_halves():
    g = Graph()
    x = g.inputs["x"] = Value("x", f32(T, 8), g)
    gate, up = ops.columns(x, start=4, stop=8), ops.columns(x, start=0, stop=4)
    g.outputs = (ops.mul(ops.silu(gate), up),)
    assert "gated" not in names(fuse_gated(g))


def test_only_a_sum_that_is_normed_fuses_with_the_norm():
    g = Graph()
    x = g.inputs["x"] = Value("x", f32(T, 8), g)
    g.outputs = (ops.add(x, ops.silu(x)),)
    assert names(fuse_add_norm(g)) == names(g)


def f32(lead, *tail):
    return Type("f32", lead, tail)


def test_check_refuses_what_passes_must_not_make():
    g = Graph()
    x = g.inputs["x"] = Value("x", f32(T, 8), g)
    y = ops.silu(x)
    g.outputs = (y,)
    check(g)
    for broken in (
        [Node("silu", (Value("lost", f32(T, 8), g),), (y,), {})],
        [*g.nodes, *g.nodes],
        [Node("silu", (x,), (Value("y", f32(T, 4), g),), {})],
        [Node("teleport", (x,), (y,), {})],
        [],
    ):
        with pytest.raises(GraphError):
            check(Graph(inputs=g.inputs, nodes=broken, outputs=g.outputs))
