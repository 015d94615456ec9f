"""Batches of texts of like length: little padding, and for requests that come one by one, little waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokamak.errors import InvalidParams
from tokamak.tokenizers.asynchronous import in_thread
from tokamak.tokenizers.encoding import Batch, Ints, PaddedBatch, Padding
from tokamak.tokenizers.shaping import Text, pad_id

if TYPE_CHECKING:
    from tokamak.tokenizers.tokenizer import Tokenizer


def grouped_by_length(lengths: Sequence[int], max_rows: int, max_tokens: int) -> list[list[int]]:
    """Rows in groups of like length: at most max_rows, and rows times the longest at most max_tokens.

    A row that is longer than max_tokens is a group of its own.
    """
    if max_rows < 1 or max_tokens < 1:
        raise InvalidParams(f"max_rows = {max_rows}, max_tokens = {max_tokens}: at least 1")
    groups: list[list[int]] = []
    for row in sorted(
        range(len(lengths)), key=lambda i: (-lengths[i], i)
    ):  # the first of a group is its longest
        group = groups[-1] if groups else []
        if not group or len(group) == max_rows or lengths[group[0]] * (len(group) + 1) > max_tokens:
            groups.append([row])
        else:
            group.append(row)
    return groups


def padded_batches(
    tokenizer: Tokenizer,
    texts: Sequence[Text],
    *,
    max_rows: int = 32,
    max_tokens: int = 8192,
    padding: Padding = Padding(),  # noqa: B008  frozen
    **encode: Any,
) -> Iterator[tuple[list[int], PaddedBatch]]:
    """(indices into texts, their rectangle), longest first. encode: as `Tokenizer.encode_batch` takes it."""
    batch = tokenizer.encode_batch(texts, **encode)
    lengths = [len(row) for row in batch]
    for group in grouped_by_length(lengths, max_rows, max_tokens):
        rows = Batch.of([batch[i] for i in group])
        yield group, rows.padded(padding, pad_id(tokenizer.spec, padding))


@dataclass(slots=True)
class BatchingStats:
    """What a `DynamicBatcher` did so far."""

    batches: int = 0
    rows: int = 0
    tokens: int = 0  # of texts
    cells: int = 0  # of rectangles: tokens and padding

    @property
    def waste(self) -> float:
        """Share of the cells that is padding, 0 to 1."""
        return 1.0 - self.tokens / self.cells if self.cells else 0.0


@dataclass(slots=True)
class _Request:
    ids: Ints
    answer: asyncio.Future[Any]


@dataclass(slots=True)
class DynamicBatcher:
    """Collects requests for at most `wait_s`, then runs them in batches of like length.

    run: gets a rectangle, returns one answer per row; awaited in the event loop. Use as an async context manager.
    """

    tokenizer: Tokenizer
    run: Callable[[PaddedBatch], Awaitable[Sequence[Any]]]
    max_rows: int = 32
    max_tokens: int = 8192  # rows times the longest
    wait_s: float = 0.005  # how long the first of a batch waits for others
    max_waiting: int = 1024  # requests; more wait in `submit`
    padding: Padding = field(default_factory=Padding)
    stats: BatchingStats = field(default_factory=BatchingStats)
    _queue: asyncio.Queue[_Request] = field(init=False)
    _worker: asyncio.Task[None] | None = field(init=False, default=None)

    async def __aenter__(self) -> DynamicBatcher:  # noqa: PYI034  Self is not in Python 3.10
        self._queue = asyncio.Queue(self.max_waiting)
        self._worker = asyncio.ensure_future(self._work())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop; requests that wait are cancelled."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        while not self._queue.empty():
            self._queue.get_nowait().answer.cancel()

    async def submit(self, text: Text, add_special: bool = True, parse_special: bool = False) -> Any:
        """The answer for one text. Cancelling it takes it out of the next batch."""
        ids = await in_thread(lambda: self.tokenizer.encode_array(text, add_special, parse_special))
        request = _Request(ids, asyncio.get_running_loop().create_future())
        await self._queue.put(request)
        return await request.answer

    async def _collect(self) -> list[_Request]:
        loop = asyncio.get_running_loop()
        requests = [await self._queue.get()]
        until = loop.time() + self.wait_s
        try:
            while len(requests) < self.max_rows * 4:  # more to choose from makes lengths more alike
                left = until - loop.time()
                requests.append(
                    await asyncio.wait_for(self._queue.get(), left) if left > 0 else self._queue.get_nowait()
                )
        except (asyncio.TimeoutError, asyncio.QueueEmpty):
            pass
        except asyncio.CancelledError:
            for request in requests:
                request.answer.cancel()
            raise
        return [r for r in requests if not r.answer.done()]

    async def _work(self) -> None:
        while True:
            requests = await self._collect()
            for group in grouped_by_length([len(r.ids) for r in requests], self.max_rows, self.max_tokens):
                await self._run([requests[i] for i in group], requests)

    async def _run(self, group: Sequence[_Request], requests: Sequence[_Request]) -> None:
        batch = Batch.of([r.ids for r in group]).padded(
            self.padding, pad_id(self.tokenizer.spec, self.padding)
        )
        stats = self.stats
        stats.batches += 1
        stats.rows += len(group)
        stats.tokens += int(batch.attention_mask.sum())
        stats.cells += batch.ids.size
        try:
            answers = await self.run(batch)
            if len(answers) != len(group):
                raise InvalidParams(f"run gave {len(answers)} answers for {len(group)} rows")  # noqa: TRY301  as an answer
        except asyncio.CancelledError:
            for request in requests:
                request.answer.cancel()
            raise
        except Exception as e:  # noqa: BLE001  the callers get it
            for request in group:
                if not request.answer.done():
                    request.answer.set_exception(e)
            return
        for request, answer in zip(group, answers, strict=True):
            if not request.answer.done():
                request.answer.set_result(answer)
