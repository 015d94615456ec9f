"""GET /openapi.json, made from the types of `schemas`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokamak import __version__
from tokamak.server import answers, bodies

_PLACE = re.compile(r"\{(\w+)\}")
Operation = tuple[str, str, type[Any] | None, type[Any] | None, str]
"""path, verb, type of the body, type of the answer (None: a plain object), what it does"""
OPERATION: Operation = ("/openapi.json", "get", None, None, "This document.")


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI document."""
    types = {t for _, _, body, done, _ in operations for t in (body, done) if t} | {answers.ErrorAnswer}
    ordered = sorted(types, key=lambda t: t.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    with_unused(components, types)
    paths: dict[str, Any] = {}
    for path, verb, body, done, text in operations:
        good = content(done) if done else {"application/json": {"schema": {"type": "object"}}}
        if path == "/metrics":
            good = {"text/plain": {"schema": {"type": "string"}}}
        if body and "stream" in body.__struct_fields__:
            kind = "application/x-ndjson" if path.startswith("/api/") else "text/event-stream"
            good = {**good, kind: {"schema": {"type": "string"}}}
        operation: dict[str, Any] = {
            "summary": text,
            "responses": {
                "200": {"description": "done", "content": good},
                "default": {"description": "an error", "content": content(answers.ErrorAnswer)},
            },
        }
        if body:
            operation["requestBody"] = {"required": True, "content": content(body)}
        names = _PLACE.findall(path)
        if names:
            place = {"in": "path", "required": True, "schema": {"type": "string"}}
            operation["parameters"] = [{"name": name, **place} for name in names]
        if "/health" in path:
            operation["security"] = []
            operation["responses"]["503"] = {"description": "unavailable", "content": good}
        paths.setdefault(path, {})[verb] = operation
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


def with_unused(components: dict[str, Any], types: Iterable[type[Any]]) -> None:
    """Adds the fields that are accepted without effect, and other clients' names of fields."""
    for kind in types:
        if not issubclass(kind, bodies.Body):
            continue
        fields = components[kind.__name__]["properties"]
        for name in kind.unused:
            fields.setdefault(name, {"description": "accepted, without effect, listed in x-tokamak-ignored"})
        for name, meant in kind.aliases.items():
            fields.setdefault(name, {**fields.get(meant, {}), "description": f"another name of {meant}"})


def content(kind: type) -> dict[str, Any]:
    """JSON of a named type."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}


def routes(operations: Sequence[Operation]) -> list[Route]:
    """The one route; the document is made once."""
    body = document(operations)

    async def endpoint(_: Request) -> Response:
        return bodies.answer(body)

    return [Route(OPERATION[0], endpoint)]
