"""The pool of K/V cache blocks: who holds which, and which finished ones may be used again as a prefix.

Knows numbers of blocks, not their contents: the program owns the memory. A full block is filed under its
parent block and its token ids, so a hit is an equality of contents, never of hashes. Blocks that nobody holds
stay filed until they are needed or are more than the limit; the least recently used go first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from tokamak.types import Ints

Chain = int | str
"""Names a prefix: the number given when its last block was filed, or the salt at the root."""


@dataclass(slots=True)
class PoolCounts:
    """What happened since the pool was made."""

    queried_tokens: int = 0
    hit_tokens: int = 0
    evicted_blocks: int = 0


@dataclass(frozen=True, slots=True)
class _Filed:
    block: int
    chain: int  # never given out twice, so children of an evicted block can never be found under another


class BlockPool:
    """Reference counts, free blocks and filed prefixes of num_blocks blocks of block_size positions.

    max_unheld: filed blocks kept although nobody holds them; 0 turns prefix reuse between requests off.
    """

    def __init__(self, num_blocks: int, block_size: int, *, max_unheld: int | None = None) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self.max_unheld = num_blocks if max_unheld is None else max_unheld
        self.counts = PoolCounts()
        self._free = list(range(num_blocks - 1, -1, -1))
        self._holders = [0] * num_blocks
        self._unheld: OrderedDict[int, None] = (
            OrderedDict()
        )  # filed, held by nobody, least recently used first
        self._filed: dict[tuple[Chain, bytes], _Filed] = {}
        self._key_of: dict[int, tuple[Chain, bytes]] = {}
        self._chains = 0

    @property
    def num_available(self) -> int:
        """Blocks that `take` can still give."""
        return len(self._free) + len(self._unheld)

    @property
    def num_held(self) -> int:
        """Blocks that some sequence holds."""
        return self.num_blocks - self.num_available

    @property
    def num_unheld(self) -> int:
        """Blocks kept only because their prefix may come again."""
        return len(self._unheld)

    def take(self) -> int | None:
        """A block for one holder, None if every block is held. Takes the least recently used prefix if it must."""
        if self._free:
            block = self._free.pop()
        elif self._unheld:
            block, _ = self._unheld.popitem(last=False)
            self._forget(block)
        else:
            return None
        self._holders[block] = 1
        return block

    def hold(self, block: int) -> None:
        """One more holder of a block that is held or filed."""
        if self._holders[block] == 0:
            del self._unheld[block]
        self._holders[block] += 1

    def shared(self, block: int) -> bool:
        """Whether writing to it would change what another holder reads."""
        return self._holders[block] > 1

    def release(self, blocks: Ints) -> None:
        """One holder fewer of each of blocks i32[n], which are consecutive blocks of one sequence.

        Last first, so that the end of a prefix is reclaimed before its beginning.
        """
        for block in reversed(blocks.tolist()):
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if block in self._key_of:
                self._unheld[block] = None
            else:
                self._free.append(block)
        while len(self._unheld) > self.max_unheld:
            block, _ = self._unheld.popitem(last=False)
            self._forget(block)
            self._free.append(block)

    def find(self, tokens: Ints, salt: str = "") -> tuple[list[int], Chain]:
        """The blocks of the longest filed prefix of tokens i32[n], each held once more, and its chain.

        salt: prefixes are only found under the salt they were filed with.
        """
        path = self.walk(tokens, salt)
        for block, _ in path:
            self.hold(block)
        self.count(len(tokens), len(path) * self.block_size)
        return [block for block, _ in path], path[-1][1] if path else salt

    def walk(self, tokens: Ints, salt: str = "") -> list[tuple[int, int]]:
        """(block, chain) of each block of the longest filed prefix, none of them held by that."""
        chain: Chain = salt
        path: list[tuple[int, int]] = []
        size = self.block_size
        for start in range(0, len(tokens) - size + 1, size):
            filed = self._filed.get((chain, tokens[start : start + size].tobytes()))
            if filed is None:
                break
            path.append((filed.block, filed.chain))
            chain = filed.chain
        return path

    def count(self, queried_tokens: int, hit_tokens: int) -> None:
        """Notes that a prefix was looked for, and how much of it was used."""
        self.counts.queried_tokens += queried_tokens
        self.counts.hit_tokens += hit_tokens

    def file(self, block: int, parent: Chain, tokens: Ints) -> int:
        """Files a held, full block under its parent; tokens: i32[block_size]. Returns its chain.

        If the same prefix is filed already, that one stays and its chain is returned.
        """
        key = (parent, tokens.tobytes())
        filed = self._filed.get(key)
        if filed is None:
            self._chains += 1
            filed = self._filed[key] = _Filed(block, self._chains)
            self._key_of[block] = key
        return filed.chain

    def unfile(self, block: int) -> None:
        """Its contents will change: no request may find it any more. Nothing if it is not filed."""
        if block in self._key_of:
            self._forget(block)

    def clear(self) -> None:
        """Forgets every prefix; blocks held stay held."""
        for block in list(self._key_of):
            self._forget(block)
        self._free.extend(self._unheld)
        self._unheld.clear()

    def _forget(self, block: int) -> None:
        del self._filed[self._key_of.pop(block)]
        self.counts.evicted_blocks += 1
