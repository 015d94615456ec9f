"""Rows that a step brings as vectors in place of tokens, such as those of an image: an input of the graph, see `types.Given`."""

from __future__ import annotations

from dataclasses import replace

from tokamak.errors import UnsupportedError
from tokamak.ir import ops
from tokamak.ir.check import check
from tokamak.ir.graph import Graph, Node, R, T, Type, Value


def replaceable(x: Value) -> Value:
    """x [T, D], but for the rows that the step brings vectors for."""
    return ops.replace_rows(x, *_inputs(x.graph, x.type))


def _inputs(graph: Graph, kind: Type) -> tuple[Value, Value]:
    types = {"given.vectors": Type("f32", R, kind.tail), "given.rows": Type("i32", R)}
    vectors, rows = (graph.inputs.setdefault(n, Value(n, t, graph)) for n, t in types.items())
    return vectors, rows


def with_given(graph: Graph) -> Graph:
    """A decoder whose embedded tokens may be replaced: behind the embedding and what it is multiplied by.

    Raises: UnsupportedError for a graph that looks tokens up more than once, so that a vector would not stand for all of it.
    """
    tokens = graph.inputs["token_ids"]
    found = [node for node in graph.nodes if node.op == "embed" and node.inputs[0] is tokens]
    if len(found) != 1 or found[0].outputs[0].type.lead != T:
        raise UnsupportedError(
            f"the model looks tokens up in {len(found)} tables, so a vector cannot stand for one"
        )
    last, users = found[0], graph.users()
    while [n.op for n in users[last.outputs[0]]] == ["scale"]:
        last = users[last.outputs[0]][0]
    (old,) = last.outputs
    new = Value(f"{old.name}.given", old.type, graph)
    inserted = Node("replace_rows", (old, *_inputs(graph, old.type)), (new,), {}, last.scope)
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(replace(node, inputs=tuple(new if v is old else v for v in node.inputs)))
        if node is last:
            nodes.append(inserted)
    given = replace(graph, nodes=nodes, outputs=tuple(new if v is old else v for v in graph.outputs))
    check(given)
    return given
