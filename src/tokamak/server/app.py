"""The ASGI application for one LLM: the routes behind the guard."""

from __future__ import annotations

from starlette.routing import Router

from tokamak.engine.llm import LLM
from tokamak.server import health, openapi
from tokamak.server.guard import Guard
from tokamak.server.routes import chat, completions, models, text
from tokamak.server.state import ServerConfig, State

PATHS = {path for path, *_ in openapi.OPERATIONS}


def create_app(llm: LLM, config: ServerConfig | None = None) -> Guard:
    """An application to run or to mount; `.state` has the counters. The caller closes the LLM, after the server."""
    state = State(llm, config or ServerConfig())
    groups = (chat, completions, models, text, health)
    routes = [route for group in groups for route in group.routes(state)]
    router = Router([*routes, *openapi.routes()], redirect_slashes=False)
    return Guard(router, state, label)


def label(path: str) -> str:
    """A path in the metrics: a route, never what a client made up."""
    if path.startswith("/v1/models/"):
        return "/v1/models/{id}"
    return path if path in PATHS else "other"
