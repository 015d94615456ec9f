"""The graph: what a model computes in one step, as plain data.

A `Graph` is a list of nodes in execution order over single-assignment values. It has no control flow
and knows no device. The only extents that change between steps are T (rows of all sequences of the step),
S (rows whose logits are wanted), B (sequences), where texts are read that sequences attend to, M (their rows) and
C (their count), and R (rows that a step brings vectors for); they appear only as the leading extent of a value, so everything after the first axis is static.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from tokamak.errors import GraphError
from tokamak.types import Reach

if TYPE_CHECKING:
    from tokamak.types import Array


@dataclass(frozen=True, slots=True)
class Dim:
    """An extent that is bound once per step."""

    name: str

    def __repr__(self) -> str:
        return self.name


T = Dim("T")  # rows of all sequences in this step, concatenated
S = Dim("S")  # rows whose logits are wanted
B = Dim("B")  # sequences in this step
M = Dim("M")  # rows of source texts read in this step, concatenated
C = Dim("C")  # source texts read in this step
R = Dim("R")  # rows that are given as vectors

ITEMSIZE: Mapping[str, int] = {"f32": 4, "i32": 4}

Attr = int | float | str


@dataclass(frozen=True, slots=True)
class Type:
    """Element format and shape. `dtype` is "f32", "i32", "kv" (cache) or the name of a weight format."""

    dtype: str
    lead: Dim | int
    tail: tuple[int, ...] = ()

    @property
    def row_nbytes(self) -> int:
        """Bytes of one leading row of a planned value."""
        return prod(self.tail) * ITEMSIZE[self.dtype]

    @property
    def nrows(self) -> int:
        """Leading extent of a value whose shape is fully static, such as a weight."""
        if not isinstance(self.lead, int):
            raise GraphError(f"{self} has no static leading extent")
        return self.lead

    @property
    def shape(self) -> tuple[int, ...]:
        """The whole shape of a fully static value."""
        return (self.nrows, *self.tail)

    def __repr__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, (self.lead, *self.tail)))}]"


def cache_dtype(kind: Type, kv_dtype: str) -> str:
    """Number format of a cache where kv_dtype is asked for: f32 in place of f16 and bf16 where one head serves all queries
    with a key wider than its value.

    That is a latent: keys and values of every head are made from it, so that one rounding turns all heads alike. The quantised
    formats, which are asked for to save memory, stay.
    """
    latent = kind.nrows == 1 and kind.tail[0] == 1
    return "f32" if latent and kv_dtype in ("f16", "bf16") else kv_dtype


@dataclass(eq=False, slots=True)
class Value:
    """One tensor of the graph. Compared by identity; `name` is for people, taps and diff."""

    name: str
    type: Type
    graph: Graph = field(repr=False)


@dataclass(eq=False, slots=True)
class Node:
    """One application of an op; `op` names a function in `ops.py`, `scope` the module that emitted it."""

    op: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    attrs: Mapping[str, Attr]
    scope: str = ""

    def __str__(self) -> str:
        outs = ", ".join(f"{v.name}: {v.type}" for v in self.outputs)
        args = ", ".join([*(v.name for v in self.inputs), *(f"{k}={v}" for k, v in self.attrs.items())])
        return f"{outs} = {self.op}({args})"


@dataclass(eq=False)
class Graph:
    """One step of a model. Inputs are rebound every step, states persist between steps."""

    inputs: dict[str, Value] = field(default_factory=dict)
    params: dict[str, Value] = field(default_factory=dict)  # named as in the checkpoint
    consts: dict[str, tuple[Value, Array]] = field(default_factory=dict)  # computed from the configuration
    states: dict[str, Value] = field(default_factory=dict)  # the K/V cache, one per attention
    nodes: list[Node] = field(default_factory=list)
    outputs: tuple[Value, ...] = ()
    scope: list[str] = field(default_factory=list)  # module path while tracing
    names: dict[str, int] = field(default_factory=dict)  # how often a value name was given out

    def recent_readers(self) -> list[Node]:
        """Nodes that read the latest part of a text only, by `recent.tables`."""
        tables = self.inputs.get("recent.tables")
        return [node for node in self.nodes if tables is not None and tables in node.inputs]

    def reach(self) -> Reach | None:
        """How far back those look, None if there are none. A recurrent state is read where the row before left it."""
        kinds = {
            (int(n.attrs["window"]), int(n.attrs["chunk"])) if n.op == "attention" else (2, 0)
            for n in self.recent_readers()
        }
        return Reach(frozenset(kinds)) if kinds else None

    def recent_states(self) -> set[Value]:
        """States that keep the latest part of a text only."""
        states = set(self.states.values())
        return {value for node in self.recent_readers() for value in node.inputs if value in states}

    def emit(
        self, op: str, inputs: tuple[Value, ...], types: tuple[Type, ...], attrs: Mapping[str, Attr]
    ) -> tuple[Value, ...]:
        """Append a node and return its outputs, named after the module that is being traced."""
        scope = ".".join(self.scope)
        stem = f"{scope}.{op}" if scope else op
        count = self.names[stem] = self.names.get(stem, -1) + 1
        stem = f"{stem}.{count}" if count else stem
        names = [stem] if len(types) == 1 else [f"{stem}:{i}" for i in range(len(types))]
        outputs = tuple(Value(n, t, self) for n, t in zip(names, types, strict=True))
        self.nodes.append(Node(op, inputs, outputs, attrs, scope))
        return outputs

    def const(self, name: str, array: Array) -> Value:
        """A constant computed from the configuration; the same name gives the same value."""
        if name not in self.consts:
            kind = Type("f32", array.shape[0], tuple(array.shape[1:]))
            self.consts[name] = (Value(name, kind, self), array)
        return self.consts[name][0]

    def sources(self) -> Iterator[Value]:
        """Every value that no node computes."""
        yield from self.inputs.values()
        yield from self.params.values()
        yield from (value for value, _ in self.consts.values())
        yield from self.states.values()

    def users(self) -> dict[Value, list[Node]]:
        """The nodes that read each value."""
        found: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                found.setdefault(value, []).append(node)
        return found

    def makers(self) -> dict[Value, Node]:
        """The node that computes each value."""
        return {value: node for node in self.nodes for value in node.outputs}

    def head_input(self) -> str:
        """Name of the value that the last matrix reads, the hidden state of each row; "" if the output is no matrix's."""
        makers = self.makers()
        node = makers.get(self.outputs[0])
        while (
            node is not None and node.op != "linear" and node.op in ("scale", "softcap", "affine", "columns")
        ):
            node = makers.get(node.inputs[0])
        return node.inputs[0].name if node is not None and node.op == "linear" else ""

    def __str__(self) -> str:
        named = (*self.inputs.values(), *(v for v, _ in self.consts.values()), *self.states.values())
        head = [f"{v.name}: {v.type}" for v in named]
        body = [f"  {node}" for node in self.nodes]
        return "\n".join([*head, *body, "return " + ", ".join(v.name for v in self.outputs)])
