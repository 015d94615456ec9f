"""Context shift: where a context is full, the oldest tokens after the first few make room, and the others move up.

Asked for by name only (`context_shift=True`): the keys of what stays are turned to their new positions, but they were made in sight
of what is gone. Such blocks are never found as a prefix, and such a sequence never gives its blocks back before its end.
The first tokens stay because attention needs them as sinks. Source: Xiao et al. 2023, "Efficient streaming language models".
"""

from __future__ import annotations

from tokamak.engine.blocks import BlockPool
from tokamak.engine.sequence import Sequence
from tokamak.engine.tables import Table
from tokamak.errors import CapacityError
from tokamak.types import Program


def make_room(sequence: Sequence, pool: BlockPool, recent: BlockPool | None, program: Program) -> int:
    """Drop half of the blocks after those of `keep`; the number of tokens dropped. recent: a pool beside, if there is one.

    Raises: CapacityError if nothing is left to drop; UnsupportedError if the program's positions cannot move.
    """
    size, kept = pool.block_size, sequence.whole.kept
    movable = sequence.num_computed // size - kept
    if movable < 1:
        raise CapacityError(
            f"the context of {sequence.request.context} tokens is full and all but {movable * size} of it are to be kept; "
            "keep fewer"
        )
    count = max(1, movable // 2)
    for table, home, latest in ((sequence.whole, pool, False), (sequence.recent, recent, True)):
        if home is not None:
            _shift(table, home, program, count, recent=latest)
    sequence.drop(kept * size, (kept + count) * size)
    sequence.shifted = True
    return count * size


def _shift(table: Table, pool: BlockPool, program: Program, count: int, *, recent: bool) -> None:
    """Takes `count` blocks after those kept out of a table and turns the keys of the later ones."""
    copies: list[tuple[int, int]] = []
    if not table.own(pool, table.kept + count, copies):
        raise CapacityError("no cache block is free for a context shift; load with a larger cache")
    if copies:
        program.copy_blocks(copies, recent=recent)
    moved = table.drop(pool, count)
    program.shift_blocks(moved.tolist(), -count * pool.block_size, recent=recent)
