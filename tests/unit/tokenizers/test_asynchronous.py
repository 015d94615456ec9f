"""asyncio: the event loop goes on, waiting is bounded, late and cancelled calls return at once, batches waste little."""

import asyncio
import random
import threading
import time

import numpy as np
import pytest

from tokamak.errors import InvalidParams
from tokamak.tokenizers import Tokenizer, asynchronous
from tokamak.tokenizers.batching import DynamicBatcher, grouped_by_length, padded_batches
from vocabularies import TEXT, byte_level

TOKENIZER = Tokenizer(byte_level())
TEXTS = [TEXT * (i % 5) + str(i) for i in range(40)]


def test_the_results_are_those_of_the_plain_calls():
    async def both():
        return await TOKENIZER.aencode(TEXT), await TOKENIZER.aencode_batch(TEXTS, concurrency=3)

    ids, batch = asyncio.run(both())
    want = TOKENIZER.encode_batch(TEXTS)
    assert ids == TOKENIZER.encode(TEXT)
    assert np.array_equal(batch.ids, want.ids) and np.array_equal(batch.offsets, want.offsets)
    assert len(asyncio.run(TOKENIZER.aencode_batch([]))) == 0


def test_the_event_loop_goes_on_meanwhile():
    rng = random.Random(1)
    texts = ["".join(rng.choices("abcdefghij klm", k=60_000)) for _ in range(30)]
    TOKENIZER.warm()

    async def watched():
        lags = []

        async def tick():
            while True:
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                lags.append(time.perf_counter() - before)

        ticking = asyncio.ensure_future(tick())
        before = time.perf_counter()
        await TOKENIZER.aencode_batch(texts)
        took = time.perf_counter() - before
        ticking.cancel()
        return lags, took

    lags, took = asyncio.run(watched())
    assert len(lags) >= 3  # a call that holds the loop up allows one
    assert max(lags) < max(0.25, took / 2)


class Slow:
    """A tokenizer whose batches wait for a signal."""

    def __init__(self):
        self.go = threading.Event()
        self.calls = self.running = self.most = 0
        self.lock = threading.Lock()

    def encode_batch(self, texts, *_):
        with self.lock:
            self.calls += 1
            self.running += 1
            self.most = max(self.most, self.running)
        self.go.wait(20)
        with self.lock:
            self.running -= 1
        return TOKENIZER.encode_batch(texts)


def test_a_late_call_raises_and_starts_no_more_work(monkeypatch):
    monkeypatch.setattr(asynchronous, "STRETCH", 1)
    slow = Slow()

    async def late():
        with pytest.raises(TimeoutError, match="took longer"):
            await asynchronous.encode_batch(slow, TEXTS, 1, True, False, 0.05)
        slow.go.set()
        await asyncio.sleep(0.05)

    asyncio.run(late())
    assert slow.calls == 1


def test_a_cancelled_call_stops_between_stretches(monkeypatch):
    monkeypatch.setattr(asynchronous, "STRETCH", 1)
    slow = Slow()

    async def cancelled():
        task = asyncio.ensure_future(asynchronous.encode_batch(slow, TEXTS, 2, True, False, None))
        while slow.running == 0:  # noqa: ASYNC110  it runs in a thread
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        slow.go.set()

    asyncio.run(cancelled())
    assert slow.calls <= 2 < len(TEXTS)


def test_no_more_run_at_once_than_asked_for(monkeypatch):
    monkeypatch.setattr(asynchronous, "STRETCH", 1)
    slow = Slow()
    slow.go.set()
    asyncio.run(asynchronous.encode_batch(slow, TEXTS, 2, True, False, None))
    assert slow.most <= 2 and slow.calls == len(TEXTS)
    with pytest.raises(InvalidParams, match="concurrency"):
        asyncio.run(TOKENIZER.aencode_batch(TEXTS, concurrency=0))


def test_groups_hold_every_row_once_within_the_limits():
    rng = random.Random(2)
    lengths = [rng.randrange(200) for _ in range(300)]
    groups = grouped_by_length(lengths, 16, 1000)
    assert sorted(i for g in groups for i in g) == list(range(300))
    assert all(len(g) <= 16 and (len(g) == 1 or max(lengths[i] for i in g) * len(g) <= 1000) for g in groups)
    assert grouped_by_length([], 4, 4) == [] and grouped_by_length([9], 4, 4) == [[0]]
    with pytest.raises(InvalidParams):
        grouped_by_length([1], 0, 1)


def test_batches_of_like_length_waste_less_than_batches_as_they_come():
    rng = random.Random(3)
    texts = [TEXT[: rng.randrange(1, 600)] for _ in range(128)]
    found = list(padded_batches(TOKENIZER, texts, max_rows=16))
    for rows, batch in found:
        for i, ids, mask in zip(rows, batch.ids, batch.attention_mask, strict=True):
            assert ids[mask == 1].tolist() == TOKENIZER.encode(texts[i])
    cells = sum(b.ids.size for _, b in found)
    plain = sum(TOKENIZER.encode_padded(texts[i : i + 16]).ids.size for i in range(0, 128, 16))
    assert cells < 0.75 * plain
    assert max(b.waste for _, b in found) < 0.5


def test_requests_are_answered_in_batches_each_by_its_own_row():
    async def lengths(batch):
        await asyncio.sleep(0)
        return batch.attention_mask.sum(axis=1).tolist()

    async def many():
        async with DynamicBatcher(TOKENIZER, lengths, max_rows=8, wait_s=0.05) as batcher:
            answers = await asyncio.gather(*(batcher.submit(t) for t in TEXTS))
            one = await batcher.submit("the")  # alone: it waits no longer than wait_s
            return answers, one, batcher.stats

    answers, one, stats = asyncio.run(many())
    assert answers == [len(TOKENIZER.encode(t)) for t in TEXTS] and one == len(TOKENIZER.encode("the"))
    assert stats.rows == len(TEXTS) + 1 and stats.batches < len(TEXTS)
    assert 0 <= stats.waste < 0.5


def test_a_failure_of_the_run_reaches_its_callers_and_the_next_batch_goes_on():
    async def run(batch):
        if batch.ids.shape[1] > 50:
            raise ValueError("too wide")
        return [0] * (len(batch) + (batch.ids.shape[1] == 1))

    async def tried():
        async with DynamicBatcher(TOKENIZER, run, wait_s=0.001) as batcher:
            with pytest.raises(ValueError, match="too wide"):
                await batcher.submit(TEXT)
            with pytest.raises(InvalidParams, match="2 answers for 1"):
                await batcher.submit("", add_special=True)
            return await batcher.submit("the thing")

    assert asyncio.run(tried()) == 0


def test_leaving_cancels_what_waits():
    async def never(batch):
        await asyncio.sleep(60)
        return [0] * len(batch)

    async def left():
        async with DynamicBatcher(TOKENIZER, never, wait_s=0) as batcher:
            first = asyncio.ensure_future(batcher.submit("a"))
            while not batcher.stats.batches:  # noqa: ASYNC110  there is no event for it
                await asyncio.sleep(0.001)
            second = asyncio.ensure_future(batcher.submit("b"))
            await asyncio.sleep(0.02)
        return await asyncio.gather(first, second, return_exceptions=True)

    assert all(isinstance(e, asyncio.CancelledError) for e in asyncio.run(left()))
