"""The seams between layers: what a weight, a batch and a running program look like from outside.

Nothing here computes. Loaders make `Weight`s, executors turn a graph and weights into a `Program`, the
engine feeds it `Batch`es; none of the three imports another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokamak._native import CpuProgram
    from tokamak.ir.graph import Graph

Array = NDArray[Any]
Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

KV_DTYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")


class Weight(Protocol):
    """One tensor of a checkpoint, still in its file's bytes."""

    @property
    def format(self) -> str:
        """Name of the weight format, as in `quant.FORMATS`: "q4_k", "f16", ..."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements per axis, outermost first; the last axis is the one formats group along (K)."""

    def rows(self) -> NDArray[np.uint8]:
        """Bytes as uint8[prod(shape[:-1]), row_nbytes], in the row order the model expects."""

    def release(self) -> None:
        """Tell the system that the mapped pages of this tensor are no longer needed; reading again still works."""


@dataclass(frozen=True, slots=True)
class PackedBytes:
    """A matrix, or several of one shape after another, as the kernels of one instruction set read it."""

    isa: str  # "avx2"
    fingerprint: str  # of the layout: what packing a known matrix gave when these bytes were made
    panels: Array  # u8[nbytes], 64-byte aligned
    check: Callable[
        [], None
    ]  # waits until the bytes are known to be whole; raises ModelFileError if they are not


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A parameter about to be packed: how long it will be, and `read` to do it."""

    format: str
    fingerprint: str
    nbytes: int
    read: Callable[[], Array]  # u8[nbytes]


class PackedWeight(Weight, Protocol):
    """A `Weight` that is there in packed form only; `rows` raises UnsupportedError."""

    def packed(self) -> PackedBytes:
        """The packed bytes."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one step, ragged and flat: T rows of B sequences, S of which need logits.

    Row order is sequence by sequence; positions of one sequence are consecutive and rising.
    """

    token_ids: Ints  # i32[T]
    positions: Ints  # i32[T], absolute position in the sequence
    slots: Ints  # i32[T], block_id * block_size + offset: where this row's K and V are stored
    starts: Ints  # i32[B + 1], first row of each sequence, then T
    lengths: Ints  # i32[B], context of each sequence including its rows of this step
    tables: Ints  # i32[B, M], block ids of each sequence, padded with 0
    logit_rows: Ints  # i32[S], rows whose logits are wanted, rising
    sources: Sources | None = None  # of models whose sequences attend to another text
    gates: Floats | None = (
        None  # f32[T, A], how much each adapter counts for each row, where the graph has adapters
    )
    recent: Recent | None = None  # None: as slots and tables, which needs as many blocks of either kind
    given: Given | None = None  # rows that are no tokens, where the graph takes such


@dataclass(frozen=True, slots=True)
class Recent:
    """Where rows lie in the caches that keep the latest part of a text only: blocks given back stand as 0."""

    slots: Ints  # i32[T]
    tables: Ints  # i32[B, M]


@dataclass(frozen=True, slots=True)
class Reach:
    """How far back the layers look that keep the latest part of a text only.

    kinds: (window, chunk) of each kind of layer: positions, its own included, and parts of the text not left; 0 for none.
    """

    kinds: frozenset[tuple[int, int]]

    def first(self, position: int) -> int:
        """The first position that a row at `position` reads."""
        return min(
            max(position - window + 1 if window else 0, position // chunk * chunk if chunk else 0, 0)
            for window, chunk in self.kinds
        )

    def num_blocks(self, block_size: int, rows: int = 1) -> int:
        """Blocks that the positions read by that many rows can lie in, at most."""
        span = max(min(filter(None, kind)) for kind in self.kinds) + rows - 1
        return (span - 2) // block_size + 2


@dataclass(frozen=True, slots=True)
class Given:
    """Vectors that stand for rows of a step in place of what their token ids would give, such as those of an image."""

    rows: Ints  # i32[R], rising: which rows of the step
    vectors: Floats  # f32[R, D]


@dataclass(frozen=True, slots=True)
class Sources:
    """Texts that sequences attend to besides their own: M rows of C texts that are read in this step, each whole, and where
    those of all sequences lie."""

    token_ids: Ints  # i32[M], M may be 0; this and the next five as in Batch
    positions: Ints  # i32[M]
    slots: Ints  # i32[M]
    starts: Ints  # i32[C + 1]
    lengths: Ints  # i32[C]
    tables: Ints  # i32[C, W]
    cross_lengths: Ints  # i32[B], length of each sequence's text
    cross_tables: Ints  # i32[B, V], block ids of each sequence's text


TUNING_RANGES = {
    "chunk_nbytes": (4 << 10, 16 << 20),
    "block_nbytes": (16 << 10, 16 << 20),
    "spin_us": (0, 10000),
}


@dataclass(frozen=True, slots=True)
class Tuning:
    """Sizes that decide speed and nothing else: results are the same bits for all of them. Ranges: TUNING_RANGES."""

    chunk_nbytes: int = 64 << 10  # of weights that a thread claims at a time
    block_nbytes: int = 192 << 10  # of activations that a chunk meets
    spin_us: int = 50  # that a thread looks for work before it sleeps


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program must be able to hold."""

    num_blocks: int  # K/V cache blocks
    block_size: int = 32  # positions per block
    max_rows: int = 512  # largest T of a step
    max_sequences: int = 64  # largest B of a step
    kv_dtype: str = "f16"  # one of KV_DTYPES
    threads: int = 1  # of steps with one row per sequence
    threads_batch: int | None = None  # of steps that read a prompt, None: as threads
    affinity: tuple[int, ...] = ()  # a CPU for each thread; empty: the system places them
    tuning: Tuning = Tuning()
    recent_blocks: int = 0  # of layers that keep the latest part of a text only; 0: as many

    def blocks(self, *, recent: bool) -> int:
        """Blocks of either kind of cache."""
        return (recent and self.recent_blocks) or self.num_blocks


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """What one instruction of a program ran, as counted by the code that ran it."""

    node: str  # graph node, "layers.0.self_attn.q_proj"
    op: str  # op name
    kernel: str  # kernel id with its ISA, "linear.q4_k.avx2"
    calls: int
    nanoseconds: int
    nbytes: int  # weight and cache bytes the calls had to read
    macs: int = 0  # multiply-adds with weight matrices


class Program(Protocol):
    """A compiled graph with its weights and its cache."""

    limits: Limits
    vocab_size: int
    hidden: str  # name of the value the head reads, for `taps`; "" if the output is no head's
    reach: Reach | None  # of its caches that keep the latest part of a text only, None if there are none
    recurrent: bool  # keeps state that cannot go back: a sequence may only be cut to a multiple of block_size
    workers: CpuProgram | None  # whose threads other native calls may use between two steps

    def run(self, batch: Batch) -> Floats:
        """Logits f32[S, vocab_size]; K and V of every row are stored first."""

    def taps(self, batch: Batch, names: Collection[str] | None = None) -> dict[str, Floats]:
        """Run and return copies of intermediates by value name (all of them for None)."""

    def cancel(self) -> None:
        """From another thread: make the step that is running, if any, raise Cancelled as soon as it can."""

    def copy_blocks(self, pairs: Sequence[tuple[int, int]], *, recent: bool = False) -> None:
        """Copy cache blocks (source, destination): the write half of copy-on-write.

        Here and in the next three: in every layer that keeps whole texts; recent: in every other.
        """

    def read_blocks(self, blocks: Sequence[int], *, recent: bool = False) -> list[Array]:
        """Contents of cache blocks, one uint8[n, nbytes] for every layer."""

    def write_blocks(self, blocks: Sequence[int], contents: Sequence[Array], *, recent: bool = False) -> None:
        """Put what `read_blocks` of a program like this one gave into blocks."""

    def shift_blocks(self, blocks: Sequence[int], delta: int, *, recent: bool = False) -> None:
        """Turn the keys in blocks to positions larger by delta; raises where positions cannot move."""

    def records(self) -> list[KernelRecord]:
        """Per-instruction kernel ids, call counts and times since the program was made."""

    def memory(self) -> Mapping[str, int]:
        """Bytes held: weights, cache, arena."""

    def close(self) -> None:
        """Free weights and cache; running afterwards raises."""


class Executor(Protocol):
    """Turns graphs into programs."""

    name: str

    def compile(
        self,
        graph: Graph,
        weights: Mapping[str, Weight],
        limits: Limits,
        progress: Callable[[int, int], None] | None = None,
    ) -> Program:
        """Pack weights and lay out memory. `progress(done_nbytes, total_nbytes)` is called as tensors are packed."""

    def packed(
        self, graph: Graph, weights: Mapping[str, Weight], threads: int
    ) -> tuple[str, dict[str, PackedMatrix]]:
        """(instruction set, {parameter: how to pack it}) for a packed file. Raises: UnsupportedError if it packs none."""
