"""A span says what a request was, under the caller's own; none is made unless a tracer is given."""

from __future__ import annotations

import sys

import pytest

from http_client import request
from tokamak.server.app import create_app
from tokamak.server.state import ServerConfig

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_span_for_each_request_with_its_facts_and_no_text(llm):
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    app = create_app(llm, ServerConfig(model="tiny", tracer=provider.get_tracer("test")))
    body = {"prompt": "Once secret", "max_tokens": 4, "ignore_eos": True}
    usage = request(app, "/v1/completions", body, headers={"traceparent": PARENT}).json()["usage"]
    assert request(app, "/v1/completions", {"prompt": []}).status_code == 400
    good, bad = kept.get_finished_spans()
    assert (good.name, good.attributes["http.response.status_code"]) == ("POST /v1/completions", 200)
    assert f"{good.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{good.parent.span_id:016x}" == PARENT.split("-")[2]
    assert good.attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert good.attributes["gen_ai.usage.output_tokens"] == 4
    assert good.attributes["gen_ai.request.model"] == "tiny"
    assert good.end_time > good.start_time
    assert "secret" not in good.to_json()
    assert (bad.attributes["http.response.status_code"], bad.parent) == (400, None)


def test_without_a_tracer_nothing_of_it_is_imported(app, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert request(app, "/v1/models").status_code == 200
