"""A request in the hands of the engine: collects its outputs, builds completions, hands pieces to a reader."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue

from tokamak.engine.completion import Completion, FinishReason, Timings, Usage
from tokamak.engine.loop import EngineLoop
from tokamak.engine.request import Request, StepOutput
from tokamak.errors import Cancelled
from tokamak.sampling import TokenLogprob, log_probabilities
from tokamak.types import Floats

UNREAD = 100  # outputs that may wait for a slow reader before its request pauses


@dataclass(slots=True)
class _Sample:
    """What one sample of a request has given so far."""

    pieces: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob | None] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    first_s: float | None = None
    last_s: float = 0.0
    score: float | None = None

    def mean_logprob(self) -> float:
        """Of its tokens; of none it is -inf."""
        known = [entry.logprob for entry in self.logprobs if entry is not None]
        return sum(known) / len(known) if known else -math.inf


class PromptLogprobs:
    """Log-probabilities of a prompt's tokens, gathered as its rows are computed; the first token has none."""

    def __init__(self, prompt: list[int], num_top: int) -> None:
        self._prompt, self._num_top = prompt, num_top
        self.entries: list[TokenLogprob | None] = [None] * len(prompt)

    def __call__(self, start: int, logits: Floats) -> None:
        known = self._prompt[start + 1 : start + 1 + len(logits)]
        rows = [(row, token_id, self._num_top) for row, token_id in zip(logits, known, strict=False)]
        self.entries[start + 1 : start + 1 + len(rows)] = log_probabilities(rows)


@dataclass(frozen=True, slots=True)
class Described:
    """What a completion says beyond what the engine gives. echo_text: the prompt, put before the text. best: give only so many,
    those of the highest mean log-probability.
    """

    load_s: float
    seed: int
    with_logprobs: bool
    echo_text: str = ""
    prompt_logprobs: PromptLogprobs | None = None
    best: int | None = None


class Ticket:
    """Made per request; `deliver` is called in the engine's thread, everything else in the caller's."""

    def __init__(
        self,
        loop: EngineLoop,
        request: Request,
        described: Described,
        on_output: Callable[[StepOutput], None],
    ) -> None:
        self.request = request
        self.error: Exception | None = None
        self._loop, self._described, self._on_output = loop, described, on_output
        self._samples = [_Sample() for _ in range(request.num_samples)]
        self._done = threading.Event()
        request.submitted_s = request.submitted_s or time.perf_counter()  # a server counts its own queue
        loop.submit(request, self.deliver)

    def deliver(self, output: StepOutput) -> None:
        """Note an output and pass it on."""
        sample, now = self._samples[output.index], time.perf_counter()
        sample.pieces.append(output.text)
        if output.token_id is not None:
            sample.token_ids.append(output.token_id)
            sample.logprobs.append(output.logprob)
            sample.first_s = sample.first_s or now
        sample.last_s = now
        if output.finish_reason is not None:
            sample.finish_reason, sample.stop_reason = output.finish_reason, output.stop_reason
            self.error, sample.score = self.error or output.error, output.score
            if output.error is not None or output.finish_reason == "abort":
                for other in self._samples:  # samples that were never forked end here too
                    other.finish_reason = other.finish_reason or "abort"
        if all(s.finish_reason is not None for s in self._samples):
            self._done.set()
        self._on_output(output)

    @property
    def done(self) -> bool:
        """Whether every sample has ended."""
        return self._done.is_set()

    def cancel(self) -> None:
        """Stop before the next step; nothing if done."""
        if not self.done:
            self._loop.cancel(self.request.id)

    def made_room(self) -> None:
        """A reader took an output that was one too many."""
        self._loop.wake()

    def wait(self) -> list[Completion]:
        """One completion per sample, when all have ended.

        Raises: what the request failed with, Cancelled if somebody else stopped it.
        """
        self._done.wait()
        self.check()
        return self.completions()

    def check(self) -> None:
        """Raise what the request failed with, if it did."""
        if self.error is not None:
            raise self.error
        if any(s.finish_reason == "abort" for s in self._samples):
            raise Cancelled("the completion was cancelled before its end")

    def completions(self) -> list[Completion]:
        """What there is so far; of best_of the best, once all have ended."""
        numbered = list(enumerate(self._samples))
        if self._described.best is not None and self.done:
            numbered.sort(key=lambda entry: -entry[1].mean_logprob())
            numbered = numbered[: self._described.best]
        return [self._completion(i, sample) for i, sample in numbered]

    def _completion(self, index: int, sample: _Sample) -> Completion:
        request, described = self.request, self._described
        logprobs = sample.logprobs if described.with_logprobs else None
        if logprobs is not None and described.prompt_logprobs is not None:
            logprobs = described.prompt_logprobs.entries + logprobs
        num_prompt = request.num_prompt_tokens
        return Completion(
            text=described.echo_text + "".join(sample.pieces),
            token_ids=list(sample.token_ids),
            finish_reason=sample.finish_reason or "abort",
            logprobs=logprobs,
            usage=Usage(
                num_prompt,
                len(sample.token_ids),
                request.cached_tokens,
                request.drafted_tokens,
                request.accepted_tokens,
                request.shifted_tokens,
            ),
            timings=self._timings(sample, num_prompt),
            index=index,
            seed=described.seed,
            stop_reason=sample.stop_reason,
            score=sample.score,
        )

    def _timings(self, sample: _Sample, num_prompt: int) -> Timings:
        request, first = self.request, sample.first_s
        submitted, started = request.submitted_s, request.started_s or request.submitted_s
        read_until = first if first is not None else sample.last_s
        num_later = len(sample.token_ids) - 1
        reading, writing = read_until - started, sample.last_s - read_until
        return Timings(
            load_s=self._described.load_s,
            queue_s=started - submitted,
            ttft_s=None if first is None else first - submitted,
            prefill_tok_s=(num_prompt - request.cached_tokens) / reading if reading > 0 else None,
            decode_tok_s=num_later / writing if num_later > 0 and writing > 0 else None,
            total_s=max(0.0, sample.last_s - submitted),
        )


Submit = Callable[[Callable[[StepOutput], None], Callable[[], bool]], Ticket]
"""(on_output, room) -> the ticket of the request, handed in."""


class Stream(Iterator[str]):
    """Pieces of text that never change again, as they come. Closing or dropping it cancels within one step.

    Its request starts when the stream is made; a reader that falls 100 tokens behind pauses it.
    """

    def __init__(self, submit: Submit) -> None:
        queue: SimpleQueue[StepOutput] = SimpleQueue()
        self._queue, self._num_open = queue, 0
        self._ticket = submit(queue.put, lambda: queue.qsize() < UNREAD)
        self._num_open = self._ticket.request.num_samples

    def events(self) -> Iterator[StepOutput]:
        """Outputs of all samples as they come, with token ids, log-probabilities and finish reasons.

        Raises: what the request failed with.
        """
        while self._num_open > 0:
            try:
                output = self._queue.get()
            except BaseException:  # Ctrl-C while waiting
                self.close()
                raise
            if self._queue.qsize() == UNREAD - 1:
                self._ticket.made_room()
            if output.finish_reason is not None:
                self._num_open = 0 if output.finish_reason == "abort" else self._num_open - 1
            if output.finish_reason == "abort":
                self._ticket.check()
            yield output

    def __next__(self) -> str:
        for output in self.events():
            if output.text:
                return output.text
        raise StopIteration

    @property
    def completion(self) -> Completion:
        """The whole completion after the end; what there is so far before."""
        return self._ticket.completions()[0]

    def close(self) -> None:
        """Cancel, if it is not done."""
        self._num_open = 0
        self._ticket.cancel()

    def __enter__(self) -> Stream:  # noqa: PYI034  # Self needs Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._num_open:
            self.close()


class Inbox:
    """Outputs for a reader in another event loop: filled by the engine's thread, emptied by the reader's."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._outputs: deque[StepOutput] = deque()
        self._notify = notify

    def put(self, output: StepOutput) -> None:
        """In the engine's thread."""
        self._outputs.append(output)
        self._notify()

    def room(self) -> bool:
        """Whether the reader keeps up."""
        return len(self._outputs) < UNREAD

    def __len__(self) -> int:
        return len(self._outputs)

    def take(self) -> StepOutput | None:
        """In the reader's thread: the oldest, None if there is none."""
        return self._outputs.popleft() if self._outputs else None
