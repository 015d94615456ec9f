"""The ASGI application: the routes behind the guard."""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.routing import Router

from tokamak.engine.llm import LLM
from tokamak.server import health, openapi
from tokamak.server.guard import Guard
from tokamak.server.registry import Models
from tokamak.server.routes import (
    chat,
    completions,
    embeddings,
    evidence,
    llama,
    messages,
    models,
    ollama,
    page,
    responses,
    text,
)
from tokamak.server.state import ServerConfig, State, served_alone

GROUPS = (
    chat,
    completions,
    embeddings,
    responses,
    messages,
    ollama,
    llama,
    evidence,
    models,
    text,
    health,
    page,
)
OPERATIONS = (*(operation for group in GROUPS for operation in group.OPERATIONS), openapi.OPERATION)


def create_app(llm: LLM | Models, config: ServerConfig | None = None) -> Guard:
    """An application to run or to mount; `.state` has the counters. The caller closes the LLM, after the server."""
    config = config or ServerConfig()
    every = Models([served_alone(llm, config)]) if isinstance(llm, LLM) else llm
    every.budget_nbytes, every.exact = config.memory_nbytes, config.exact_names
    every.lax = config.any_name
    state = State(every, config)
    routes = [route for group in GROUPS for route in group.routes(state)]
    router = Router([*routes, *openapi.routes(OPERATIONS)], redirect_slashes=False)
    return Guard(router, state, labels())


def labels() -> Callable[[str], str]:
    """From a path to its name in the metrics: a route, never what a client made up."""
    fixed = {path for path, *_ in OPERATIONS if "{" not in path}
    placed = sorted({path for path, *_ in OPERATIONS if "{" in path}, key=len, reverse=True)
    patterns = [(re.compile(re.sub(r"\{id\}", ".+", path)), path) for path in placed]

    def label(path: str) -> str:
        if path in fixed:
            return path
        return next((name for pattern, name in patterns if pattern.fullmatch(path)), "other")

    return label
