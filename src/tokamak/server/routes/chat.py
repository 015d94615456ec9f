"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.routing import Route

from tokamak.engine.async_llm import AsyncStream
from tokamak.engine.completion import Completion
from tokamak.engine.llm import LLM, Prepared
from tokamak.engine.request import StepOutput
from tokamak.sampling import TokenLogprob
from tokamak.server.routes.generation import (
    Generate,
    Work,
    content_entries,
    content_entry,
    finish_of,
    head,
    token_bytes,
    token_text,
)
from tokamak.server.schemas import (
    Answer,
    ChatChoice,
    ChatCompletion,
    ChatLogprobs,
    ChatRequest,
    ContentLogprob,
    Generated,
    TopLogprob,
    Usage,
)
from tokamak.server.state import State

PATH = "/v1/chat/completions"


def routes(state: State) -> list[Route]:
    """The one route."""
    return [Route(PATH, Generate(state, ChatRequest, plan), methods=["POST"])]


def plan(state: State, asked: ChatRequest) -> Work:
    """The messages in the model's own form, as one prompt."""
    llm, params = state.llm, asked.sampling_params()
    messages = [message.plain() for message in asked.messages]

    def prepare(salt: str) -> list[Prepared]:
        return [llm.prepare(llm.chat_ids(messages), params, salt=salt)]

    return Work(1, prepare, lambda prepared: ChatForm(state, asked, prepared))


class ChatForm:
    """See `Form`."""

    def __init__(self, state: State, asked: ChatRequest, prepared: list[Prepared]) -> None:
        self._llm, self._num, self._with_logprobs = state.llm, asked.num_samples, bool(asked.logprobs)
        self._head = head(state, "chatcmpl", "chat.completion.chunk", prepared)
        self._usage: dict[str, Any] = {"usage": None} if asked.include_usage else {}

    def opening(self) -> list[Generated]:
        """The role of every choice."""
        return [
            self._chunk(ChatChoice(index=i, delta=Answer(role="assistant", content="")))
            for i in range(self._num)
        ]

    def chunks(self, _prompt: int, output: StepOutput) -> list[Generated]:
        """Text as it becomes certain; the finish reason alone, at last."""
        entry = content_entry(output)
        logprobs = logprobs_of(self._llm, [entry]) if entry is not None else None
        chunks = []
        if output.text or logprobs:
            delta = Answer(content=output.text)
            chunks.append(self._chunk(ChatChoice(index=output.index, delta=delta, logprobs=logprobs)))
        if output.finish_reason is not None:
            finish = finish_of(output.finish_reason)
            chunks.append(self._chunk(ChatChoice(index=output.index, delta=Answer(), finish_reason=finish)))
        return chunks

    def counts(self, usage: Usage) -> Generated:
        """No choice, only usage."""
        return ChatCompletion(choices=[], **{**self._head, "usage": usage})

    def whole(self, streams: list[AsyncStream], usage: Usage) -> Generated:
        """All choices."""
        choices = [self._choice(done) for done in streams[0].completions]
        return ChatCompletion(choices=choices, **{**self._head, "object": "chat.completion", "usage": usage})

    def _choice(self, done: Completion) -> ChatChoice:
        logprobs = logprobs_of(self._llm, content_entries(done)) if self._with_logprobs else None
        message = Answer(role="assistant", content=done.text, refusal=None)
        finish = finish_of(done.finish_reason)
        return ChatChoice(index=done.index, message=message, logprobs=logprobs, finish_reason=finish)

    def _chunk(self, choice: ChatChoice) -> Generated:
        return ChatCompletion(choices=[choice], **self._head, **self._usage)


def logprobs_of(llm: LLM, entries: Iterable[TokenLogprob | None]) -> ChatLogprobs:
    """Entries with text and bytes of their tokens."""

    def top(token_id: int, logprob: float) -> TopLogprob:
        return TopLogprob(token_text(llm, token_id), logprob, list(token_bytes(llm, token_id)))

    content = []
    for entry in filter(None, entries):
        drawn = top(entry.token_id, entry.logprob)
        likely = [top(i, p) for i, p in entry.top]
        content.append(ContentLogprob(drawn.token, drawn.logprob, drawn.bytes, likely))
    return ChatLogprobs(content)
