"""OpenTelemetry: one span for each request, made when it has ended; nothing is imported without an address or a tracer.

The caller's `traceparent` is its parent. Attributes are facts with the names of the semantic conventions, never texts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tokamak import __version__
from tokamak.errors import UnavailableError


def tracer_to(endpoint: str) -> Any:
    """A tracer that sends over OTLP and HTTP, as http://127.0.0.1:4318/v1/traces.  Raises: UnavailableError without the extra."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise UnavailableError(f"traces need {error.name}: pip install 'tokamak[otel]'") from error
    provider = TracerProvider(resource=Resource({"service.name": "tokamak", "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider.get_tracer("tokamak", __version__)


def note(tracer: Any, scope: Mapping[str, Any], route: str, status: int, seconds: float) -> None:
    """The span of a request that has just ended. tracer: of OpenTelemetry. seconds: it took."""
    from opentelemetry import propagate
    from opentelemetry.trace import SpanKind, StatusCode

    end_ns = time.time_ns()
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    counts = scope.get("counts", {})
    facts = {
        "http.request.method": scope["method"],
        "http.route": route,
        "http.response.status_code": status,
        "tokamak.request_id": scope["request_id"],
        "gen_ai.request.model": scope.get("model"),
        "gen_ai.usage.input_tokens": counts.get("prompt_tokens"),
        "gen_ai.usage.output_tokens": counts.get("completion_tokens"),
        "gen_ai.response.finish_reasons": counts.get("finish_reasons"),
        "tokamak.cached_tokens": counts.get("cached_tokens"),
        "tokamak.ttft_ms": counts.get("ttft_ms"),
    }
    span = tracer.start_span(
        f"{scope['method']} {route}",
        context=propagate.extract(headers),
        kind=SpanKind.SERVER,
        start_time=end_ns - int(1e9 * seconds),
        attributes={name: value for name, value in facts.items() if value is not None},
    )
    if status >= 500:  # the server's own faults
        span.set_status(StatusCode.ERROR)
    span.end(end_ns)
