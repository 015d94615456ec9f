"""The oracle: runs a graph node by node, giving each op of `ir/ops.py` its NumPy meaning, in float64.

Weights are dequantised by their codec; K and V are kept in float64 whatever `kv_dtype` says, because the oracle
shows what a model means, not what a cache costs. With float32 it shows what rounding alone costs. Simple rather
than fast: for tests, `tokamak diff` and small models.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from tokamak.errors import CapacityError, InvalidParams, UnsupportedError
from tokamak.ir.graph import Dim, Graph, Node, S, T, Value
from tokamak.ir.ops import VIEWS
from tokamak.ir.planner import Plan
from tokamak.quant import FORMATS
from tokamak.types import Array, Batch, Floats, KernelRecord, Limits, PackedMatrix, Weight

_ERF = np.vectorize(math.erf, otypes=[np.float64])


class Meaning:
    """One function per op; shapes and formulas are in `ir/ops.py`."""

    @staticmethod
    def embed(ids: Array, table: Array) -> Array:
        return np.asarray(table[ids])

    @staticmethod
    def linear(x: Array, *inputs: Array, num_weights: int) -> Array:
        weights, biases = inputs[:num_weights], inputs[num_weights:]
        y = np.concatenate([x @ w.astype(x.dtype, copy=False).T for w in weights], axis=1)
        return y + np.concatenate(biases) if biases else y

    @staticmethod
    def rms_norm(x: Array, weight: Array, *, eps: float) -> Array:
        return np.asarray(x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight)

    @staticmethod
    def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float) -> Array:
        centred = x - np.mean(x, axis=-1, keepdims=True)
        return np.asarray(Meaning.rms_norm(centred, weight, eps=eps) + bias)

    @staticmethod
    def add_rms_norm(x: Array, residual: Array, weight: Array, *, eps: float) -> tuple[Array, Array]:
        return x + residual, Meaning.rms_norm(x + residual, weight, eps=eps)

    @staticmethod
    def add_layer_norm(
        x: Array, residual: Array, weight: Array, bias: Array, *, eps: float
    ) -> tuple[Array, Array]:
        return x + residual, Meaning.layer_norm(x + residual, weight, bias, eps=eps)

    @staticmethod
    def add(x: Array, y: Array) -> Array:
        return np.add(x, y)

    @staticmethod
    def mul(x: Array, y: Array) -> Array:
        return np.multiply(x, y)

    @staticmethod
    def sigmoid_mul(x: Array, gate: Array) -> Array:
        return np.asarray(x * (0.5 * (1 + np.tanh(0.5 * gate))))

    @staticmethod
    def clip(x: Array, *, limit: float) -> Array:
        return np.clip(x, -limit, limit)

    @staticmethod
    def experts(
        x: Array,
        router: Array,
        gate: Array,
        up: Array,
        down: Array,
        *,
        num_used: int,
        normed: int,
        scaling: float,
        act: str,
    ) -> Array:
        scores = np.exp(router - router.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        chosen = np.argsort(-scores, axis=1, kind="stable")[:, :num_used]
        weights = np.take_along_axis(scores, chosen, axis=1) * scaling
        if normed:
            weights /= weights.sum(axis=1, keepdims=True) / scaling
        out = np.zeros_like(x)
        for e in range(len(gate)):
            rows, choice = np.nonzero(chosen == e)
            hidden = getattr(Meaning, act)(x[rows] @ gate[e].T) * (x[rows] @ up[e].T)
            out[rows] += weights[rows, choice, None] * (hidden @ down[e].T)
        return out

    @staticmethod
    def scale(x: Array, *, factor: float) -> Array:
        return np.multiply(x, factor)

    @staticmethod
    def softcap(x: Array, *, cap: float) -> Array:
        return np.asarray(cap * np.tanh(x / cap))

    @staticmethod
    def silu(x: Array) -> Array:
        return np.asarray(x * (0.5 * (1 + np.tanh(0.5 * x))))

    @staticmethod
    def gelu(x: Array) -> Array:
        return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))

    @staticmethod
    def gelu_erf(x: Array) -> Array:
        return np.asarray(0.5 * x * (1 + _ERF(x / math.sqrt(2))))

    @staticmethod
    def relu2(x: Array) -> Array:
        return np.square(np.maximum(x, 0))

    @staticmethod
    def gated(x: Array, *, act: str) -> Array:
        gate, up = np.split(x, 2, axis=1)
        return np.asarray(getattr(Meaning, act)(gate) * up)

    @staticmethod
    def columns(x: Array, *, start: int, stop: int) -> Array:
        return x[:, start:stop]

    @staticmethod
    def split_heads(x: Array, *, heads: int) -> Array:
        return x.reshape(len(x), heads, x.shape[1] // heads)

    @staticmethod
    def merge_heads(x: Array) -> Array:
        return x.reshape(len(x), x.shape[1] * x.shape[2])

    @staticmethod
    def rope(x: Array, positions: Array, inv_freq: Array, *, mscale: float) -> Array:
        half = len(inv_freq)
        angle = positions[:, None].astype(np.float64) * inv_freq
        cos, sin = (mscale * f(angle)[:, None] for f in (np.cos, np.sin))
        a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)

    @staticmethod
    def attention(
        q: Array,
        k: Array,
        v: Array,
        cache: Array,
        slots: Array,
        starts: Array,
        lengths: Array,
        tables: Array,
        *,
        scale: float,
        window: int,
        softcap: float,
    ) -> Array:
        cache[0].reshape(-1, *k.shape[1:])[slots] = k
        cache[1].reshape(-1, *v.shape[1:])[slots] = v
        out, group = np.empty_like(q), q.shape[1] // k.shape[1]
        for b, length in enumerate(lengths):
            rows = np.arange(starts[b], starts[b + 1])
            blocks = tables[b][: -(-length // cache.shape[2])]
            keys, values = (
                half[blocks].reshape(-1, *k.shape[1:])[:length].repeat(group, axis=1) for half in cache
            )
            scores = np.einsum("qhd,khd->hqk", q[rows], keys) * scale
            if softcap:
                scores = softcap * np.tanh(scores / softcap)
            position = length - len(rows) + np.arange(len(rows))[:, None]
            visible = np.arange(length) <= position
            if window:
                visible &= position - np.arange(length) < window
            scores = np.where(visible, scores, -np.inf)
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            out[rows] = np.einsum("hqk,khd->qhd", weights, values)
        return out

    @staticmethod
    def take_rows(x: Array, rows: Array) -> Array:
        return np.asarray(x[rows])


class ReferenceProgram:
    """A graph with its weights and cache; see `types.Program`.

    With a `plan`, intermediates live in its arenas (poisoned first), which turns every model test into a test of the
    planner.
    """

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
        self._params = dict(params)
        self._states = {
            name: np.zeros((2, limits.num_blocks, limits.block_size, *v.type.tail), dtype)
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
        self._validate(batch)
        env: dict[Value, Array] = {v: getattr(batch, name) for name, v in graph.inputs.items()}
        env |= {v: self._params[name] for name, v in graph.params.items()}
        env |= {v: array.astype(self.dtype) for v, array in graph.consts.values()}
        env |= {v: self._states[name] for name, v in graph.states.items()}
        extents: dict[Dim | int, int] = {T: len(batch.token_ids), S: len(batch.logit_rows)}
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
        ids = batch.token_ids
        table = next(n.inputs[1] for n in self.graph.nodes if n.op == "embed")
        if bad := np.flatnonzero((ids < 0) | (ids >= table.type.nrows)).tolist():
            raise InvalidParams(f"token_ids[{bad[0]}] is {ids[bad[0]]}, expected 0 .. {table.type.nrows - 1}")
        if batch.slots.size and batch.slots.max() >= self.limits.num_blocks * self.limits.block_size:
            raise CapacityError(f"slot {batch.slots.max()} is outside the cache")

    def cancel(self) -> None:
        """Nothing: a step of the small models this is for ends soon enough."""

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy cache blocks (source, destination) in every layer."""
        for state in self._states.values():
            for source, destination in pairs:
                state[:, destination] = state[:, source]

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
            "cache": sum(a.nbytes for a in self._states.values()),
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
            rows = weight.rows()
            params[name] = FORMATS[weight.format].decode(rows).reshape(weight.shape)
            done += rows.nbytes
            weight.release()
            if progress:
                progress(done, total)
        return ReferenceProgram(graph, params, limits, self.dtype)
