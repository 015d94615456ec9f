"""Modules: the vocabulary that model files are written in.

A module owns parameters and says how to emit ops. Attribute paths are checkpoint names, so
`self.layers[0].self_attn.q_proj` reads `layers.0.self_attn.q_proj.weight` and no model needs a name table.
A model is traced once, at load; nothing here runs per token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tokamak.errors import GraphError, ModelFileError
from tokamak.ir import ops
from tokamak.ir.check import check
from tokamak.ir.given import replaceable
from tokamak.ir.graph import B, C, Dim, Graph, M, S, T, Type, Value
from tokamak.types import Array

FindType = Callable[[str], Type | None]


class Param:
    """A weight: its shape now, its graph value once bound. `optional`: absent from some checkpoints."""

    def __init__(self, *shape: int, optional: bool = False) -> None:
        self.shape = shape
        self.optional = optional
        self.bound: Value | None = None

    @property
    def value(self) -> Value:
        """The graph value; only while tracing."""
        if self.bound is None:
            raise GraphError("a parameter is used that the checkpoint does not have")
        return self.bound


class Module:
    """Owns `Param`s, other modules and lists of them; `forward` emits ops."""

    path = ""

    def __call__(self, *args: Any) -> Value:
        """Emit the ops of this module under its path."""
        graph = next(v.graph for v in args if isinstance(v, Value | Step))
        if self.path:
            graph.scope.append(self.path)
        try:
            result: Value = self.forward(*args)
        finally:
            if self.path:
                graph.scope.pop()
        return result

    def forward(self, *args: Any) -> Value:  # noqa: ARG002  each module names its own
        """What the module computes; every module says its own."""
        raise GraphError(f"{type(self).__name__} does not say what it computes")

    def children(self) -> Iterator[tuple[str, Module]]:
        """Sub-modules with their attribute names; items of a list as "name.index"."""
        for name, child in vars(self).items():
            items = enumerate(child) if isinstance(child, list) else [(None, child)]
            for i, item in items:
                if isinstance(item, Module):
                    yield (name if i is None else f"{name}.{i}"), item

    def bind(self, graph: Graph, find: FindType, prefix: str = "") -> None:
        """Turn every `Param` below this module into a graph value named by its attribute path.

        Raises: ModelFileError if the checkpoint lacks a parameter or has another shape.
        """
        for name, param in vars(self).items():
            if isinstance(param, Param):
                here = f"{prefix}{name}"
                kind = find(here)
                if kind is None:
                    if not param.optional:
                        raise ModelFileError(
                            f"the checkpoint has no tensor {here}, which this architecture needs"
                        )
                    continue
                if kind.shape != param.shape:
                    raise ModelFileError(
                        f"tensor {here} has shape {kind.shape}, the configuration needs {param.shape}"
                    )
                param.bound = graph.params[here] = Value(here, kind, graph)
        for name, child in self.children():
            child.path = name
            child.bind(graph, find, f"{prefix}{name}.")


class Linear(Module):
    """y = x W^T + b; the bias is used where the checkpoint has one."""

    def __init__(self, inputs: int, outputs: int, *, optional: bool = False) -> None:
        self.weight = Param(outputs, inputs, optional=optional)
        self.bias = Param(outputs, optional=True)

    def forward(self, x: Value) -> Value:
        """[T, inputs] -> [T, outputs]."""
        biases = (self.bias.bound,) if self.bias.bound else ()
        return ops.linear(x, self.weight.value, biases=biases)


class Embedding(Module):
    """A table of vectors, which tied models also use as their output projection."""

    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        self.weight = Param(vocab_size, hidden_size)

    def forward(self, ids: Value) -> Value:
        """i32[T] -> [T, hidden_size]."""
        return ops.embed(ids, self.weight.value)

    def only(self, ids: Value, row: int) -> Value:
        """i32[T] -> [T, hidden_size]: one row of the table for every id."""
        return ops.embed(ids, self.weight.value, row=row)

    def as_linear(self, x: Value) -> Value:
        """[S, hidden_size] -> [S, vocab_size]."""
        return ops.linear(x, self.weight.value)


class RMSNorm(Module):
    """Root mean square norm over the last axis."""

    def __init__(self, size: int, eps: float, *, optional: bool = False) -> None:
        self.weight, self.eps = Param(size, optional=optional), eps

    def forward(self, x: Value) -> Value:
        """[T, ..., size] -> the same."""
        return ops.rms_norm(x, self.weight.value, eps=self.eps)


class LayerNorm(Module):
    """Layer norm over the last axis; where the checkpoint has no weight it is one, where it has no bias zero."""

    def __init__(self, size: int, eps: float, *, optional: bool = False) -> None:
        self.weight, self.bias, self.eps = Param(size, optional=optional), Param(size, optional=True), eps

    def forward(self, x: Value) -> Value:
        """[T, ..., size] -> the same."""
        size = self.weight.shape[0]
        bias = self.bias.bound or x.graph.const(f"zeros.{size}", np.zeros(size, np.float32))
        absent = self.weight.optional and not self.weight.bound
        weight = x.graph.const(f"ones.{size}", np.ones(size, np.float32)) if absent else self.weight.value
        return ops.layer_norm(x, weight, bias, eps=self.eps)


class GatedMLP(Module):
    """down(act(gate x) * up x); `act` names an op of `ops.ACTIVATIONS`."""

    def __init__(self, hidden_size: int, intermediate_size: int, act: str = "silu") -> None:
        self.act = act
        self.gate_proj = Linear(hidden_size, intermediate_size)
        self.up_proj = Linear(hidden_size, intermediate_size)
        self.down_proj = Linear(intermediate_size, hidden_size)

    def forward(self, x: Value) -> Value:
        """[T, hidden_size] -> [T, hidden_size]."""
        gate: Value = getattr(ops, self.act)(self.gate_proj(x))
        return self.down_proj(ops.mul(gate, self.up_proj(x)))


class MLP(Module):
    """down(act(up x)); `act` names an op of `ops.ACTIVATIONS`."""

    def __init__(self, hidden_size: int, intermediate_size: int, act: str) -> None:
        self.act = act
        self.up_proj = Linear(hidden_size, intermediate_size)
        self.down_proj = Linear(intermediate_size, hidden_size)

    def forward(self, x: Value) -> Value:
        """[T, hidden_size] -> [T, hidden_size]."""
        hidden: Value = getattr(ops, self.act)(self.up_proj(x))
        return self.down_proj(hidden)


class Router(Linear):
    """Weights of experts for each row: see `ops.route`. The correction bias is used where the checkpoint has one."""

    def __init__(self, hidden_size: int, num_experts: int, **attrs: Any) -> None:
        super().__init__(hidden_size, num_experts)
        self.attrs = attrs  # of `ops.route`
        self.e_score_correction_bias = Param(num_experts, optional=True)

    def forward(self, x: Value) -> Value:
        """[T, hidden_size] -> [T, num_experts]."""
        correction = self.e_score_correction_bias.bound
        return ops.route(super().forward(x), *([correction] if correction else []), **self.attrs)


class Experts(Module):
    """Gated feed-forwards of which each row uses a few: see `ops.experts`. Biases are used where there are any."""

    def __init__(self, hidden_size: int, intermediate_size: int, num_experts: int, **attrs: Any) -> None:
        self.attrs = attrs  # of `ops.experts`
        self.gate_proj, self.up_proj = (Param(num_experts, intermediate_size, hidden_size) for _ in range(2))
        self.down_proj = Param(num_experts, hidden_size, intermediate_size)
        self.gate_bias, self.up_bias = (
            Param(num_experts, intermediate_size, optional=True) for _ in range(2)
        )
        self.down_bias = Param(num_experts, hidden_size, optional=True)

    def forward(self, x: Value, weights: Value) -> Value:
        """[T, hidden_size], [T, num_experts] -> [T, hidden_size]."""
        params = (self.gate_proj.value, self.up_proj.value, self.down_proj.value)
        biases = (self.gate_bias.bound, self.up_bias.bound, self.down_bias.bound)
        return ops.experts(x, weights, *params, *(b for b in biases if b), **self.attrs)


class Step:
    """The inputs of one step as graph values. Field meanings: see `ops.attention` and `types.Batch`."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.token_ids = self._input("token_ids", T)
        self.positions = self._input("positions", T)
        self.slots = self._input("slots", T)
        self.starts = self._input("starts", B)
        self.lengths = self._input("lengths", B)
        self.tables = self._input("tables", B, -1)
        self.logit_rows = self._input("logit_rows", S)

    def _input(self, name: str, lead: Dim, *tail: int) -> Value:
        value = self.graph.inputs[name] = Value(name, Type("i32", lead, tail), self.graph)
        return value

    def given(self, width: int) -> Value:
        """[T, width]: the vectors that a step brings, zeros in rows that it brings none for. See `types.Given`."""
        table = self.const(f"no_vector.{width}", np.zeros((1, width), np.float32))
        return replaceable(ops.embed(self.token_ids, table, row=0))

    def const(self, name: str, array: Array) -> Value:
        """A constant of the configuration, such as rope frequencies; shared by name."""
        return self.graph.const(name, array)

    def attend(
        self,
        q: Value,
        k: Value,
        v: Value,
        *,
        scale: float,
        window: int = 0,
        softcap: float = 0.0,
        chunk: int = 0,
        causal: bool = True,
        slopes: Value | None = None,
        sinks: Value | None = None,
        buckets: Value | None = None,
        reach: int = 0,
        shares: str = "",
    ) -> Value:
        """Attention with a cache of its own; that of the n-th state in a trace is called `kv.n`. See `ops.attention`.

        The state's type is kv[2, G, D]: K and V of one position; kv[1, G, D + E] where values are E wide. How positions
        are laid out in blocks, and in which number format, is the executor's business. shares: the name of a cache
        that holds this very k and v already, to be read instead of one more.
        """
        (heads, wide), value = k.type.tail, v.type.tail[1]
        kind = Type("kv", 2, k.type.tail) if wide == value else Type("kv", 1, (heads, wide + value))
        state = self.graph.states[shares] if shares else self._state("kv", kind)
        given = {"slopes": slopes, "sinks": sinks, "buckets": buckets}
        extras = {name: x for name, x in given.items() if x is not None}
        recent = causal and (window > 0 or chunk > 0)
        slots, tables = self._latest() if recent else (self.slots, self.tables)
        inputs = (q, k, v, state, slots, self.starts, self.lengths, tables, *extras.values())
        attrs = {"scale": scale, "window": window, "softcap": softcap, "chunk": chunk, "causal": causal}
        return ops.attention(*inputs, **attrs, adds="".join(extras), reach=reach)  # type: ignore[arg-type]

    def last_state(self) -> str:
        """Name of the state that was made last, for `shares`."""
        return next(reversed(self.graph.states))

    def recall(self, *tail: int) -> tuple[Value, Value, Value, Value]:
        """A state of one sequence, f32[tail], and starts, lengths, tables: what recurrent ops take after their rows.

        It is zeros before position 0, and kept once per cache block: as it was after the last row computed in the block.
        So a block that is shared, copied or found again as a prefix brings its state along.
        """
        state = self._state("state", Type("state", 1, tail))
        return state, self.starts, self.lengths, self._latest()[1]

    def _latest(self) -> tuple[Value, Value]:
        """Slots and tables of caches that keep the latest part of a text only."""
        inputs = self.graph.inputs
        if "recent.slots" not in inputs:
            self._input("recent.slots", T)
            self._input("recent.tables", B, -1)
        return inputs["recent.slots"], inputs["recent.tables"]

    def _state(self, stem: str, kind: Type) -> Value:
        name = f"{stem}.{len(self.graph.states)}"
        value = self.graph.states[name] = Value(name, kind, self.graph)
        return value


class Source(Step):
    """The rows of texts that sequences of the step attend to besides their own, read in this step; may be none."""

    def __init__(self, step: Step) -> None:
        self.graph, self._reader = step.graph, step
        self.token_ids = self._input("sources.token_ids", M)
        self.positions = self._input("sources.positions", M)
        self.slots = self._input("sources.slots", M)
        self.starts = self._input("sources.starts", C)
        self.lengths = self._input("sources.lengths", C)
        self.tables = self._input("sources.tables", C, -1)
        self._cross = self._input("sources.cross_lengths", B), self._input("sources.cross_tables", B, -1)

    def attended(self, q: Value, k: Value, v: Value, *, scale: float, shares: str) -> Value:
        """q [T, H, D] of the reading rows attend to all of their own text; k and v [M, G, D] are of the rows read now.

        shares: the cache that holds them, in blocks of the texts.
        """
        step, state = self._reader, self.graph.states[shares]
        inputs = (q, k, v, state, self.slots, step.starts, *self._cross)
        return ops.attention(*inputs, scale=scale, causal=False)


def trace(model: Module, find: FindType) -> Graph:
    """Run `model` once on symbolic inputs, check what it did and return it.

    find: the type of a parameter by its path, or None if the checkpoint has no such tensor.
    """
    graph = Graph()
    step = Step(graph)
    model.bind(graph, find)
    graph.outputs = (model(step),)
    check(graph)
    return graph
