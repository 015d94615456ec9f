"""Where each intermediate lives: one arena per symbolic extent, laid out once for every batch size.

Every planned value has the shape (dim, static...), so its size is `dim * row_nbytes`. Offsets are therefore
planned in bytes *per row*, and a value's address is `arena + dim * offset`. Two values that do not overlap
per row do not overlap for any batch size; the plan is exact for T = 1 and T = 8192 alike, and a small step
touches a small, contiguous piece of memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokamak.ir.graph import Dim, Graph, Value
from tokamak.ir.ops import VIEWS

ALIGN = 64  # bytes: a cache line, and enough for any vector load


@dataclass(frozen=True, slots=True)
class Plan:
    """Byte offsets per row into the arena of each value's leading extent, and the arenas' bytes per row."""

    offsets: Mapping[Value, int]
    row_nbytes: Mapping[Dim | int, int]


def owners(graph: Graph) -> dict[Value, Value]:
    """The value whose memory each computed value occupies (itself, unless it is a view)."""
    owner: dict[Value, Value] = {}
    for node in graph.nodes:
        for value in node.outputs:
            owner[value] = owner.get(node.inputs[0], node.inputs[0]) if node.op in VIEWS else value
    return owner


def lifetimes(graph: Graph, owner: Mapping[Value, Value]) -> dict[Value, tuple[int, int]]:
    """First and last node index at which each owning value must be alive; outputs outlive the graph."""
    first: dict[Value, int] = {}
    last: dict[Value, int] = {}
    for i, node in enumerate(graph.nodes):
        for value in (*node.outputs, *(v for v in node.inputs if v in owner)):
            first.setdefault(owner[value], i)
            last[owner[value]] = i
    for value in graph.outputs:
        last[owner[value]] = len(graph.nodes)
    return {value: (first[value], last[value]) for value in first}


def plan(graph: Graph) -> Plan:
    """Largest value first, each at the lowest offset that is free for its whole life."""
    life = lifetimes(graph, owners(graph))
    offsets: dict[Value, int] = {}
    ends: dict[Value, int] = {}
    row_nbytes: dict[Dim | int, int] = {}
    for value in sorted(life, key=lambda v: -v.type.row_nbytes):
        size = -(-value.type.row_nbytes // ALIGN) * ALIGN
        begin, end = life[value]
        start = 0
        for other in sorted(offsets, key=offsets.__getitem__):
            alive_together = life[other][0] <= end and begin <= life[other][1]
            if other.type.lead == value.type.lead and alive_together and offsets[other] < start + size:
                start = max(start, ends[other])
        offsets[value], ends[value] = start, start + size
        row_nbytes[value.type.lead] = max(row_nbytes.get(value.type.lead, 0), start + size)
    return Plan(offsets, row_nbytes)
