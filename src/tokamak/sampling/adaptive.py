"""Adaptive-p: prefers tokens whose probability is near a target, and moves the aim so that the mean comes out there.

Like mirostat it has a state and draws itself, but after the other filters. Source: llama.cpp, adaptive-p.
"""

from __future__ import annotations

import numpy as np

from tokamak.sampling.filters import Candidates, softmax
from tokamak.types import Floats

PEAK, SHARPNESS, WIDTH = 5.0, 10.0, 0.3  # logit of a token on target, how fast it falls off, in which unit


class AdaptiveP:
    """The running mean of one completion. target: in [0, 1]. decay: in [0, 0.99], weight of the past."""

    __slots__ = ("decay", "sum", "target", "weight")

    def __init__(self, target: float, decay: float) -> None:
        self.target, self.decay = target, decay
        self.sum, self.weight = (
            target / (1.0 - decay),
            1.0 / (1.0 - decay),
        )  # as if the past had been on target

    @property
    def aim(self) -> float:
        """The probability that is preferred now."""
        return min(1.0, max(0.0, 2.0 * self.target - self.sum / self.weight))

    def reshape(self, candidates: Candidates) -> tuple[Candidates, Floats]:
        """Candidates with logits that peak at the aim, and their p before: f32[n], for `accept`."""
        probability = softmax(candidates.logits)
        distance = np.abs(probability - np.float32(self.aim)) / np.float32(WIDTH)
        logits = np.float32(PEAK) - np.float32(SHARPNESS) * distance * distance / (1 + distance)
        logits[candidates.logits == -np.inf] = -np.inf  # what is banned stays banned
        return Candidates(candidates.ids, logits), probability

    def accept(self, probability: float) -> None:
        """After a draw: the probability the token had before reshaping."""
        self.sum = probability + self.decay * self.sum
        self.weight = 1.0 + self.decay * self.weight
