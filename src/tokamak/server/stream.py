"""Between the engine and a socket: outputs of several prompts in one order of arrival, sent as a whole or as
server-sent events, cancelled within a step when the client goes away.

A slow reader holds nobody up: sending waits for the socket, unread outputs stay in the stream's inbox, and
when that is full the engine leaves the request out of its steps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
from starlette.types import Receive, Send

from tokamak.engine.async_llm import AsyncStream
from tokamak.engine.llm import Prepared
from tokamak.engine.request import StepOutput
from tokamak.errors import Cancelled
from tokamak.server.guard import ClientGone, send_whole
from tokamak.server.problems import problem_of
from tokamak.server.schemas import Generated, PromptDetails, Usage
from tokamak.server.state import State

SSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
DONE = b"data: [DONE]\n\n"
AHEAD = 16  # outputs of several prompts together that may lie between their inboxes and the socket


class Form(Protocol):
    """How a route writes what was generated. Made anew for each request."""

    def opening(self) -> list[Generated]:
        """Chunks before the first output."""

    def chunks(self, prompt: int, output: StepOutput) -> list[Generated]:
        """Chunks of one output of a prompt, in order."""

    def counts(self, usage: Usage) -> Generated:
        """The last chunk, if usage is asked for."""

    def whole(self, streams: list[AsyncStream], usage: Usage) -> Generated:
        """Everything at once, after the end."""


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


async def measured(state: State, streams: list[AsyncStream]) -> AsyncIterator[tuple[int, StepOutput]]:
    """The same, with the time between tokens of one completion observed. Counts what ended when it is left."""
    last: dict[tuple[int, int], float] = {}
    async for number, output in outputs(streams):
        if output.finish_reason == "abort":
            raise output.error or Cancelled("the engine cancelled the completion")
        now, key = time.perf_counter(), (number, output.index)
        if key in last:
            state.metrics.inter_token.observe(now - last[key])
        last[key] = now
        yield number, output


@contextmanager
def running(state: State, asked: list[Prepared]) -> Any:
    """Streams of prepared requests; cancelled, if they are not done, and counted at the end."""
    streams: list[AsyncStream] = []
    try:
        for prepared in asked:
            streams.append(state.llm.astart(prepared))  # noqa: PERF401  # those made before a failure are closed
        yield streams
    finally:
        for stream in streams:
            stream.close()
            state.metrics.finished(stream.completions)


def usage_of(streams: list[AsyncStream]) -> Usage:
    """Counts of all prompts and their completions; a prompt counts once, however many samples it has."""
    every = [stream.completions for stream in streams]
    prompt = sum(c[0].usage.prompt_tokens for c in every)
    cached = sum(c[0].usage.cached_tokens for c in every)
    made = sum(done.usage.completion_tokens for c in every for done in c)
    return Usage(prompt, made, prompt + made, PromptDetails(cached))


async def send_answer(state: State, send: Send, streams: list[AsyncStream], form: Form) -> None:
    """Generate everything, then answer."""
    async for _ in measured(state, streams):
        pass
    await send_whole(send, 200, msgspec.json.encode(form.whole(streams, usage_of(streams))))


async def send_events(
    state: State, send: Send, streams: list[AsyncStream], form: Form, *, include_usage: bool
) -> None:
    """Answer while it is generated. A failure on the way is an event of its own, and no [DONE] follows."""
    sender = Sender(send, state.config.stall_s)
    await send({"type": "http.response.start", "status": 200, "headers": list(SSE_HEADERS)})
    encode = msgspec.json.Encoder().encode
    try:
        for chunk in form.opening():
            await sender.send(b"data: " + encode(chunk) + b"\n\n")
        async for number, output in measured(state, streams):
            for chunk in form.chunks(number, output):
                await sender.send(b"data: " + encode(chunk) + b"\n\n")
        if include_usage:
            await sender.send(b"data: " + encode(form.counts(usage_of(streams))) + b"\n\n")
        await sender.send(DONE)
    except Exception as error:  # noqa: BLE001  # the head is out: this is the only place left to say it
        await sender.send(b"data: " + problem_of(error, "in a stream").body + b"\n\n")
    await send({"type": "http.response.body", "body": b""})


class Sender:
    """Sends pieces of a body; a piece that the socket does not take within stall_s cancels the task that sends."""

    def __init__(self, send: Send, stall_s: float) -> None:
        self._send, self._stall_s = send, stall_s
        self._loop = asyncio.get_running_loop()

    async def send(self, piece: bytes) -> None:
        """One piece, when the socket has room."""
        task = asyncio.current_task()
        assert task is not None
        timer = self._loop.call_later(self._stall_s, task.cancel)
        try:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            timer.cancel()


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
    while (await receive())["type"] != "http.disconnect":
        pass
