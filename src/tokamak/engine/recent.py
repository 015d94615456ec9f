"""The pool of blocks of layers that keep the latest part of a text only: sliding windows, chunks, recurrent states.

Its blocks are filed under the chain of the whole text's block, so a prefix is found where both pools have what its next row
reads. Where every layer is of this kind the blocks of whole texts cost no memory: they only say which prefixes there are.
"""

from __future__ import annotations

import numpy as np

from tokamak.engine.blocks import BlockPool
from tokamak.engine.tables import Table
from tokamak.types import Reach

NO_TOKENS = np.zeros(0, dtype=np.int32)  # a chain says all about what is filed under it


class RecentPool(BlockPool):
    """See above. reach: how far back the layers look."""

    def __init__(
        self, num_blocks: int, block_size: int, reach: Reach, *, max_unheld: int | None = None
    ) -> None:
        super().__init__(num_blocks, block_size, max_unheld=max_unheld)
        self.reach = reach
        self.held_blocks = reach.num_blocks(block_size)  # by a sequence between steps, at most
        self.most_rows = max(1, (num_blocks - self.held_blocks) * block_size)  # of one sequence's step

    def first_block(self, position: int) -> int:
        """The first block that a row at `position` reads."""
        return self.reach.first(position) // self.block_size

    def needed(self, tokens: int, kept: int = 0) -> int:
        """Blocks that a sequence of so many tokens holds, at most, when its steps are short."""
        return min(-(-tokens // self.block_size), self.held_blocks + kept)

    def file_under(self, block: int, chain: int) -> None:
        """Files a held, full block under the chain of the whole text's block."""
        self.file(block, chain, NO_TOKENS)

    def filed_under(self, chain: int) -> int | None:
        """The block filed under a chain."""
        filed = self._filed.get((chain, NO_TOKENS.tobytes()))
        return None if filed is None else filed.block

    def usable(self, chains: list[int], kept: int = 0) -> int:
        """The length, in blocks, of the longest prefix of chains after which the next row finds all that it reads.

        kept: blocks at the beginning that have to be there as well.
        """
        best = run = leading = 0
        for count, chain in enumerate(chains, 1):
            run = 0 if self.filed_under(chain) is None else run + 1
            leading += run == count
            if count - run <= self.first_block(count * self.block_size) and min(kept, count) <= leading:
                best = count
        return best


def hold_prefix(
    whole: Table, recent: Table, pool: BlockPool, latest: RecentPool | None, path: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Puts a filed prefix, (block, chain) as `walk` gives it, into two empty tables as far as both pools have it; that part of it."""
    if latest is not None:
        path = path[: latest.usable([chain for _, chain in path], recent.kept)]
        recent.begin_at(latest.first_block(len(path) * latest.block_size))
        for index, (_, chain) in enumerate(path):
            block = latest.filed_under(chain) if index < recent.kept or index >= recent.first else None
            if block is not None:
                latest.hold(block)
            recent.append(block or 0)
    for block, _ in path:
        pool.hold(block)
        whole.append(block)
    return path


def recent_blocks(reach: Reach, block_size: int, sequences: int, rows: int) -> int:
    """Blocks with which that many sequences, and a step of so many rows, never lack any."""
    return sequences * (reach.num_blocks(block_size) + 1) + -(-rows // block_size)
