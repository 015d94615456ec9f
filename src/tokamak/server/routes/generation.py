"""What all routes that generate share: from a body to an answer, and the pieces of logprobs."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from starlette.types import Receive, Scope, Send

from tokamak import __version__
from tokamak.engine.async_llm import AsyncStream
from tokamak.engine.completion import Completion
from tokamak.engine.llm import LLM, Prepared
from tokamak.engine.request import StepOutput
from tokamak.sampling import TokenLogprob
from tokamak.server import bodies
from tokamak.server.answers import Finish
from tokamak.server.guard import ClientGone, read_body
from tokamak.server.problems import Problem
from tokamak.server.registry import Served
from tokamak.server.state import State
from tokamak.server.stream import Deadline, Form, Run, send_answer, send_events, until_disconnect

Asked = TypeVar("Asked", bound=bodies.Body)


@dataclass(frozen=True, slots=True)
class Work:
    """A checked request. num: completions. prepare: (the salt) tokenizes and compiles, which may take a while: in a thread; gives
    the requests of the engine and the form of the answer."""

    num: int
    prepare: Callable[[str], tuple[list[Prepared], Form]]
    stream: bool


@dataclass(frozen=True, slots=True)
class Context:
    """Where a request came in. scope: of ASGI, for notes to the client. salt: of its key."""

    state: State
    served: Served
    scope: Scope

    @property
    def llm(self) -> LLM:
        """The model."""
        return self.served.llm

    def note(self, *notes: str) -> None:
        """Say something in the header x-tokamak-notes."""
        self.scope.setdefault("notes", []).extend(notes)


Plan = Callable[[Context, Any], Work]


class Generate(Generic[Asked]):
    """ASGI endpoint. kind: the type of the body. plan: from a body to the work, in the event loop."""

    def __init__(self, state: State, kind: type[Asked], plan: Plan) -> None:
        self.state, self.plan, self.kind = state, plan, kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, check, find a place, generate, answer.  Raises: Problem and errors before the answer has begun."""
        state = self.state
        asked, scope["ignored"] = bodies.read(
            self.kind, await read_body(receive, state.config), state.config.defaults
        )
        await generate(state, scope, receive, send, self.plan, asked)


async def generate(state: State, scope: Scope, receive: Receive, send: Send, plan: Plan, asked: Any) -> None:
    """A decoded request to its answer, unless the client goes away before."""

    async def work() -> None:
        async with state.models.use(asked.model) as served:
            planned = plan(Context(state, served, scope), asked)
            await run(state, scope, send, served, planned)

    try:
        await until_disconnect(receive, work())
    except ClientGone:
        state.metrics.cancelled.add()
        raise


async def run(state: State, scope: Scope, send: Send, served: Served, work: Work) -> None:
    """Find a place, generate, answer."""
    arrived_s, deadline, key = time.perf_counter(), Deadline(state.config.request_s), scope.get("salt", "")
    try:
        async with state.admitted(served, key, work.num):
            prepared, form = await asyncio.to_thread(work.prepare, key)
            state.check_tokens(sum(len(request.prompt) for request, _ in prepared))
            current = Run(state, served.llm, prepared, arrived_s)
            with current.running() as streams:
                scope["model"] = served.name
                try:
                    answer = send_events if work.stream else send_answer
                    await answer(send, current, form, deadline)
                finally:
                    scope["counts"] = counts_of(streams)
    except asyncio.CancelledError:
        if deadline.passed:
            raise deadline.problem() from None
        raise
    finally:
        deadline.stop()


def counts_of(streams: Sequence[AsyncStream]) -> dict[str, Any]:
    """For the log."""
    done = [c for stream in streams for c in stream.completions]
    first = next((c.timings.ttft_s for c in done if c.timings.ttft_s is not None), None)
    return {
        "prompt_tokens": sum(s.completions[0].usage.prompt_tokens for s in streams),
        "cached_tokens": sum(s.completions[0].usage.cached_tokens for s in streams),
        "completion_tokens": sum(c.usage.completion_tokens for c in done),
        "finish_reasons": sorted({c.finish_reason for c in done}),
        "ttft_ms": None if first is None else round(1e3 * first, 2),
    }


def head(context: Context, prefix: str, kind: str, prepared: list[Prepared]) -> dict[str, Any]:
    """Fields that every chunk of an answer repeats."""
    fields: dict[str, Any] = {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": context.served.name,
        "system_fingerprint": f"tokamak-{__version__}",
    }
    return fields if len(prepared) > 1 else {**fields, "seed": prepared[0][1].seed}


def timings_of(done: Completion) -> dict[str, float]:
    """Counts and speeds as llama-server names them; nothing is divided by zero."""
    usage, times = done.usage, done.timings
    computed = usage.prompt_tokens - usage.cached_tokens
    prompt_ms = 1e3 * ((times.ttft_s if times.ttft_s is not None else times.total_s) - times.queue_s)
    later_ms = max(0.0, 1e3 * (times.total_s - times.queue_s) - prompt_ms)
    made = usage.completion_tokens
    return {
        "cache_n": usage.cached_tokens,
        "prompt_n": computed,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_ms / max(1, computed),
        "prompt_per_second": 1e3 * computed / prompt_ms if prompt_ms > 0 else 0.0,
        "predicted_n": made,
        "predicted_ms": later_ms,
        "predicted_per_token_ms": later_ms / max(1, made - 1),
        "predicted_per_second": 1e3 * (made - 1) / later_ms if later_ms > 0 and made > 1 else 0.0,
    }


def timings_while(num_read: int, ms: float) -> dict[str, float]:
    """The same while the prompt is read. num_read: tokens of it."""
    return {
        "cache_n": 0,
        "prompt_n": num_read,
        "prompt_ms": ms,
        "prompt_per_token_ms": ms / max(1, num_read),
        "prompt_per_second": 1e3 * num_read / ms if ms > 0 else 0.0,
        "predicted_n": 0,
        "predicted_ms": 0.0,
        "predicted_per_token_ms": 0.0,
        "predicted_per_second": 0.0,
    }


def token_bytes(llm: LLM, token_id: int) -> bytes:
    """What a token stands for; nothing without a tokenizer, or for a row of padding."""
    tokenizer = llm.tokenizer
    return tokenizer.id_to_bytes(token_id) if tokenizer and token_id < tokenizer.vocab_size else b""


def token_text(llm: LLM, token_id: int) -> str:
    """The same as text; "token_id:7" where there is none."""
    text = token_bytes(llm, token_id).decode("utf-8", "replace")
    return text or f"token_id:{token_id}"


def finish_of(reason: str | None) -> Finish | None:
    """A finish reason of a completion that ended by itself."""
    return "stop" if reason == "stop" else "length" if reason == "length" else None


def content_entry(output: StepOutput) -> TokenLogprob | None:
    """The log-probability of an output's token, unless it only ended the completion."""
    return None if isinstance(output.stop_reason, int) else output.logprob


def content_entries(done: Completion) -> list[TokenLogprob | None]:
    """Those of a whole completion."""
    entries = done.logprobs or []
    return entries[:-1] if isinstance(done.stop_reason, int) else entries


def failure_event(problem: Problem) -> bytes:
    """A problem inside a stream of OpenAI's."""
    return b"data: " + problem.body + b"\n\n"
