"""The oracle: runs a graph node by node, giving each op of `ir/ops.py` its meaning (`meaning.py`), in float64.

Weights are dequantised by their codec; K and V are kept in float64 whatever `kv_dtype` says, because the oracle
shows what a model means, not what a cache costs. With float32 it shows what rounding alone costs. Simple rather
than fast: for tests, `tokamak diff` and small models.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tokamak._native import CpuProgram
from tokamak.errors import CapacityError, InvalidParams, UnsupportedError
from tokamak.executors.cpu_cache import shapes, turning
from tokamak.executors.meaning import Meaning
from tokamak.executors.rows import decoded
from tokamak.ir.graph import Dim, Graph, M, Node, S, T, Type, Value
from tokamak.ir.ops import VIEWS
from tokamak.ir.planner import Plan
from tokamak.types import Array, Batch, Floats, KernelRecord, Limits, PackedMatrix, Recent, Weight


def _room(kind: Type, limits: Limits, dtype: type[np.floating], num_blocks: int) -> Array:
    """Memory of a graph state: [num_blocks, block_size, ...].

    Of a cache every position has its own; of a recurrent state those of a block are one and the same memory.
    """
    if kind.dtype == "kv":
        heads, width = kind.tail
        return np.zeros((num_blocks, limits.block_size, heads, kind.nrows * width), dtype)
    whole = np.zeros((num_blocks, 1, *kind.tail), dtype)
    strides = (whole.strides[0], 0, *whole.strides[2:])
    return as_strided(whole, (num_blocks, limits.block_size, *kind.tail), strides)


class ReferenceProgram:
    """A graph with its weights and cache; see `types.Program`.

    With a `plan`, intermediates live in its arenas (poisoned first), which turns every model test into a test of the
    planner.
    """

    workers: CpuProgram | None = None

    def __init__(
        self,
        graph: Graph,
        params: Mapping[str, Array],
        limits: Limits,
        dtype: type[np.floating] = np.float64,
        plan: Plan | None = None,
    ) -> None:
        self.graph, self.limits, self.dtype, self.plan = graph, limits, dtype, plan
        self.vocab_size = graph.outputs[0].type.tail[0]
        self.recurrent = any(v.type.dtype == "state" for v in graph.states.values())
        self.hidden = graph.head_input()
        self._params = dict(params)
        self.reach, recent = graph.reach(), graph.recent_states()
        self._recent = {name for name, v in graph.states.items() if v in recent}
        self._states = {
            name: _room(v.type, limits, dtype, limits.blocks(recent=v in recent))
            for name, v in graph.states.items()
        }
        self._calls: dict[int, tuple[int, int]] = {}

    def run(self, batch: Batch) -> Floats:
        """Logits f32[S, vocab_size] of one step."""
        for _, _, results in self._nodes(batch):
            last = results
        return last[0].astype(np.float32)

    def taps(self, batch: Batch, names: Collection[str] | None = None) -> dict[str, Floats]:
        """Run and return copies of the intermediates that are named, or of all."""
        found: dict[str, Floats] = {}
        for _, node, results in self._nodes(batch):
            for value, result in zip(node.outputs, results, strict=True):
                if names is None or value.name in names:
                    found[value.name] = np.array(result, np.float32)
        return found

    def _nodes(self, batch: Batch) -> Iterator[tuple[int, Node, tuple[Array, ...]]]:
        if not self._params:
            raise InvalidParams("this program is closed")
        graph = self.graph
        batch = batch if batch.recent else replace(batch, recent=Recent(batch.slots, batch.tables))
        self._validate(batch)
        env: dict[Value, Array] = {v: self._input(batch, name) for name, v in graph.inputs.items()}
        env |= {v: self._params[name] for name, v in graph.params.items()}
        env |= {v: array.astype(self.dtype) for v, array in graph.consts.values()}
        env |= {v: self._states[name] for name, v in graph.states.items()}
        extents: dict[Dim | int, int] = {T: len(batch.token_ids), S: len(batch.logit_rows)}
        extents[M] = len(batch.sources.token_ids) if batch.sources else 0
        arenas = self._arenas(extents)
        for i, node in enumerate(graph.nodes):
            began = time.perf_counter_ns()
            results = getattr(Meaning, node.op)(*(env[v] for v in node.inputs), **node.attrs)
            results = results if isinstance(results, tuple) else (results,)
            for value, result in zip(node.outputs, results, strict=True):
                env[value] = self._place(value, node, result, arenas, extents)
            calls, spent = self._calls.get(i, (0, 0))
            self._calls[i] = (calls + 1, spent + time.perf_counter_ns() - began)
            yield i, node, tuple(env[v] for v in node.outputs)

    def _input(self, batch: Batch, name: str) -> Array:
        if name.startswith("given.") and batch.given is None:
            kind = self.graph.inputs[name].type
            return np.zeros((0, *kind.tail), np.int32 if kind.dtype == "i32" else np.float32)
        found: Array = attrgetter(name)(batch)
        return found

    def _arenas(self, extents: Mapping[Dim | int, int]) -> dict[Dim | int, Array]:
        wide = np.dtype(self.dtype).itemsize // 4  # the plan counts float32 bytes
        sizes = self.plan.row_nbytes if self.plan else {}
        return {lead: np.full(n * wide * extents[lead], 0xFF, np.uint8) for lead, n in sizes.items()}

    def _place(
        self,
        value: Value,
        node: Node,
        result: Array,
        arenas: Mapping[Dim | int, Array],
        extents: Mapping[Dim | int, int],
    ) -> Array:
        if self.plan is None or node.op in VIEWS:
            return result if node.op in VIEWS else result.astype(self.dtype, copy=False)
        wide = np.dtype(self.dtype).itemsize // 4
        rows = extents[value.type.lead]
        start = self.plan.offsets[value] * wide * rows
        home = arenas[value.type.lead][start : start + value.type.row_nbytes * wide * rows]
        placed = home.view(self.dtype).reshape(rows, *value.type.tail)
        placed[...] = result
        return placed

    def _validate(self, batch: Batch) -> None:
        if any(name.startswith("sources.") for name in self.graph.inputs) and batch.sources is None:
            raise InvalidParams("sources is None, and this model's sequences attend to a text")
        ids = batch.token_ids
        table = next(n.inputs[1] for n in self.graph.nodes if n.op == "embed")
        if bad := np.flatnonzero((ids < 0) | (ids >= table.type.nrows)).tolist():
            raise InvalidParams(f"token_ids[{bad[0]}] is {ids[bad[0]]}, expected 0 .. {table.type.nrows - 1}")
        recent = batch.recent.slots if batch.recent and self.reach else batch.slots[:0]
        for slots, blocks in (
            (batch.slots, self.limits.num_blocks),
            (recent, self.limits.blocks(recent=True)),
        ):
            if slots.size and slots.max() >= blocks * self.limits.block_size:
                raise CapacityError(f"slot {slots.max()} is outside the cache")

    def _kept(self, *, recent: bool) -> list[Array]:
        return [state for name, state in self._states.items() if (name in self._recent) == recent]

    def cancel(self) -> None:
        """Nothing: a step of the small models this is for ends soon enough."""

    def copy_blocks(self, pairs: Sequence[tuple[int, int]], *, recent: bool = False) -> None:
        """Copy cache blocks (source, destination) in every layer."""
        for state in self._kept(recent=recent):
            for source, destination in pairs:
                state[destination] = state[source]

    def read_blocks(self, blocks: Sequence[int], *, recent: bool = False) -> list[Array]:
        """Contents of cache blocks, see `types.Program`."""
        chosen = [np.ascontiguousarray(s[list(blocks)]) for s in self._kept(recent=recent)]
        return [s.view(np.uint8).reshape(len(blocks), -1) for s in chosen]

    def write_blocks(self, blocks: Sequence[int], contents: Sequence[Array], *, recent: bool = False) -> None:
        """Put them back."""
        for state, raw in zip(self._kept(recent=recent), contents, strict=True):
            values = np.ascontiguousarray(raw).view(state.dtype).reshape(len(blocks), *state.shape[1:])
            for block, value in zip(blocks, values, strict=True):
                state[block] = value

    def shift_blocks(self, blocks: Sequence[int], delta: int, *, recent: bool = False) -> None:
        """Turn keys, in float64.  Raises: UnsupportedError for a model whose cached positions cannot move."""
        turns = turning(self.graph)
        by_value = {value: name for name, value in self.graph.states.items()}
        for value, (_, key_dim, _) in shapes(self.graph).items():
            inv_freq = turns[value]
            if inv_freq is None or not blocks or (by_value[value] in self._recent) != recent:
                continue
            state = self._states[by_value[value]]
            kept = state[list(blocks)]
            keys = kept[..., :key_dim].reshape(1, -1, key_dim)
            turned = Meaning.rope(keys, np.array([delta]), inv_freq.astype(np.float64), mscale=1.0)
            kept[..., :key_dim] = turned.reshape(kept[..., :key_dim].shape)
            state[list(blocks)] = kept

    def records(self) -> list[KernelRecord]:
        """NumPy calls per node."""
        return [
            KernelRecord(n.outputs[0].name, n.op, f"{n.op}.numpy", calls, nanoseconds, 0)
            for n, (calls, nanoseconds) in ((self.graph.nodes[i], c) for i, c in self._calls.items())
        ]

    def memory(self) -> Mapping[str, int]:
        """Bytes of dequantised weights and of the cache."""
        return {
            "weights": sum(a.nbytes for a in self._params.values()),
            "cache": sum(a.strides[0] * len(a) for a in self._states.values()),
        }

    def close(self) -> None:
        """Free weights and cache."""
        self._params.clear()
        self._states.clear()


class Reference:
    """The executor of that name."""

    name = "reference"

    def __init__(self, dtype: type[np.floating] = np.float64) -> None:
        self.dtype = dtype

    def packed(
        self, _graph: Graph, _weights: Mapping[str, Weight], _threads: int
    ) -> tuple[str, dict[str, PackedMatrix]]:
        """Raises: UnsupportedError, always: the reference decodes what files hold."""
        raise UnsupportedError("the reference executor has no packed form; use executor cpu")

    def compile(
        self,
        graph: Graph,
        weights: Mapping[str, Weight],
        limits: Limits,
        progress: Callable[[int, int], None] | None = None,
    ) -> ReferenceProgram:
        """Dequantise every parameter; see `types.Executor`."""
        params: dict[str, Array] = {}
        total = sum(weights[name].rows().nbytes for name in graph.params)
        done = 0
        for name in graph.params:
            weight = weights[name]
            params[name] = decoded(weight)
            done += weight.rows().nbytes
            weight.release()
            if progress:
                progress(done, total)
        return ReferenceProgram(graph, params, limits, self.dtype)
