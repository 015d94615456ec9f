"""Penalties: change the logits of tokens that the recent text already holds. In place on f32[V].

The window is the last tokens of prompt and completion together, as llama.cpp counts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tokamak import _native
from tokamak.types import Floats, Ints

LARGEST = 3.4e38  # about the largest float32
LARGEST_EXPONENT = 88.72  # ln of the largest float32: beyond it base^n overflows there


def window(history: Ints, last_n: int) -> Ints:
    """The last last_n entries of history i32[n]; -1 is all of it, 0 none."""
    if last_n < 0:
        return history
    return history[max(0, len(history) - last_n) :]


def penalize(logits: Floats, recent: Ints, repetition: float, presence: float, frequency: float) -> None:
    """Per distinct token of recent, with its count c: l = l / r if l > 0 else l * r; l -= frequency * c + presence.

    Source: Keskar et al. 2019, section 4.1 (repetition, once per token); OpenAI API reference (the others).
    """
    if len(recent) == 0:
        return
    tokens, counts = np.unique(recent, return_counts=True)
    chosen = logits[tokens]
    if repetition != 1.0:
        ratio = np.float32(repetition)
        chosen = np.where(chosen > 0, chosen / ratio, chosen * ratio)
    logits[tokens] = chosen - (counts.astype(np.float32) * np.float32(frequency) + np.float32(presence))


def add_bias(logits: Floats, bias_ids: Ints, bias: Floats) -> None:
    """l += bias for the tokens bias_ids i32[m], each once; -inf bans."""
    logits[bias_ids] += bias


class Breakers:
    """Token sequences that end a repetition for DRY: first token -> the tails that must follow it."""

    __slots__ = ("_heads", "_tails")

    def __init__(self, sequences: Sequence[Sequence[int]] = ()) -> None:
        tails: dict[int, list[tuple[int, ...]]] = {}
        for head, *tail in sequences:
            tails.setdefault(head, []).append(tuple(tail))
        self._tails: Mapping[int, list[tuple[int, ...]]] = tails
        self._heads = np.array(sorted(tails), dtype=np.int32)

    def longest_at(self, tokens: Ints, i: int) -> int:
        """Tokens after i that the longest breaker starting at tokens[i] covers, -1 if none starts there."""
        longest = -1
        for tail in self._tails.get(int(tokens[i]), ()):
            if len(tail) > longest and tuple(tokens[i + 1 : i + 1 + len(tail)].tolist()) == tail:
                longest = len(tail)
        return longest

    def before(self, recent: Ints) -> int:
        """Tokens of recent i32[n] behind the last breaker, which bound how long a match may be; n without one."""
        n = len(recent)
        for i in map(int, np.flatnonzero(np.isin(recent, self._heads))[::-1]):
            covered = self.longest_at(recent, i)
            if covered >= 0:
                return n - 1 - i - covered
        return n


def suffix_matches(tokens: Sequence[int], limit: int) -> list[int]:
    """For each i, how many tokens ending at i equal those ending at the end of tokens, at most limit.

    The Z-algorithm on the reversed sequence, O(n): z[i] of the reversed text is the length of its common
    prefix with the reversed text from i.
    """
    backwards = tokens[::-1]
    n = len(backwards)
    z = [0] * n
    left = right = 0
    for i in range(1, n):
        length = min(z[i - left], right - i) if i < right else 0
        while i + length < n and backwards[length] == backwards[i + length]:
            length += 1
        z[i] = length
        if i + length > right:
            left, right = i, i + length
    return [min(length, limit) for length in z[::-1]]


def dry(
    logits: Floats, recent: Ints, multiplier: float, base: float, allowed_length: int, breakers: Breakers
) -> None:
    """l -= multiplier * base^(r - allowed_length) for each token that would continue a repetition of length r.

    r: the longest suffix of recent (cut after the last breaker) that occurs earlier, followed by the token;
    only r >= allowed_length counts. The exponent is capped where float32 overflows.  Source: p-e-w 2024, DRY.
    """
    n = len(recent)
    if n <= allowed_length or multiplier == 0.0 or base < 1.0:
        return
    limit = breakers.before(recent)
    if limit < allowed_length:
        return
    matches = _native.suffix_matches(recent, limit)[:-1]
    repeats = np.flatnonzero(matches >= max(allowed_length, 1))
    longest: dict[int, int] = {}
    for token, length in zip(recent[repeats + 1].tolist(), matches[repeats].tolist(), strict=True):
        longest[token] = max(length, longest.get(token, 0))
    largest = LARGEST_EXPONENT / np.log(base) if base > 1.000001 else np.inf
    for token, length in longest.items():
        logits[token] -= np.float32(min(multiplier * base ** min(length - allowed_length, largest), LARGEST))
