"""The rules every graph keeps; run after tracing and, in tests, after every pass."""

from __future__ import annotations

from tokamak.errors import GraphError
from tokamak.ir import ops
from tokamak.ir.graph import Graph, Node, Type, Value


def check(graph: Graph) -> None:
    """Verify single assignment, definition before use, known ops, and that every stored type re-infers.

    Raises: GraphError with the node printed as in `str(graph)`.
    """
    defined = set(graph.sources())
    for node in graph.nodes:
        if missing := [v.name for v in node.inputs if v not in defined]:
            raise GraphError(f"{missing} used before definition in: {node}")
        if twice := [v.name for v in node.outputs if v in defined]:
            raise GraphError(f"{twice} defined twice in: {node}")
        again = _inferred(node)
        if again != tuple(v.type for v in node.outputs):
            raise GraphError(f"infers {again} in: {node}")
        defined.update(node.outputs)
    if missing := [v.name for v in graph.outputs if v not in defined]:
        raise GraphError(f"outputs {missing} are never computed")


def _inferred(node: Node) -> tuple[Type, ...]:
    build = getattr(ops, node.op, None)
    if build is None or node.op.startswith("_"):
        raise GraphError(f"unknown op in: {node}")
    scratch = Graph()
    inputs = [Value(v.name, v.type, scratch) for v in node.inputs]
    attrs = dict(node.attrs)
    if node.op == "linear":
        count = int(attrs.pop("num_weights")) + 1
        build(*inputs[:count], biases=tuple(inputs[count:]))
    else:
        build(*inputs, **attrs)
    return tuple(v.type for v in scratch.nodes[-1].outputs)
