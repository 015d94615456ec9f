"""Streams for asyncio: the engine keeps its thread, the event loop is only told that there is something to read."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import AsyncIterator

from tokamak.engine.completion import Completion
from tokamak.engine.request import StepOutput
from tokamak.engine.ticket import UNREAD, Inbox, Submit


class Bell:
    """Wakes what waits in one event loop, with one call across threads for all that arrived in a step."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._arrived: deque[asyncio.Event] = deque()
        self._rung = False

    def ring(self, arrived: asyncio.Event) -> None:
        """From any thread: set the event soon."""
        self._arrived.append(arrived)
        if self._rung:
            return  # whoever answers takes everything that was there when it said that it answers
        self._rung = True
        loop = self._loop()
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody reads any more
            if loop is not None:
                loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._rung = False  # before the events are taken: one that comes now rings again
        while self._arrived:
            self._arrived.popleft().set()


_bells: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bell] = weakref.WeakKeyDictionary()


class AsyncStream(AsyncIterator[str]):
    """Pieces of text as they come. Cancelling the task, closing or dropping the stream cancels within one step.

    Made inside a running event loop, and read there only.
    """

    def __init__(self, submit: Submit) -> None:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        bell = _bells.get(loop)
        if bell is None:
            bell = _bells[loop] = Bell(loop)
        ring = bell.ring
        self._arrived, self._inbox, self._num_open = arrived, Inbox(lambda: ring(arrived)), 0
        self._ticket = submit(self._inbox.put, self._inbox.room)
        self._num_open = self._ticket.request.num_samples

    async def next_event(self) -> StepOutput | None:
        """The next output of any sample, None after the last.  Raises: what the request failed with."""
        while self._num_open > 0:
            output = self._inbox.take()
            if output is None:
                self._arrived.clear()
                output = self._inbox.take()  # it may have come before the flag was cleared
            if output is None:
                await self._wait()
                continue
            if len(self._inbox) == UNREAD - 1:
                self._ticket.made_room()
            if output.finish_reason is not None:
                self._num_open = 0 if output.finish_reason == "abort" else self._num_open - 1
            if output.finish_reason == "abort":
                self._ticket.check()
            return output
        return None

    @property
    def ready(self) -> bool:
        """Whether `next_event` has something to give at once."""
        return len(self._inbox) > 0

    async def _wait(self) -> None:
        try:
            await self._arrived.wait()
        except BaseException:  # the task is cancelled
            self.close()
            raise

    async def __anext__(self) -> str:
        while (output := await self.next_event()) is not None:
            if output.text:
                return output.text
        raise StopAsyncIteration

    @property
    def completion(self) -> Completion:
        """The whole completion after the end; what there is so far before."""
        return self._ticket.completions()[0]

    @property
    def completions(self) -> list[Completion]:
        """The same for every sample."""
        return self._ticket.completions()

    def close(self) -> None:
        """Cancel, if it is not done."""
        self._num_open = 0
        self._ticket.cancel()

    async def aclose(self) -> None:
        """The same, for `contextlib.aclosing`."""
        self.close()

    def __del__(self) -> None:
        if self._num_open:
            self.close()
