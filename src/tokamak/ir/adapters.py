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
    """One adapter's part of one matrix: gate is its index. a: the parameter of the graph to be, f32[rank, K] of a linear.

    looks_up: of a table [V, D] that ids are looked up in; A is a table too, f32[V, rank], and that of all adapters one.
    """

    gate: int
    rank: int
    a: str
    looks_up: bool = False


def with_gates(graph: Graph, count: int) -> Value:
    """The input f32[T, count]."""
    if "gates" not in graph.inputs:
        graph.inputs["gates"] = Value("gates", Type("f32", T, (count,)), graph)
    return graph.inputs["gates"]


def low_rank(graph: Graph, parts: Mapping[str, Sequence[LowRank]], count: int) -> Graph:
    """y = W x becomes W x + B gate(A x) for every linear whose weight is in `parts`, and so for tables that rows look up.

    parts: by parameter of W, the adapters that touch it; B of all of them side by side is "W.lora_b", f32[N, sum of ranks].
    A head that reads the rows whose logits are wanted takes them from B's input, which is made for all rows: gates are theirs.
    count: gates that a step brings. Raises: UnsupportedError for a parameter that nothing of the kind reads.
    """
    gates = with_gates(graph, count)
    nodes, left = list[Node](), set(parts)
    made = {value: node for node in graph.nodes for value in node.outputs}
    for node in graph.nodes:
        name = _adaptable(node)
        source = made.get(node.inputs[0]) if node.inputs else None
        chosen = source if source is not None and source.op == "take_rows" else None
        known = node.outputs[0].type.lead == T or (node.op == "linear" and chosen is not None)
        if name not in parts or not known or parts[name][0].looks_up != (node.op == "embed"):
            nodes.append(node)
            continue
        left.discard(name)
        wanted = chosen if node.outputs[0].type.lead != T else None
        nodes += _added(graph, node, parts[name], gates, wanted)
    if left:
        raise UnsupportedError(f"adapters of {', '.join(sorted(left)[:4])} are not implemented")
    adapted = replace(graph, nodes=nodes)
    check(adapted)
    return adapted


def _adaptable(node: Node) -> str:
    """The parameter of a linear with one weight, or of a table that is looked up by ids; else ""."""
    plain = node.op == "linear" and node.attrs["num_weights"] == 1
    return node.inputs[1].name if plain or (node.op == "embed" and node.attrs["row"] == -1) else ""


def _added(
    graph: Graph, node: Node, parts: Sequence[LowRank], gates: Value, wanted: Node | None
) -> list[Node]:
    """wanted: what took the rows that the node reads, None where it reads all."""
    weight = node.inputs[1]
    (y,) = node.outputs
    rank = sum(part.rank for part in parts)
    wide = Type("f32", T, (rank,))
    x = wanted.inputs[0] if wanted else node.inputs[0]
    plain, inner, gated, taken, more = (
        Value(f"{y.name}.{stem}", kind, graph)
        for stem, kind in (
            *(("plain", y.type), ("lora_a", wide), ("gated", wide)),
            *(("taken", Type("f32", y.type.lead, wide.tail)), ("lora_b", y.type)),
        )
    )
    if node.op == "embed":
        table = _param(graph, parts[0].a, Type("f32", weight.type.nrows, (rank,)))
        first = Node("embed", (x, table), (inner,), node.attrs, node.scope)
    else:
        a = [_param(graph, part.a, Type("f32", part.rank, weight.type.tail)) for part in parts]
        first = Node("linear", (x, *a), (inner,), {"num_weights": len(a)}, node.scope)
    b = _param(graph, f"{weight.name}.lora_b", Type("f32", y.type.tail[0], (rank,)))
    groups = ",".join(f"{part.gate}:{part.rank}" for part in parts)
    picked = [Node("take_rows", (gated, wanted.inputs[1]), (taken,), {}, node.scope)] if wanted else []
    return [
        replace(node, outputs=(plain,)),
        first,
        Node("gate", (inner, gates), (gated,), {"groups": groups}, node.scope),
        *picked,
        Node("linear", (taken if wanted else gated, b), (more,), {"num_weights": 1}, node.scope),
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
