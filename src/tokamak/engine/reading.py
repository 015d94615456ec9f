"""Vectors of texts by a model that generates: its last hidden states, pooled. Runs between the steps of the engine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import numpy as np

from tokamak.engine.blocks import BlockPool
from tokamak.errors import CapacityError
from tokamak.types import Batch, Floats, Ints, Program


def hidden_states(
    pool: BlockPool, program: Program, ids: Ints, rows_now: Callable[[], int], gates: Floats | None = None
) -> Generator[Floats]:
    """States f32[rows, hidden_size] that the head reads, of consecutive chunks of ids i32[n], over blocks of their own.

    gates: f32[A], how much each adapter counts. In the engine's thread, a chunk of at most rows_now() rows at a time. Raises: CapacityError if the cache has no room.
    """
    size = pool.block_size
    blocks = [block for _ in range(-(-len(ids) // size)) if (block := pool.take()) is not None]
    table = np.array(blocks, dtype=np.int32)
    try:
        if len(blocks) * size < len(ids):
            raise CapacityError(f"no cache is free for a text of {len(ids)} tokens; try again later")
        start = 0
        while start < len(ids):
            stop = min(len(ids), start + rows_now())
            positions = np.arange(start, stop, dtype=np.int32)
            rows = np.arange(stop - start, dtype=np.int32)
            batch = Batch(
                token_ids=ids[start:stop],
                positions=positions,
                slots=(table[positions // size] * size + positions % size).astype(np.int32),
                starts=np.array([0, stop - start], dtype=np.int32),
                lengths=np.array([stop], dtype=np.int32),
                tables=table[None],
                logit_rows=rows,
                gates=None if gates is None else np.repeat(gates[None], len(rows), axis=0),
            )
            yield program.taps(batch, [program.hidden])[program.hidden]
            start = stop
    finally:
        pool.release(table)


def pooled(chunks: Iterator[Floats], how: str) -> Floats:
    """One vector of the states of a text: mean, cls (first) or last."""
    total: np.ndarray | None = None
    first: Floats | None = None
    last: Floats | None = None
    count = 0
    for states in chunks:
        first = states[0].copy() if first is None else first
        last = states[-1].copy()
        added = states.sum(axis=0, dtype=np.float64)
        total, count = added if total is None else total + added, count + len(states)
    if total is None or first is None or last is None:
        raise AssertionError("a text has at least one token")
    if how == "mean":
        mean: Floats = (total / count).astype(np.float32)
        return mean
    vector: Floats = first if how == "cls" else last
    return vector
