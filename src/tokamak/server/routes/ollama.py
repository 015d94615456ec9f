"""The read side of Ollama's API: version, tags, show, ps, chat, generate, embed. Nothing pulls, creates or deletes."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokamak import __version__
from tokamak.engine.async_llm import AsyncStream
from tokamak.engine.llm import LLM, Prepared
from tokamak.engine.request import StepOutput
from tokamak.errors import ContextOverflow, InvalidParams
from tokamak.sampling import SamplingParams
from tokamak.server import bodies
from tokamak.server.bodies import answer
from tokamak.server.dialogue import PLAIN, Dialogue, prepare, reader_of
from tokamak.server.guard import read_body
from tokamak.server.problems import Problem
from tokamak.server.registry import Served
from tokamak.server.routes.generation import Context, Generate, Work
from tokamak.server.schemas import (
    MAX_IMAGES,
    MAX_MESSAGES,
    MAX_TOOLS,
    ToolGiven,
    bounded,
    image_url,
    with_images,
)
from tokamak.server.state import State
from tokamak.server.stream import NDJSON, Form, encode
from tokamak.server.tools import FreeReader, Piece, Reader

# options -> the field of SamplingParams
OPTIONS = {
    **{
        name: name
        for name in ("temperature", "top_k", "top_p", "min_p", "typical_p", "tfs_z", "seed", "stop")
    },
    **{
        name: name
        for name in ("presence_penalty", "frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta")
    },
    "repeat_penalty": "repetition_penalty",
    "repeat_last_n": "repetition_last_n",
}


class Called(Struct):
    """A call in a message: the name, and arguments as an object."""

    name: str
    arguments: dict[str, Any] = {}


class CallEntry(Struct):
    """See Called."""

    function: Called


class OllamaMessage(Struct):
    """One message. images: base64 of files, for models with an image encoder."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    thinking: str | None = None
    tool_calls: list[CallEntry] | None = None
    tool_name: str | None = None
    images: Annotated[list[str], Meta(max_length=MAX_IMAGES)] | None = None


class Asking(bodies.Body, kw_only=True):
    """What chat and generate share. A field or option that is not known is listed in x-tokamak-ignored.

    stream: true unless false. format: "json" or a schema. think: false turns reasoning off where the template can.
    """

    lenient: ClassVar[bool] = True
    model: str
    stream: bool = True
    format: Literal["json", ""] | dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    think: bool | str | None = None

    def params(self, llm: LLM) -> SamplingParams:
        """Raises: InvalidParams; ContextOverflow for a num_ctx that is not here."""
        options = self.options or {}
        given = {
            OPTIONS[name]: value for name, value in options.items() if name in OPTIONS and value is not None
        }
        asked = options.get("num_ctx")
        if isinstance(asked, int) and asked > llm.context:
            raise ContextOverflow(
                f"num_ctx is {asked}; the context of this model is {llm.context} tokens here"
            )
        limit = options.get("num_predict")
        given["max_tokens"] = limit if isinstance(limit, int) and limit >= 0 else -1
        if given.get("seed", 0) == -1:
            del given["seed"]
        if self.format:
            given["json_schema"] = bounded(
                {"type": "object"} if isinstance(self.format, str) else self.format
            )
        return SamplingParams(**given)

    def variables(self) -> dict[str, Any]:
        """Of the template."""
        return {} if self.think is None else {"enable_thinking": bool(self.think)}

    def idle(self) -> list[str]:
        """Options without effect."""
        known = {*OPTIONS, "num_ctx", "num_predict"}
        return [f"options.{name}"[:64] for name in self.options or {} if name not in known][:32]


class OllamaChatRequest(Asking, kw_only=True):
    """Body of /api/chat."""

    messages: Annotated[list[OllamaMessage], Meta(max_length=MAX_MESSAGES)] | None = None
    tools: Annotated[list[ToolGiven], Meta(max_length=MAX_TOOLS)] | None = None


class OllamaGenerateRequest(Asking, kw_only=True):
    """Body of /api/generate. raw: the prompt is not put into the template. images: as of a message. template: refused."""

    prompt: str = ""
    system: str | None = None
    raw: bool = False
    template: None = None
    images: Annotated[list[str], Meta(max_length=MAX_IMAGES)] | None = None


class ShowRequest(bodies.Body, kw_only=True):
    """Body of /api/show; `name` is an older word for model."""

    aliases: ClassVar[dict[str, str]] = {"name": "model"}
    lenient: ClassVar[bool] = True
    model: str


OPERATIONS = (
    ("/api/version", "get", None, None, "The version (Ollama)."),
    ("/api/tags", "get", None, None, "The models that can be asked (Ollama)."),
    ("/api/ps", "get", None, None, "The models in memory (Ollama)."),
    ("/api/show", "post", ShowRequest, None, "What is known of a model (Ollama)."),
    ("/api/chat", "post", OllamaChatRequest, None, "Answer a conversation (Ollama)."),
    ("/api/generate", "post", OllamaGenerateRequest, None, "Answer or continue a prompt (Ollama)."),
)


def routes(state: State) -> list[Route]:
    """All of them; /api/embed is with the other embeddings."""

    async def version(_: Request) -> Response:
        return answer({"version": __version__})

    async def tags(_: Request) -> Response:
        return answer({"models": [entry(served) for served in state.models.every]})

    async def running(_: Request) -> Response:
        loaded = [served for served in state.models.every if served.loaded]
        more = {"size_vram": 0, "expires_at": moment(time.time() + (state.config.idle_s or 86400))}
        return answer(
            {
                "models": [
                    {**entry(s), **more, "size": s.nbytes, "context_length": s.llm.context} for s in loaded
                ]
            }
        )

    async def show(request: Request) -> Response:
        asked, request.scope["ignored"] = bodies.read(
            ShowRequest, await read_body(request.receive, state.config)
        )
        async with state.models.use(asked.model) as served:
            return answer(shown(served))

    return [
        Route("/api/version", version),
        Route("/api/tags", tags),
        Route("/api/ps", running),
        Route("/api/show", show, methods=["POST"]),
        Route("/api/chat", Generate(state, OllamaChatRequest, plan_chat), methods=["POST"]),
        Route("/api/generate", Generate(state, OllamaGenerateRequest, plan_generate), methods=["POST"]),
    ]


def moment(seconds: float) -> str:
    """A time as Ollama writes it."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat().replace("+00:00", "Z")


def entry(served: Served) -> dict[str, Any]:
    """A model in a list."""
    facts = served.llm.facts if served.loaded else {}
    family = str(facts.get("architecture", ""))
    details = {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": "",
        "quantization_level": "",
    }
    about = {
        "modified_at": moment(served.created),
        "size": int(facts.get("nbytes", 0)),
        "digest": "",
        "details": details,
    }
    return {"name": served.name, "model": served.name, **about}


def shown(served: Served) -> dict[str, Any]:
    """A model by itself."""
    llm, listed = served.llm, entry(served)
    template = llm.tokenizer.spec.chat_template if llm.tokenizer else None
    architecture = listed["details"]["family"]
    info = {"general.architecture": architecture, f"{architecture}.context_length": llm.context}
    capabilities = ["completion", *(["tools"] if template and "tools" in template else [])]
    capabilities += ["vision"] if llm.vision else []
    return {
        "modelfile": "",
        "parameters": "",
        "template": PLAIN if template is None else template,
        "details": listed["details"],
        "model_info": info,
        "capabilities": capabilities,
        "modified_at": listed["modified_at"],
    }


def plan_chat(context: Context, asked: OllamaChatRequest) -> Work:
    """One prompt, one answer; without messages the model is only loaded."""
    if not asked.messages:
        return loading(context, "message", asked.stream)
    dialogue = Dialogue(
        messages=[plain(message, number) for number, message in enumerate(asked.messages)],
        params=asked.params(context.llm),
        tools=tuple(tool.tool() for tool in asked.tools or ()),
        variables=asked.variables(),
        capped=True,
    ).checked()
    return _work(context, asked, dialogue, "message")


def plan_generate(context: Context, asked: OllamaGenerateRequest) -> Work:
    """A prompt as the user's message, or as it is."""
    if not asked.prompt:
        return loading(context, "response", asked.stream)
    params, llm = asked.params(context.llm), context.llm
    urls = [image_url(image) for image in asked.images or ()]
    if asked.raw:

        def ready(salt: str) -> tuple[list[Prepared], Form]:
            prompt = llm.illustrate(asked.prompt, urls) if urls else asked.prompt
            prepared = llm.prepare(prompt, params, salt=salt)
            return [prepared], OllamaForm(context, "response", FreeReader("", ()))

        context.scope["ignored"] += asked.idle()
        return Work(1, ready, asked.stream)
    system = [{"role": "system", "content": asked.system}] if asked.system else []
    messages: list[dict[str, Any]] = [
        *system,
        {"role": "user", "content": with_images(asked.prompt, urls)},
    ]
    dialogue = Dialogue(messages=messages, params=params, variables=asked.variables(), capped=True)
    return _work(context, asked, dialogue.checked(), "response")


def _work(context: Context, asked: Asking, dialogue: Dialogue, key: str) -> Work:
    context.scope["ignored"] += asked.idle()

    def ready(salt: str) -> tuple[list[Prepared], Form]:
        prepared, written = prepare(context.llm, dialogue, salt)
        context.note(*written.notes)
        return [prepared], OllamaForm(context, key, reader_of(context.llm, dialogue, written))

    return Work(1, ready, asked.stream)


def loading(context: Context, key: str, stream: bool) -> Work:
    """An empty request, which loads the model: it reads one token and answers nothing."""
    llm = context.llm
    params = SamplingParams(max_tokens=0)

    def ready(salt: str) -> tuple[list[Prepared], Form]:
        return [llm.prepare([0], params, salt=salt)], OllamaForm(
            context, key, FreeReader("", ()), done="load"
        )

    return Work(1, ready, stream)


def plain(message: OllamaMessage, number: int) -> dict[str, Any]:
    """As templates read it; calls have no ids here, so they get the message's number."""
    urls = [image_url(image) for image in message.images or ()]
    out: dict[str, Any] = {"role": message.role, "content": with_images(message.content, urls)}
    if message.tool_calls:
        if message.role != "assistant":
            raise InvalidParams(f"messages has tool_calls in a message of the {message.role}")
        out["tool_calls"] = [
            {
                "type": "function",
                "id": f"call_{number}_{i}",
                "function": {"name": c.function.name, "arguments": c.function.arguments},
            }
            for i, c in enumerate(message.tool_calls)
        ]
    if message.role == "tool":
        out |= {"tool_call_id": f"call_{number - 1}_0", "name": message.tool_name or ""}
    if message.thinking:
        out["reasoning_content"] = message.thinking
    return out


class OllamaForm:
    """See `Form`: a line of JSON for each piece. key: "message" of /api/chat, "response" of /api/generate."""

    media_type, ping = NDJSON, b""

    def __init__(self, context: Context, key: str, reader: Reader, *, done: str = "") -> None:
        self._name, self._key, self._reader, self._done = context.served.name, key, reader, done
        self._calls: dict[int, Piece] = {}

    def opening(self) -> list[bytes]:
        """Nothing."""
        return []

    def chunks(self, _prompt: int, output: StepOutput) -> list[bytes]:
        """Text and reasoning; calls whole."""
        pieces = self._reader.push(output.text)
        if output.finish_reason is not None:
            pieces += self._reader.finish()
        lines = [self._line(p.text, p.kind) for p in pieces if p.kind != "call" and p.text]
        for piece in pieces:
            self._note(piece)
        if output.finish_reason is not None and self._calls:
            lines.append(self._line("", "text", self._called()))
        return lines

    def closing(self, streams: list[AsyncStream]) -> list[bytes]:
        """Why it ended, and what it took."""
        last = {**self._head(), **self._content("", "text"), **self._ending(streams)}
        return [encode(last) + b"\n"]

    def failure(self, problem: Problem) -> bytes:
        """A line with the error."""
        return problem.body_for("/api/", "") + b"\n"

    def whole(self, streams: list[AsyncStream]) -> dict[str, Any]:
        """Everything in one object."""
        pieces = [*self._reader.push(streams[0].completion.text), *self._reader.finish()]
        for piece in pieces:
            self._note(piece)
        text = "".join(p.text for p in pieces if p.kind == "text")
        thinking = "".join(p.text for p in pieces if p.kind == "reasoning")
        body = self._content(text, "text", self._called())
        if thinking:
            (body["message"] if self._key == "message" else body)["thinking"] = thinking
        return {**self._head(), **body, **self._ending(streams)}

    def _note(self, piece: Piece) -> None:
        if piece.kind == "call":
            before = self._calls.get(piece.index, piece)
            text = piece.text if before is piece else before.text + piece.text
            self._calls[piece.index] = Piece("call", text, piece.index, before.id, before.name)

    def _called(self) -> list[dict[str, Any]]:
        calls = []
        for call in self._calls.values():
            try:
                arguments = json.loads(call.text or "{}")
            except ValueError:  # cut off by the limit of tokens
                arguments = {}
            calls.append({"function": {"name": call.name, "arguments": arguments}})
        return calls

    def _head(self) -> dict[str, Any]:
        return {"model": self._name, "created_at": moment(time.time()), "done": False}

    def _content(self, text: str, kind: str, calls: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        if self._key == "response":
            return {"response": text} if kind == "text" else {"response": "", "thinking": text}
        message: dict[str, Any] = {"role": "assistant", "content": text if kind == "text" else ""}
        if kind == "reasoning":
            message["thinking"] = text
        if calls:
            message["tool_calls"] = list(calls)
        return {"message": message}

    def _line(self, text: str, kind: str, calls: Sequence[dict[str, Any]] = ()) -> bytes:
        return encode({**self._head(), **self._content(text, kind, calls)}) + b"\n"

    def _ending(self, streams: list[AsyncStream]) -> dict[str, Any]:
        done = streams[0].completion
        times, usage = done.timings, done.usage
        first_s = times.total_s if times.ttft_s is None else times.ttft_s
        return {
            "done": True,
            "done_reason": self._done or done.finish_reason,
            "total_duration": int(1e9 * times.total_s),
            "load_duration": int(1e9 * times.queue_s),
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_eval_duration": int(1e9 * max(0.0, first_s - times.queue_s)),
            "eval_count": usage.completion_tokens,
            "eval_duration": int(1e9 * max(0.0, times.total_s - first_s)),
        }
