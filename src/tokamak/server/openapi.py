"""GET /openapi.json, made from the types of `schemas`."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokamak import __version__
from tokamak.server import schemas
from tokamak.server.routes.models import answer

# path, verb, type of the body, type of the answer (None: a plain object), what it does
OPERATIONS: tuple[tuple[str, str, type | None, type | None, str], ...] = (
    ("/v1/chat/completions", "post", schemas.ChatRequest, schemas.ChatCompletion, "Answer a conversation."),
    ("/v1/completions", "post", schemas.CompletionRequest, schemas.TextCompletion, "Continue prompts."),
    ("/v1/models", "get", None, schemas.ModelList, "The models that are loaded."),
    ("/v1/models/{id}", "get", None, schemas.Model, "One model."),
    ("/tokenize", "post", schemas.TokenizeRequest, None, "Text to token ids."),
    ("/detokenize", "post", schemas.DetokenizeRequest, None, "Token ids to text."),
    ("/apply-template", "post", schemas.TemplateRequest, None, "A conversation as the model reads it."),
    ("/health", "get", None, None, "Whether it works, and what does not."),
    ("/health/live", "get", None, None, "200 unless it has to be restarted."),
    ("/health/ready", "get", None, None, "200 while it takes requests."),
    ("/metrics", "get", None, None, "Counters for Prometheus, as text."),
    ("/openapi.json", "get", None, None, "This document."),
)


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    types = {t for _, _, body, done, _ in OPERATIONS for t in (body, done) if t} | {schemas.ErrorAnswer}
    ordered = sorted(types, key=lambda t: t.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for path, verb, body, done, text in OPERATIONS:
        good = content(done) if done else {"application/json": {"schema": {"type": "object"}}}
        if path == "/metrics":
            good = {"text/plain": {"schema": {"type": "string"}}}
        if done in (schemas.ChatCompletion, schemas.TextCompletion):
            good = {**good, "text/event-stream": {"schema": {"type": "string"}}}
        operation: dict[str, Any] = {
            "summary": text,
            "responses": {
                "200": {"description": "done", "content": good},
                "default": {"description": "an error", "content": content(schemas.ErrorAnswer)},
            },
        }
        if body:
            operation["requestBody"] = {"required": True, "content": content(body)}
        if "{id}" in path:
            place = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
            operation["parameters"] = [place]
        if path.startswith("/health"):
            operation["security"] = []
            operation["responses"]["503"] = {"description": "unavailable", "content": good}
        paths[path] = {verb: operation}
    return {
        "openapi": "3.1.0",
        "info": {"title": "tokamak", "version": __version__},
        "paths": paths,
        "security": [{"key": []}],
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def content(kind: type) -> dict[str, Any]:
    """JSON of a named type."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}


def routes() -> list[Route]:
    """The one route; the document is made once."""
    body = document()

    async def endpoint(_: Request) -> Response:
        return answer(body)

    return [Route("/openapi.json", endpoint)]
