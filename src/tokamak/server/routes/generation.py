"""What /v1/chat/completions and /v1/completions share: from a body to an answer, and the pieces of logprobs."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from tokamak import __version__
from tokamak.engine.completion import Completion
from tokamak.engine.llm import LLM, Prepared
from tokamak.engine.request import StepOutput
from tokamak.sampling import TokenLogprob
from tokamak.server.guard import ClientGone, read_body
from tokamak.server.schemas import Finish, Sampling
from tokamak.server.state import State
from tokamak.server.stream import Form, running, send_answer, send_events, until_disconnect

Asked = TypeVar("Asked", bound=Sampling)


@dataclass(frozen=True, slots=True)
class Work:
    """A checked request. prepare: tokenizes, which may take a while: in a thread."""

    num_prompts: int
    prepare: Callable[[str], list[Prepared]]  # of the salt
    form: Callable[[list[Prepared]], Form]


class Generate(Generic[Asked]):
    """ASGI endpoint. kind: the type of the body. plan: from a body to the work, in the event loop."""

    def __init__(self, state: State, kind: type[Asked], plan: Callable[[State, Asked], Work]) -> None:
        self.state, self.plan = state, plan
        self.decode = msgspec.json.Decoder(kind).decode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, check, find a place, generate, answer.  Raises: Problem and errors before the answer has begun."""
        state = self.state
        asked = self.decode(await read_body(receive, state.config))
        state.check_model(asked.model)
        work = self.plan(state, asked)
        with state.admitted(work.num_prompts * asked.num_samples):
            prepared = await asyncio.to_thread(work.prepare, scope["salt"])
            form = work.form(prepared)
            with running(state, prepared) as streams:
                if asked.stream:
                    answer = send_events(state, send, streams, form, include_usage=asked.include_usage)
                else:
                    answer = send_answer(state, send, streams, form)
                try:
                    await until_disconnect(receive, answer)
                except ClientGone:
                    state.metrics.cancelled.add()
                    raise


def head(state: State, prefix: str, kind: str, prepared: list[Prepared]) -> dict[str, Any]:
    """Fields that every chunk of an answer repeats."""
    fields: dict[str, Any] = {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": state.model,
        "system_fingerprint": f"tokamak-{__version__}",
    }
    return fields if len(prepared) > 1 else {**fields, "seed": prepared[0][1].seed}


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
