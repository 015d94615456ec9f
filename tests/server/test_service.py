"""Health, metrics, models, text routes; load, disconnects and slow readers."""

from __future__ import annotations

import asyncio
import json
import re
from types import SimpleNamespace

import pytest

from http_client import client, encoded, events, request
from tokamak.server.app import create_app
from tokamak.server.state import ServerConfig

TEXT = "/v1/completions"
ENDLESS = {"prompt": "Once", "max_tokens": -1, "ignore_eos": True}


def test_models_are_listed_and_found(app, llm):
    (model,) = request(app, "/v1/models").json()["data"]
    assert model["id"] == "tiny"
    assert model["meta"]["context"] == llm.context
    assert "path" not in model["meta"]
    assert request(app, "/v1/models/tiny").json() == model


def test_text_goes_to_ids_and_back(app, llm):
    ids = request(app, "/tokenize", {"content": "Once upon", "add_special": True}).json()["tokens"]
    assert ids == llm.tokenizer.encode("Once upon")
    assert request(app, "/detokenize", {"tokens": ids[1:]}).json() == {"content": "Once upon"}
    pieces = request(app, "/tokenize", {"content": "é", "with_pieces": True}).json()["tokens"]
    flat = b"".join(p["piece"].encode() if isinstance(p["piece"], str) else bytes(p["piece"]) for p in pieces)
    assert flat.decode().strip() == "é"


def test_a_template_is_shown_as_the_model_reads_it(app, llm):
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    want = llm.tokenizer.render_chat([{"role": "user", "content": "a\nb"}])
    assert request(app, "/apply-template", {"messages": messages}).json() == {"prompt": want}


def test_health_is_ok_and_says_what_is_not(app):
    answer = request(app, "/health").json()
    names = ("engine", "admission", "queue", "memory", "history")
    assert (answer["status"], answer["components"]) == ("ok", dict.fromkeys(names, "ok"))
    assert answer["gpu_utilisation"] is None
    app.state.draining = True
    assert request(app, "/health/ready").status_code == 503
    assert request(app, "/health/live").status_code == 200
    answer = request(app, TEXT, {"prompt": "Once"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_a_dead_and_a_stuck_engine_are_not_live(app, monkeypatch):
    stats = {"turns": 7, "running": 1, "waiting": 0}
    served = app.state.models.every[0]
    engine = SimpleNamespace(problem=None, stats=lambda: stats)
    monkeypatch.setattr(served, "_llm", engine)
    assert request(app, "/health/live").status_code == 200
    served.turned = (7, served.turned[1] - 2 * app.state.config.stuck_s)
    assert request(app, "/health/live").status_code == 503
    engine.problem = "the engine ended"
    assert request(app, "/health").json()["components"]["engine"] == "the engine ended"


def test_metrics_count_what_happened(app):
    request(app, TEXT, {"prompt": "Once", "max_tokens": 5})
    request(app, "/made/up", headers={"X-Request-ID": "abc"})
    text = request(app, "/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['tokamak_requests_total{route="/v1/completions",status="200"}'] == "1"
    assert lines['tokamak_requests_total{route="other",status="404"}'] == "1"
    assert lines["tokamak_generated_tokens_total"] == "5"
    assert lines["tokamak_ttft_seconds_count"] == "1"
    assert lines["tokamak_inter_token_seconds_count"] == "4"
    assert lines['tokamak_kv_blocks{state="held"}'] == "0"
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) .+|[a-z0-9_:]+(\{[^{}]*\})? [0-9.e+-]+", line), line


def test_a_request_id_comes_back(app):
    assert request(app, "/v1/models", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert len(request(app, "/v1/models", headers={"X-Request-ID": "a b"}).headers["x-request-id"]) == 32


def test_openapi_names_every_route_and_resolves(app):
    document = request(app, "/openapi.json").json()
    paths = {route.path.replace(":path", "") for route in app.app.routes}
    assert set(document["paths"]) == paths
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]


def test_the_guide_lists_every_field_of_every_route():
    import server_fields

    assert server_fields.written() == server_fields.GUIDE.read_text(), "run tools/server_fields.py"


async def until(holds):
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to hold within 10 s")


def test_a_full_queue_is_429_with_retry_after(llm):
    places = llm.program.limits.max_sequences
    app = create_app(llm, ServerConfig(max_waiting=0))
    app.state.models.every[0].line.num_running = places
    answer = request(app, TEXT, {"prompt": "Once"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert int(answer.headers["retry-after"]) >= 1
    body = {"prompt": ["a"] * 60, "n": 8}
    assert request(app, TEXT, body).json()["error"]["code"] == "too_many"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_the_engine_at_once(app, llm, stream):
    async def go():
        gone, sent = asyncio.Event(), []
        bodies = iter([encoded(ENDLESS | {"stream": stream})])

        async def receive():
            for body in bodies:
                return {"type": "http.request", "body": body}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)
            await asyncio.sleep(0.02)  # or a tiny model would be done before anybody leaves

        scope = {"type": "http", "method": "POST", "path": TEXT, "headers": [(b"host", b"localhost")]}
        task = asyncio.ensure_future(app(scope, receive, send))
        await until(lambda: llm.stats()["running"] or task.done())
        gone.set()
        await asyncio.wait_for(task, 10)
        await until(lambda: llm.stats()["running"] == 0)
        return sent

    before = app.state.metrics.cancelled.values[()]
    sent = asyncio.run(go())
    assert app.state.metrics.cancelled.values[()] == before + 1
    assert app.state.num_admitted == 0
    assert llm.stats()["blocks_held"] == 0
    assert not any(m.get("body") == b"data: [DONE]\n\n" for m in sent)


def test_a_slow_reader_pauses_its_own_request_and_a_dead_one_is_dropped(llm):
    app = create_app(llm, ServerConfig(stall_s=0.3))

    async def go():
        body, never = iter([encoded(ENDLESS | {"stream": True})]), asyncio.Event()

        async def receive():
            for part in body:
                return {"type": "http.request", "body": part}
            await never.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message["type"] == "http.response.body":
                await never.wait()  # the socket is full

        scope = {"type": "http", "method": "POST", "path": TEXT, "headers": [(b"host", b"localhost")]}
        task = asyncio.ensure_future(app(scope, receive, send))
        async with client(app) as c:
            other = await c.post(TEXT, content=encoded({"prompt": "Once", "max_tokens": 8}))
        stored = llm.stats()["tokens_stored"]
        await asyncio.wait_for(task, 10)
        await until(lambda: llm.stats()["blocks_held"] == 0)
        return other.status_code, stored

    status, stored = asyncio.run(go())
    assert status == 200
    assert stored < 150, "of 512: the reader was not more than its inbox of 100 behind"
    assert app.state.num_admitted == 0


def bodies_of(app, body) -> list[bytes]:
    """What a stream sends, write by write, but for its end."""
    sent = []

    async def go():
        asked, never = iter([encoded(body | {"stream": True})]), asyncio.Event()

        async def receive():
            for part in asked:
                return {"type": "http.request", "body": part}
            await never.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message.get("body", b""))

        scope = {"type": "http", "method": "POST", "path": TEXT, "headers": [(b"host", b"localhost")]}
        await app(scope, receive, send)

    asyncio.run(go())
    return [piece for piece in sent if piece]


def test_tokens_are_sent_so_many_together(llm):
    body = {"prompt": "Once", "max_tokens": 40, "ignore_eos": True, "seed": 1}
    held = bodies_of(create_app(llm, ServerConfig(flush_tokens=16, flush_s=60.0)), body)
    assert len(held) == 3  # 16, 16, and the rest with [DONE]
    text = lambda pieces: [e["choices"] for e in events(b"".join(pieces).decode())[:-1]]  # noqa: E731
    assert text(held) == text(bodies_of(create_app(llm, ServerConfig()), body))


def test_what_is_held_is_sent_after_its_time(llm):
    app = create_app(llm, ServerConfig(flush_tokens=10_000, flush_s=0.01))
    assert len(bodies_of(app, {"prompt": "Once", "max_tokens": 300, "ignore_eos": True})) > 2


def test_metrics_are_read_by_prometheus_own_parser(app):
    parser = pytest.importorskip("prometheus_client.parser")
    request(app, TEXT, {"prompt": "Once", "max_tokens": 5})
    answer = request(app, "/metrics")
    families = {f.name: f for f in parser.text_string_to_metric_families(answer.text)}
    assert (families["tokamak_generated_tokens"].type, families["tokamak_ttft_seconds"].type) == (
        "counter",
        "histogram",
    )
    assert families["tokamak_kv_blocks"].type == "gauge"
    (made,) = families["tokamak_generated_tokens"].samples
    assert made.value == 5
    buckets = [s.value for s in families["tokamak_ttft_seconds"].samples if s.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 1


def test_an_error_inside_a_stream_is_an_event_without_done(app, monkeypatch):
    from tokamak.server.routes.completions import TextForm

    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(TextForm, "chunks", broken)
    text = request(app, TEXT, {"prompt": "Once", "stream": True}).text
    assert "[DONE]" not in text
    assert json.loads(text.removeprefix("data: "))["error"]["code"] == "internal"
