"""Several models by name; who may come in, in which order, for how long; what pages and the log get."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

import tokamak
from http_client import client, encoded, request
from tokamak.server.admission import Line
from tokamak.server.app import create_app
from tokamak.server.logs import JsonLines
from tokamak.server.problems import Problem
from tokamak.server.registry import Models, Served
from tokamak.server.state import ServerConfig

TEXT = "/v1/completions"
ADMIN = {"Authorization": "Bearer admin-key-1"}
ENDLESS = {"prompt": "Once", "max_tokens": -1, "ignore_eos": True}


@pytest.fixture
def two(tiny_gguf):
    """(application, its models): "a" in memory, "b" not yet."""
    paths = [tiny_gguf(), tiny_gguf(fmt="q4_0")]

    def load(number):
        return tokamak.load(paths[number], threads=1)

    models = Models(
        [Served(("a", "also-a"), load(0), lambda: load(0)), Served(("b",), None, lambda: load(1))]
    )
    yield create_app(models, ServerConfig(admin_keys=("admin-key-1",))), models
    models.close()


def test_requests_choose_a_model_which_is_loaded_when_it_is_asked_for(two):
    app, models = two
    listed = request(app, "/v1/models").json()["data"]
    assert [(m["id"], m["meta"]["loaded"]) for m in listed] == [("a", True), ("b", False)]
    for name, want in (("also-a", "a"), (None, "a"), ("b", "b")):
        assert request(app, TEXT, {"prompt": "x", "max_tokens": 1, "model": name}).json()["model"] == want
    assert models.every[1].loaded
    assert request(app, TEXT, {"prompt": "x", "model": "gpt-4o"}).status_code == 404, (
        "with two, names are exact"
    )


def test_loading_and_unloading_need_an_admin_key_and_an_idle_model(two):
    app, models = two
    assert request(app, "/models/unload", {"model": "a"}).status_code == 403
    for _ in range(3):
        assert request(app, "/models/unload", {"model": "a"}, headers=ADMIN).json()["meta"] == {
            "loaded": False
        }
        assert models.nbytes == 0
        assert request(app, "/models/load", {"model": "a"}, headers=ADMIN).json()["meta"]["loaded"]
    models.every[0].num_users = 1
    answer = request(app, "/models/unload", {"model": "a"}, headers=ADMIN)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "model_in_use")


def test_a_budget_of_memory_unloads_what_was_idle_longest_and_holds(two):
    app, models = two
    models.budget_nbytes = int(1.5 * models.nbytes)
    assert request(app, TEXT, {"prompt": "x", "max_tokens": 1, "model": "b"}).status_code == 200
    assert [served.loaded for served in models.every] == [False, True]
    assert models.nbytes <= models.budget_nbytes
    models.budget_nbytes = 1
    asyncio.run(models.unload_idle(0.0))
    answer = request(app, TEXT, {"prompt": "x", "max_tokens": 1, "model": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_memory")
    assert models.nbytes == 0


def test_an_idle_model_leaves_memory(two):
    _, models = two

    async def go():
        watching = asyncio.ensure_future(models.watch(0.01))
        for _ in range(1000):
            await asyncio.sleep(0.01)
            if not models.every[0].loaded:
                break
        watching.cancel()

    asyncio.run(asyncio.wait_for(go(), 20))
    assert not models.every[0].loaded


def test_keys_take_turns():
    async def go():
        line, order = Line(1, 10), []

        async def one(key, name):
            async with line.place(key, 1):
                order.append(name)
                await asyncio.sleep(0)

        await asyncio.gather(one("a", "a1"), one("a", "a2"), one("a", "a3"), one("b", "b1"), one("c", "c1"))
        return order, line.num_admitted

    order, left = asyncio.run(go())
    assert order == ["a1", "a2", "b1", "c1", "a3"]
    assert left == 0


def test_a_waiting_place_that_is_cancelled_is_given_back():
    async def go():
        line = Line(1, 1)
        holding = asyncio.Event()

        async def hold():
            async with line.place("a", 1):
                await holding.wait()

        first, second = asyncio.ensure_future(hold()), asyncio.ensure_future(hold())
        await asyncio.sleep(0.01)
        assert (line.num_running, line.num_waiting) == (1, 1)
        assert "2 of 2" in line.refusal("b", 1)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert line.refusal("b", 1) is None
        holding.set()
        await first
        return line.num_admitted

    assert asyncio.run(go()) == 0
    with pytest.raises(Problem, match="3 completions"):
        Line(1, 1).refusal("a", 3)


def test_a_key_has_its_share(llm):
    app = create_app(llm, ServerConfig(max_each=2))
    assert request(app, TEXT, {"prompt": "a", "n": 2, "max_tokens": 1}).status_code == 200

    async def go():
        line = app.state.models.every[0].line
        async with line.place("", 2):
            return line.refusal("", 1), line.refusal("other", 1)

    mine, others = asyncio.run(go())
    assert "of its 2" in mine
    assert others is None


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_504(llm, stream):
    app = create_app(llm, ServerConfig(request_s=0.05))
    body = {"prompt": "Once", "max_tokens": 300, "ignore_eos": True, "n": 8, "stream": stream}
    answer = request(app, TEXT, body)
    if stream:
        assert answer.text.rstrip().endswith('"code":"timeout"}}')
        assert "[DONE]" not in answer.text
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    assert app.state.num_admitted == 0


def test_silence_in_a_stream_is_filled_with_pings(llm):
    app = create_app(llm, ServerConfig(ping_s=0.02))

    async def go():
        async with client(app) as c:
            held = llm.program.run
            llm.program.run = lambda batch: (__import__("time").sleep(0.15), held(batch))[1]
            try:
                return (
                    await c.post(TEXT, content=encoded({"prompt": "a", "max_tokens": 3, "stream": True}))
                ).text
            finally:
                del llm.program.run

    assert asyncio.run(go()).count(": ping\n\n") >= 2


def test_other_pages_may_only_call_if_they_are_named(llm):
    page = {"Origin": "https://chat.example", "Access-Control-Request-Method": "POST"}
    closed, opened = create_app(llm), create_app(llm, ServerConfig(cors_origins=("https://chat.example",)))
    refused = request(closed, TEXT, method="OPTIONS", headers=page)
    assert not [name for name in refused.headers if name.startswith("access-control-allow")]
    answer = request(opened, TEXT, method="OPTIONS", headers=page)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (
        200,
        "https://chat.example",
    )
    answer = request(opened, TEXT, {"prompt": "a", "max_tokens": 1}, headers=page)
    assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    other = {"Origin": "https://evil.example"}
    assert request(opened, TEXT, {"prompt": "a"}, headers=other).status_code == 403


def test_a_request_is_one_line_of_facts_without_its_texts(app, caplog):
    with caplog.at_level(logging.INFO, logger="tokamak.access"):
        request(app, TEXT, {"prompt": "a secret", "max_tokens": 2}, headers={"X-Request-ID": "r-1"})
    (record,) = [r for r in caplog.records if r.name == "tokamak.access"]
    line = json.loads(JsonLines().format(record))
    assert (line["id"], line["route"], line["status"], line["completion_tokens"]) == ("r-1", TEXT, 200, 2)
    assert "secret" not in str(line)
