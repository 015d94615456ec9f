"""Drafts: tokens guessed ahead, computed in one step with the next one and kept as long as the sampler draws them anyway.

A draw is a function of (seed, sample, position) and of the logits, and logits do not depend on how many rows a step has. So a
completion is the same, token by token, with and without speculation, greedy or sampled: it can only come sooner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tokamak.engine.batch import make_batch
from tokamak.engine.blocks import BlockPool
from tokamak.engine.request import Request, StepOutput
from tokamak.engine.sequence import Sequence
from tokamak.errors import InvalidParams
from tokamak.sampling import Place, Sampler, sample_rows
from tokamak.types import Floats, Ints, Program

LONGEST, SHORTEST = 4, 2  # tokens at the end that are looked for earlier in the text


@dataclass(slots=True)
class Turn:
    """A sequence that draws. rows: logits f32[1 + n, V] of its last token and of the n of its draft, of which `accepted` came true."""

    sequence: Sequence
    rows: Floats
    draft: list[int]
    accepted: int = 0

    @property
    def row(self) -> Floats:
        """Logits f32[V] of the next token."""
        row: Floats = self.rows[self.accepted - len(self.draft) - 1]
        return row

    def foresaw(self, output: StepOutput) -> bool:
        """Whether the draft has the token just drawn, so that the one after it can be drawn from the same step."""
        right = self.accepted < len(self.draft) and output.token_id == self.draft[self.accepted]
        if right and output.finish_reason is None:
            self.accepted += 1
            self.sequence.request.accepted_tokens += 1
            return True
        speculation, tried = self.sequence.request.speculation, len(self.draft)
        if tried and speculation is not None:  # longer while all of it is right, else what was right
            grown = 2 * tried if self.accepted == tried else self.accepted + 1
            self.sequence.trust = min(speculation.tokens, grown)
        return False


class Drafter(Protocol):
    """Guesses what comes next."""

    def propose(self, sequences: list[Sequence], most: int) -> None:
        """Puts a draft of up to `most` tokens behind each sequence (`Sequence.draft`), or none."""

    def forget(self, sequence: Sequence) -> None:
        """The sequence has ended."""


def wanted_tokens(sequence: Sequence, most: int) -> int:
    """How many tokens to draft: as the last drafts were right, at most what the request allows and fits."""
    speculation = sequence.request.speculation
    if speculation is None:
        return 0
    trust = sequence.trust or speculation.tokens
    left = min(sequence.request.max_new - sequence.num_new, sequence.capacity - sequence.num_tokens) - 1
    return max(0, min(trust, most, left))


class LookupDrafter:
    """What followed the last few tokens where they stood before: in prompts that are quoted, in code, in lists."""

    def propose(self, sequences: list[Sequence], most: int) -> None:
        for sequence in sequences:
            count = wanted_tokens(sequence, most)
            if count:
                sequence.draft(continuation(sequence.history, count))

    def forget(self, sequence: Sequence) -> None:
        """Nothing is kept."""


def continuation(history: Ints, count: int) -> list[int]:
    """Up to `count` tokens that followed the latest earlier occurrence of the end of history i32[n]."""
    data = history.tobytes()
    for length in range(min(LONGEST, len(history) - 1), SHORTEST - 1, -1):
        pattern, end = data[-4 * length :], len(data) - 4
        while (at := data.rfind(pattern, 0, end)) >= 0:
            if at % 4 == 0:
                start = at // 4 + length
                followed: list[int] = history[start : start + count].tolist()
                return followed
            end = at + 4 * length - 1
    return []


class ModelDrafter:
    """A smaller model with a cache of its own reads along and guesses with the same coins as the large one draws.

    program: its vocabulary must be that of the large model, whose logits are vocab_size wide. Where its cache is full, it forgets
    the sequence it read longest ago; where its context ends, it guesses no more.
    """

    def __init__(self, program: Program, vocab_size: int | None = None, context: int | None = None) -> None:
        self.program, self.vocab_size = program, vocab_size or program.vocab_size
        self.context = context
        limits = program.limits
        self.pool = BlockPool(limits.num_blocks, limits.block_size, max_unheld=0)
        self._readers: dict[Sequence, _Reader] = {}

    def propose(self, sequences: list[Sequence], most: int) -> None:
        limit = self.program.limits.max_sequences
        for start in range(0, len(sequences), limit):
            self._propose(sequences[start : start + limit], most)

    def _propose(self, sequences: list[Sequence], most: int) -> None:
        counts = {s: wanted_tokens(s, most) for s in sequences if self._reaches(s)}
        readers = {s: self._caught_up(s) for s, count in counts.items() if count}
        drafts: dict[Sequence, list[int]] = {s: [] for s in readers}
        while going := [s for s in drafts if len(drafts[s]) < counts[s] and readers[s].num_missing]:
            chosen = self._fitting(going, readers)
            if not chosen:
                break
            batch = make_batch([(readers[s], rows) for s, rows in chosen], self.pool.block_size)
            logits = self._as_wide(self.program.run(batch))
            drawing: list[Sequence] = []
            for sequence, count in chosen:
                readers[sequence].num_computed += count
                if readers[sequence].num_missing:  # a long text is read over several steps of the large model
                    counts[sequence] = 0
                else:
                    drawing.append(sequence)
            places = [
                Place(readers[s].sampler, row, readers[s].history, (), s.position + len(drafts[s]))
                for s, row in zip(drawing, logits, strict=True)
            ]
            for sequence, drawn in zip(drawing, sample_rows(places, self.program.workers), strict=True):
                if isinstance(drawn, InvalidParams):  # every token that the draft model knows is banned
                    counts[sequence] = 0
                    continue
                if isinstance(drawn, Exception):
                    raise drawn
                drafts[sequence].append(drawn.token_id)
                readers[sequence].append(drawn.token_id)
        for sequence, draft in drafts.items():
            sequence.draft(draft)

    def _reaches(self, sequence: Sequence) -> bool:
        speculation = sequence.request.speculation
        most = speculation.tokens if speculation else 0
        return self.context is None or sequence.num_tokens + most <= self.context

    def _as_wide(self, logits: Floats) -> Floats:
        """Rows as wide as those of the large model: padding of the vocabulary differs from model to model."""
        if logits.shape[1] == self.vocab_size:
            return logits
        wide = np.full((len(logits), self.vocab_size), -np.inf, dtype=np.float32)
        shared = min(logits.shape[1], self.vocab_size)
        wide[:, :shared] = logits[:, :shared]
        return wide

    def _caught_up(self, sequence: Sequence) -> _Reader:
        """The reader of a sequence, with its tokens: what it guessed wrong is forgotten."""
        reader = self._readers.pop(sequence, None) or _Reader(sequence, self.program)
        self._readers[sequence] = reader  # the latest used is last
        reader.follow(sequence.history)
        return reader

    def _fitting(self, going: list[Sequence], readers: dict[Sequence, _Reader]) -> list[tuple[Sequence, int]]:
        """Rows of each that fit one step and the cache."""
        chosen: list[tuple[Sequence, int]] = []
        budget = self.program.limits.max_rows
        for sequence in going:
            reader = readers[sequence]
            rows = min(reader.num_missing, budget)
            if rows and self._take_blocks(reader, rows, going):
                chosen.append((sequence, rows))
                budget -= rows
        return chosen

    def _take_blocks(self, reader: _Reader, rows: int, going: list[Sequence]) -> bool:
        size = self.pool.block_size
        need = -(-(reader.num_computed + rows) // size)
        if need > len(reader.whole.ids):
            return False
        while reader.whole.num_blocks < need:
            block = self.pool.take()
            if block is None:
                oldest = next((s for s in self._readers if s not in going), None)
                if oldest is None:
                    return False
                self.forget(oldest)
            else:
                reader.whole.append(block)
        return True

    def forget(self, sequence: Sequence) -> None:
        reader = self._readers.pop(sequence, None)
        if reader is not None:
            self.pool.release(reader.whole.held)


class _Reader(Sequence):
    """The draft model's own view of a sequence."""

    __slots__ = ()

    def __init__(self, sequence: Sequence, program: Program) -> None:
        first = sequence.request
        request = Request(first.id, first.prompt, first.max_new + 1, first.sampler, context=first.context)
        super().__init__(request, program.limits.block_size)
        self.sampler: Sampler = sequence.sampler.stateless()

    def follow(self, history: Ints) -> None:
        """Takes over the tokens of history i32[n]; what was computed stays as far as they agree."""
        n = len(history)
        common = min(n, self.num_computed)
        differ = np.flatnonzero(self._tokens[:common] != history[:common])
        self._tokens[:n] = history
        self.num_tokens = n
        self.num_computed = min(n - 1, int(differ[0]) if len(differ) else common)
