"""Graph rewrites. Each is a pure function that may not change what the graph computes.

Tests run the reference executor before and after every pass on every model, so a pass needs no test of its
own for correctness, only for firing where it should and holding back where it must.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tokamak.ir.graph import Graph, Node, Type, Value
from tokamak.ir.ops import ACTIVATIONS, WRITES

NORMS = {"rms_norm": "add_rms_norm", "layer_norm": "add_layer_norm"}


def take_rows_early(graph: Graph) -> Graph:
    """Norm only the rows whose logits are wanted: `take_rows(norm(x))` swaps its two ops."""
    makers, nodes = graph.makers(), list[Node]()
    for node in graph.nodes:
        norm = makers.get(node.inputs[0]) if node.op == "take_rows" else None
        if norm and norm.op in NORMS:
            rows = Value(f"{node.outputs[0].name}.early", node.outputs[0].type, graph)
            nodes.append(Node("take_rows", (norm.inputs[0], node.inputs[1]), (rows,), {}, node.scope))
            nodes.append(Node(norm.op, (rows, *norm.inputs[1:]), node.outputs, norm.attrs, norm.scope))
        else:
            nodes.append(node)
    return drop_dead(replace(graph, nodes=nodes))


def merge_linears(graph: Graph) -> Graph:
    """Linears that read one value become one linear over all their weights, and column views.

    Only linears that all have biases, or all have none, merge.
    """
    users, nodes, done = graph.users(), list[Node](), set[Node]()
    for node in graph.nodes:
        if node in done:
            continue
        group = [n for n in users[node.inputs[0]] if _mergeable(n, node)] if node.op == "linear" else []
        if len(group) < 2:
            nodes.append(node)
            continue
        done.update(group)
        nodes += _merged(graph, group)
    return replace(graph, nodes=nodes)


def _mergeable(node: Node, first: Node) -> bool:
    same_input = node.op == "linear" and node.inputs[0] is first.inputs[0]
    return same_input and bool(_biases(node)) == bool(_biases(first))


def _weights(node: Node) -> tuple[Value, ...]:
    return node.inputs[1 : 1 + int(node.attrs["num_weights"])]


def _biases(node: Node) -> tuple[Value, ...]:
    return node.inputs[1 + int(node.attrs["num_weights"]) :]


def _merged(graph: Graph, group: list[Node]) -> list[Node]:
    x = group[0].inputs[0]
    weights = [w for n in group for w in _weights(n)]
    biases = [b for n in group for b in _biases(n)]
    wide = Type("f32", x.type.lead, (sum(n.outputs[0].type.tail[0] for n in group),))
    merged = Value(f"{group[0].outputs[0].name}.merged", wide, graph)
    attrs = {"num_weights": len(weights)}
    nodes = [Node("linear", (x, *weights, *biases), (merged,), attrs, group[0].scope)]
    start = 0
    for n in group:
        stop = start + n.outputs[0].type.tail[0]
        nodes.append(Node("columns", (merged,), n.outputs, {"start": start, "stop": stop}, n.scope))
        start = stop
    return nodes


def fuse_gated(graph: Graph) -> Graph:
    """`mul(act(first columns of x), following columns of x)` becomes `gated(those columns, act)`."""
    makers, nodes = graph.makers(), list[Node]()
    for node in graph.nodes:
        nodes += _gated(graph, node, makers) if node.op == "mul" else [node]
    return drop_dead(replace(graph, nodes=nodes))


def _gated(graph: Graph, node: Node, makers: dict[Value, Node]) -> list[Node]:
    act, up = (makers.get(v) for v in node.inputs)
    gate = makers.get(act.inputs[0]) if act and act.op in ACTIVATIONS else None
    if not (act and gate and up and gate.op == up.op == "columns" and gate.inputs[0] is up.inputs[0]):
        return [node]
    start, middle, stop = int(gate.attrs["start"]), int(gate.attrs["stop"]), int(up.attrs["stop"])
    if up.attrs["start"] != middle or stop - middle != middle - start:
        return [node]
    pair, before = gate.inputs[0], list[Node]()
    if (start, stop) != (0, pair.type.tail[0]):
        pair = Value(f"{node.outputs[0].name}.pair", Type("f32", pair.type.lead, (stop - start,)), graph)
        before = [Node("columns", gate.inputs, (pair,), {"start": start, "stop": stop}, node.scope)]
    return [*before, Node("gated", (pair,), node.outputs, {"act": act.op}, node.scope)]


def fuse_add_norm(graph: Graph) -> Graph:
    """A residual `add` whose sum is normed becomes one op with two outputs."""
    users, nodes, done = graph.users(), list[Node](), set[Node]()
    for node in graph.nodes:
        if node in done:
            continue
        readers = (
            users.get(node.outputs[0], ()) if node.op == "add" and len(node.outputs[0].type.tail) == 1 else ()
        )
        norm = next((n for n in readers if n.op in NORMS), None)
        if norm:
            done.add(norm)
            inputs = (*node.inputs, *norm.inputs[1:])
            node = Node(NORMS[norm.op], inputs, (*node.outputs, *norm.outputs), norm.attrs, norm.scope)  # noqa: PLW2901
        nodes.append(node)
    return replace(graph, nodes=nodes)


def drop_dead(graph: Graph) -> Graph:
    """Remove nodes whose results nothing reads, except those that write state."""
    live, nodes = set(graph.outputs), list[Node]()
    for node in reversed(graph.nodes):
        if node.op in WRITES or not live.isdisjoint(node.outputs):
            nodes.append(node)
            live.update(node.inputs)
    return replace(graph, nodes=nodes[::-1])


PASSES: tuple[Callable[[Graph], Graph], ...] = (take_rows_early, merge_linears, fuse_gated, fuse_add_norm)


def optimize(graph: Graph) -> Graph:
    """All passes in order."""
    for rewrite in PASSES:
        graph = rewrite(graph)
    return graph
