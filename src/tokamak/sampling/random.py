"""Random numbers that are a function, not a state: the same place in a completion always draws the same number.

The generator is counter based. One word of 64 bits is made from (seed, sample index, position, stream) by
the finaliser of SplitMix64, a bijection of 64-bit words that passes the usual test batteries; its upper 53
bits are the mantissa of a float in [0, 1). Nothing depends on threads, batches or what was drawn before.
"""

from __future__ import annotations

import secrets

MASK64 = 0xFFFFFFFFFFFFFFFF
GOLDEN_GAMMA = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: SplitMix64's increment

DRAW, XTC = 0, 1  # streams: independent numbers at the same position


def mix64(word: int) -> int:
    """The finaliser of SplitMix64.  Source: Steele, Lea, Flood 2014, section 5; variant 13 of Stafford."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK64
    return word ^ (word >> 31)


def uniform(seed: int, index: int, position: int, stream: int = DRAW) -> float:
    """A float in [0, 1) for this place.

    seed: 64 bits. index: number of the sample of a request (n > 1). position: tokens before the one drawn.
    stream: DRAW picks the token, others serve samplers that need a coin of their own.
    """
    word = mix64((seed + GOLDEN_GAMMA) & MASK64)
    word = mix64((word + (index + 1) * GOLDEN_GAMMA) & MASK64)
    word = mix64((word + (position + 1) * GOLDEN_GAMMA) & MASK64)
    word = mix64((word + (stream + 1) * GOLDEN_GAMMA) & MASK64)
    return (word >> 11) * 2.0**-53


def fresh_seed() -> int:
    """A seed from the system's entropy, 63 bits so that every JSON reader and C long can hold it."""
    return secrets.randbits(63)
