"""Between the engine and a socket: outputs of several prompts in one order of arrival, sent as a whole or as
events, cancelled within a step when the client goes away.

A slow reader holds nobody up: sending waits for the socket, unread outputs stay in the stream's inbox, and
when that is full the engine leaves the request out of its steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
from starlette.types import Receive, Send

from tokamak.engine.async_llm import AsyncStream
from tokamak.engine.llm import LLM, Prepared
from tokamak.engine.request import StepOutput
from tokamak.errors import Cancelled
from tokamak.server.answers import PromptDetails, Usage
from tokamak.server.guard import ClientGone, send_whole
from tokamak.server.problems import Problem, problem_of
from tokamak.server.state import State

SSE = b"text/event-stream; charset=utf-8"
NDJSON = b"application/x-ndjson"
DONE = b"data: [DONE]\n\n"
REPORT_S = 0.1  # between reports of what is not generated yet
COMMENT = b": ping\n\n"
TOGETHER = 16  # outputs that share one write when they are there at once
AHEAD = 16  # outputs of several prompts together that may lie between their inboxes and the socket
encode = msgspec.json.Encoder().encode


class Form(Protocol):
    """How a route writes what was generated. Made anew for each request. Pieces are bytes of the body, in order.

    One that has a `progress` is asked for pieces from time to time before the first output.
    """

    media_type: bytes
    ping: bytes  # after a silence, b"" for none

    def opening(self) -> Iterable[bytes]:
        """Before the first output."""

    def chunks(self, prompt: int, output: StepOutput) -> Iterable[bytes]:
        """Of one output of a prompt."""

    def closing(self, streams: list[AsyncStream]) -> Iterable[bytes]:
        """After the last output."""

    def failure(self, problem: Problem) -> bytes:
        """In place of the rest."""

    def whole(self, streams: list[AsyncStream]) -> object:
        """Everything at once, after the end."""


def event(value: object) -> bytes:
    """A server-sent event without a type."""
    return b"data: " + encode(value) + b"\n\n"


def named(kind: str, value: object) -> bytes:
    """A server-sent event of a type."""
    return b"event: " + kind.encode() + b"\ndata: " + encode(value) + b"\n\n"


async def outputs(streams: list[AsyncStream]) -> AsyncIterator[tuple[int, StepOutput]]:
    """(number of the prompt, output) as they come.  Raises: what the first that fails failed with."""
    if len(streams) == 1:
        while (output := await streams[0].next_event()) is not None:
            yield 0, output
        return
    arrived: asyncio.Queue[tuple[int, StepOutput | Exception | None]] = asyncio.Queue(AHEAD)

    async def pump(number: int, stream: AsyncStream) -> None:
        try:
            while (output := await stream.next_event()) is not None:
                await arrived.put((number, output))
            await arrived.put((number, None))
        except Exception as error:  # noqa: BLE001  # raised where they are read
            await arrived.put((number, error))

    pumps = [asyncio.ensure_future(pump(i, stream)) for i, stream in enumerate(streams)]
    try:
        num_open = len(streams)
        while num_open:
            number, item = await arrived.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                num_open -= 1
            else:
                yield number, item
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


class Run:
    """The completions of one request while they are generated.

    first: whether each prompt has given a token. Prompts that have not count as waiting.
    """

    def __init__(self, state: State, llm: LLM, asked: list[Prepared], arrived_s: float) -> None:
        self.state, self.llm, self.asked = state, llm, asked
        self.streams: list[AsyncStream] = []
        self._waiting = {i: len(request.prompt) for i, (request, _) in enumerate(asked)}
        for request, _ in asked:
            request.submitted_s = arrived_s

    @contextmanager
    def running(self) -> Iterator[list[AsyncStream]]:
        """Streams of the requests; cancelled, if they are not done, and counted at the end."""
        self.state.waiting_tokens += sum(self._waiting.values())
        try:
            for prepared in self.asked:
                self.streams.append(self.llm.astart(prepared))
            yield self.streams
        finally:
            self.state.waiting_tokens -= sum(self._waiting.values())
            for stream in self.streams:
                stream.close()
                self.state.metrics.finished(stream.completions)

    async def outputs(self) -> AsyncIterator[tuple[int, StepOutput]]:
        """As they come, with the time between tokens of one completion observed."""
        last: dict[tuple[int, int], float] = {}
        async for number, output in outputs(self.streams):
            if output.finish_reason == "abort":
                raise output.error or Cancelled("the engine cancelled the completion")
            self.state.waiting_tokens -= self._waiting.pop(number, 0)
            now, key = time.perf_counter(), (number, output.index)
            if key in last:
                self.state.metrics.inter_token.observe(now - last[key])
            last[key] = now
            yield number, output


def usage_of(streams: list[AsyncStream]) -> Usage:
    """Counts of all prompts and their completions; a prompt counts once, however many samples it has."""
    every = [stream.completions for stream in streams]
    prompt = sum(c[0].usage.prompt_tokens for c in every)
    cached = sum(c[0].usage.cached_tokens for c in every)
    made = sum(done.usage.completion_tokens for c in every for done in c)
    return Usage(prompt, made, prompt + made, PromptDetails(cached))


class Deadline:
    """Cancels the task that made it after seconds, and remembers that it did."""

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.passed, self._seconds = False, seconds

        def end() -> None:
            self.passed = True
            task.cancel()

        self._timer = asyncio.get_running_loop().call_later(seconds, end)

    def problem(self) -> Problem:
        """What to say then."""
        return Problem(504, f"the answer was not done within {self._seconds:g} s", code="timeout")

    def stop(self) -> None:
        """In time."""
        self._timer.cancel()


async def send_answer(send: Send, run: Run, form: Form, deadline: Deadline) -> None:
    """Generate everything, then answer.  Raises: Problem 504 after the deadline."""
    try:
        async for _ in run.outputs():
            pass
    except asyncio.CancelledError:
        if deadline.passed:
            raise deadline.problem() from None
        raise
    deadline.stop()
    await send_whole(send, 200, encode(form.whole(run.streams)))


async def send_events(send: Send, run: Run, form: Form, deadline: Deadline) -> None:
    """Answer while it is generated. A failure on the way is an event of its own, and nothing follows."""
    config = run.state.config
    sender = Sender(send, config.stall_s)
    headers = [
        (b"content-type", form.media_type),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    beside = [asyncio.ensure_future(sender.ping(form.ping, config.ping_s))] if form.ping else []
    if config.flush_tokens > 1:
        beside.append(asyncio.ensure_future(sender.flush_after(config.flush_s)))
    if (progress := getattr(form, "progress", None)) is not None:
        beside.append(asyncio.ensure_future(sender.report(progress)))
    try:
        await sender.send_all(form.opening())
        most = max(TOGETHER, config.flush_tokens)
        async for number, output in run.outputs():
            if progress is not None:
                beside[-1].cancel()
            num = sender.hold(form.chunks(number, output))
            if num >= most or (num >= config.flush_tokens and not any(s.ready for s in run.streams)):
                await sender.flush()
        await sender.flush(form.closing(run.streams))
    except asyncio.CancelledError:
        if not deadline.passed:
            raise
        await sender.flush([form.failure(deadline.problem())])
    except Exception as error:  # noqa: BLE001  # the head is out: this is the only place left to say it
        await sender.flush([form.failure(problem_of(error, "in a stream"))])
    finally:
        deadline.stop()
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    await send({"type": "http.response.body", "body": b""})


class Sender:
    """Sends pieces of a body; one that the socket does not take within stall_s cancels the task that made this."""

    def __init__(self, send: Send, stall_s: float) -> None:
        self._send, self._stall_s = send, stall_s
        self._loop = asyncio.get_running_loop()
        self._sent_s = self._loop.time()
        self._busy, self._task = False, asyncio.current_task()
        self._held, self._num_held = list[bytes](), 0
        self._holds = asyncio.Event()

    def hold(self, pieces: Iterable[bytes]) -> int:
        """Pieces of one output, to be sent with others; how many outputs are held now."""
        self._held += pieces
        self._num_held += 1
        self._holds.set()
        return self._num_held

    async def flush(self, more: Iterable[bytes] = ()) -> None:
        """Send what is held, and more."""
        pieces = [*self._held, *more]
        self._held, self._num_held = [], 0
        self._holds.clear()
        await self.send_all(pieces)

    async def flush_after(self, seconds: float) -> None:
        """Send what is held no longer than that, until cancelled."""
        while True:
            await self._holds.wait()
            await asyncio.sleep(seconds)
            if not self._busy:
                await self.flush()

    async def send_all(self, pieces: Iterable[bytes]) -> None:
        """Several at once."""
        body = b"".join(pieces)
        if body:
            await self.send(body)

    async def send(self, piece: bytes) -> None:
        """One piece, when the socket has room."""
        assert self._task is not None
        timer = self._loop.call_later(self._stall_s, self._task.cancel)
        self._busy = True
        try:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            self._busy, self._sent_s = False, self._loop.time()
            timer.cancel()

    async def report(self, pieces: Callable[[], list[bytes]]) -> None:
        """What there is to say from time to time, until cancelled."""
        while True:
            await asyncio.sleep(REPORT_S)
            if not self._busy:
                await self.send_all(pieces())

    async def ping(self, piece: bytes, after_s: float) -> None:
        """A piece after each silence, so that proxies and clients see that somebody is at work."""
        while True:
            left = self._sent_s + after_s - self._loop.time()
            await asyncio.sleep(max(left, 0.01))
            if not self._busy and self._loop.time() - self._sent_s >= after_s:
                await self.send(piece)


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, but not for a client who is gone.  Raises: ClientGone, what the work raises."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() or task.cancelled():
            raise ClientGone
        task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    with contextlib.suppress(StopAsyncIteration):
        while (await receive())["type"] != "http.disconnect":
            pass
