"""Token healing: the end of a prompt is taken back, and the next tokens have to spell it again, with whatever they add.

A prompt that ends inside what the tokenizer would have made one token ("http:" before "//") puts the model where no text of its
training ever was. Works on bytes. Source: Lundberg 2023, "The art of prompt design: prompt boundaries and token healing".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tokamak.types import Floats

MOST = 4  # tokens that are taken back at most


class Healing:
    """What one completion still has to spell. pieces: bytes of each token id, b"" for one that spells nothing."""

    __slots__ = ("_pieces", "left")

    def __init__(self, pieces: Sequence[bytes], prefix: bytes) -> None:
        self._pieces, self.left = pieces, prefix

    def fork(self) -> Healing:
        """The same for another completion."""
        return Healing(self._pieces, self.left)

    def allowed(self) -> list[int]:
        """Ids that spell what is left, or the beginning of it."""
        left = self.left
        return [i for i, p in enumerate(self._pieces) if p and (p.startswith(left) or left.startswith(p))]

    def mask(self, logits: Floats) -> None:
        """-inf, in place on f32[V], for every other token while something is left."""
        if self.left:
            kept = self.allowed()
            values = logits[kept]
            logits.fill(-np.inf)
            logits[kept] = values

    def accept(self, token_id: int) -> None:
        """After a draw."""
        if self.left:
            self.left = self.left[len(self._pieces[token_id]) :]


def taken_back(prompt: Sequence[int], pieces: Sequence[bytes]) -> int:
    """How many tokens at the end of a prompt to take back, at least one token staying; 0 if no token goes on from there.

    The most, up to MOST, whose bytes together begin a longer token; what is taken back is whole characters.
    """
    best, suffix = 0, b""
    for count in range(1, min(MOST, len(prompt) - 1) + 1):
        piece = pieces[prompt[-count]]
        if not piece:
            break  # a token without text: a turn or the start begins here
        suffix = piece + suffix
        whole = suffix[0] & 0xC0 != 0x80
        if whole and any(len(p) > len(suffix) and p.startswith(suffix) for p in pieces):
            best = count
    return best
