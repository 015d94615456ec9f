"""Distances between tokens in buckets that widen with the distance, as relative positions are learned."""

from __future__ import annotations

import math

import numpy as np


def buckets(count: int, reach: int, *, causal: bool) -> tuple[int, ...]:
    """Bucket of each distance j - i from -reach to reach, of `count` buckets.

    Half of those of one side hold one distance each, the rest grow as its logarithm up to reach. Where causal, later keys
    have none of their own, else the second half of all buckets is theirs.  Source: Raffel et al. 2020, in float32.
    """
    side = count if causal else count // 2
    exact = side // 2
    found = []
    for distance in range(-reach, reach + 1):
        n = max(0, -distance) if causal else abs(distance)
        if n >= exact:
            grown = np.log(np.float32(n) / np.float32(exact)) / np.float32(math.log(reach / exact))
            n = min(side - 1, exact + int(grown * np.float32(side - exact)))
        found.append(n + (side if distance > 0 and not causal else 0))
    return tuple(found)
