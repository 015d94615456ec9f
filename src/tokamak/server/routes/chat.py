"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokamak.engine.async_llm import AsyncStream
from tokamak.engine.completion import Completion
from tokamak.engine.llm import LLM, Prepared
from tokamak.engine.request import StepOutput
from tokamak.sampling import TokenLogprob
from tokamak.server import bodies
from tokamak.server.answers import (
    Answer,
    CalledFunction,
    ChatChoice,
    ChatCompletion,
    ChatLogprobs,
    ContentLogprob,
    InputTokens,
    ToolCall,
    TopLogprob,
)
from tokamak.server.dialogue import Dialogue, Written, prepare, reader_of, resumes, write
from tokamak.server.guard import read_body
from tokamak.server.routes.generation import (
    Context,
    Generate,
    Work,
    content_entries,
    content_entry,
    failure_event,
    finish_of,
    head,
    timings_of,
    token_bytes,
    token_text,
)
from tokamak.server.schemas import ChatRequest
from tokamak.server.state import State
from tokamak.server.stream import COMMENT, DONE, SSE, Form, event, usage_of
from tokamak.server.tools import Piece, Reader

PATH = "/v1/chat/completions"
COUNT_PATH = f"{PATH}/input_tokens"
OPERATIONS = (
    (PATH, "post", ChatRequest, ChatCompletion, "Answer a conversation."),
    (COUNT_PATH, "post", ChatRequest, InputTokens, "Tokens of a conversation as the model reads it."),
    *(
        (path.removeprefix("/v1"), "post", ChatRequest, answered, f"The same as {path}.")
        for path, answered in ((PATH, ChatCompletion), (COUNT_PATH, InputTokens))
    ),
)


def routes(state: State) -> list[Route]:
    """Both, with and without /v1 before them as llama-server has them."""

    async def count(request: Request) -> Response:
        asked, request.scope["ignored"] = bodies.read(
            ChatRequest, await read_body(request.receive, state.config)
        )
        dialogue = dialogue_of(asked)
        async with state.models.use(asked.model) as served:
            written = await asyncio.to_thread(write, served.llm, dialogue)
        return bodies.answer(InputTokens(len(written.token_ids)))

    complete = Generate(state, ChatRequest, plan)
    ends = ((PATH, complete), (COUNT_PATH, count))
    named = [(name, end) for path, end in ends for name in (path, path.removeprefix("/v1"))]
    return [Route(name, end, methods=["POST"]) for name, end in named]


def dialogue_of(asked: ChatRequest) -> Dialogue:
    """Raises: InvalidParams."""
    named = None if isinstance(asked.tool_choice, str | None) else asked.tool_choice.function.name
    variables = asked.chat_template_kwargs.variables() if asked.chat_template_kwargs else {}
    if asked.reasoning_effort is not None:
        variables.setdefault("reasoning_effort", asked.reasoning_effort)
    if asked.reasoning_effort == "none":
        variables.setdefault("enable_thinking", False)
    messages = [message.plain() for message in asked.messages]
    return Dialogue(
        messages=messages,
        resumed=asked.resumed(resumes(messages)),
        params=asked.sampling_params(),
        tools=tuple(tool.tool() for tool in asked.tools or ()),
        choice="function" if named else str(asked.tool_choice or "auto"),
        only=named or "",
        parallel=asked.parallel_tool_calls is not False,
        variables=variables,
        reasoning=asked.reasoning_format != "none",
    ).checked()


def plan(context: Context, asked: ChatRequest) -> Work:
    """The messages in the model's own form, as one prompt."""
    llm, dialogue = context.llm, dialogue_of(asked)

    def ready(salt: str) -> tuple[list[Prepared], Form]:
        prepared, written = prepare(llm, dialogue, salt)
        context.note(*written.notes)
        readers = [reader_of(llm, dialogue, written) for _ in range(asked.num_samples)]
        return [prepared], ChatForm(context, asked, [prepared], readers, written)

    return Work(asked.num_samples, ready, bool(asked.stream))


class ChatForm:
    """See `Form`. readers: one for each choice, of this request alone."""

    media_type, ping = SSE, COMMENT

    def __init__(
        self,
        context: Context,
        asked: ChatRequest,
        prepared: list[Prepared],
        readers: list[Reader],
        written: Written,
    ) -> None:
        self._written = written
        self._llm, self._asked, self._readers = context.llm, asked, readers
        self._head = head(context, "chatcmpl", "chat.completion.chunk", prepared)
        self._usage: dict[str, Any] = {"usage": None} if asked.include_usage else {}

    def opening(self) -> list[bytes]:
        """The role of every choice; nothing says yet that there will be a text."""
        return [
            self._chunk(ChatChoice(index=i, delta=Answer(role="assistant")))
            for i in range(len(self._readers))
        ]

    def chunks(self, _prompt: int, output: StepOutput) -> list[bytes]:
        """Text, reasoning and calls as they become certain; the finish reason alone, at last."""
        entry, reader, index = content_entry(output), self._readers[output.index], output.index
        logprobs = logprobs_of(self._llm, [entry]) if entry is not None else None
        pieces = reader.push(output.text)
        if output.finish_reason is not None:
            pieces += reader.finish()
        deltas = [delta_of(piece) for piece in pieces]
        if logprobs and not deltas:
            deltas = [Answer(content="")]
        chunks = []
        for number, delta in enumerate(deltas):
            said = logprobs if number == 0 else None
            chunks.append(self._chunk(ChatChoice(index=index, delta=delta, logprobs=said)))
        if output.finish_reason is not None:
            finish = finish_of(output.finish_reason)
            finish = "tool_calls" if reader.num_calls and finish == "stop" else finish
            chunks.append(self._chunk(ChatChoice(index=index, delta=Answer(), finish_reason=finish)))
        return chunks

    def closing(self, streams: list[AsyncStream]) -> list[bytes]:
        """No choice, only usage and timings, if asked for; then [DONE]."""
        more: dict[str, Any] = {"usage": usage_of(streams)} if self._asked.include_usage else {}
        if self._asked.timings_per_token:
            more["timings"] = timings_of(streams[0].completion)
        last = [event(ChatCompletion(choices=[], **{**self._head, **more}))] if more else []
        return [*last, DONE]

    def failure(self, problem: Any) -> bytes:
        """An event, and no [DONE]."""
        return failure_event(problem)

    def whole(self, streams: list[AsyncStream]) -> ChatCompletion:
        """All choices."""
        choices = [self._choice(done) for done in streams[0].completions]
        more: dict[str, Any] = {"object": "chat.completion", "usage": usage_of(streams)}
        if self._asked.timings_per_token:
            more["timings"] = timings_of(streams[0].completion)
        if self._asked.verbose:
            tokenizer, written = self._llm.tokenizer, self._written
            more["verbose"] = {"prompt": tokenizer.decode(written.token_ids) if tokenizer else written.text}
        return ChatCompletion(choices=choices, **{**self._head, **more})

    def _choice(self, done: Completion) -> ChatChoice:
        logprobs = logprobs_of(self._llm, content_entries(done)) if self._asked.logprobs else None
        reader = self._readers[done.index]
        message = message_of([*reader.push(done.text), *reader.finish()])
        finish = finish_of(done.finish_reason)
        finish = "tool_calls" if reader.num_calls and finish == "stop" else finish
        return ChatChoice(index=done.index, message=message, logprobs=logprobs, finish_reason=finish)

    def _chunk(self, choice: ChatChoice) -> bytes:
        return event(ChatCompletion(choices=[choice], **self._head, **self._usage))


def delta_of(piece: Piece) -> Answer:
    """What a piece adds to a message."""
    if piece.kind == "text":
        return Answer(content=piece.text)
    if piece.kind == "reasoning":
        return Answer(reasoning_content=piece.text)
    if piece.name:
        function = CalledFunction(piece.text, piece.name)
        return Answer(tool_calls=[ToolCall(function, piece.index, piece.id, "function")])
    return Answer(tool_calls=[ToolCall(CalledFunction(piece.text), piece.index)])


def message_of(pieces: Iterable[Piece]) -> Answer:
    """A whole message; content is null when there are only calls."""
    text, reasoning = "", ""
    calls: list[ToolCall] = []
    for piece in pieces:
        if piece.kind == "text":
            text += piece.text
        elif piece.kind == "reasoning":
            reasoning += piece.text
        elif piece.name:
            function = CalledFunction(piece.text, piece.name)
            calls.append(ToolCall(function=function, id=piece.id, type="function"))
        else:
            calls[piece.index].function.arguments += piece.text
    message = Answer(role="assistant", content=text if text or not calls else None, refusal=None)
    if reasoning:
        message.reasoning_content = reasoning
    if calls:
        message.tool_calls = calls
    return message


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
