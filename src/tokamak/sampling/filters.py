"""Filters: each takes the candidates that are left and returns fewer, or the same with other logits.

Plain NumPy, the definition first: what is called p below is the softmax over the candidates left. Nothing
here draws a number; coins come in as arguments. No filter sorts the vocabulary to find a few large entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tokamak.types import Floats, Ints

BLOCK = 256  # entries per block maximum when looking for the k largest of a vocabulary
LARGEST = float(np.finfo(np.float32).max)
FIRST_TRY = 256  # candidates looked at first by top-p before it takes more


@dataclass(frozen=True, slots=True)
class Candidates:
    """Tokens that may still be drawn.

    Either `ordered`, by logit from the highest with ties by id, or in rising order of ids.
    """

    ids: Ints  # i32[n]
    logits: Floats  # f32[n]
    ordered: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def keep(self, mask: NDArray[np.bool_]) -> Candidates:
        """Those where mask bool[n] holds, in the same order."""
        return self if mask.all() else Candidates(self.ids[mask], self.logits[mask], self.ordered)

    def first(self, n: int) -> Candidates:
        """The first n in the present order."""
        return self if n >= len(self) else Candidates(self.ids[:n], self.logits[:n], self.ordered)


@lru_cache(maxsize=8)
def _identity(vocab_size: int) -> Ints:
    ids = np.arange(vocab_size, dtype=np.int32)
    ids.flags.writeable = False
    return ids


def everything(logits: Floats) -> Candidates:
    """All tokens of logits f32[V]. Banned ones (-inf) stay and count in n, but have p = 0 and are never drawn."""
    return Candidates(_identity(len(logits)), logits)


def softmax(logits: Floats) -> Floats:
    """p f32[n] of logits f32[n]; summed in float64, so the order of candidates does not matter to 1e-7."""
    exponentials = np.exp(logits - logits.max())
    shares: Floats = exponentials / np.float32(exponentials.sum(dtype=np.float64))
    return shares


def ordered(candidates: Candidates) -> Candidates:
    """By logit, highest first, ties by id."""
    if candidates.ordered:
        return candidates
    order = np.argsort(-candidates.logits, kind="stable")  # ids rise, so a stable sort breaks ties by id
    return Candidates(candidates.ids[order], candidates.logits[order], ordered=True)


def top_k(candidates: Candidates, k: int) -> Candidates:
    """The k largest, ordered; k <= 0 keeps all. Exactly k are left, ties at the border go to the lower id.

    The k-th largest of the maxima of blocks is no larger than the k-th largest entry, so entries below it
    are out after one pass; the few left are sorted.
    """
    n = len(candidates)
    if k <= 0 or k >= n:
        return candidates
    if candidates.ordered:
        return candidates.first(k)
    if n >= 4 * BLOCK and k <= n // BLOCK:
        whole = n - n % BLOCK
        maxima = candidates.logits[:whole].reshape(-1, BLOCK).max(axis=1)
        border = np.partition(maxima, len(maxima) - k)[len(maxima) - k]
        candidates = candidates.keep(candidates.logits >= border)
    elif n > 4 * k:
        border = np.partition(candidates.logits, n - k)[n - k]
        candidates = candidates.keep(candidates.logits >= border)
    return ordered(candidates).first(k)


def top_p(candidates: Candidates, p: float, min_keep: int = 1) -> Candidates:
    """The smallest ordered prefix whose probability reaches p, at least min_keep; p >= 1 keeps all.

    Source: Holtzman et al. 2020, section 3.1.
    """
    if p >= 1.0:
        return candidates
    n = len(candidates)
    top = candidates.logits.max()
    total = np.exp(candidates.logits - top).sum(dtype=np.float64)
    look = min(n, max(FIRST_TRY, min_keep))
    while True:
        head = ordered(candidates) if look == n else top_k(candidates, look)
        reached = np.cumsum(np.exp(head.logits - top), dtype=np.float64)
        if look == n or reached[-1] >= p * total:
            # float32 as the reference engine sums, so that p exactly at a border falls on the same side
            count = int(np.searchsorted(reached, p * total)) + 1
            return head.first(max(count, min_keep, 1))
        look = min(n, 8 * look)


def min_p(candidates: Candidates, p: float, min_keep: int = 1) -> Candidates:
    """Keep p_i >= p * max p, at least min_keep; p <= 0 keeps all.  Source: Nguyen et al. 2024."""
    if p <= 0.0:
        return candidates
    mask = candidates.logits >= np.float32(candidates.logits.max() + np.log(p))
    if np.count_nonzero(mask) < min_keep:
        return top_k(candidates, min_keep)
    return candidates.keep(mask)


def typical(candidates: Candidates, p: float, min_keep: int = 1) -> Candidates:
    """Sorted by how far -ln p_i is from the entropy, the smallest prefix with sum >= p; p >= 1 keeps all.

    Source: Meister et al. 2022.
    """
    if p >= 1.0:
        return candidates
    below = candidates.logits - candidates.logits.max()  # ln p and a constant
    weight = np.exp(below).astype(np.float64)
    allowed = weight > 0.0
    mean = (weight[allowed] * below[allowed]).sum() / weight.sum()
    order = np.argsort(np.abs(below - np.float32(mean)), kind="stable")
    count = int(np.searchsorted(np.cumsum(weight[order]), p * weight.sum())) + 1
    mask = np.zeros(len(candidates), dtype=bool)
    mask[order[: max(count, min_keep, 1)]] = True
    return candidates.keep(mask)


def tail_free(candidates: Candidates, z: float, min_keep: int = 1) -> Candidates:
    """Cut where the second derivative of the ordered probabilities has spent a share z; z >= 1 keeps all.

    d1_i = p_i - p_(i+1); d2 = |diff d1| / sum; the cut is at the first index > 0 whose running sum exceeds z.
    Source: Phillips 2019.
    """
    if z >= 1.0 or len(candidates) <= 2:
        return candidates
    candidates = ordered(candidates)
    probability = softmax(candidates.logits).astype(np.float64)
    second = np.abs(np.diff(probability, n=2))
    total = second.sum()
    second = second / total if total > 1e-6 else np.full(len(second), 1.0 / len(second))
    beyond = np.flatnonzero(np.cumsum(second)[1:] > z)
    count = int(beyond[0]) + 1 if len(beyond) else len(candidates)
    return candidates.first(max(count, min_keep, 1))


def eta_cutoff(candidates: Candidates, epsilon: float, min_keep: int = 1) -> Candidates:
    """Keep p_i >= min(epsilon, sqrt(epsilon) * exp(-H)); epsilon <= 0 keeps all.  Source: Hewitt et al. 2022."""
    if epsilon <= 0.0:
        return candidates
    probability = softmax(candidates.logits).astype(np.float64)
    entropy = -(probability * np.log(np.maximum(probability, 1e-300))).sum()
    mask = probability >= min(epsilon, float(np.sqrt(epsilon) * np.exp(-entropy)))
    if np.count_nonzero(mask) < min_keep:
        return top_k(candidates, max(min_keep, 1))
    return candidates.keep(mask)


def top_n_sigma(candidates: Candidates, n: float) -> Candidates:
    """Keep l >= max l - n * std(l); n <= 0 keeps all.  Source: Tang et al. 2024."""
    if n <= 0.0 or len(candidates) <= 1:
        return candidates
    allowed = candidates.logits[candidates.logits > -np.inf]
    border = candidates.logits.max() - n * allowed.std(dtype=np.float64)
    return candidates.keep(candidates.logits >= border)


def xtc(candidates: Candidates, threshold: float, min_keep: int = 1) -> Candidates:
    """Drop every token with p >= threshold but the least likely of them, if there are two or more.

    threshold: off above 0.5, where two cannot exist. Whether it is applied at all is the caller's coin.
    """
    if threshold > 0.5 or len(candidates) < 2:
        return candidates
    candidates = ordered(candidates)
    probability = softmax(candidates.logits)
    num_above = int(np.count_nonzero((probability >= threshold) & (probability > 0.0)))
    if num_above < 2 or len(candidates) - (num_above - 1) < min_keep:
        return candidates
    return Candidates(candidates.ids[num_above - 1 :], candidates.logits[num_above - 1 :], ordered=True)


def temperature(candidates: Candidates, t: float) -> Candidates:
    """l / t; t <= 0, or so small that the largest is then no number, leaves that alone, the lowest id on ties."""
    if t <= 0.0 or not abs(float(candidates.logits.max())) <= t * LARGEST:
        best = int(np.argmax(candidates.logits))
        return Candidates(candidates.ids[best : best + 1], candidates.logits[best : best + 1], ordered=True)
    if t == 1.0:
        return candidates
    return Candidates(candidates.ids, candidates.logits / np.float32(t), candidates.ordered)


def dynamic_temperature(candidates: Candidates, t: float, delta: float, exponent: float) -> Candidates:
    """Temperature max(0, t - delta) + 2 delta (H / ln n)^exponent: confident distributions get less.

    delta <= 0 is plain temperature.
    """
    if delta <= 0.0:
        return temperature(candidates, t)
    n = len(candidates)
    if n <= 1:
        return candidates
    low, high = max(0.0, t - delta), t + delta
    probability = softmax(candidates.logits).astype(np.float64)
    entropy = -(probability * np.log(np.maximum(probability, 1e-300))).sum()
    dynamic = low + (high - low) * float(entropy / np.log(n)) ** exponent
    return temperature(candidates, dynamic)
