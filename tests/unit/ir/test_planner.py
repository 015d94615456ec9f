"""One memory plan is right for every batch size: nothing alive overlaps, and results do not change."""

from itertools import pairwise

import numpy as np
import pytest

from graphs import CASES, batch, graph, reference
from tokamak.ir.graph import S, T
from tokamak.ir.passes import optimize
from tokamak.ir.planner import lifetimes, owners, plan


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("tokens", [1, 2, 31])
def test_planned_memory_gives_the_same_numbers(name, fused, tokens):
    step = batch((list(range(8)), list(range(1, tokens + 1)), tokens))
    g = optimize(graph(name)) if fused else graph(name)
    plain, planned = reference(g, np.float32), reference(g, np.float32, plan(g))
    np.testing.assert_array_equal(planned.run(step), plain.run(step))


@pytest.mark.parametrize("name", CASES)
def test_values_alive_at_one_node_never_overlap(name):
    """Includes a node's own inputs and outputs, which running cannot show: NumPy never writes in place."""
    g = optimize(graph(name))
    layout, life = plan(g), lifetimes(g, owners(g))
    assert set(layout.row_nbytes) == {T, S}
    assert all(offset % 64 == 0 for offset in layout.offsets.values())
    for i, node in enumerate(g.nodes):
        for lead in (T, S):
            alive = [v for v, (first, last) in life.items() if first <= i <= last and v.type.lead is lead]
            spans = sorted((layout.offsets[v], layout.offsets[v] + v.type.row_nbytes) for v in alive)
            assert all(a[1] <= b[0] for a, b in pairwise(spans)), f"overlap at {node}"


def test_the_plan_shares_memory_between_layers():
    g = optimize(graph("llama"))
    owner = owners(g)
    unshared = sum(v.type.row_nbytes for v in set(owner.values()) if v.type.lead is T)
    assert plan(g).row_nbytes[T] < unshared / 2
