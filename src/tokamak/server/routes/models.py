"""GET /v1/models and /v1/models/{id}; POST /models/load and /models/unload, for who has an admin key."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokamak.server import bodies
from tokamak.server.answers import Model, ModelList
from tokamak.server.bodies import answer
from tokamak.server.guard import check_admin, read_body
from tokamak.server.registry import Served
from tokamak.server.state import State

FACTS = ("architecture", "nbytes", "context", "trained_context", "kv_dtype", "cache_tokens")


class ModelRequest(bodies.Body, forbid_unknown_fields=True):
    """Body of /models/load and /models/unload: a name from /v1/models."""

    model: str


OPERATIONS = (
    ("/v1/models", "get", None, ModelList, "The models that can be asked."),
    ("/v1/models/{id}", "get", None, Model, "One model."),
    ("/models", "get", None, ModelList, "The same as /v1/models."),
    ("/models/load", "post", ModelRequest, Model, "Load a model that was named at the start (admin key)."),
    (
        "/models/unload",
        "post",
        ModelRequest,
        Model,
        "Free a model's memory when no request uses it (admin key).",
    ),
)


def routes(state: State) -> list[Route]:
    """All of them."""

    async def every(_: Request) -> Response:
        return answer(ModelList([described(served) for served in state.models.every]))

    async def one(request: Request) -> Response:
        return answer(described(state.models.find(request.path_params["id"])))

    async def load(request: Request) -> Response:
        served = await asked(request)
        await state.models.load(served)
        return answer(described(served))

    async def unload(request: Request) -> Response:
        served = await asked(request)
        await state.models.unload(served)
        return answer(described(served))

    async def asked(request: Request) -> Served:
        check_admin(request.scope)
        body, _ = bodies.read(ModelRequest, await read_body(request.receive, state.config))
        return state.models.find(body.model)

    return [
        Route("/v1/models", every),
        Route("/models", every),
        Route("/v1/models/{id:path}", one),
        Route("/models/load", load, methods=["POST"]),
        Route("/models/unload", unload, methods=["POST"]),
    ]


def described(served: Served) -> Model:
    """A model as clients see it; of one that is not loaded little is known."""
    meta: dict[str, Any] = {"loaded": served.loaded}
    if served.loaded:
        llm = served.llm
        meta |= {name: llm.facts[name] for name in FACTS if llm.facts.get(name) is not None}
        meta["vision"] = llm.vision is not None
        meta |= {"context": llm.context, "vocab_size": llm.vocab_size, "memory_nbytes": served.nbytes}
    return Model(id=served.name, created=served.created, aliases=list(served.names[1:]), meta=meta)
