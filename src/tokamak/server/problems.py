"""Errors as clients see them: a status, OpenAI's shape, and no more of the inside than they need."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from starlette.exceptions import HTTPException

from tokamak.errors import (
    Cancelled,
    CapacityError,
    ContextOverflow,
    InvalidParams,
    TokamakError,
    UnavailableError,
    UnsupportedError,
)
from tokamak.server.answers import ErrorAnswer, ErrorFacts

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    501: "not_supported_error",
    503: "server_error",
    504: "server_error",
}
ANTHROPIC_TYPES = {
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
RETRY_S = 1  # where nothing better is known
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*?)`")
_PLACE = re.compile(r" - at `\$\.?(.*?)`$")
_FIRST = re.compile(r"([a-z_]+)(?: (?:is|has|of|and|asks|are)\b|: )")


class Problem(Exception):  # an answer, not always an error of ours
    """A request ends with this status and body."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        kind = (
            "not_supported_error" if code == "not_supported" else TYPES.get(status, "invalid_request_error")
        )
        self.facts = ErrorFacts(message, kind, param, code)

    @property
    def body(self) -> bytes:
        """The JSON of OpenAI's routes."""
        return msgspec.json.encode(ErrorAnswer(self.facts))

    def body_for(self, path: str, request_id: str) -> bytes:
        """The JSON as clients of a route read it."""
        facts = self.facts
        if path.startswith("/v1/messages"):
            usual = "invalid_request_error" if self.status == 400 else facts.type
            kind = ANTHROPIC_TYPES.get(self.status, usual)
            error = {"type": kind, "message": facts.message}
            return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})
        if path.startswith("/api/"):
            return msgspec.json.encode({"error": facts.message})
        return self.body


def retry_later(status: int, message: str, code: str, after_s: int = RETRY_S) -> Problem:
    """429 or 503 with Retry-After."""
    return Problem(status, message, code=code, headers={"Retry-After": str(after_s)})


def problem_of(error: Exception, request_id: str) -> Problem:
    """The answer for an error. What nobody foresaw says only where to look: the log, under the request's id."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return Problem(error.status_code, error.detail, headers=error.headers)
    if isinstance(error, msgspec.ValidationError):
        return invalid(str(error))
    if isinstance(error, msgspec.DecodeError | RecursionError | UnicodeDecodeError):
        return Problem(400, f"the body is not JSON: {error}", code="invalid_json")
    if isinstance(error, ContextOverflow):
        return too_long(error)
    if isinstance(error, InvalidParams):
        first = _FIRST.match(str(error))
        param = first and {"gbnf": "grammar"}.get(first[1], first[1])
        return Problem(400, str(error), param=param, code="invalid_value")
    if isinstance(error, UnavailableError):
        return Problem(501, str(error), code="unavailable")
    if isinstance(error, UnsupportedError):
        return Problem(400, str(error), code="unsupported")
    if isinstance(error, CapacityError):
        return retry_later(503, str(error), "no_capacity")
    if isinstance(error, Cancelled):
        return retry_later(503, "the server is stopping", "stopping")
    text = str(error) if isinstance(error, TokamakError) else "something went wrong inside the server"
    return Problem(500, f"{text} (request {request_id})", code="internal")


def too_long(error: ContextOverflow) -> Problem:
    """OpenAI's code, with llama-server's type and counts."""
    known = error.num_prompt is not None
    said = "; it exceeds the available context size" if known else ""  # what clients of llama-server look for
    problem = Problem(400, f"{error}{said}", code="context_length_exceeded")
    problem.facts.type = "exceed_context_size_error"
    if error.num_prompt is not None and error.context is not None:
        problem.facts.n_prompt_tokens, problem.facts.n_ctx = error.num_prompt, error.context
    return problem


def invalid(message: str) -> Problem:
    """A body that is JSON, but not what the route takes. The message names the field."""
    unknown, missing, place = _UNKNOWN.search(message), _MISSING.search(message), _PLACE.search(message)
    where = place[1] if place else ""
    if unknown:
        name = f"{where}.{unknown[1]}" if where else unknown[1]
        text = f"{name} is not a field of this route, or not implemented; /openapi.json lists what is"
        return Problem(400, text, param=name, code="unknown_field")
    if missing:
        name = f"{where}.{missing[1]}" if where else missing[1]
        return Problem(400, f"{name} is missing", param=name, code="missing_field")
    return Problem(400, message.replace("`$.", "`"), param=where or None, code="invalid_value")
