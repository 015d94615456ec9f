"""Adapters as rewrites of a traced graph: low-rank additions to linears, directions added to what layers give.

How much each adapter counts for a row comes with the step (`gates`), so rows of one step may use different ones and every
row is computed the same way whatever the others use. Knows no file and no family.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tokamak.errors import UnsupportedError
from tokamak.ir import ops
from tokamak.ir.check import check
from tokamak.ir.graph import Graph, Node, T, Type, Value

_LAYER = re.compile(r"layers\.(\d+)(\.|$)")


@dataclass(frozen=True, slots=True)
class LowRank:
    """One adapter's part of one linear: gate is its index, rank its rows of A. a, b: parameters of the graph to be."""

    gate: int
    rank: int
    a: str


def with_gates(graph: Graph, count: int) -> Value:
    """The input f32[T, count]."""
    if "gates" not in graph.inputs:
        graph.inputs["gates"] = Value("gates", Type("f32", T, (count,)), graph)
    return graph.inputs["gates"]


def low_rank(graph: Graph, parts: Mapping[str, Sequence[LowRank]], count: int) -> Graph:
    """y = W x becomes W x + B gate(A x) for every linear whose weight is in `parts`.

    parts: by parameter of W, the adapters that touch it; A of each is the parameter `a`, f32[rank, K]; B of all of them side
    by side is "W.lora_b", f32[N, sum of ranks]. count: gates that a step brings.
    Raises: UnsupportedError for a parameter that no linear over all rows reads.
    """
    gates = with_gates(graph, count)
    nodes, left = list[Node](), set(parts)
    for node in graph.nodes:
        name = node.inputs[1].name if node.op == "linear" and node.attrs["num_weights"] == 1 else ""
        if name not in parts or node.outputs[0].type.lead != T:
            nodes.append(node)
            continue
        left.discard(name)
        nodes += _added(graph, node, parts[name], gates)
    if left:
        raise UnsupportedError(f"adapters of {', '.join(sorted(left)[:4])} are not implemented")
    adapted = replace(graph, nodes=nodes)
    check(adapted)
    return adapted


def _added(graph: Graph, node: Node, parts: Sequence[LowRank], gates: Value) -> list[Node]:
    x, weight, *biases = node.inputs
    (y,) = node.outputs
    rows, columns = weight.type.shape
    rank = sum(part.rank for part in parts)
    wide, low = Type("f32", y.type.lead, (rank,)), Type("f32", rank, (columns,))
    a = [_param(graph, part.a, Type("f32", part.rank, low.tail)) for part in parts]
    b = _param(graph, f"{weight.name}.lora_b", Type("f32", rows, (rank,)))
    plain, inner, gated, more = (
        Value(f"{y.name}.{stem}", kind, graph)
        for stem, kind in (("plain", y.type), ("lora_a", wide), ("gated", wide), ("lora_b", y.type))
    )
    groups = ",".join(f"{part.gate}:{part.rank}" for part in parts)
    return [
        Node("linear", (x, weight, *biases), (plain,), node.attrs, node.scope),
        Node("linear", (x, *a), (inner,), {"num_weights": len(a)}, node.scope),
        Node("gate", (inner, gates), (gated,), {"groups": groups}, node.scope),
        Node("linear", (gated, b), (more,), {"num_weights": 1}, node.scope),
        Node("add", (plain, more), (y,), {}, node.scope),
    ]


def _param(graph: Graph, name: str, kind: Type) -> Value:
    return graph.params.setdefault(name, Value(name, kind, graph))


def steered(graph: Graph, directions: Mapping[int, Sequence[tuple[int, str]]], count: int) -> Graph:
    """What layer N gives becomes itself plus gates times directions.

    directions: by layer, (gate, parameter f32[D]) of each. count: as `low_rank`.
    Raises: UnsupportedError for a layer that the graph does not have, or whose result cannot be told.
    """
    gates = with_gates(graph, count)
    after: dict[int, list[tuple[int, str]]] = {}
    for layer, added in directions.items():
        after.setdefault(_last_node(graph, layer), []).extend(added)
    nodes, renamed = list[Node](), dict[Value, Value]()
    for at, node in enumerate(graph.nodes):
        nodes.append(replace(node, inputs=tuple(renamed.get(v, v) for v in node.inputs)))
        if at not in after:
            continue
        (x,) = node.outputs
        for gate, name in after[at]:
            out = Value(f"{node.outputs[0].name}.steered.{gate}", x.type, graph)
            direction = _param(graph, name, Type("f32", x.type.tail[0]))
            nodes.append(Node("steer", (x, gates, direction), (out,), {"index": gate}, node.scope))
            x = out
        renamed[node.outputs[0]] = x
    adapted = replace(graph, nodes=nodes, outputs=tuple(renamed.get(v, v) for v in graph.outputs))
    check(adapted)
    return adapted


def _last_node(graph: Graph, layer: int) -> int:
    """Index of the node that gives the result of a layer: the last in its scope, and the only one read outside."""
    inside = [i for i, node in enumerate(graph.nodes) if _layer_of(node) == layer]
    if not inside:
        raise UnsupportedError(f"a control vector has a direction for layer {layer}, which the model lacks")
    made = {v: i for i in inside for v in graph.nodes[i].outputs}
    read = {made[v] for node in graph.nodes if _layer_of(node) != layer for v in node.inputs if v in made}
    last = inside[-1]
    if read != {last} or len(graph.nodes[last].outputs) != 1 or graph.nodes[last].op in ops.VIEWS:
        raise UnsupportedError(f"layer {layer} gives more than one value, so no direction can be added to it")
    return last


def _layer_of(node: Node) -> int:
    match = _LAYER.match(node.scope)
    return int(match[1]) if match else -1
