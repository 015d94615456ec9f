"""Context shift: where a context is full, the oldest tokens after the first few make room, and the others move up.

Asked for by name only (`context_shift=True`): the keys of what stays are turned to their new positions, but they were made in sight
of what is gone. Such blocks are never found as a prefix, and such a sequence never gives its blocks back before its end.
The first tokens stay because attention needs them as sinks. Source: Xiao et al. 2023, "Efficient streaming language models".
"""

from __future__ import annotations

from tokamak.engine.blocks import BlockPool
from tokamak.engine.sequence import Sequence
from tokamak.errors import CapacityError
from tokamak.types import Program


def make_room(sequence: Sequence, pool: BlockPool, program: Program) -> int:
    """Drop half of the blocks after those of `keep`; the number of tokens dropped.

    Raises: CapacityError if nothing is left to drop; UnsupportedError if the program's positions cannot move.
    """
    size = pool.block_size
    kept = -(-sequence.request.keep // size)
    movable = sequence.num_computed // size - kept
    if movable < 1:
        raise CapacityError(
            f"the context of {sequence.request.context} tokens is full and all but {movable * size} of it are to be kept; "
            "keep fewer"
        )
    count = max(1, movable // 2)
    copies = _own(sequence, pool, kept + count)
    if copies:
        program.copy_blocks(copies)
    moved = sequence.blocks[kept + count :].copy()
    program.shift_blocks(moved.tolist(), -count * size)
    pool.release(sequence.blocks[kept : kept + count])
    sequence.table[kept : kept + len(moved)] = moved
    sequence.num_blocks -= count
    sequence.drop(kept * size, (kept + count) * size)
    sequence.shifted = True
    return count * size


def _own(sequence: Sequence, pool: BlockPool, start: int) -> list[tuple[int, int]]:
    """Makes the blocks from `start` on the sequence's alone; (source, destination) of those to copy."""
    copies = []
    for i in range(start, sequence.num_blocks):
        block = int(sequence.table[i])
        if not pool.shared(block):
            pool.unfile(block)
            continue
        own = pool.take()
        if own is None:
            raise CapacityError("no cache block is free for a context shift; load with a larger cache")
        copies.append((block, own))
        pool.release(sequence.table[i : i + 1])
        sequence.table[i] = own
    return copies
