"""`compare` finds the first value where two programs part, and nothing where they agree."""

from __future__ import annotations

import numpy as np
import pytest

from tokamak import executors, models
from tokamak.errors import InvalidParams
from tokamak.ir.passes import optimize
from tokamak.loaders import open_checkpoint
from tokamak.observe.diff import compare, difference, one_sequence
from tokamak.types import Limits


class Nudged:
    """A weight whose first stored bytes differ."""

    def __init__(self, weight):
        self.format, self.shape, self._weight = weight.format, weight.shape, weight

    def rows(self):
        rows = np.array(self._weight.rows())
        rows[:, 2] ^= 0x40
        return rows

    def release(self):
        self._weight.release()


@pytest.fixture(scope="module")
def model(tiny_gguf):
    checkpoint = open_checkpoint(tiny_gguf("llama", "q8_0"))
    graph = optimize(models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=64))
    return graph, checkpoint.weights


def program(graph, weights):
    return executors.get("reference").compile(graph, weights, Limits(2, max_rows=64))


def test_equal_programs_agree_everywhere(model):
    graph, weights = model
    found = compare(graph, program(graph, weights), program(graph, weights), [5, 6, 7])
    assert len(found) >= len(graph.nodes)
    assert max(d.error for d in found) == 0.0


def test_the_first_difference_is_the_node_that_was_changed(model):
    graph, weights = model
    name = "layers.1.self_attn.o_proj.weight"
    other = program(graph, {**weights, name: Nudged(weights[name])})
    found = compare(graph, program(graph, weights), other, [5, 6, 7])
    first = next(d for d in found if d.error > 0)
    assert (first.op, "layers.1.self_attn.o_proj" in first.name) == ("linear", True)


def test_a_value_that_is_not_finite_differs_from_every_number():
    a, b = np.array([1.0, np.nan]), np.array([1.0, 2.0])
    assert difference(a, b) == (np.inf, np.inf)
    assert difference(a, a) == (0.0, 0.0)
    assert difference(b, np.zeros(2)) == (np.inf, np.inf)


def test_the_error_is_relative_to_the_second():
    error, worst = difference(np.array([3.0, 3.0]), np.array([2.0, 2.0]))
    assert (error, worst) == (0.5, 0.5)


def test_a_text_without_tokens_cannot_be_compared():
    with pytest.raises(InvalidParams):
        one_sequence([], 32)
