"""POST /tokenize, /detokenize and /apply-template, as llama-server has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokamak.engine.llm import LLM
from tokamak.errors import UnsupportedError
from tokamak.sampling import SamplingParams
from tokamak.server import bodies
from tokamak.server.bodies import answer
from tokamak.server.dialogue import Dialogue, write
from tokamak.server.guard import read_body
from tokamak.server.schemas import DetokenizeRequest, TemplateRequest, TokenizeRequest
from tokamak.server.state import State
from tokamak.tokenizers import Tokenizer

OPERATIONS = (
    ("/tokenize", "post", TokenizeRequest, None, "Text to token ids."),
    ("/detokenize", "post", DetokenizeRequest, None, "Token ids to text."),
    ("/apply-template", "post", TemplateRequest, None, "A conversation as the model reads it."),
)


def routes(state: State) -> list[Route]:
    """Three routes that only read text; the work is done in a thread."""

    def route(path: str, kind: type[Any], compute: Callable[[LLM, Any], object]) -> Route:
        async def endpoint(request: Request) -> Response:
            asked, request.scope["ignored"] = bodies.read(
                kind, await read_body(request.receive, state.config)
            )
            async with state.models.use(asked.model) as served:
                return answer(await asyncio.to_thread(compute, served.llm, asked))

        return Route(path, endpoint, methods=["POST"])

    return [
        route("/tokenize", TokenizeRequest, tokenize),
        route("/detokenize", DetokenizeRequest, detokenize),
        route("/apply-template", TemplateRequest, apply_template),
    ]


def tokenizer_of(llm: LLM) -> Tokenizer:
    """Raises: UnsupportedError without one."""
    if llm.tokenizer is None:
        raise UnsupportedError("the model file has no tokenizer")
    return llm.tokenizer


def tokenize(llm: LLM, asked: TokenizeRequest) -> object:
    """{"tokens": ids}, or with pieces {"tokens": [{"id", "piece"}]}."""
    tokenizer = tokenizer_of(llm)
    ids = tokenizer.encode(asked.content, add_special=asked.add_special, parse_special=asked.parse_special)
    if not asked.with_pieces:
        return {"tokens": ids}
    return {"tokens": [{"id": i, "piece": piece(tokenizer.id_to_bytes(i))} for i in ids]}


def piece(data: bytes) -> str | list[int]:
    """Text, or its bytes where it is none by itself."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


def detokenize(llm: LLM, asked: DetokenizeRequest) -> object:
    """{"content": text}."""
    return {"content": tokenizer_of(llm).decode(asked.tokens)}


def apply_template(llm: LLM, asked: TemplateRequest) -> object:
    """{"prompt": text}."""
    dialogue = Dialogue(
        messages=[message.plain() for message in asked.messages],
        params=SamplingParams(),
        tools=tuple(tool.tool() for tool in asked.tools or ()),
        variables=asked.chat_template_kwargs.variables() if asked.chat_template_kwargs else {},
    )
    return {"prompt": write(llm, dialogue, add_generation_prompt=asked.add_generation_prompt).text}
