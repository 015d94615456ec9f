"""GET /health, /health/live, /health/ready and /metrics.

live: the process should go on (503: restart it). ready: it should get requests now. health: both, and why not.
"""

from __future__ import annotations

import time
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokamak import __version__
from tokamak.engine.memory import available_nbytes, total_nbytes
from tokamak.server.bodies import answer
from tokamak.server.metrics import CONTENT_TYPE
from tokamak.server.state import State

OPERATIONS = (
    ("/health", "get", None, None, "Whether it works, and what does not."),
    ("/v1/health", "get", None, None, "The same."),
    ("/health/live", "get", None, None, "200 unless it has to be restarted."),
    ("/health/ready", "get", None, None, "200 while it takes requests."),
    ("/metrics", "get", None, None, "Counters for Prometheus, as text."),
)

MUCH_USED, MOST_USED = 0.8, 0.9  # shares of memory: degraded, unavailable
MEMORY_S = 0.5  # between two looks at the memory
NEEDED = ("engine", "admission", "queue", "memory")  # the history is not: answers go on without it


def components(state: State) -> dict[str, str | None]:
    """What can fail, each with what is wrong or None."""
    return {
        "engine": state.engine_problem(),
        "admission": "the server is stopping" if state.draining else None,
        "queue": "all places are taken" if state.full else None,
        "memory": memory_problem(MOST_USED),
        "history": state.recorder.problem,
    }


def memory_problem(most: float) -> str | None:
    """Why the next request may find no memory: a greater share than `most` is used, the control group's limit included."""
    free, total = memory_at(int(time.monotonic() / MEMORY_S))
    if free is None or not total or free >= (1 - most) * total:
        return None
    return f"{100 * (1 - free / total):.0f} % is used, {free >> 20} MB are left"


@lru_cache(maxsize=1)
def memory_at(_: int) -> tuple[int | None, int | None]:
    """(free, total) bytes, read once a turn: each of the files gives the interpreter away, and getting it back under load takes long."""
    return available_nbytes(), total_nbytes()


def warnings(state: State) -> list[str]:
    """What an operator should look at while everything still works."""
    tight = memory_problem(MUCH_USED)
    found = [f"memory: {tight}"] if tight else []
    found += [
        f"engine: {served.name!r} was restarted {len(lately)} times lately; {lately[-1]}"
        for served in state.models.every
        if (lately := served.recent_restarts())
    ]
    if state.recorder.problem:
        found.append(f"history: {state.recorder.problem}")
    return found + [f"alert: {name}" for name in state.recorder.alerts.firing]


def routes(state: State) -> list[Route]:
    """Four routes; only /metrics needs a key."""

    def report(names: tuple[str, ...], *, details: bool) -> Response:
        found = components(state)
        bad = {name: found[name] for name in names if found[name] is not None}
        body: dict[str, object] = {"status": "unavailable" if bad else "ok"}
        if details:
            sample = state.recorder.latest
            body["components"] = {name: found[name] or "ok" for name in found}
            body["version"] = __version__
            body["warnings"] = warnings(state)
            if body["warnings"] and not bad:
                body["status"] = "degraded"
            body["gpu_utilisation"] = None  # no executor here uses one
            body |= {
                name: sample.get(name) for name in ("e2e_p50_s", "e2e_p95_s", "ttft_p95_s", "error_share")
            }
        response = answer(body)
        response.headers["cache-control"] = "no-store"
        if bad:
            response.status_code = 503
            response.headers["retry-after"] = "1"
        return response

    async def live(_: Request) -> Response:
        return report(("engine",), details=False)

    async def ready(_: Request) -> Response:
        return report(NEEDED, details=False)

    async def health(_: Request) -> Response:
        return report(NEEDED, details=True)

    async def metrics(_: Request) -> Response:
        text = state.metrics.text(state)
        started = {"process-start-time-unix": str(state.created)}
        return Response(text, headers={"content-type": CONTENT_TYPE, **started})

    return [
        Route("/health", health),
        Route("/v1/health", health),
        Route("/health/live", live),
        Route("/health/ready", ready),
        Route("/metrics", metrics),
    ]
