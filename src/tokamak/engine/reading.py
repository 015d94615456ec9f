"""Vectors of texts by a model that generates: its last hidden states, pooled. Runs between the steps of the engine."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np

from tokamak.engine.core import EngineCore
from tokamak.engine.tables import Table
from tokamak.errors import CapacityError
from tokamak.types import Batch, Floats, Ints, Recent


def hidden_states(core: EngineCore, ids: Ints, gates: Floats | None = None) -> Generator[Floats]:
    """States f32[rows, hidden_size] that the head reads, of consecutive chunks of ids i32[n], over blocks of their own.

    gates: f32[A], how much each adapter counts. In the engine's thread, so many rows at a time as delay nobody. Raises:
    CapacityError if the cache has no room.
    """
    pool, latest, program = core.pool, core.recent, core.program
    size, start = pool.block_size, 0
    whole, recent = (Table(-(-len(ids) // size)) for _ in range(2))
    try:
        if not whole.take(pool, 0, len(ids), []):
            raise CapacityError(f"no cache is free for a text of {len(ids)} tokens; try again later")
        while start < len(ids):
            rows = min(len(ids) - start, core.scheduler.rows_beside())
            if latest is not None:
                rows = min(rows, latest.most_rows)
                if not recent.take(latest, start, rows, []):
                    raise CapacityError(f"no cache is free for a text of {len(ids)} tokens; try again later")
            stop = start + rows
            batch = Batch(
                token_ids=ids[start:stop],
                positions=np.arange(start, stop, dtype=np.int32),
                slots=whole.slots(start, stop, size),
                starts=np.array([0, rows], dtype=np.int32),
                lengths=np.array([stop], dtype=np.int32),
                tables=whole.blocks[None],
                logit_rows=np.arange(rows, dtype=np.int32),
                gates=None if gates is None else np.repeat(gates[None], rows, axis=0),
                recent=Recent(recent.slots(start, stop, size), recent.blocks[None]) if latest else None,
            )
            yield program.taps(batch, [program.hidden])[program.hidden]
            start = stop
            if latest is not None:
                recent.give_back(latest, latest.first_block(start))
    finally:
        whole.clear(pool)
        recent.clear(latest or pool)


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
