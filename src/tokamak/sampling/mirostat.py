"""Mirostat: keeps the surprise of the text near a target by moving the cut after every token.

Logarithms are to base 2: tau is in bits. Source: Basu et al. 2021, algorithm 1 and its second version.
"""

from __future__ import annotations

import math

import numpy as np

from tokamak.sampling.filters import Candidates, ordered, softmax, top_k

M = 100  # candidates from which the exponent of Zipf's law is estimated


class Mirostat:
    """The state mu of one completion; starts at 2 tau."""

    __slots__ = ("eta", "mu", "tau", "version")

    def __init__(self, version: int, tau: float, eta: float) -> None:
        self.version, self.tau, self.eta = version, tau, eta
        self.mu = 2.0 * tau

    @property
    def aim(self) -> float:
        """What the cut goes by: mu."""
        return self.mu

    def cut(self, candidates: Candidates, vocab_size: int) -> Candidates:
        """The candidates that mu leaves, ordered."""
        candidates = ordered(candidates)
        probability = softmax(candidates.logits).astype(np.float64)
        if self.version == 1:
            return top_k(candidates, self._zipf_k(probability, vocab_size))
        with np.errstate(divide="ignore"):
            surprise = -np.log2(probability)
        return candidates.first(max(1, int(np.searchsorted(surprise, self.mu, side="right"))))

    def _zipf_k(self, probability: np.ndarray, vocab_size: int) -> int:
        """k = ((e 2^mu) / (1 - N^-e))^(1 / s) with e = s - 1 and s the slope of ln p over ln rank."""
        top = probability[:M]
        top = top[top > 0.0]
        if len(top) < 2:
            return 1
        rank = np.arange(len(top) - 1, dtype=np.float64)
        t = np.log((rank + 2.0) / (rank + 1.0))
        b = np.log(top[:-1] / top[1:])
        s = float((t * b).sum() / (t * t).sum())
        e = s - 1.0
        try:
            k = ((e * 2.0**self.mu) / (1.0 - vocab_size**-e)) ** (1.0 / s)
        except (ZeroDivisionError, OverflowError):
            return 1
        if isinstance(k, complex) or not 1.0 <= k < 2.0**31:  # llama.cpp's int(k) wraps there, and keeps one
            return 1
        return int(k)

    def accept(self, probability: float) -> None:
        """After a draw: probability is that of the token drawn, among the candidates left."""
        self.mu -= self.eta * (-math.log2(probability) - self.tau)
