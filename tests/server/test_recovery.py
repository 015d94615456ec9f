"""An engine that a defect ended goes on by itself; loading and unloading leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

import tokamak
from http_client import client, events, request
from tokamak.observe.machine import memory_now
from tokamak.server.app import create_app
from tokamak.server.registry import MOST_RESTARTS, Models, Served
from tokamak.server.state import ServerConfig

TEXT = "/v1/completions"
ENDLESS = {"prompt": "Once", "max_tokens": -1, "ignore_eos": True}
CYCLES = 20
FDS = Path("/proc/self/fd")


@pytest.fixture
def own(tiny_model):
    """A model of this test alone: its engine is broken."""
    with tokamak.load(tiny_model, threads=1) as llm:
        yield llm


def end_engine(llm):
    """Let the next turn of the engine's thread end it."""

    def defect():
        raise RuntimeError("a planted defect")

    llm._loop.core.step = defect


def test_what_is_under_way_fails_cleanly_and_the_next_request_is_answered(own):
    app = create_app(own, ServerConfig(model="tiny"))
    before = request(app, TEXT, {"prompt": "Once", "seed": 1}).json()["choices"]

    async def broken():
        async with client(app) as http:
            asked = [http.post(TEXT, json={**ENDLESS, "stream": stream}) for stream in (False, True)]
            answers = [asyncio.ensure_future(one) for one in asked]
            while own.stats()["running"] < len(answers):  # noqa: ASYNC110  # of another thread
                await asyncio.sleep(0.01)
            end_engine(own)
            return await asyncio.gather(*answers)

    whole, stream = asyncio.run(broken())
    assert (whole.status_code, whole.json()["error"]["type"]) == (500, "server_error")
    assert "error" in events(stream.text)[-1]
    assert "a planted defect" not in whole.text + stream.text
    assert request(app, "/health/live").status_code == 503
    assert request(app, TEXT, {"prompt": "Once", "seed": 1}).json()["choices"] == before
    health = request(app, "/health").json()
    assert (health["status"], health["components"]["engine"]) == ("degraded", "ok")
    assert "a planted defect" in " ".join(health["warnings"])
    assert "tokamak_engine_restarts_total 1" in request(app, "/metrics").text
    assert own.stats()["blocks_held"] == 0


def test_a_defect_that_comes_back_is_reported_and_not_restarted_for_ever(own):
    app = create_app(own, ServerConfig(model="tiny"))
    revived = []
    for _ in range(MOST_RESTARTS + 1):
        end_engine(own)
        with pytest.raises(RuntimeError):
            own.generate("Once")
        revived.append(asyncio.run(app.state.models.every[0].revive()))
    assert revived == [True] * MOST_RESTARTS + [False]
    answer = request(app, TEXT, {"prompt": "Once"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_ended")
    assert answer.headers["retry-after"] == "1"
    assert request(app, "/health/live").status_code == 503
    assert f"tokamak_engine_restarts_total {MOST_RESTARTS}" in request(app, "/metrics").text


def test_an_engine_is_restarted_without_waiting_for_a_request(own):
    models = Models([Served(("tiny",), own)])
    end_engine(own)
    with pytest.raises(RuntimeError, match="planted"):
        own.generate("Once")
    assert own.problem is not None

    async def tended():
        task = asyncio.ensure_future(models.tend())
        while own.problem is not None:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(asyncio.wait_for(tended(), 30))
    assert own.generate("Once", max_tokens=2).usage.completion_tokens == 2


def test_what_is_closed_stays_closed(tiny_model):
    llm = tokamak.load(tiny_model, threads=1)
    end_engine(llm)
    with pytest.raises(RuntimeError):
        llm.generate("Once")
    llm.close()
    assert not llm.restart()
    assert llm.problem == "the engine is closed"


@pytest.mark.skipif(not FDS.is_dir(), reason="counts descriptors in /proc")
def test_loading_and_unloading_leave_nothing(tiny_model):
    models = Models([Served(("tiny",), None, lambda: tokamak.load(tiny_model, threads=1))])
    app = create_app(models, ServerConfig(admin_keys=("admin-key-1",)))
    headers = {"Authorization": "Bearer admin-key-1"}
    held = []
    for _ in range(CYCLES):
        assert request(app, TEXT, {"model": "tiny", "prompt": "Once", "max_tokens": 1}).status_code == 200
        assert request(app, "/models/unload", {"model": "tiny"}, headers=headers).status_code == 200
        held.append((len(list(FDS.iterdir())), threading.active_count(), memory_now()["resident_nbytes"]))
    assert held[-1][0] == held[3][0]
    assert held[-1][1] <= held[3][1]
    if "asan" not in os.environ.get("LD_PRELOAD", ""):  # it keeps what is freed
        assert held[-1][2] - held[3][2] < 8 << 20
