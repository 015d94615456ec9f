"""GET /v1/models and /v1/models/{id}: the model that is loaded."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokamak.server.schemas import Model, ModelList
from tokamak.server.state import State

FACTS = ("architecture", "nbytes", "context", "trained_context", "kv_dtype", "cache_tokens")


def routes(state: State) -> list[Route]:
    """Both routes."""
    meta = {name: state.llm.facts[name] for name in FACTS if state.llm.facts.get(name) is not None}
    meta |= {"context": state.llm.context, "vocab_size": state.llm.vocab_size}
    model = Model(id=state.model, created=state.created, meta=meta)

    async def every(_: Request) -> Response:
        return answer(ModelList([model]))

    async def one(request: Request) -> Response:
        state.check_model(request.path_params["id"])
        return answer(model)

    return [Route("/v1/models", every), Route("/v1/models/{id:path}", one)]


def answer(value: object) -> Response:
    """JSON of a msgspec type."""
    return Response(msgspec.json.encode(value), media_type="application/json")
