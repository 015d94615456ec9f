"""Rows that a step brings as vectors: they replace what tokens give, on every executor, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import graphs
import programs
from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.executors.reference import ReferenceProgram
from tokamak.ir import ops, passes
from tokamak.ir.given import with_given
from tokamak.types import Given, Limits

STEP = graphs.batch(([3, 5], list(range(1, 41)), 40), every_row=True, block=programs.BLOCK)


def given(rows, width, value=0.5):
    return Given(np.array(rows, np.int32), np.full((len(rows), width), value, np.float32))


def width_of(graph):
    return graph.inputs["given.vectors"].type.tail[0]


@pytest.fixture(scope="module")
def graph():
    return with_given(graphs.graph("llama"))


def test_executors_agree_on_given_rows_and_rows_before_them_are_untouched(graph):
    params = graphs.params(graph)
    oracle = ReferenceProgram(graph, params, Limits(num_blocks=16, block_size=programs.BLOCK))
    program = programs.compiled(passes.optimize(graph), programs.weights(params), num_blocks=16)
    plain, step = program.run(STEP), replace(STEP, given=given([7, 8, 20], width_of(graph)))
    found, expected = program.run(step), oracle.run(step)
    assert np.abs(found - expected).max() < 2e-5 * expected.std()
    assert np.array_equal(found[:7], plain[:7])
    assert not np.array_equal(found[7], plain[7])


def test_vectors_of_the_tokens_themselves_change_nothing(graph):
    params = graphs.params(graph)
    program = programs.compiled(graph, programs.weights(params), num_blocks=16)
    rows = np.arange(5, 30, dtype=np.int32)
    vectors = params["embed_tokens.weight"][STEP.token_ids[rows]].astype(np.float32)
    assert np.array_equal(program.run(replace(STEP, given=Given(rows, vectors))), program.run(STEP))


@pytest.mark.parametrize("rows", [[40], [-1], [3, 3], [5, 4]], ids=str)
def test_rows_outside_the_step_are_named(graph, rows):
    program = programs.compiled(graph, programs.weights(graphs.params(graph)), num_blocks=16)
    with pytest.raises(InvalidParams, match=r"given\.rows"):
        program.run(replace(STEP, given=given(rows, width_of(graph))))


def test_vectors_of_another_width_or_that_nothing_reads_are_refused(graph):
    program = programs.compiled(graph, programs.weights(graphs.params(graph)), num_blocks=16)
    with pytest.raises(InvalidParams, match=r"given\.vectors"):
        program.run(replace(STEP, given=given([3], width_of(graph) + 1)))
    plain = graphs.graph("llama")
    blind = programs.compiled(plain, programs.weights(graphs.params(plain)), num_blocks=16)
    with pytest.raises(InvalidParams, match=r"given\.vectors"):
        blind.run(replace(STEP, given=given([3], width_of(graph))))


def test_vectors_come_behind_what_embeddings_are_multiplied_by():
    plain = graphs.graph("llama")
    found = next(n for n in plain.nodes if n.op == "embed")
    at = plain.nodes.index(found)
    scaled = ops.scale(found.outputs[0], factor=3.0)
    node = plain.nodes.pop()
    rest = [
        replace(n, inputs=tuple(scaled if v is found.outputs[0] else v for v in n.inputs))
        for n in plain.nodes[at + 1 :]
    ]
    made = with_given(replace(plain, nodes=[*plain.nodes[: at + 1], node, *rest]))
    assert [n.op for n in made.nodes[at : at + 3]] == ["embed", "scale", "replace_rows"]


def test_a_model_that_looks_tokens_up_twice_takes_none():
    plain = graphs.graph("llama")
    table = next(n for n in plain.nodes if n.op == "embed").inputs[1]
    ops.embed(plain.inputs["token_ids"], table)
    with pytest.raises(UnsupportedError, match="2 tables"):
        with_given(plain)
