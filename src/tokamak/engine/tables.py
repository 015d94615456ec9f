"""The cache blocks of one sequence, in the order of its positions.

A sequence has a table in the pool of whole texts, and where layers keep the latest part of a text only, one in their pool: the
blocks behind are given back while it runs and stand as 0, which nobody reads.
"""

from __future__ import annotations

import numpy as np

from tokamak.engine.blocks import BlockPool
from tokamak.types import Ints


class Table:
    """See above. capacity: blocks it can hold. kept: blocks at the beginning that are never given back early."""

    __slots__ = ("first", "ids", "kept", "num_blocks")

    def __init__(self, capacity: int, kept: int = 0) -> None:
        self.ids = np.zeros(capacity, dtype=np.int32)  # num_blocks of them valid
        self.num_blocks = 0
        self.kept = self.first = kept  # blocks kept .. first were given back

    @property
    def blocks(self) -> Ints:
        """Block ids as a step reads them, a view i32[num_blocks]."""
        return self.ids[: self.num_blocks]

    @property
    def held(self) -> Ints:
        """Block ids that it holds, in order."""
        if self.first == self.kept:
            return self.blocks
        return np.concatenate([self.ids[: self.kept], self.ids[self.first : self.num_blocks]])

    def fork(self, pool: BlockPool) -> Table:
        """Another table of the same blocks, each held once more."""
        other = Table(len(self.ids), self.kept)
        other.ids[:] = self.ids
        other.num_blocks, other.first = self.num_blocks, self.first
        for block in self.held.tolist():
            pool.hold(block)
        return other

    def append(self, block: int) -> None:
        """One more block at the end, which the caller holds."""
        self.ids[self.num_blocks] = block
        self.num_blocks += 1

    def begin_at(self, first: int) -> None:
        """Blocks kept .. first, of an empty table, are held by nobody."""
        self.first = max(self.kept, first)

    def take(self, pool: BlockPool, begin: int, rows: int, copies: list[tuple[int, int]]) -> bool:
        """Blocks for positions begin .. begin + rows, and a copy (from, to) of the one they begin in if it is shared.

        False if the pool has too few; what was taken stays.
        """
        size = pool.block_size
        first = begin // size
        if first < self.num_blocks and pool.shared(int(self.ids[first])):
            own = pool.take()
            if own is None:
                return False
            self._replace(pool, first, own, copies)
        while self.num_blocks * size < begin + rows:
            block = pool.take()
            if block is None:
                return False
            self.append(block)
        return True

    def own(self, pool: BlockPool, start: int, copies: list[tuple[int, int]]) -> bool:
        """Makes the blocks from `start` on this table's alone and found by nobody; False if the pool has too few."""
        for i in range(max(start, self.first), self.num_blocks):
            block = int(self.ids[i])
            if not pool.shared(block):
                pool.unfile(block)
                continue
            own = pool.take()
            if own is None:
                return False
            self._replace(pool, i, own, copies)
        return True

    def _replace(self, pool: BlockPool, index: int, own: int, copies: list[tuple[int, int]]) -> None:
        copies.append((int(self.ids[index]), own))
        pool.release(self.ids[index : index + 1])
        self.ids[index] = own

    def give_back(self, pool: BlockPool, first: int) -> None:
        """Blocks before `first`, but for those kept, are no longer needed."""
        if first > self.first:
            pool.release(self.ids[self.first : first])
            self.ids[self.first : first] = 0
            self.first = first

    def drop(self, pool: BlockPool, count: int) -> Ints:
        """Takes out `count` blocks after those kept; later ones, which are returned, move up."""
        if self.first < self.kept + count:
            pool.release(self.ids[self.first : self.kept + count])
        moved = self.ids[max(self.first, self.kept + count) : self.num_blocks].copy()
        self.ids[self.kept : self.num_blocks - count] = self.ids[self.kept + count : self.num_blocks].copy()
        self.num_blocks -= count
        self.first = max(self.kept, self.first - count)
        return moved

    def clear(self, pool: BlockPool) -> None:
        """Gives everything back."""
        pool.release(self.held)
        self.num_blocks, self.first = 0, self.kept

    def slots(self, begin: int, end: int, block_size: int) -> Ints:
        """Where K and V of positions begin .. end are stored, i32[end - begin]."""
        first = begin // block_size
        blocks = self.ids[first : -(-end // block_size)]
        offsets = np.arange(block_size, dtype=np.int32)
        slots = (blocks[:, None] * np.int32(block_size) + offsets).ravel()
        return slots[begin - first * block_size : end - first * block_size].astype(np.int32, copy=False)
