"""The infill stage: in the middle of a text the question is whether to end, and otherwise which beginning is the likeliest.

Stands after filters that leave few candidates.  Source: llama.cpp, sampler infill.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from tokamak.sampling.filters import Candidates, ordered, softmax, top_k

MOST = 4096  # candidates that are compared with each other
LIKELY = 0.2  # probability from which a text token stays


def infill(candidates: Candidates, pieces: Sequence[bytes], ends: Collection[int]) -> Candidates:
    """Only tokens that end, if 3 * p_end * n > p_text; else tokens with a common prefix count as their likeliest, and likely ones stay.

    pieces: bytes of each token id. ends: ids that end a text, not empty. Where no text token is likely, one that ends is left.
    """
    candidates = ordered(top_k(candidates, MOST))
    probability = softmax(candidates.logits).astype(np.float64)
    is_end = np.isin(candidates.ids, list(ends))
    if 3.0 * probability[is_end].sum() * len(candidates) > probability[~is_end].sum():
        return candidates.keep(is_end)
    probability = _merged(candidates, probability, pieces)
    keep = (probability >= LIKELY) | (is_end & (probability > 0.0))
    if not (keep & ~is_end).any():
        return Candidates(np.array([min(ends)], dtype=np.int32), np.ones(1, dtype=np.float32), ordered=True)
    share = probability / probability[keep].sum()
    border = 1.0 / (np.count_nonzero(keep & ~is_end) + 1)
    return candidates.keep(keep & (is_end | (share >= border)))


def _merged(candidates: Candidates, probability: np.ndarray, pieces: Sequence[bytes]) -> np.ndarray:
    """Probabilities after each token that is a prefix of another has gone into the likelier of the two, or it into that one."""
    texts = [pieces[i] for i in candidates.ids.tolist()]
    alike: dict[int, list[int]] = {}
    for i, text in enumerate(texts):
        if text and np.isfinite(candidates.logits[i]):
            alike.setdefault(text[0], []).append(i)
    merged = probability.tolist()
    gone: set[int] = set()
    for i in range(len(texts)):
        for j in alike.get(texts[i][0], ()) if texts[i] else ():
            if i == j or i in gone or j in gone or not texts[j].startswith(texts[i]):
                continue
            into, out = (j, i) if merged[j] > merged[i] else (i, j)
            merged[into] += merged[out]
            merged[out] = 0.0
            gone.add(out)
    return np.array(merged)
