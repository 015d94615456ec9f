"""POST /v1/messages and /v1/messages/count_tokens, as Anthropic has them."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokamak.engine.async_llm import AsyncStream
from tokamak.engine.llm import Prepared
from tokamak.engine.request import StepOutput
from tokamak.errors import InvalidParams
from tokamak.sampling import SamplingParams
from tokamak.server import bodies
from tokamak.server.dialogue import Dialogue, prepare, reader_of, resumes, write
from tokamak.server.guard import read_body
from tokamak.server.problems import Problem
from tokamak.server.routes.generation import Context, Generate, Work
from tokamak.server.schemas import MAX_MESSAGES, MAX_TOOLS, Text, bounded, image_url, with_images
from tokamak.server.state import State
from tokamak.server.stream import SSE, Form, named, usage_of
from tokamak.server.tools import Block, Blocks, Reader, Tool

PATH, COUNT_PATH = "/v1/messages", "/v1/messages/count_tokens"
# A line that one agent puts first, different in every request: it would keep every prefix from being found again.
_VOLATILE = re.compile(r"\A\s*x-anthropic-billing-header:[^\n]*\n?")


class ImageSource(Struct, forbid_unknown_fields=True):
    """The content of an image. Addresses and files are refused."""

    type: Literal["base64"]
    media_type: Literal["image/png", "image/jpeg", "image/webp", "image/gif"]
    data: str


class Part(Struct):
    """A block of a message: text, image, tool_use, tool_result, thinking. Documents are refused."""

    type: Literal["text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking"]
    source: ImageSource | None = None
    text: str = ""
    id: str = ""
    name: str = ""
    input: dict[str, Any] = {}
    tool_use_id: str = ""
    content: str | list[Part] = ""
    is_error: bool | None = None
    thinking: str = ""


class Turn(Struct):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Part]


class GivenTool(Struct):
    """A function of the client. Tools that run at Anthropic are refused."""

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_.:-]{1,128}$")]
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None


class Choice(Struct):
    """tool_choice. any: some tool; tool: the one of this name."""

    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool = False


class Thinking(Struct):
    """disabled turns reasoning off where the model's template can. budget_tokens: not enforced."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None


class SchemaOutput(Struct):
    """The text is JSON of this schema."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Struct):
    """format: see SchemaOutput. effort: for templates that know reasoning_effort."""

    format: SchemaOutput | None = None
    effort: str | None = None


class CountRequest(bodies.Body, kw_only=True):
    """Body of /v1/messages/count_tokens. A field that is not known is listed in x-tokamak-ignored."""

    lenient: ClassVar[bool] = True
    messages: Annotated[list[Turn], Meta(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = None
    system: str | list[Part] | None = None
    tools: Annotated[list[GivenTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Choice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None


class MessagesRequest(CountRequest, kw_only=True):
    """Body of /v1/messages. max_tokens: more than the context leaves is taken as what it leaves."""

    max_tokens: Annotated[int, Meta(ge=0)]
    stream: bool | None = None
    stop_sequences: Annotated[list[Text], Meta(max_length=16)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None


class MessageUsage(Struct):
    """input_tokens: of the prompt, computed; cache_read_input_tokens: of the prompt, found in the cache."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0


class MessageAnswer(Struct, kw_only=True):
    """Answer of /v1/messages."""

    id: str
    model: str
    content: list[dict[str, Any]]
    usage: MessageUsage
    stop_reason: str | None = None
    stop_sequence: str | None = None
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"


class CountAnswer(Struct):
    """Answer of /v1/messages/count_tokens."""

    input_tokens: int


OPERATIONS = (
    (PATH, "post", MessagesRequest, MessageAnswer, "Answer a conversation (Anthropic)."),
    (
        COUNT_PATH,
        "post",
        CountRequest,
        CountAnswer,
        "Tokens of a conversation as the model reads it (Anthropic).",
    ),
)


def routes(state: State) -> list[Route]:
    """Both."""

    async def count(request: Request) -> Response:
        asked, request.scope["ignored"] = bodies.read(
            CountRequest, await read_body(request.receive, state.config)
        )
        dialogue = dialogue_of(asked, SamplingParams())
        async with state.models.use(asked.model) as served:
            written = await asyncio.to_thread(write, served.llm, dialogue)
        return bodies.answer(CountAnswer(len(written.token_ids)))

    return [
        Route(PATH, Generate(state, MessagesRequest, plan), methods=["POST"]),
        Route(COUNT_PATH, count, methods=["POST"]),
    ]


def plan(context: Context, asked: MessagesRequest) -> Work:
    """One prompt, one answer."""
    names = ("temperature", "top_p", "top_k")
    given = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    if asked.output_config and asked.output_config.format:
        given["json_schema"] = bounded(asked.output_config.format.schema)
    params = SamplingParams(max_tokens=asked.max_tokens, stop=asked.stop_sequences, **given)
    llm, dialogue = context.llm, dialogue_of(asked, params)

    def ready(salt: str) -> tuple[list[Prepared], Form]:
        prepared, written = prepare(llm, dialogue, salt)
        context.note(*written.notes)
        return [prepared], MessageForm(context, prepared, reader_of(llm, dialogue, written))

    return Work(1, ready, bool(asked.stream))


def dialogue_of(asked: CountRequest, params: SamplingParams) -> Dialogue:
    """Raises: InvalidParams."""
    messages: list[dict[str, Any]] = []
    system = asked.system if isinstance(asked.system, str) else text_of(asked.system or [])
    system = _VOLATILE.sub("", system)
    if system:
        messages.append({"role": "system", "content": system})
    for turn in asked.messages:
        messages += plain(turn)
    choice = asked.tool_choice or Choice("auto")
    variables: dict[str, Any] = {}
    if asked.thinking is not None:
        variables["enable_thinking"] = asked.thinking.type != "disabled"
    if asked.output_config and asked.output_config.effort:
        variables["reasoning_effort"] = asked.output_config.effort
    return Dialogue(
        messages=messages,
        resumed=resumes(messages),
        params=params,
        tools=tuple(Tool(t.name, t.description or "", t.input_schema) for t in asked.tools or ()),
        choice={"any": "required", "tool": "function"}.get(choice.type, choice.type),
        only=choice.name,
        parallel=not choice.disable_parallel_tool_use,
        variables=variables,
        capped=True,
    ).checked()


def text_of(parts: str | list[Part]) -> str:
    """The text of blocks, joined by line ends."""
    return parts if isinstance(parts, str) else "\n".join(part.text for part in parts if part.type == "text")


def images_of(turn: Turn) -> list[ImageSource]:
    """The images of a user's message.  Raises: InvalidParams for one elsewhere, or without content."""
    parts = [] if isinstance(turn.content, str) else turn.content
    inside = [p for part in parts if not isinstance(part.content, str) for p in part.content]
    found = [part for part in parts if part.type == "image"]
    if (found and turn.role != "user") or any(p.type == "image" for p in inside):
        raise InvalidParams("messages has an image that is not in a message of the user itself")
    if any(part.source is None for part in found):
        raise InvalidParams("messages has an image without a source")
    return [part.source for part in found if part.source]


def plain(turn: Turn) -> list[dict[str, Any]]:
    """A message as templates read it; results of tools become messages of their own."""
    if isinstance(turn.content, str):
        return [{"role": turn.role, "content": turn.content}]
    of_kind = {
        kind: [p for p in turn.content if p.type == kind] for kind in ("tool_result", "tool_use", "thinking")
    }
    if (of_kind["tool_use"] and turn.role != "assistant") or (of_kind["tool_result"] and turn.role != "user"):
        raise InvalidParams(
            f"messages has tool_use or tool_result in a message of the {turn.role}, where it cannot be"
        )
    images = images_of(turn)
    out: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": part.tool_use_id, "content": text_of(part.content)}
        for part in of_kind["tool_result"]
    ]
    text = text_of(turn.content)
    if turn.role == "assistant":
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if of_kind["thinking"]:
            message["reasoning_content"] = "\n".join(part.thinking for part in of_kind["thinking"])
        if of_kind["tool_use"]:
            message["tool_calls"] = [
                {"type": "function", "id": p.id, "function": {"name": p.name, "arguments": p.input}}
                for p in of_kind["tool_use"]
            ]
        return [message]
    content = with_images(text, [image_url(image.data, image.media_type) for image in images])
    return [*out, {"role": turn.role, "content": content}] if content or not out else out


class MessageForm:
    """See `Form`."""

    media_type = SSE
    ping = named("ping", {"type": "ping"})

    def __init__(self, context: Context, prepared: Prepared, reader: Reader) -> None:
        self._name, self._reader = context.served.name, reader
        self._id = f"msg_{uuid.uuid4().hex[:24]}"
        self._blocks, self._num_prompt = Blocks(), len(prepared[0].prompt)

    def opening(self) -> list[bytes]:
        """The message without content."""
        usage = MessageUsage(self._num_prompt, 0)
        message = MessageAnswer(id=self._id, model=self._name, content=[], usage=usage)
        return [named("message_start", {"type": "message_start", "message": message}), self.ping]

    def chunks(self, _prompt: int, output: StepOutput) -> list[bytes]:
        """Blocks as they begin, grow and end."""
        pieces = self._reader.push(output.text)
        if output.finish_reason is not None:
            pieces += self._reader.finish()
        return [self._event(*step) for step in self._blocks.add(pieces)]

    def closing(self, streams: list[AsyncStream]) -> list[bytes]:
        """The last block's end, the stop reason and the counts."""
        reason, sequence = self._stop(streams)
        last = {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": sequence},
            "usage": counts(streams),
        }
        ends = [self._event(*step) for step in self._blocks.end()]
        return [*ends, named("message_delta", last), named("message_stop", {"type": "message_stop"})]

    def failure(self, problem: Problem) -> bytes:
        """An error event."""
        return b"event: error\ndata: " + problem.body_for(PATH, "") + b"\n\n"

    def whole(self, streams: list[AsyncStream]) -> MessageAnswer:
        """The message."""
        self._blocks.add([*self._reader.push(streams[0].completion.text), *self._reader.finish()])
        content = [content_of(block) for block in self._blocks.every]
        reason, sequence = self._stop(streams)
        return MessageAnswer(
            id=self._id,
            model=self._name,
            content=content or [{"type": "text", "text": ""}],
            usage=counts(streams),
            stop_reason=reason,
            stop_sequence=sequence,
        )

    def _stop(self, streams: list[AsyncStream]) -> tuple[str, str | None]:
        done = streams[0].completion
        if done.finish_reason == "length":
            return "max_tokens", None
        if self._reader.num_calls:
            return "tool_use", None
        return (
            ("stop_sequence", done.stop_reason) if isinstance(done.stop_reason, str) else ("end_turn", None)
        )

    def _event(self, verb: str, number: int, text: str) -> bytes:
        block = self._blocks.every[number]
        where = {"index": number}
        if verb == "begin":
            begun = content_of(Block(block.kind, "", block.id, block.name))
            return named(
                "content_block_start", {"type": "content_block_start", **where, "content_block": begun}
            )
        if verb == "end":
            return named("content_block_stop", {"type": "content_block_stop", **where})
        kind, key = DELTAS[block.kind]
        return named(
            "content_block_delta",
            {"type": "content_block_delta", **where, "delta": {"type": kind, key: text}},
        )


DELTAS = {
    "text": ("text_delta", "text"),
    "reasoning": ("thinking_delta", "thinking"),
    "call": ("input_json_delta", "partial_json"),
}


def counts(streams: list[AsyncStream]) -> MessageUsage:
    """What was read and written."""
    usage = usage_of(streams)
    cached = usage.prompt_tokens_details.cached_tokens
    return MessageUsage(usage.prompt_tokens - cached, usage.completion_tokens, cached)


def content_of(block: Block) -> dict[str, Any]:
    """A block as clients read it; a call cut off by the limit of tokens has no arguments that can be read."""
    if block.kind == "text":
        return {"type": "text", "text": block.text}
    if block.kind == "reasoning":
        return {"type": "thinking", "thinking": block.text, "signature": ""}
    try:
        arguments = json.loads(block.text or "{}")
    except ValueError:
        arguments = {}
    return {"type": "tool_use", "id": block.id, "name": block.name, "input": arguments}
