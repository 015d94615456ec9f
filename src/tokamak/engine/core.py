"""The engine: requests in, tokens out, one step at a time. Single-threaded; `loop.py` gives it a thread."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tokamak.engine.batch import make_batch, num_logits, unread
from tokamak.engine.blocks import BlockPool
from tokamak.engine.completion import FinishReason
from tokamak.engine.recent import RecentPool
from tokamak.engine.request import Request, StepOutput
from tokamak.engine.scheduler import Schedule, Scheduler
from tokamak.engine.sequence import Sequence
from tokamak.engine.shift import make_room
from tokamak.engine.speculative import Drafter, LookupDrafter, Turn
from tokamak.errors import CapacityError
from tokamak.sampling import Place, Sampled, TextIsComplete, sample_rows
from tokamak.types import Floats, Program

COLLECT_NBYTES = 1 << 26  # of logits per step for a request that wants those of every position


@dataclass(slots=True)
class Work:
    """What was stepped since the start. rows: of all steps; rows_max, rows_last: of one. sequences: stepped, added up."""

    steps: int = 0
    seconds: float = 0.0
    rows: int = 0
    rows_max: int = 0
    rows_last: int = 0
    sequences: int = 0

    def add(self, plan: Schedule, seconds: float) -> None:
        """One step more."""
        self.steps += 1
        self.seconds += seconds
        self.rows += plan.num_rows
        self.rows_last, self.rows_max = plan.num_rows, max(self.rows_max, plan.num_rows)
        self.sequences += len(plan.chosen)


class EngineCore:
    """Runs requests on a program.

    max_unheld: cache blocks kept for prefixes that may come again although no request holds them; None: all, 0: none.
    drafters: by kind of `Speculation`; "lookup" is always there.
    """

    def __init__(
        self,
        program: Program,
        *,
        max_unheld: int | None = None,
        drafters: Mapping[str, Drafter] | None = None,
    ) -> None:
        limits = program.limits
        self.program = program
        self.pool = BlockPool(limits.num_blocks, limits.block_size, max_unheld=max_unheld)
        self.recent = None
        if program.reach is not None:
            blocks = limits.blocks(recent=True)
            self.recent = RecentPool(blocks, limits.block_size, program.reach, max_unheld=max_unheld)
        collect_rows = max(1, min(limits.max_rows, COLLECT_NBYTES // (4 * program.vocab_size)))
        self.scheduler = Scheduler(self.pool, limits, max_collect_rows=collect_rows, recent=self.recent)
        self.drafters: dict[str, Drafter] = {"lookup": LookupDrafter(), **(drafters or {})}
        self.stalled = (
            False  # whether the last step found nothing to compute: every reader lags, or blocks lack
        )
        self._active: dict[int, list[Sequence]] = {}
        self.work = Work()

    def add(self, request: Request) -> Request:
        """Queue a request.  Raises: CapacityError if it could never fit the cache even alone."""
        size, num_blocks = self.pool.block_size, self.pool.num_blocks
        first = Sequence(request, size)
        most = -(-first.capacity // size)
        if request.group is not None:
            most = request.group.num_blocks(len(request.prompt), request.max_new, size)
        if request.source is not None:
            most += request.source.num_blocks(size)
        if most <= num_blocks and self.recent is not None:
            most, num_blocks = self._recent_blocks(request, first), self.recent.num_blocks
        if most > num_blocks:
            raise CapacityError(
                f"{len(request.prompt)} prompt tokens and up to {request.max_new} more need {most} cache "
                f"blocks, there are {num_blocks}; load with a larger context or ask for fewer tokens"
            )
        request.submitted_s = request.submitted_s or time.perf_counter()
        sequences = [first] if request.group is None else request.group.begin(first, size)
        self._active[request.id] = sequences
        for sequence in sequences:
            self.scheduler.add(sequence)
        return request

    def _recent_blocks(self, request: Request, first: Sequence) -> int:
        """Blocks that a request needs at most in layers that keep the latest part of a text only."""
        if self.recent is None:
            return 0
        size, kept = self.recent.block_size, first.recent.kept
        if request.group is None:
            return self.recent.needed(first.capacity, kept)
        span = self.recent.needed(first.capacity, kept) * size
        return request.group.num_blocks(min(len(request.prompt), span), min(request.max_new, span), size)

    def cancel(self, request_id: int) -> list[StepOutput]:
        """Forget a request and free its blocks; nothing if it is unknown or done. Outputs say "abort"."""
        sequences = list(self._active.get(request_id, []))
        for sequence in sequences:
            self.remove(sequence)
        read = [s for s in sequences if s.index >= 0]
        return [StepOutput(s.request, s.index, None, "", finish_reason="abort") for s in read]

    @property
    def has_work(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self._active)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._active

    def step(self) -> list[StepOutput]:
        """Schedule, batch, run, sample, update: the next token of each sequence. Empty if nothing could run."""
        failed = self._prepare()
        plan = self.scheduler.schedule()
        if plan.stuck is not None and not plan.chosen:
            text = "the cache is full of sequences whose contexts were shifted; load with a larger cache"
            failed += self._fail([plan.stuck], CapacityError(text))
        self.stalled = not plan.chosen and not failed
        if not plan.chosen:
            return failed
        began = time.perf_counter()
        try:
            if plan.copies:
                self.program.copy_blocks(plan.copies)
            if plan.recent_copies:
                self.program.copy_blocks(plan.recent_copies, recent=True)
            batch = make_batch(plan.chosen, self.pool.block_size, recent=self.recent is not None)
            logits = self.program.run(batch)
            for source in unread(plan.chosen):
                source.is_read = True
        except Exception as error:  # noqa: BLE001  # whatever it was, each of these requests has to hear of it
            return failed + self._fail((s for s, _ in plan.chosen), error)
        seconds = time.perf_counter() - began
        self.scheduler.pace.note(plan.num_rows, plan.num_single, seconds)
        self.work.add(plan, seconds)
        return failed + self._update(plan, logits)

    def _prepare(self) -> list[StepOutput]:
        """Makes room where a context is full, and drafts."""
        outputs: list[StepOutput] = []
        wanted: dict[str, list[Sequence]] = {}
        for sequence in list(self.scheduler.running):
            request = sequence.request
            if request.context is not None and sequence.num_tokens > request.context:
                try:
                    request.shifted_tokens += make_room(sequence, self.pool, self.recent, self.program)
                except Exception as error:  # noqa: BLE001  # fails this request alone
                    outputs += self._fail([sequence], error)
                    continue
            if request.speculation is not None and sequence.num_new and sequence.num_missing == 1:
                wanted.setdefault(request.speculation.kind, []).append(sequence)
        for kind, all_wanting in wanted.items():
            sequences = [s for s in all_wanting if self._runs(s)]  # those whose request has not just failed
            share = self.scheduler.limits.max_rows // max(1, len(self.scheduler.running)) - 1
            try:
                self.drafters[kind].propose(sequences, share)
            except Exception as error:  # noqa: BLE001  # a draft model's defect ends those who asked for it, not the engine
                outputs += self._fail(sequences, error)
        return outputs

    def _update(self, plan: Schedule, logits: Floats) -> list[StepOutput]:
        outputs: list[StepOutput] = []
        turns: list[Turn] = []
        waiting: dict[int, Request] = {}
        row = 0
        for sequence, count in plan.chosen:
            rows = logits[row : row + num_logits(sequence, count)]
            row += len(rows)
            if not self._runs(sequence):
                continue  # another sequence of its request failed
            try:
                turns += self._computed(sequence, count, rows)
            except Exception as error:  # noqa: BLE001  # a caller's collector: fails this request alone
                outputs += self._fail([sequence], error)
            if sequence.request.group is not None:
                waiting[sequence.request.id] = sequence.request
        for turn in [t for t in turns if t.sequence.request.max_new == 0]:
            turns.remove(turn)
            outputs += self.finish_reading(turn.sequence)
        while turns:
            turns = self._take_turns(turns, outputs)
        for request in waiting.values():
            members = self._active.get(request.id, [])
            if request.group is None or not members or any(s.pending is None for s in members):
                continue
            try:
                outputs += request.group.advance(self, members)
            except Exception as error:  # noqa: BLE001  # as above
                outputs += self._fail(members, error)
        return outputs

    def _computed(self, sequence: Sequence, count: int, rows: Floats) -> list[Turn]:
        """Notes that `count` rows of a sequence are computed; rows: the logits of the last of them. Who may draw now."""
        request, drafted = sequence.request, max(0, count - sequence.num_missing)
        draft = sequence.tokens(sequence.num_tokens, sequence.num_tokens + drafted).tolist()
        sequence.num_drafted = 0
        if request.collect and sequence.num_new == 0 and sequence.index == 0:
            request.collect(sequence.num_computed, rows)
            rows = rows[-1:]
        self._advance_cache(sequence, count - drafted)
        if sequence.num_missing:
            return []
        if request.group is not None:
            sequence.pending = rows[-1].copy()
            return []
        request.drafted_tokens += len(draft)
        siblings = [sequence]
        if sequence.num_new == 0 and request.max_new:  # the prompt has just been read
            for index in range(1, request.num_samples):
                siblings.append(self.fork(sequence, index, siblings[-1]))
        return [Turn(s, rows, draft) for s in siblings]

    def _take_turns(self, turns: list[Turn], outputs: list[StepOutput]) -> list[Turn]:
        """One token for each, drawn together; what is left: who has a draft that foresaw it, with the row after."""
        drawn = sample_rows([self._place(t.sequence, t.row) for t in turns], self.program.workers)
        left: list[Turn] = []
        for turn, sampled in zip(turns, drawn, strict=True):
            sequence = turn.sequence
            if not self._runs(sequence):
                continue
            try:
                output = self._taken(sequence, sampled)
            except Exception as error:  # noqa: BLE001  # of a caller's processor, or broken logits: fails this request alone
                outputs += self._fail([sequence], error)
                continue
            outputs.append(output)
            if turn.foresaw(output):
                self._advance_cache(sequence, 1)
                left.append(turn)
        return left

    def _advance_cache(self, sequence: Sequence, count: int) -> None:
        """More tokens are computed. Files the blocks that became full, so that a request with the same beginning finds them,
        and gives back those that no later row reads."""
        sequence.num_computed += count
        size = self.pool.block_size
        while not sequence.shifted and (sequence.num_filed + 1) * size <= sequence.num_computed:
            start = sequence.num_filed * size
            block = int(sequence.whole.ids[sequence.num_filed])
            sequence.chain = self.pool.file(block, sequence.chain, sequence.keys(start, start + size))
            if self.recent is not None:
                self.recent.file_under(int(sequence.recent.ids[sequence.num_filed]), sequence.chain)
            sequence.num_filed += 1
        if self.recent is not None:
            sequence.recent.give_back(self.recent, self.recent.first_block(sequence.num_computed))

    def fork(self, sequence: Sequence, index: int, after: Sequence | None = None) -> Sequence:
        """Another sequence of the same request over the same blocks, run next to `after`."""
        fork = sequence.fork(index, self.pool, self.recent)
        self.scheduler.hold_source(fork)
        self.scheduler.adopt(fork, after or sequence)
        self._active[sequence.request.id].append(fork)
        return fork

    def _place(self, sequence: Sequence, logits: Floats) -> Place:
        request = sequence.request
        banned = request.stop_ids if sequence.num_new < request.min_new else ()
        return Place(sequence.sampler, logits, sequence.history, banned, sequence.position)

    def next_token(self, sequence: Sequence, logits: Floats) -> StepOutput:
        """Draws the next token from logits f32[V], appends it and ends the sequence where it has to end."""
        (sampled,) = sample_rows([self._place(sequence, logits)])
        return self._taken(sequence, sampled)

    def _taken(self, sequence: Sequence, sampled: Sampled | Exception) -> StepOutput:
        """Appends a token. Raises: what it has instead."""
        if isinstance(sampled, TextIsComplete):
            return self.finish(sequence, None, "", "stop")
        if isinstance(sampled, Exception):
            raise sampled
        request = sequence.request
        early = sequence.num_new < request.min_new
        token_id = sampled.token_id
        sequence.append(token_id)
        if token_id in request.stop_ids:
            return self.finish(sequence, sampled, "", "stop", token_id)
        text = sequence.decoder.push(token_id) if sequence.decoder else ""
        if sequence.matcher is not None and not early:
            text = sequence.matcher.push(text)
            if sequence.matcher.matched is not None:
                return self.finish(sequence, sampled, text, "stop", sequence.matcher.matched)
        if sequence.num_new == request.max_new:
            return self.finish(sequence, sampled, text, "length")
        return StepOutput(request, sequence.index, token_id, text, sampled.logprob)

    def finish(
        self,
        sequence: Sequence,
        sampled: Sampled | None,
        text: str,
        reason: FinishReason,
        stop_reason: str | int | None = None,
    ) -> StepOutput:
        """Ends a sequence: gives out the text still held, unless a stop has come, and gives its blocks back."""
        matcher = sequence.matcher
        if matcher is None or matcher.matched is None:
            tail = sequence.decoder.flush() if sequence.decoder else ""
            if matcher is not None:
                tail = matcher.push(tail)
                if matcher.matched is not None:
                    reason, stop_reason = "stop", matcher.matched
                tail += matcher.flush()
            text += tail
        self.remove(sequence)
        token_id, logprob = (sampled.token_id, sampled.logprob) if sampled else (None, None)
        return StepOutput(sequence.request, sequence.index, token_id, text, logprob, reason, stop_reason)

    def finish_reading(self, sequence: Sequence) -> list[StepOutput]:
        """Ends a request of which no token was wanted, with all its samples."""
        first = self.finish(sequence, None, "", "length")
        return [dataclasses.replace(first, index=i) for i in range(sequence.request.num_samples)]

    def _runs(self, sequence: Sequence) -> bool:
        return sequence in self._active.get(sequence.request.id, ())

    def remove(self, sequence: Sequence) -> None:
        """Forgets a sequence and its other context, and gives their blocks back."""
        self.scheduler.remove(sequence)
        for drafter in self.drafters.values():
            drafter.forget(sequence)
        others = self._active.get(sequence.request.id, [])
        if sequence in others:
            others.remove(sequence)
        if sequence.partner is not None and sequence.index >= 0:
            self.remove(sequence.partner)
        if not others:
            self._active.pop(sequence.request.id, None)

    def _fail(self, sequences: Iterable[Sequence], error: Exception) -> list[StepOutput]:
        """Ends the requests of these sequences, with all their samples."""
        return [
            dataclasses.replace(output, error=error)
            for request_id in dict.fromkeys(s.request.id for s in sequences)
            for output in self.cancel(request_id)
        ]
