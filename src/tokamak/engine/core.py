"""The engine: requests in, tokens out, one step at a time. Single-threaded; `loop.py` gives it a thread."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable

from tokamak.engine.batch import make_batch
from tokamak.engine.blocks import BlockPool
from tokamak.engine.completion import FinishReason
from tokamak.engine.request import Request, Sequence, StepOutput
from tokamak.engine.scheduler import Schedule, Scheduler
from tokamak.errors import CapacityError
from tokamak.sampling import Sampled
from tokamak.types import Floats, Program

COLLECT_NBYTES = 1 << 26  # of logits per step for a request that wants those of every position


class EngineCore:
    """Runs requests on a program.

    max_unheld: cache blocks kept for prefixes that may come again although no request holds them; None: all, 0: none.
    """

    def __init__(self, program: Program, *, max_unheld: int | None = None) -> None:
        limits = program.limits
        self.program = program
        self.pool = BlockPool(limits.num_blocks, limits.block_size, max_unheld=max_unheld)
        collect_rows = max(1, min(limits.max_rows, COLLECT_NBYTES // (4 * program.vocab_size)))
        self.scheduler = Scheduler(self.pool, limits, max_collect_rows=collect_rows)
        self.stalled = (
            False  # whether the last step found nothing to compute: every reader lags, or blocks lack
        )
        self._active: dict[int, list[Sequence]] = {}

    def add(self, request: Request) -> Request:
        """Queue a request.  Raises: CapacityError if it could never fit the cache even alone."""
        size, num_blocks = self.pool.block_size, self.pool.num_blocks
        most = len(request.prompt) + request.max_new
        if -(-most // size) > num_blocks:
            raise CapacityError(
                f"{len(request.prompt)} prompt tokens and up to {request.max_new} more need {-(-most // size)} cache "
                f"blocks, there are {num_blocks}; load with a larger context or ask for fewer tokens"
            )
        request.submitted_s = request.submitted_s or time.perf_counter()
        sequence = Sequence(request, size)
        self._active[request.id] = [sequence]
        self.scheduler.add(sequence)
        return request

    def cancel(self, request_id: int) -> list[StepOutput]:
        """Forget a request and free its blocks; nothing if it is unknown or done. Outputs say "abort"."""
        sequences = self._active.pop(request_id, [])
        for sequence in sequences:
            self.scheduler.remove(sequence)
        return [StepOutput(s.request, s.index, None, "", finish_reason="abort") for s in sequences]

    @property
    def has_work(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self._active)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._active

    def step(self) -> list[StepOutput]:
        """Schedule, batch, run, sample, update: at most one token for each sequence. Empty if nothing could run."""
        plan = self.scheduler.schedule()
        self.stalled = not plan.chosen
        if self.stalled:
            return []
        try:
            if plan.copies:
                self.program.copy_blocks(plan.copies)
            batch = make_batch(plan.chosen, self.pool.block_size)
            logits = self.program.run(batch)
        except Exception as error:  # noqa: BLE001  # whatever it was, each of these requests has to hear of it
            return self._fail((s for s, _ in plan.chosen), error)
        return self._update(plan, logits)

    def _update(self, plan: Schedule, logits: Floats) -> list[StepOutput]:
        outputs: list[StepOutput] = []
        row = 0
        for sequence, count in plan.chosen:
            done = count == sequence.num_missing
            collect = sequence.request.collect if sequence.num_new == 0 else None
            rows = logits[row : row + (count if collect else int(done))]
            row += len(rows)
            try:
                if collect:
                    collect(sequence.num_computed, rows)
                sequence.num_computed += count
                self._file_full_blocks(sequence)
                if done:
                    outputs += self._next_tokens(sequence, rows[-1])
            except Exception as error:  # noqa: BLE001  # a caller's processor or broken logits: fails this request alone
                outputs += self._fail([sequence], error)
        return outputs

    def _next_tokens(self, sequence: Sequence, logits: Floats) -> list[StepOutput]:
        """The next token of a sequence, or of each of its samples when the prompt has just been read."""
        request = sequence.request
        if sequence.num_new:
            return [self._next_token(sequence, logits)]
        if request.max_new == 0:
            return [self._finish(sequence, None, "", "length")]
        siblings = [sequence]
        for index in range(1, request.num_samples):
            siblings.append(self._fork(sequence, index, siblings[-1]))
        return [self._next_token(sibling, logits) for sibling in siblings]

    def _fork(self, sequence: Sequence, index: int, after: Sequence) -> Sequence:
        fork = sequence.fork(index)
        for block in fork.blocks.tolist():
            self.pool.hold(block)
        self.scheduler.adopt(fork, after)
        self._active[sequence.request.id].append(fork)
        return fork

    def _next_token(self, sequence: Sequence, logits: Floats) -> StepOutput:
        request = sequence.request
        early = sequence.num_new < request.min_new
        sampled = sequence.sampler.sample(logits, sequence.history, request.stop_ids if early else ())
        token_id = sampled.token_id
        sequence.append(token_id)
        if token_id in request.stop_ids:
            return self._finish(sequence, sampled, "", "stop", token_id)
        text = sequence.decoder.push(token_id) if sequence.decoder else ""
        if sequence.matcher is not None and not early:
            text = sequence.matcher.push(text)
            if sequence.matcher.matched is not None:
                return self._finish(sequence, sampled, text, "stop", sequence.matcher.matched)
        if sequence.num_new == request.max_new:
            return self._finish(sequence, sampled, text, "length")
        return StepOutput(request, sequence.index, token_id, text, sampled.logprob)

    def _finish(
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
        self._remove(sequence)
        token_id, logprob = (sampled.token_id, sampled.logprob) if sampled else (None, None)
        return StepOutput(sequence.request, sequence.index, token_id, text, logprob, reason, stop_reason)

    def _remove(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        others = self._active[sequence.request.id]
        others.remove(sequence)
        if not others:
            del self._active[sequence.request.id]

    def _fail(self, sequences: Iterable[Sequence], error: Exception) -> list[StepOutput]:
        """Ends the requests of these sequences, with all their samples."""
        return [
            dataclasses.replace(output, error=error)
            for request_id in dict.fromkeys(s.request.id for s in sequences)
            for output in self.cancel(request_id)
        ]

    def _file_full_blocks(self, sequence: Sequence) -> None:
        """Files the blocks that became full, so that a later request with the same beginning finds them."""
        size = self.pool.block_size
        while (sequence.num_filed + 1) * size <= sequence.num_computed:
            start = sequence.num_filed * size
            block = int(sequence.table[sequence.num_filed])
            sequence.chain = self.pool.file(block, sequence.chain, sequence.tokens(start, start + size))
            sequence.num_filed += 1
