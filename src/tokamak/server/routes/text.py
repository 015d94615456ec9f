"""POST /tokenize, /detokenize and /apply-template, as llama-server has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokamak.errors import UnsupportedError
from tokamak.server.guard import read_body
from tokamak.server.routes.models import answer
from tokamak.server.schemas import DetokenizeRequest, TemplateRequest, TokenizeRequest
from tokamak.server.state import State
from tokamak.tokenizers import Tokenizer


def routes(state: State) -> list[Route]:
    """Three routes that only read text; the work is done in a thread."""

    def route(path: str, kind: type[Any], compute: Callable[[Tokenizer, Any], object]) -> Route:
        decode = msgspec.json.Decoder(kind).decode

        async def endpoint(request: Request) -> Response:
            asked = decode(await read_body(request.receive, state.config))
            if state.llm.tokenizer is None:
                raise UnsupportedError("the model file has no tokenizer")
            return answer(await asyncio.to_thread(compute, state.llm.tokenizer, asked))

        return Route(path, endpoint, methods=["POST"])

    return [
        route("/tokenize", TokenizeRequest, tokenize),
        route("/detokenize", DetokenizeRequest, detokenize),
        route("/apply-template", TemplateRequest, apply_template),
    ]


def tokenize(tokenizer: Tokenizer, asked: TokenizeRequest) -> object:
    """{"tokens": ids}, or with pieces {"tokens": [{"id", "piece"}]}."""
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


def detokenize(tokenizer: Tokenizer, asked: DetokenizeRequest) -> object:
    """{"content": text}."""
    return {"content": tokenizer.decode(asked.tokens)}


def apply_template(tokenizer: Tokenizer, asked: TemplateRequest) -> object:
    """{"prompt": text}."""
    messages = [message.plain() for message in asked.messages]
    return {"prompt": tokenizer.render_chat(messages, asked.add_generation_prompt)}
