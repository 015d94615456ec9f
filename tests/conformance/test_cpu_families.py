"""The CPU executor against the oracle, on every family and instruction set, before and after the passes."""

import numpy as np
import pytest

import graphs
import programs
from tokamak import _native
from tokamak.executors.reference import ReferenceProgram
from tokamak.ir import passes
from tokamak.types import Limits

# Rounding of float32 alone moves the logits of these three-layer models by up to 6e-6 of their spread (float32
# reference against float64); other orders of addition cost as much again.
TOLERANCE = 2e-5


def two_steps(rng):
    """Two prompts, then one more token of each, blocks out of order."""
    first, second = rng.integers(0, 97, 40).tolist(), rng.integers(0, 97, 50).tolist()
    prompt = (([3, 5], first, 40), ([7, 2], second, 50))
    token = (([3, 5], [*first, 1], 1), ([7, 2], [*second, 2], 1))
    return [graphs.batch(*step, every_row=True, block=programs.BLOCK) for step in (prompt, token)]


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("name", graphs.CASES)
def test_logits_are_those_of_the_oracle(name, isa):
    graph = graphs.graph(name)
    params = graphs.params(graph)
    oracle = ReferenceProgram(graph, params, Limits(num_blocks=16, block_size=programs.BLOCK))
    steps = two_steps(np.random.default_rng(1))
    expected = [oracle.run(step) for step in steps]
    for variant in (graph, passes.optimize(graph)):
        program = programs.compiled(variant, programs.weights(params), isa, num_blocks=16, threads=2)
        for step, logits in zip(steps, expected, strict=True):
            assert np.abs(program.run(step) - logits).max() < TOLERANCE * expected[0].std()


def test_every_intermediate_can_be_tapped_and_agrees():
    graph = passes.optimize(graphs.graph("phi3"))
    params = graphs.params(graph)
    oracle = ReferenceProgram(graph, params, Limits(num_blocks=16, block_size=programs.BLOCK))
    program = programs.compiled(graph, programs.weights(params), num_blocks=16)
    step = two_steps(np.random.default_rng(2))[0]
    expected, found = oracle.taps(step), program.taps(step)
    assert found.keys() == expected.keys() == {v.name for n in graph.nodes for v in n.outputs}
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        assert np.abs(found[name] - array).max() < 1e-4 * np.abs(array).max(), name
