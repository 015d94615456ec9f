"""The CPU executor: lowers a planned graph to a native program, one small function per op.

Nothing is computed here. Values become operands (where they lie in the arena), parameters become packed matrices or
vectors, nodes become native instructions; views vanish into operands. Weights are packed tensor by tensor and their
files' pages given back on the way, so that peak memory stays near the packed size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from tokamak import _native
from tokamak._native import CpuProgram
from tokamak.errors import InvalidParams, TokamakError, UnsupportedError
from tokamak.executors import cpu_cache, mixed
from tokamak.executors.packing import check_layout, is_packed, matrix_inputs, packed_matrices
from tokamak.executors.rows import decoded, matrix_rows, packed_format
from tokamak.ir.buckets import buckets
from tokamak.ir.graph import Dim, Graph, M, Node, S, T, Value, cache_dtype
from tokamak.ir.ops import VIEWS
from tokamak.ir.planner import plan
from tokamak.types import Array, Batch, Floats, KernelRecord, Limits, PackedMatrix, PackedWeight, Weight

BLOCK = 32  # positions of a cache block; the attention kernels are built for it
ROWS, WANTED, RESULT, SOURCES = 0, 1, 2, 3  # arenas of native/cpu/step.h: Lead

Progress = Callable[[int, int], None]


class Operand(NamedTuple):
    """Where a value lies: row t begins at arena + rows * offset + 4 * (t * stride + column)."""

    lead: int
    offset: int  # bytes per row of the step
    column: int  # floats, as the rest
    width: int
    stride: int


@dataclass(frozen=True, slots=True)
class Tap:
    """A value that can be copied: after which instruction, from where, and its shape after the rows."""

    instruction: int
    operand: Operand
    tail: tuple[int, ...]


class CpuProgramHandle:
    """A native program and the names of what it computes; see `types.Program`."""

    def __init__(
        self,
        native: CpuProgram,
        limits: Limits,
        graph: Graph,
        taps: Mapping[str, Tap],
        checks: tuple[Callable[[], None], ...] = (),
    ) -> None:
        """checks: run before the first step, raise if mapped weights are damaged."""
        self.limits, self.vocab_size = limits, int(graph.outputs[0].type.tail[0])
        self.recurrent = any(v.type.dtype == "state" for v in graph.states.values())
        self.hidden = graph.head_input()
        self.reach, recent = graph.reach(), graph.recent_states()
        self._graph = graph
        caches = list(cpu_cache.shapes(graph))
        stores = [*caches, *(v for v in graph.states.values() if v.type.dtype != "kv")]
        self._stores = {
            kind: [i for i, v in enumerate(stores) if (v in recent) == kind] for kind in (False, True)
        }
        self.workers: CpuProgram | None = native
        self._taps = taps
        self._checks = checks

    @property
    def native(self) -> CpuProgram:
        """The native program. Raises: InvalidParams after `close`."""
        if self.workers is None:
            raise InvalidParams("this program is closed")
        return self.workers

    @property
    def isa(self) -> str:
        """Instruction set of the kernels: "scalar", "avx2", "avx512vnni"."""
        return self.native.isa

    def run(self, batch: Batch) -> Floats:
        """Logits f32[S, vocab_size] of one step.

        Raises: InvalidParams naming the array, index and value of a batch that does not fit; Cancelled after
        `cancel`; UnavailableError in a forked child; ModelFileError if weights in a packed file are damaged.
        """
        self._check()
        return self.native.run(batch)

    def taps(self, batch: Batch, names: Collection[str] | None = None) -> dict[str, Floats]:
        """Run and return copies of the intermediates that are named, or of all.

        Raises: InvalidParams for a name the program does not compute.
        """
        self._check()
        chosen = list(self._taps) if names is None else list(names)
        if unknown := [name for name in chosen if name not in self._taps]:
            raise InvalidParams(f"no value is called {unknown[0]!r}; `inspect --graph` lists them")
        found = self.native.run_taps(
            batch, [(self._taps[n].instruction, self._taps[n].operand) for n in chosen]
        )
        return {
            name: array.reshape(len(array), *self._taps[name].tail)
            for name, array in zip(chosen, found, strict=True)
        }

    def _check(self) -> None:
        for check in self._checks:
            check()
        self._checks = ()

    def cancel(self) -> None:
        """Make the step that is running in another thread, if any, raise Cancelled at its next instruction."""
        self.native.cancel()

    def copy_blocks(self, pairs: Sequence[tuple[int, int]], *, recent: bool = False) -> None:
        """Copy cache blocks (source, destination) in every layer of that kind."""
        self.native.copy_blocks(list(pairs), recent)

    def read_blocks(self, blocks: Sequence[int], *, recent: bool = False) -> list[Array]:
        """Contents of cache blocks: uint8[n, nbytes] of every layer, for `write_blocks` of a program like this one."""
        read = self.native.read_blocks
        return [read(i, list(blocks)).reshape(len(blocks), -1) for i in self._stores[recent]]

    def write_blocks(self, blocks: Sequence[int], contents: Sequence[Array], *, recent: bool = False) -> None:
        """Put contents that `read_blocks` gave into blocks.  Raises: InvalidParams for another size."""
        for i, raw in zip(self._stores[recent], contents, strict=True):
            self.native.write_blocks(i, list(blocks), np.ascontiguousarray(raw).ravel())

    def shift_blocks(self, blocks: Sequence[int], delta: int, *, recent: bool = False) -> None:
        """Turn the keys in blocks to positions larger by delta.

        Raises: UnsupportedError for a model whose cached positions cannot move.
        """
        turns = cpu_cache.turning(self._graph)
        for i, (state, (heads, key_dim, _)) in enumerate(cpu_cache.shapes(self._graph).items()):
            inv_freq = turns[state]
            if inv_freq is None or not blocks or i not in self._stores[recent]:
                continue
            raw = self.native.read_blocks(i, list(blocks)).reshape(len(blocks), -1)
            keys = cpu_cache.Keys(cache_dtype(state.type, self.limits.kv_dtype), heads, key_dim)
            keys.put(raw, cpu_cache.turned(keys.of(raw), inv_freq, delta))
            self.native.write_blocks(i, list(blocks), raw.ravel())

    def records(self) -> list[KernelRecord]:
        """Kernel ids, calls, times and bytes per instruction, counted by the code that ran them."""
        return [KernelRecord(*record) for record in self.native.records()]

    def read_rates(self, threads: int, repeats: int = 5) -> tuple[float, ...]:
        """Bytes per second of reading the packed weights straight on, by pass; none if they lie in a packed file."""
        return tuple(self.native.read_rates(threads, repeats))

    def memory(self) -> Mapping[str, int]:
        """Bytes of weights (and how many of them are on huge pages), cache and working memory."""
        return self.native.memory()

    def close(self) -> None:
        """Free everything once a step in progress is done; running afterwards raises InvalidParams."""
        self.workers = None


class Cpu:
    """The executor of that name. `isa`: one of this machine's instruction sets, by default the best."""

    name = "cpu"

    def __init__(self, isa: str = "") -> None:
        self.isa = isa

    def compile(
        self,
        graph: Graph,
        weights: Mapping[str, Weight],
        limits: Limits,
        progress: Progress | None = None,
    ) -> CpuProgramHandle:
        """Pack weights and lay out memory; see `types.Executor`.

        Raises: UnsupportedError for a format without kernel, a block size other than 32 or a cache type that does not
        fit head_dim; InvalidParams for limits out of range.
        """
        if limits.block_size != BLOCK:
            raise UnsupportedError(
                f"block_size is {limits.block_size}; the CPU executor has blocks of {BLOCK}"
            )
        return Lowering(graph, limits, self.isa).lower(weights, progress)

    def packed(
        self, graph: Graph, weights: Mapping[str, Weight], threads: int
    ) -> tuple[str, dict[str, PackedMatrix]]:
        """The instruction set, and per matrix of the graph how to pack it for that; see `types.Executor`.

        Raises: UnsupportedError for a format without kernel.
        """
        isa = self.isa or _native.isa()
        return isa, dict(packed_matrices(graph, weights, isa, threads))


class Lowering:
    """One graph on its way to a native program."""

    def __init__(self, graph: Graph, limits: Limits, isa: str) -> None:
        self.graph, self.limits = graph, limits
        self.output = graph.outputs[0]
        self.plan = plan(graph)
        self.native = CpuProgram(
            num_blocks=limits.num_blocks,
            num_recent_blocks=limits.blocks(recent=True),
            max_rows=limits.max_rows,
            max_sequences=limits.max_sequences,
            threads=limits.threads,
            threads_batch=limits.threads_batch or 0,
            affinity=list(limits.affinity),
            tuning=(limits.tuning.chunk_nbytes, limits.tuning.block_nbytes, limits.tuning.spin_us),
            row_nbytes=(self.row_nbytes(T), self.row_nbytes(S), self.row_nbytes(M)),
            result_width=prod(self.output.type.tail),
            isa=isa,
        )
        self.operands: dict[Value, Operand] = {}
        self.matrices: dict[Value, int] = {}
        self.vectors: dict[Value, int] = {}
        self.stacks: dict[Value, list[int]] = {}
        self.caches: dict[Value, int] = {}
        self.states: dict[Value, int] = {}
        self.rope_tables: dict[tuple[Value, float], int] = {}
        self.taps: dict[str, Tap] = {}
        self.checks: dict[Callable[[], None], None] = {}

    def row_nbytes(self, lead: Dim) -> int:
        """Bytes of working memory per row of that extent."""
        return self.plan.row_nbytes.get(lead, 0)

    def lower(self, weights: Mapping[str, Weight], progress: Progress | None) -> CpuProgramHandle:
        """Pack, then emit every node in order."""
        self.pack(weights, progress)
        for value, array in self.graph.consts.values():
            if value in self.matrices:  # a table that rows are read from
                continue
            self.vectors[value] = self.native.add_vector(np.ascontiguousarray(array, np.float32).ravel())
        self.make_states()
        for node in self.graph.nodes:
            self.emit(node)
        self.native.seal()
        return CpuProgramHandle(self.native, self.limits, self.graph, self.taps, tuple(self.checks))

    def make_states(self) -> None:
        """Caches as wide as what attention stores in them, recurrent states as flat arrays."""
        recent = self.graph.recent_states()
        for value, (heads, key_dim, value_dim) in cpu_cache.shapes(self.graph).items():
            kept = cache_dtype(value.type, self.limits.kv_dtype)
            self.caches[value] = self.native.add_cache(kept, value in recent, heads, key_dim, value_dim)
        for value in self.graph.states.values():
            if value.type.dtype != "kv":
                self.states[value] = self.native.add_state(prod(value.type.tail))

    def pack(self, weights: Mapping[str, Weight], progress: Progress | None) -> None:
        """Parameters of embed and linear become matrices, those of experts one each, the others vectors."""
        matrices = {v for node in self.graph.nodes for v in matrix_inputs(node)}
        sizes = {}
        for name, value in self.graph.params.items():
            if value in matrices:
                *count, rows, cols = value.type.shape
                with located(name):
                    sizes[name] = prod(count) * self.native.packed_nbytes(
                        packed_format(weights[name]), rows, cols
                    )
            else:
                sizes[name] = 4 * prod(value.type.shape)
        here = [n for n in sizes if not is_packed(weights[n])]
        tables = [(v, a) for v, a in self.graph.consts.values() if v in matrices]
        room = sum(
            prod(v.type.shape[:-2]) * self.native.packed_nbytes("f32", *v.type.shape[-2:]) for v, _ in tables
        )
        self.native.reserve(room + sum(sizes[n] for n in here if self.graph.params[n] in matrices))
        for value, array in tables:
            *_, rows, cols = value.type.shape
            table = np.ascontiguousarray(array, np.float32).view(np.uint8).reshape(-1, rows, 4 * cols)
            self.stacks[value] = [self.native.add_matrix("f32", part, cols) for part in table]
            self.matrices[value] = self.stacks[value][0]
        done, total = 0, sum(sizes.values())
        for name, value in self.graph.params.items():
            with located(name):
                if value in matrices and len(value.type.tail) == 2:
                    self.stacks[value] = self.stacked(weights[name], *value.type.shape)
                elif value in matrices:
                    self.matrices[value] = self.stacked(weights[name], 1, *value.type.shape)[0]
                else:
                    self.vectors[value] = self.native.add_vector(decoded(weights[name]).ravel())
            weights[name].release()
            done += sizes[name]
            if progress:
                progress(done, total)

    def stacked(self, weight: Weight, count: int, rows: int, cols: int) -> list[int]:
        """Indices of the packed forms of `count` matrices that lie one after another."""
        if is_packed(weight):
            return self.mapped(weight, count, rows, cols)
        name, stack, scale = matrix_rows(weight, count * rows, cols)
        return [
            self.native.add_matrix(name, stack[i * rows : (i + 1) * rows], cols, scale) for i in range(count)
        ]

    def mapped(self, weight: PackedWeight, count: int, rows: int, cols: int) -> list[int]:
        """Indices of `count` matrices that lie packed in a file: they stay where they are."""
        packed, format_ = weight.packed(), weight.format
        check_layout(packed, format_, self.native.isa)
        self.checks[packed.check] = None
        size = packed.panels.size // count
        return [
            self.native.add_packed(format_, packed.panels[i * size : (i + 1) * size], rows, cols)
            for i in range(count)
        ]

    def emit(self, node: Node) -> None:
        """Views become operands; every other op has a function of its name below."""
        if node.op in VIEWS:
            self.operands[node.outputs[0]] = viewed(node, self.operands[node.inputs[0]])
        else:
            for value in node.outputs:
                self.operands[value] = self.place(value)
            if node.op not in LOWERINGS:
                raise UnsupportedError(f"op {node.op} has no CPU kernel: {node}")
            LOWERINGS[node.op](self, node, node.outputs[0].name)
        after = self.native.num_instructions - 1
        for value in node.outputs:
            self.taps[value.name] = Tap(after, self.operands[value], value.type.tail)

    def place(self, value: Value) -> Operand:
        """The operand of a value that is no view; the graph's output goes straight to the result."""
        width = prod(value.type.tail)
        if value is self.output and value.type.lead == S:
            return Operand(RESULT, 0, 0, width, width)
        lead = ROWS if value.type.lead == T else SOURCES if value.type.lead == M else WANTED
        return Operand(lead, self.plan.offsets[value], 0, width, width)

    def args(self, node: Node) -> tuple[Operand, Operand]:
        """First input and first output."""
        return self.operands[node.inputs[0]], self.operands[node.outputs[0]]


@contextmanager
def located(name: str) -> Iterator[None]:
    """Puts the tensor's name in front of what goes wrong inside."""
    try:
        yield
    except TokamakError as error:
        raise error.located(f"tensor {name}") from error


def viewed(node: Node, x: Operand) -> Operand:
    """The operand of a view: columns narrow it, splitting and merging heads leave it."""
    if node.op != "columns":
        return x
    start, stop = int(node.attrs["start"]), int(node.attrs["stop"])
    return x._replace(column=x.column + start, width=stop - start)


def _embed(low: Lowering, node: Node, name: str) -> None:
    inputs = low.graph.inputs
    by_position = node.inputs[0] in (inputs["positions"], inputs.get("sources.positions"))
    row = int(node.attrs["row"])
    low.native.embed(name, low.matrices[node.inputs[1]], by_position, row, low.operands[node.outputs[0]])


def _linear(low: Lowering, node: Node, name: str) -> None:
    x, out = low.args(node)
    count = int(node.attrs["num_weights"])
    weights = [low.matrices[w] for w in node.inputs[1 : 1 + count]]
    biases = [low.vectors[b] for b in node.inputs[1 + count :]]
    low.native.linear(name, x, weights, biases, out)


def _norm(low: Lowering, node: Node, name: str) -> None:
    x, out = low.args(node)
    weight, *bias = (low.vectors[v] for v in node.inputs[1:])
    low.native.norm(name, x, weight, bias[0] if bias else -1, float(node.attrs["eps"]), [], out)


def _add_norm(low: Lowering, node: Node, name: str) -> None:
    x, residual, total, out = (low.operands[v] for v in (*node.inputs[:2], *node.outputs))
    weight, *bias = (low.vectors[v] for v in node.inputs[2:])
    low.native.norm(
        name, x, weight, bias[0] if bias else -1, float(node.attrs["eps"]), [residual, total], out
    )


def _binary(low: Lowering, node: Node, name: str) -> None:
    x, out = low.args(node)
    low.native.binary(name, node.op, x, low.operands[node.inputs[1]], out)


def _scale(low: Lowering, node: Node, name: str) -> None:
    x, out = low.args(node)
    low.native.scaling(name, node.op, float(node.attrs["factor"]), x, out)


def _clip(low: Lowering, node: Node, name: str) -> None:
    x, out = low.args(node)
    low.native.scaling(name, node.op, float(node.attrs["limit"]), x, out)


def _softcap(low: Lowering, node: Node, name: str) -> None:
    x, out = low.args(node)
    low.native.scaling(name, node.op, float(node.attrs["cap"]), x, out)


def _activation(low: Lowering, node: Node, name: str) -> None:
    x, out = low.args(node)
    low.native.activate(name, node.op, False, x, out)


def _gated(low: Lowering, node: Node, name: str) -> None:
    x, out = low.args(node)
    low.native.activate(name, str(node.attrs["act"]), True, x, out)


def _rope(low: Lowering, node: Node, name: str) -> None:
    x, out = low.args(node)
    key = (node.inputs[2], float(node.attrs["mscale"]))
    if key not in low.rope_tables:
        low.rope_tables[key] = low.native.rope_table(low.vectors[key[0]], key[1])
    low.native.rope(name, low.rope_tables[key], node.inputs[0].type.tail[-1], x, out)


def _attention(low: Lowering, node: Node, name: str) -> None:
    qkv = [low.operands[value] for value in node.inputs[:3]]
    attrs, heads = node.attrs, node.inputs[0].type.tail[0]
    per_head = {str(attrs["adds"]): low.vectors[v] for v in node.inputs[8:]}
    count, reach, causal = node.inputs[-1].type.lead, int(attrs["reach"]), bool(attrs["causal"])
    bucket_of = buckets(int(count), reach, causal=causal) if reach else ()  # type: ignore[arg-type]
    low.native.attention(
        name,
        low.caches[node.inputs[3]],
        heads,
        float(attrs["scale"]),
        int(attrs["window"]),
        float(attrs["softcap"]),
        int(attrs["chunk"]),
        bool(attrs["causal"]),
        per_head.get("slopes", -1),
        per_head.get("sinks", -1),
        _keys(low, node),
        per_head.get("buckets", -1),
        bucket_of,
        qkv,
        low.operands[node.outputs[0]],
    )


def _keys(low: Lowering, node: Node) -> int:
    """Whose keys: of the rows' own texts, of source texts by their own rows, of each sequence's source, or the latest of their own."""
    slots, tables = node.inputs[4], node.inputs[7]
    inputs = low.graph.inputs
    if slots is inputs.get("recent.slots"):
        return 3
    return 0 if slots is inputs["slots"] else 1 if tables is inputs["sources.tables"] else 2


def _take_rows(low: Lowering, node: Node, name: str) -> None:
    low.native.take_rows(name, *low.args(node))


LOWERINGS: dict[str, Callable[[Lowering, Node, str], None]] = {
    "embed": _embed,
    "linear": _linear,
    "rms_norm": _norm,
    "layer_norm": _norm,
    "add_rms_norm": _add_norm,
    "add_layer_norm": _add_norm,
    "add": _binary,
    "mul": _binary,
    "sigmoid_mul": _binary,
    "scale": _scale,
    "clip": _clip,
    "softcap": _softcap,
    "silu": _activation,
    "gelu": _activation,
    "gelu_erf": _activation,
    "relu": _activation,
    "relu2": _activation,
    "sigmoid": _activation,
    "softplus": _activation,
    "gated": _gated,
    "rope": _rope,
    "attention": _attention,
    "take_rows": _take_rows,
    **mixed.LOWERINGS,
}
