"""Encoding from asyncio: in a few threads, so many at a time, without holding up the event loop.

A call that is cancelled or late returns at once; native work that has begun ends with the stretch it is in
(`STRETCH` characters of a batch, or one text). Waiting calls take no thread.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from tokamak.errors import InvalidParams
from tokamak.settings import available_cpus
from tokamak.tokenizers.encoding import Batch, Ints
from tokamak.tokenizers.shaping import Text

if TYPE_CHECKING:
    from tokamak.tokenizers.tokenizer import Tokenizer

T = TypeVar("T")
STRETCH = 1 << 18  # characters of a batch that one piece of work takes
WAITING = 64  # pieces of work that an event loop may have running or queued in threads

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}  # by process: a fork has threads of its own
_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()


def _pool() -> ThreadPoolExecutor:
    with _lock:
        pool = _pools.get(os.getpid())
        if pool is None:
            _pools.clear()
            pool = _pools[os.getpid()] = ThreadPoolExecutor(available_cpus(), "tokamak-tokenizer")
        return pool


async def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread of ours when it is its turn."""
    loop = asyncio.get_running_loop()
    turns = _turns.get(loop)
    if turns is None:
        turns = _turns[loop] = asyncio.Semaphore(WAITING)
    async with turns:
        return await loop.run_in_executor(_pool(), work)


async def within(work: asyncio.Future[T] | asyncio.Task[T], timeout: float | None) -> T:
    """The result, if it comes within `timeout` seconds. Raises: TimeoutError; the work is then cancelled."""
    try:
        return await asyncio.wait_for(work, timeout)
    except asyncio.TimeoutError as e:
        raise TimeoutError(f"encoding took longer than {timeout} s") from e


def _stretches(texts: Sequence[Text]) -> Iterator[tuple[int, int]]:
    start = size = 0
    for i, text in enumerate(texts):
        if size and size + len(text) > STRETCH:
            yield start, i
            start, size = i, 0
        size += len(text)
    if start < len(texts):
        yield start, len(texts)


async def encode(
    tokenizer: Tokenizer, text: Text, add_special: bool, parse_special: bool, timeout: float | None
) -> list[int]:
    """`Tokenizer.encode` of one text."""
    task = asyncio.ensure_future(in_thread(lambda: tokenizer.encode(text, add_special, parse_special)))
    return await within(task, timeout)


async def encode_batch(
    tokenizer: Tokenizer,
    texts: Sequence[Text],
    concurrency: int,
    add_special: bool,
    parse_special: bool,
    timeout: float | None,
) -> Batch:
    """`Tokenizer.encode_batch`, `concurrency` stretches at a time; ordered.

    Raises: TimeoutError; whatever a text raises, after the stretches that run have ended.
    """
    if concurrency < 1:
        raise InvalidParams(f"concurrency = {concurrency}: at least 1")
    return await within(
        asyncio.ensure_future(_stretched(tokenizer, texts, concurrency, add_special, parse_special)), timeout
    )


async def _stretched(
    tokenizer: Tokenizer, texts: Sequence[Text], concurrency: int, add_special: bool, parse_special: bool
) -> Batch:
    rows: dict[int, Batch] = {}
    todo = iter(list(_stretches(texts)))

    async def take() -> None:
        for start, stop in todo:
            part = texts[start:stop]
            rows[start] = await in_thread(
                lambda part=part: tokenizer.encode_batch(part, None, add_special, parse_special)  # type: ignore[misc]
            )

    takers = [asyncio.ensure_future(take()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*takers)
    finally:
        for taker in takers:
            taker.cancel()
    ids: list[Ints] = [row for _, batch in sorted(rows.items()) for row in batch]
    return Batch.of(ids)
