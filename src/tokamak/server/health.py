"""GET /health, /health/live, /health/ready and /metrics.

live: the process should go on (503: restart it). ready: it should get requests now. health: both, and why not.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokamak.server.bodies import answer
from tokamak.server.metrics import CONTENT_TYPE
from tokamak.server.state import State

OPERATIONS = (
    ("/health", "get", None, None, "Whether it works, and what does not."),
    ("/health/live", "get", None, None, "200 unless it has to be restarted."),
    ("/health/ready", "get", None, None, "200 while it takes requests."),
    ("/metrics", "get", None, None, "Counters for Prometheus, as text."),
)


def components(state: State) -> dict[str, str | None]:
    """What can fail, each with what is wrong or None."""
    return {
        "engine": state.engine_problem(),
        "admission": "the server is stopping" if state.draining else None,
        "queue": "all places are taken" if state.full else None,
    }


def routes(state: State) -> list[Route]:
    """Four routes; only /metrics needs a key."""

    def report(names: tuple[str, ...], *, details: bool) -> Response:
        found = components(state)
        bad = {name: found[name] for name in names if found[name] is not None}
        body: dict[str, object] = {"status": "unavailable" if bad else "ok"}
        if details:
            body["components"] = {name: found[name] or "ok" for name in names}
        response = answer(body)
        if bad:
            response.status_code = 503
            response.headers["retry-after"] = "1"
        return response

    async def live(_: Request) -> Response:
        return report(("engine",), details=False)

    async def ready(_: Request) -> Response:
        return report(("engine", "admission", "queue"), details=False)

    async def health(_: Request) -> Response:
        return report(("engine", "admission", "queue"), details=True)

    async def metrics(_: Request) -> Response:
        text = state.metrics.text(state)
        return Response(text, headers={"content-type": CONTENT_TYPE})

    return [
        Route("/health", health),
        Route("/health/live", live),
        Route("/health/ready", ready),
        Route("/metrics", metrics),
    ]
