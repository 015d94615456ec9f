"""What is refused: with which status, in OpenAI's shape, by name."""

from __future__ import annotations

import asyncio

import pytest

from http_client import request
from tokamak.sampling.params import FIELDS
from tokamak.server.app import create_app
from tokamak.server.schemas import MAX_SAMPLES, SAME, Sampling
from tokamak.server.state import ServerConfig

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "Hi"}]
KEY = "secret-key-1"


def nested(depth):
    return [nested(depth - 1)] if depth else []


def test_every_sampling_field_of_the_engine_is_a_field_of_the_server():
    """logits_processor is code; adapters are `lora`, by number; logprobs and echo belong to the routes; salt and priority
    to the operator; the others give no text before their end."""
    assert set(FIELDS) - set(Sampling.__struct_fields__) == {
        *("logits_processor", "adapters", "logprobs", "echo", "cache_salt", "priority"),
        *("best_of", "num_beams", "length_penalty", "early_stopping"),
    }
    assert set(SAME) <= set(FIELDS)


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        (TEXT, {"prompt": "a", "best_off": 2}, 400, "best_off"),
        (CHAT, {"messages": HELLO, "tools": [{"type": "web_search"}]}, 400, "tools[0].type"),
        (CHAT, {"messages": HELLO, "tool_choice": "required"}, 400, "tool_choice"),
        (CHAT, {"messages": HELLO, "functions": [{"name": "f"}]}, 400, "functions"),
        (CHAT, {"messages": HELLO, "response_format": {"type": "xml"}}, 400, "response_format.type"),
        (CHAT, {"messages": HELLO, "response_format": {"type": "json_schema"}}, 400, "response_format"),
        (CHAT, {"messages": HELLO, "modalities": ["audio"]}, 400, "modalities[0]"),
        (TEXT, {"prompt": "a", "json_schema": {"type": "zork"}}, 400, "json_schema"),
        (TEXT, {"prompt": "a", "grammar": "root ::= ("}, 400, "grammar"),
        (TEXT, {"prompt": "a", "regex": "(a"}, 400, "regex"),
        (TEXT, {"prompt": "a", "regex": "a", "choice": ["b"]}, 400, "regex"),
        (TEXT, {"prompt": "a", "best_of": 3}, 400, "best_of"),
        (TEXT, {"prompt": "a", "repeat_penalty": 1.5, "repetition_penalty": 1.0}, 400, "repeat_penalty"),
        (CHAT, {"messages": [{"role": "user", "content": "a", "x": 1}]}, 400, "messages[0].x"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "text": ""}]}]}, 400, None),
        (CHAT, {"messages": []}, 400, "messages"),
        (CHAT, {}, 400, "messages"),
        (CHAT, {"messages": HELLO, "top_logprobs": 3}, 400, "top_logprobs"),
        (CHAT, {"messages": HELLO, "max_tokens": 3, "max_completion_tokens": 4}, 400, "max_tokens"),
        (TEXT, {"prompt": "a", "temperature": -1}, 400, "temperature"),
        (TEXT, {"prompt": "a", "temperature": "hot"}, 400, "temperature"),
        (TEXT, {"prompt": "a", "n": MAX_SAMPLES + 1}, 400, "n"),
        (TEXT, {"prompt": []}, 400, "prompt"),
        (TEXT, {"prompt": ["a", 1]}, 400, "prompt"),
        (TEXT, {"prompt": [10**6]}, 400, None),
        (TEXT, {"prompt": "a", "logit_bias": {"1000000": 1}}, 400, "logit_bias"),
        (TEXT, {"prompt": "a", "model": "other"}, 404, "model"),
        (TEXT, b"{", 400, None),
        (TEXT, b"[" * 100_000, 400, None),
        (TEXT, b"[]", 400, None),
        (TEXT, {"prompt": "a", "json_schema": {"items": nested(200)}}, 400, None),
        (TEXT, b'{"prompt": "\xff"}', 400, None),
        ("/detokenize", {"tokens": [10**6]}, 400, None),
        ("/tokenize", {"content": "a", "adds": 1}, 400, "adds"),
    ],
)
def test_a_bad_request_is_refused_by_name(app, path, body, status, param):
    answer = request(app, path, body)
    error = answer.json()["error"]
    assert answer.status_code == status, error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    if param:
        assert error["param"] == param, error


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_context_overflow_has_both_counts(app, llm, path):
    long = "fish and " * 600
    body = {"messages": [{"role": "user", "content": long}]} if path == CHAT else {"prompt": long}
    answer = request(app, path, body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert str(llm.context) in error["message"]


def test_unknown_paths_and_verbs_are_404_and_405(app):
    answer = request(app, "/v1/nothing")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
    answer = request(app, CHAT)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert request(app, "/v1/models/other").status_code == 404


def test_keys_open_everything_and_nothing_but_health_is_open_without(llm):
    app = create_app(llm, ServerConfig(api_keys=("another-key", KEY)))
    for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
        assert request(app, path).status_code == 401, path
        assert request(app, path, headers={"Authorization": f"Bearer {KEY}x"}).status_code == 401, path
    for path in ("/health", "/health/live", "/health/ready"):
        assert request(app, path).status_code == 200, path
    assert request(app, "/v1/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
    assert request(app, "/v1/models", headers={"X-API-Key": KEY}).status_code == 200
    assert request(app, "/v1/models").json()["error"]["code"] == "invalid_api_key"


def test_prefixes_are_not_shared_between_keys(llm):
    app = create_app(llm, ServerConfig(api_keys=("another-key", KEY)))

    def cached(key):
        body = {"prompt": "The old boat " * 30, "max_tokens": 1}
        answer = request(app, TEXT, body, headers={"Authorization": f"Bearer {key}"})
        return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached(KEY) == 0
    assert cached("another-key") == 0
    assert cached(KEY) > 0


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}]
)
def test_without_a_key_only_loopback_names_are_answered(app, headers):
    assert request(app, "/v1/models", headers=headers).status_code == 403
    assert request(app, "/v1/models", headers={"Origin": "http://localhost:3000"}).status_code == 200


def test_a_large_body_is_refused_with_and_without_its_length(llm):
    app = create_app(llm, ServerConfig(max_body_nbytes=100))
    body = b'{"prompt": "' + b"a" * 200 + b'"}'
    assert request(app, TEXT, body).status_code == 413

    async def parts():
        sent = [
            {"type": "http.request", "body": body[i : i + 50], "more_body": True} for i in range(0, 200, 50)
        ]
        return await raw(app, TEXT, sent)

    assert asyncio.run(parts()) == 413


@pytest.mark.parametrize("name", ["", " ", "\u00e9\n", "x" * 5000])
def test_strange_names_of_fields_do_no_harm_to_the_headers_that_list_them(app, name):
    answer = request(app, "/completion", {"prompt": "a", "n_predict": 1, name: 1})
    assert answer.status_code == 200
    listed = answer.headers.get("x-tokamak-ignored", "")
    assert listed == listed.strip()
    assert listed.isascii()
    assert len(listed) < 100


def test_both_lengths_of_a_body_are_refused(app):
    headers = {"Content-Length": "2", "Transfer-Encoding": "chunked"}
    assert request(app, TEXT, b"{}", headers=headers).status_code == 400


async def raw(app, path, messages):
    """Status of a POST whose body comes in these messages."""
    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"host", b"localhost")]}
    sent, left = [], iter(messages)

    async def receive():
        return next(left)

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"]
