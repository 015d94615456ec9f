"""Ops on heads, experts and recurrent states: every instruction set against the oracle, and the same bits however cut.

Each case is a graph of one op over embedded rows. Limit: float32 rounding of sums of at most a few hundred terms of size one,
3e-6 of the largest result, ten times that where a state carries errors from row to row.
"""

import numpy as np
import pytest

import graphs
import programs
from tokamak import _native
from tokamak.executors.reference import ReferenceProgram
from tokamak.ir import ops
from tokamak.ir.graph import Graph, Type, Value
from tokamak.nn import Step
from tokamak.types import Limits

ISAS = _native.isas()
ROWS = 75  # more than two blocks


class Maker:
    """A graph under construction: rows(name, width) and weights(name, shape) with random numbers."""

    def __init__(self):
        self.graph, self.arrays = Graph(), {}
        self.step = Step(self.graph)
        self.rng = np.random.default_rng(3)

    def weight(self, *shape, scale=1.0, shift=0.0):
        name = f"w{len(self.arrays)}"
        self.arrays[name] = (self.rng.standard_normal(shape) * scale + shift).astype(np.float32)
        value = self.graph.params[name] = Value(name, Type("f32", shape[0], shape[1:]), self.graph)
        return value

    def rows(self, *tail, scale=1.0, shift=0.0):
        x = ops.embed(self.step.token_ids, self.weight(97, int(np.prod(tail)), scale=scale, shift=shift))
        return ops.split_heads(x, heads=tail[0]) if len(tail) == 2 else x


def attend(m, *, keys=16, values=16, heads=4, kv_heads=2, **attrs):
    extras = {k: m.weight(heads, scale=0.3) for k in ("slopes", "sinks") if attrs.pop(k, False)}
    q, k, v = m.rows(heads, keys), m.rows(kv_heads, keys), m.rows(kv_heads, values)
    return m.step.attend(q, k, v, scale=keys**-0.5, **extras, **attrs)


def experts(m, biased=False, **attrs):
    weights = ops.route(m.rows(6), num_used=2, normed=1)
    biases = (m.weight(6, 24), m.weight(6, 24), m.weight(6, 16)) if biased else ()
    gate, up, down = m.weight(6, 24, 16), m.weight(6, 24, 16), m.weight(6, 16, 24)
    return ops.experts(m.rows(16), weights, gate, up, down, *biases, num_used=2, **attrs)


def route(m, corrected=False, count=12, **attrs):
    bias = (m.weight(count, scale=0.2),) if corrected else ()
    return ops.route(m.rows(count), *bias, **attrs)


def conv(m, taps=4, biased=True, **attrs):
    bias = (m.weight(70),) if biased else ()
    return ops.causal_conv(m.rows(70), m.weight(70, taps), *m.step.recall(taps - 1, 70), *bias, **attrs)


def scan(m, heads=6, width=5, groups=2, states=11, a_width=1):
    x, dt = m.rows(heads, width), m.rows(heads)
    a = m.weight(heads, a_width, scale=0.2, shift=-1.0)
    b, c = m.rows(groups, states), m.rows(groups, states)
    return ops.scan(x, dt, a, b, c, m.weight(heads), *m.step.recall(heads, width, states))


def linear_attention(m, rule, heads=3, keys=10, values=20):
    q, k, v = m.rows(heads, keys), m.rows(heads, keys, scale=0.3), m.rows(heads, values)
    if rule == "delta":
        w, more = m.rows(heads, scale=0.1, shift=-0.5), [m.rows(heads, scale=0.2, shift=0.5)]
    elif rule == "bonus":
        w, more = m.rows(heads, keys), [m.weight(heads, keys)]
    else:
        w = m.rows(heads, keys, scale=0.1, shift=-0.5)
        more = [m.rows(heads, keys, scale=0.2) for _ in range(2)]
    return ops.linear_attention(q, k, v, w, *m.step.recall(heads, keys, values), *more, rule=rule)


CASES = {
    "affine": lambda m: ops.affine(m.rows(37), m.weight(37), m.weight(37)),
    "affine-plain": lambda m: ops.affine(m.rows(37), m.weight(37)),
    "join": lambda m: ops.join(m.rows(3, 5), m.rows(3, 7)),
    "join-one": lambda m: ops.join(m.rows(3, 5), m.rows(1, 7)),
    "heads_linear": lambda m: ops.heads_linear(m.rows(3, 16), m.weight(3, 20, 16)),
    "gated-clamped": lambda m: ops.gated(m.rows(40, scale=8.0), act="swiglu_clamped"),
    "route": lambda m: route(m, num_used=3),
    "route-normed": lambda m: route(m, num_used=3, normed=1, scaling=2.5),
    "route-sigmoid": lambda m: route(m, corrected=True, num_used=4, score="sigmoid", normed=1),
    "route-corrected": lambda m: route(m, corrected=True, num_used=4),
    "route-groups": lambda m: route(
        m, corrected=True, num_used=4, score="sigmoid", groups=4, top_groups=2, group_top=2
    ),
    "route-best-group": lambda m: route(m, num_used=2, groups=3, top_groups=1),
    "route-sparsemixer": lambda m: route(m, num_used=2, score="sparsemixer"),
    "experts": experts,
    "experts-biased": lambda m: experts(m, biased=True, act="swiglu_clamped"),
    "experts-input": lambda m: experts(m, weighs="input", act="gelu"),
    "attention-slopes": lambda m: attend(m, slopes=True),
    "attention-sinks": lambda m: attend(m, sinks=True, window=20),
    "attention-chunk": lambda m: attend(m, chunk=24),
    "attention-uneven": lambda m: attend(m, keys=24, values=40),
    "attention-narrow": lambda m: attend(m, keys=600, values=512, heads=2, kv_heads=1),
    "causal_conv": lambda m: conv(m, act="silu"),
    "causal_conv-plain": lambda m: conv(m, taps=2, biased=False),
    "scan": scan,
    "scan-per-state": lambda m: scan(m, heads=40, width=1, groups=1, states=16, a_width=16),
    "delta": lambda m: linear_attention(m, "delta"),
    "bonus": lambda m: linear_attention(m, "bonus"),
    "removal": lambda m: linear_attention(m, "removal"),
}
CARRIES = ("scan", "delta", "bonus", "removal", "causal_conv")
TOKENS = np.random.default_rng(8).integers(0, 97, ROWS).tolist()
OTHER = np.random.default_rng(9).integers(0, 97, 40).tolist()


def made(name):
    m = Maker()
    out = CASES[name](m)
    out = ops.merge_heads(out) if len(out.type.tail) == 2 else out
    m.graph.outputs = (ops.take_rows(out, m.step.logit_rows),)
    return m.graph, m.arrays


def batch(*sequences):
    return graphs.batch(*sequences, every_row=True, block=programs.BLOCK)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CASES)
def test_every_instruction_set_agrees_with_the_oracle(name, isa):
    graph, arrays = made(name)
    step = batch(([4, 1, 6], TOKENS, ROWS))
    expected = ReferenceProgram(graph, arrays, Limits(num_blocks=8, block_size=programs.BLOCK)).run(step)
    p = programs.compiled(graph, programs.weights(arrays), isa, num_blocks=8, kv_dtype="f32", threads=2)
    limit = 3e-5 if name.startswith(CARRIES) else 3e-6
    assert np.abs(p.run(step) - expected).max() <= limit * np.abs(expected).max()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [n for n in CASES if n.startswith((*CARRIES, "attention", "experts"))])
def test_a_row_is_the_same_bits_in_every_company(name, isa):
    graph, arrays = made(name)
    weights = programs.weights(arrays)
    expected = programs.compiled(graph, weights, isa, num_blocks=12).run(batch(([0, 1, 2], TOKENS, ROWS)))
    p = programs.compiled(graph, weights, isa, num_blocks=12, threads=2)
    both = p.run(batch(([7, 9], OTHER, 40), ([5, 4, 3], TOKENS, ROWS)))
    assert np.array_equal(both[40:], expected), "beside another sequence, on two threads"
    for size in (1, 7, 32):
        steps = [(end - size if end % size == 0 else end // size * size, end) for end in ends(size)]
        parts = [p.run(batch(([5, 9, 3], TOKENS[:end], end - begin))) for begin, end in steps]
        assert np.array_equal(np.concatenate(parts), expected), f"in steps of {size}"


def ends(size):
    return [min(begin + size, ROWS) for begin in range(0, ROWS, size)]


@pytest.mark.parametrize("executor", ["reference", "cpu"])
@pytest.mark.parametrize("name", ["scan", "delta", "causal_conv"])
def test_a_copied_block_brings_its_state_along(name, executor):
    """What two continuations of one prompt need, and a block that is found again as a prefix."""
    graph, arrays = made(name)
    if executor == "cpu":
        p = programs.compiled(graph, programs.weights(arrays), num_blocks=8)
    else:
        p = ReferenceProgram(graph, arrays, Limits(num_blocks=8, block_size=programs.BLOCK))
    expected = p.run(batch(([0, 1, 2], TOKENS, ROWS)))
    p.run(batch(([4, 5], TOKENS[:50], 50)))
    p.copy_blocks([(5, 6)], recent=True)
    p.run(batch(([4, 5], [*TOKENS[:50], 3, 1, 4], 3)))
    assert np.array_equal(p.run(batch(([4, 6, 7], TOKENS, ROWS - 50))), expected[50:])
    assert np.array_equal(p.run(batch(([4, 2, 3], TOKENS, ROWS - 32))), expected[32:]), "from a border on"
