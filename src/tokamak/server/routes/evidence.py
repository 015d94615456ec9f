"""GET /status, /history and /v1/models/{id}/contents: what the page draws. They need a key, as everything does."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokamak import __version__
from tokamak.engine.contents import contents
from tokamak.errors import InvalidParams
from tokamak.observe.machine import Machine, memory_now
from tokamak.server.bodies import answer
from tokamak.server.health import components
from tokamak.server.state import State

LONGEST_S = 90 * 86_400
OPERATIONS = (
    ("/status", "get", None, None, "The last sample, alerts that fire, health, machine."),
    ("/history", "get", None, None, "Samples over time: ?seconds=3600&names=a,b&step=10."),
    ("/v1/models/{id}/contents", "get", None, None, "Metadata, tensors, formats and memory of a model."),
)


def routes(state: State) -> list[Route]:
    """Three."""

    async def status(_: Request) -> Response:
        recorder, found = state.recorder, components(state)
        sample = recorder.latest or recorder.sample()
        bad = any(found.values())
        return answer(
            {
                "version": __version__,
                "uptime_s": time.time() - state.created,
                "sample": sample,
                "alerts": [event.facts() for event in recorder.alerts.firing.values()],
                "health": {
                    "status": "unavailable" if bad else "ok",
                    "components": {name: problem or "ok" for name, problem in found.items()},
                },
                "machine": Machine.here().line(),
            }
        )

    async def history(request: Request) -> Response:
        seconds = whole(request, "seconds", 3600, LONGEST_S)
        kept = state.recorder.history
        if kept is None:
            return answer({"step_s": 10, "series": {}})
        tier = kept.tier_for(seconds)
        step = whole(request, "step", tier.step_s, LONGEST_S)

        def read() -> dict[str, list[tuple[float, ...]]]:
            wanted = request.query_params.get("names", "")
            names = wanted.split(",")[:64] if wanted else kept.names()
            rows = kept.read(names, since=time.time() - seconds, step_s=step)
            return {name: [(p.time, p.mean, p.least, p.greatest) for p in rows[name]] for name in rows}

        return answer({"step_s": step, "series": await asyncio.to_thread(read)})

    async def inside(request: Request) -> Response:
        async with state.models.use(request.path_params["id"]) as served:
            llm = served.llm
            found = await asyncio.to_thread(contents, llm.facts.get("path"), llm.context)
        del found["graph"]
        resident = memory_now()["resident_nbytes"]
        return answer({"model": served.name, **found, "resident_nbytes": resident})

    return [
        Route("/status", status),
        Route("/history", history),
        Route("/v1/models/{id}/contents", inside),
    ]


def whole(request: Request, name: str, usual: int, most: int) -> int:
    """A whole number of the query, from 1 to most.  Raises: InvalidParams."""
    text = request.query_params.get(name, str(usual))
    if not (text.isascii() and text.isdigit() and len(text) < 12 and 1 <= int(text) <= most):
        raise InvalidParams(f"{name} is {text[:50]!r}; it must be a whole number from 1 to {most}")
    return int(text)
