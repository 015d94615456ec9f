"""Classifier-free guidance: two contexts of one completion, the prompt's and another one to stay away from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokamak.engine.core import EngineCore
from tokamak.engine.request import StepOutput
from tokamak.engine.sequence import Sequence
from tokamak.types import Floats, Ints


@dataclass(frozen=True, slots=True)
class Guidance:
    """scale: 1 is the prompt alone, more leads away from the negative prompt i32[n], n >= 1. num_samples: of the request."""

    scale: float
    negative: Ints
    num_samples: int = 1

    def num_blocks(self, prompt: int, max_new: int, block_size: int) -> int:
        """See `Group`."""
        both = -(-(prompt + max_new) // block_size) - (-(len(self.negative) + max_new) // block_size)
        return both * self.num_samples

    def begin(self, first: Sequence, block_size: int) -> list[Sequence]:
        """See `Group`."""
        other = Sequence(first.request, block_size, prompt=self.negative, index=-1)
        first.partner, other.partner = other, first
        return [first, other]

    def advance(self, core: EngineCore, sequences: list[Sequence]) -> list[StepOutput]:
        """See `Group`."""
        mains = [s for s in sequences if s.index >= 0]
        logits = [self._guided(s) for s in mains]
        request = mains[0].request
        if mains[0].num_new == 0:
            if request.max_new == 0:
                return core.finish_reading(mains[0])
            mains += self._fork(core, mains[0])
            logits *= len(mains)
        for sequence in sequences:
            sequence.pending = None
        outputs = []
        for main, row in zip(mains, logits, strict=True):
            output = core.next_token(main, row)
            if output.finish_reason is None and main.partner is not None and output.token_id is not None:
                main.partner.append(output.token_id)
            outputs.append(output)
        return outputs

    def _fork(self, core: EngineCore, main: Sequence) -> list[Sequence]:
        """The other samples, each with its two contexts."""
        forks = []
        for index in range(1, self.num_samples):
            fork = core.fork(main, index)
            if main.partner is not None:
                fork.partner = core.fork(main.partner, -1)
                fork.partner.partner = fork
            forks.append(fork)
        return forks

    def _guided(self, main: Sequence) -> Floats:
        """u + s (c - u) of the log-probabilities of both contexts, f32[V].  Source: Sanchez et al. 2023."""
        if main.pending is None or main.partner is None or main.partner.pending is None:
            raise AssertionError("guidance advances when both contexts have their logits")
        wanted, other = _log_softmax(main.pending), _log_softmax(main.partner.pending)
        guided: Floats = (other + self.scale * (wanted - other)).astype(np.float32)
        return guided


def _log_softmax(logits: Floats) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide -= wide.max()
    scores: np.ndarray = wide - np.log(np.exp(wide).sum())
    return scores
