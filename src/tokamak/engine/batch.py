"""From the rows a step computes to the flat arrays a program reads. No padding but in the block tables."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tokamak.engine.illustrated import given
from tokamak.engine.sequence import Sequence
from tokamak.engine.source import Source
from tokamak.engine.tables import Table
from tokamak.types import Batch, Floats, Given, Ints, Recent, Sources


def make_batch(chosen: list[tuple[Sequence, int]], block_size: int, *, recent: bool = False) -> Batch:
    """The batch of (sequence, rows) pairs, each from its num_computed on.

    Logits are wanted of the last row of a sequence that is then wholly computed, of the rows of its draft behind it, and
    of every row where the request collects them. recent: some layers keep the latest part of a text only.
    """
    num = len(chosen)
    if all(rows == 1 for _, rows in chosen):
        begins = [s.num_computed for s, _ in chosen]
        ids = [s.tokens(b, b + 1) for (s, _), b in zip(chosen, begins, strict=True)]
        token_ids = ids[0] if num == 1 else np.concatenate(ids)
        positions = np.array(begins, dtype=np.int32)
        starts, lengths = _counting(num + 1), positions + np.int32(1)
    else:
        starts = np.zeros(num + 1, dtype=np.int32)
        np.cumsum([rows for _, rows in chosen], out=starts[1:])
        spans = [(s, s.num_computed, s.num_computed + rows) for s, rows in chosen]
        lengths = np.array([end for _, _, end in spans], dtype=np.int32)
        token_ids = np.concatenate([s.tokens(begin, end) for s, begin, end in spans])
        positions = np.concatenate([np.arange(begin, end, dtype=np.int32) for _, begin, end in spans])
    whole = _places([s.whole for s, _ in chosen], starts, positions, block_size)
    latest = _places([s.recent for s, _ in chosen], starts, positions, block_size) if recent else None
    more = _sources(chosen, block_size), _gates(chosen), Recent(*latest) if latest else None
    given_rows = _given(chosen, starts)
    return Batch(
        token_ids,
        positions,
        whole[0],
        starts,
        lengths,
        whole[1],
        _logit_rows(chosen, starts),
        *more,
        given_rows,
    )


def _places(tables: list[Table], starts: Ints, positions: Ints, block_size: int) -> tuple[Ints, Ints]:
    """Slots i32[T] of the rows and tables i32[B, M]."""
    if len(tables) == len(positions):
        slots = np.array(
            [
                int(t.ids[p // block_size]) * block_size + p % block_size
                for t, p in zip(tables, positions.tolist(), strict=True)
            ],
            dtype=np.int32,
        )
    else:
        ends = starts[1:] - 1
        slots = np.concatenate(
            [
                t.slots(begin, last + 1, block_size)
                for t, begin, last in zip(tables, positions[starts[:-1]], positions[ends], strict=True)
            ]
        )
    return slots, tables[0].blocks[None] if len(tables) == 1 else _stacked([t.blocks for t in tables])


def _gates(chosen: list[tuple[Sequence, int]]) -> Floats | None:
    """What each adapter counts for each row, None where there are no adapters."""
    found = [(s.request.gates, rows) for s, rows in chosen if s.request.gates is not None]
    if not found:
        return None
    return np.repeat(np.stack([gates for gates, _ in found]), [rows for _, rows in found], axis=0)


def _given(chosen: list[tuple[Sequence, int]], starts: Ints) -> Given | None:
    """Rows of pictures."""
    if not any(s.request.pictures for s, _ in chosen):
        return None
    firsts = zip(chosen, starts.tolist()[:-1], strict=True)
    return given(
        (s.request.pictures, first, s.num_computed, s.num_computed + rows) for (s, rows), first in firsts
    )


def unread(chosen: list[tuple[Sequence, int]]) -> list[Source]:
    """The texts that these sequences are about and that no step has read yet."""
    found = dict.fromkeys(s.request.source for s, _ in chosen)
    return [source for source in found if source is not None and not source.is_read]


def _sources(chosen: list[tuple[Sequence, int]], block_size: int) -> Sources | None:
    whose = [s.request.source for s, _ in chosen if s.request.source is not None]
    if not whose:
        return None
    fresh = unread(chosen)
    lengths = np.array([len(s.token_ids) for s in fresh], dtype=np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    positions = [_counting(n) for n in lengths.tolist()]
    slots = [
        (s.table[p // block_size] * block_size + p % block_size)
        for s, p in zip(fresh, positions, strict=True)
    ]
    return Sources(
        token_ids=_joined([s.token_ids for s in fresh]),
        positions=_joined(positions),
        slots=_joined(slots),
        starts=starts,
        lengths=lengths,
        tables=_stacked([s.table for s in fresh]),
        cross_lengths=np.array([len(s.token_ids) for s in whose], dtype=np.int32),
        cross_tables=_stacked([s.table for s in whose]),
    )


def _joined(parts: list[Ints]) -> Ints:
    return np.concatenate(parts).astype(np.int32, copy=False) if parts else np.zeros(0, dtype=np.int32)


def _stacked(tables: list[Ints]) -> Ints:
    """i32[B, M], padded with 0."""
    stacked = np.zeros((len(tables), max(map(len, tables), default=0)), dtype=np.int32)
    for row, table in zip(stacked, tables, strict=True):
        row[: len(table)] = table
    return stacked


def num_logits(sequence: Sequence, rows: int) -> int:
    """How many of a sequence's next `rows` rows give logits; they are the last ones."""
    if sequence.request.collect is not None and sequence.num_new == 0 and sequence.index == 0:
        return rows
    return max(0, rows - sequence.num_missing + 1)


def _logit_rows(chosen: list[tuple[Sequence, int]], starts: Ints) -> Ints:
    rows: list[int] = []
    for (sequence, count), end in zip(chosen, starts.tolist()[1:], strict=True):
        rows.extend(range(end - num_logits(sequence, count), end))
    return _counting(len(rows)) if len(rows) == starts[-1] else np.array(rows, dtype=np.int32)


@lru_cache(maxsize=256)
def _counting(n: int) -> Ints:
    """0, 1, ... n - 1; read-only, because it is shared."""
    numbers = np.arange(n, dtype=np.int32)
    numbers.flags.writeable = False
    return numbers
