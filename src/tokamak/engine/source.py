"""A text that the sequences of a request attend to besides their own, as those of encoder-decoder models do.

It is read once, whole, in the step of the first of them that runs; its keys and values lie in blocks of its own, which the
last sequence gives back.
"""

from __future__ import annotations

import hashlib

import numpy as np

from tokamak.engine.blocks import BlockPool
from tokamak.types import Ints


class Source:
    """token_ids: i32[n], n >= 1. Belongs to one request and is shared by all its sequences."""

    __slots__ = ("holders", "is_read", "table", "token_ids")

    def __init__(self, token_ids: Ints) -> None:
        self.token_ids = token_ids
        self.table = np.zeros(0, dtype=np.int32)  # its blocks, while there are holders
        self.holders = 0  # sequences that run
        self.is_read = False

    def num_blocks(self, block_size: int) -> int:
        """Blocks that it takes."""
        return -(-len(self.token_ids) // block_size)

    def hold(self, pool: BlockPool) -> bool:
        """One more sequence runs; the first takes the blocks. False, and nothing taken, if there are too few."""
        if not self.holders:
            wanted = self.num_blocks(pool.block_size)
            if wanted > pool.num_available:
                return False
            self.table = np.array([pool.take() for _ in range(wanted)], dtype=np.int32)
        self.holders += 1
        return True

    def release(self, pool: BlockPool) -> None:
        """One sequence fewer; the last gives the blocks back."""
        self.holders -= 1
        if not self.holders:
            pool.release(self.table)
            self.table, self.is_read = self.table[:0], False

    def salt(self) -> str:
        """What keeps prefixes of completions of different texts apart."""
        return hashlib.sha256(self.token_ids.tobytes()).hexdigest()
