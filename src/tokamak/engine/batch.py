"""From the rows a step computes to the flat arrays a program reads. No padding but in the block tables."""

from __future__ import annotations

import numpy as np

from tokamak.engine.request import Sequence
from tokamak.types import Batch


def make_batch(chosen: list[tuple[Sequence, int]], block_size: int) -> Batch:
    """The batch of (sequence, rows) pairs, each from its num_computed on.

    Logits are wanted of the last row of a sequence that is then wholly computed, and of every row where
    the request collects them.
    """
    num = len(chosen)
    begins = [s.num_computed for s, _ in chosen]
    counts = [rows for _, rows in chosen]
    starts = np.zeros(num + 1, dtype=np.int32)
    np.cumsum(counts, out=starts[1:])
    lengths = np.array([b + n for b, n in zip(begins, counts, strict=True)], dtype=np.int32)
    tables = np.zeros((num, max(s.num_blocks for s, _ in chosen)), dtype=np.int32)
    for i, (sequence, _) in enumerate(chosen):
        tables[i, : sequence.num_blocks] = sequence.blocks
    if num == 1 and counts[0] == 1:
        token_ids = chosen[0][0].tokens(begins[0], begins[0] + 1)
        positions = lengths - np.int32(1)
        owner = np.zeros(1, dtype=np.intp)
    else:
        token_ids = np.concatenate([s.tokens(b, b + n) for (s, n), b in zip(chosen, begins, strict=True)])
        owner = np.repeat(np.arange(num), counts)
        positions = (np.arange(starts[-1], dtype=np.int32) - (starts[:-1] - begins)[owner]).astype(np.int32)
    slots = tables[owner, positions // block_size] * np.int32(block_size) + positions % block_size
    return Batch(token_ids, positions, slots, starts, lengths, tables, _logit_rows(chosen, starts))


def _logit_rows(chosen: list[tuple[Sequence, int]], starts: np.ndarray) -> np.ndarray:
    rows: list[int] = []
    ends = starts[1:].tolist()
    for (sequence, count), end in zip(chosen, ends, strict=True):
        if sequence.request.collect is not None and sequence.num_new == 0:
            rows.extend(range(end - count, end))
        elif count == sequence.num_missing:
            rows.append(end - 1)
    return np.array(rows, dtype=np.int32)
