"""Beam search: the most likely completions by a search of fixed width, over caches that share blocks until they part.

The rules of candidates, ends and scores are those of transformers' `generate(num_beams=...)`; outputs come at the end, best first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tokamak.engine.core import EngineCore
from tokamak.engine.request import Request, StepOutput
from tokamak.engine.sequence import Sequence
from tokamak.sampling import filters
from tokamak.types import Floats

EarlyStopping = bool | Literal["never"]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished beam. score: sum of log-probabilities / length^penalty."""

    score: float
    token_ids: tuple[int, ...]
    ended: bool  # by a token that ends, not by the length


@dataclass(frozen=True, slots=True)
class Candidate:
    """A beam and a token that may follow it. score: sum of log-probabilities."""

    score: float
    beam: int
    token_id: int


class BeamSearch:
    """The search of one request; see `Group`.

    num_beams: width. num_samples: how many of the best are given out. length_penalty: > 0 favours long ones. early_stopping: True
    ends with num_beams finished; False when no better one is likely; "never" when none is possible.
    """

    def __init__(
        self, num_beams: int, num_samples: int, length_penalty: float, early_stopping: EarlyStopping
    ) -> None:
        self.num_beams, self.num_samples = num_beams, num_samples
        self.length_penalty, self.early_stopping = length_penalty, early_stopping
        self.finished: list[Hypothesis] = []
        self._beams: list[Sequence] = []

    def num_blocks(self, prompt: int, max_new: int, block_size: int) -> int:
        """See `Group`."""
        return prompt // block_size + self.num_beams * (-(-max_new // block_size) + 1)

    def begin(self, first: Sequence, block_size: int) -> list[Sequence]:  # noqa: ARG002  # as every group
        """See `Group`."""
        self._beams = [first]
        return [first]

    def advance(self, core: EngineCore, sequences: list[Sequence]) -> list[StepOutput]:  # noqa: ARG002  # as above
        """See `Group`."""
        request = self._beams[0].request
        if request.max_new == 0:
            return core.finish_reading(self._beams[0])
        length = self._beams[0].num_new + 1
        candidates = self._candidates(request)
        if not candidates:
            self._end_here(request)
            return self._outputs(core, request)
        ending = [c.token_id in request.stop_ids or length == request.max_new for c in candidates]
        for candidate, ends in list(zip(candidates, ending, strict=True))[: self.num_beams]:
            if ends:
                self._finish(candidate, request, length)
        going = [c for c, ends in zip(candidates, ending, strict=True) if not ends][: self.num_beams]
        if not going or self._done(going[0].score, length, request.max_new):
            return self._outputs(core, request)
        self._go_on(core, going)
        return []

    def _candidates(self, request: Request) -> list[Candidate]:
        """The best tokens over all beams, enough that num_beams of them do not end."""
        count = self.num_beams * max(2, 1 + len(request.stop_ids))
        found: list[Candidate] = []
        for i, beam in enumerate(self._beams):
            if beam.pending is None:
                raise AssertionError("beams advance when all of them have their logits")
            banned = request.stop_ids if beam.num_new < request.min_new else ()
            scores = beam.sampler.adjusted(_log_softmax(beam.pending), beam.history, banned)
            best = filters.ordered(filters.top_k(filters.everything(scores), count))
            found += [
                Candidate(beam.score + float(score), i, int(token_id))
                for token_id, score in zip(best.ids, best.logits, strict=True)
                if score > -np.inf
            ]
        return sorted(found, key=lambda c: (-c.score, c.beam, c.token_id))[:count]

    def _finish(self, candidate: Candidate, request: Request, length: int) -> None:
        beam = self._beams[candidate.beam]
        tokens = (*beam.tokens(len(request.prompt), beam.num_tokens).tolist(), candidate.token_id)
        score = candidate.score / length**self.length_penalty
        found = [*self.finished, Hypothesis(score, tokens, candidate.token_id in request.stop_ids)]
        self.finished = sorted(found, key=lambda h: -h.score)[: self.num_beams]

    def _end_here(self, request: Request) -> None:
        """Nothing may follow any beam: a constraint is met, and what ends a text is banned.  Raises: InvalidParams without one."""
        for beam in self._beams:
            beam.sampler.check_complete()
            tokens = tuple(beam.tokens(len(request.prompt), beam.num_tokens).tolist())
            score = beam.score / max(1, len(tokens)) ** self.length_penalty
            self.finished.append(Hypothesis(score, tokens, ended=False))
        self.finished = sorted(self.finished, key=lambda h: -h.score)[: self.num_beams]

    def _done(self, best: float, length: int, max_new: int) -> bool:
        """Whether the search is over. best: the largest sum of a beam that goes on."""
        if len(self.finished) < self.num_beams:
            return False
        if self.early_stopping is True:
            return True
        reach = max_new if self.early_stopping == "never" and self.length_penalty > 0.0 else length
        return bool(best / reach**self.length_penalty <= self.finished[-1].score)

    def _go_on(self, core: EngineCore, going: list[Candidate]) -> None:
        """The beams of the next step: a beam that goes on twice is forked, one that does not is dropped."""
        parents = self._beams
        used: set[int] = set()
        beams: list[Sequence] = []
        for candidate in going:
            parent = parents[candidate.beam]
            beams.append(core.fork(parent, -1) if candidate.beam in used else parent)
            used.add(candidate.beam)
        for i, parent in enumerate(parents):
            if i not in used:
                core.remove(parent)
        for rank, (beam, candidate) in enumerate(zip(beams, going, strict=True)):
            beam.index = 0 if rank == 0 else -1  # who is told when the request is cancelled
            beam.score, beam.pending = candidate.score, None
            beam.append(candidate.token_id)
            beam.sampler.accept(candidate.token_id)
        self._beams = beams

    def _outputs(self, core: EngineCore, request: Request) -> list[StepOutput]:
        for beam in self._beams:
            core.remove(beam)
        outputs: list[StepOutput] = []
        for index, hypothesis in enumerate(self.finished[: self.num_samples]):
            decoder = request.make_decoder() if request.make_decoder else None
            last = len(hypothesis.token_ids) - 1
            for i, token_id in enumerate(hypothesis.token_ids):
                text = ""
                if decoder and not (i == last and hypothesis.ended):
                    text = decoder.push(token_id)
                if i < last:
                    outputs.append(StepOutput(request, index, token_id, text))
                    continue
                text += decoder.flush() if decoder else ""
                reason: Literal["stop", "length"] = "stop" if hypothesis.ended else "length"
                stop = token_id if hypothesis.ended else None
                outputs.append(
                    StepOutput(request, index, token_id, text, None, reason, stop, score=hypothesis.score)
                )
        missing = range(len(self.finished), self.num_samples)  # fewer candidates than asked for
        return outputs + [StepOutput(request, i, None, "", finish_reason="length") for i in missing]


def _log_softmax(logits: Floats) -> Floats:
    largest = logits.max()
    total = np.log(np.exp(logits - largest).sum(dtype=np.float64))
    scores: Floats = (logits - largest) - np.float32(total)
    return scores
