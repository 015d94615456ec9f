"""Formats, tools and reasoning over /v1/chat/completions: what is asked for holds, or the request is refused."""

from __future__ import annotations

import json

import pytest

import tiny
import tokamak
from http_client import events, request
from tokamak.server.app import create_app
from tokamak.server.dialogue import NOTE_TOOLS
from tokamak.server.state import ServerConfig

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "How warm is it in Paris?"}]
UNITS = {
    "type": "object",
    "properties": {"unit": {"enum": ["c", "f"]}},
    "required": ["unit"],
    "additionalProperties": False,
}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "get_weather", "description": "It says how warm it is", "parameters": UNITS},
    },
    {
        "type": "function",
        "function": {"name": "stop", "parameters": {"type": "object", "additionalProperties": False}},
    },
]
KNOWS = (
    "{% if tools %}TOOLS {{ tools | tojson }} <tool_call>{% endif %}{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}{% endif %}"
)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """An application whose model's template knows no tools."""
    with tokamak.load(tiny.gguf(tmp_path_factory.mktemp("plain") / "m.gguf", context=1024), threads=1) as llm:
        yield create_app(llm)


@pytest.fixture(scope="module")
def knowing(tmp_path_factory):
    """An application whose model's template knows tools and opens the reasoning."""
    path = tmp_path_factory.mktemp("tools") / "m.gguf"
    tiny.gguf(path, metadata={"tokenizer.chat_template": KNOWS}, context=1024)
    with tokamak.load(path, threads=1) as llm:
        yield create_app(llm, ServerConfig(model="knowing"))


def ask(app, **fields):
    answer = request(app, CHAT, {"messages": HELLO, "max_tokens": 120, "seed": 1, **fields})
    assert answer.status_code == 200, answer.text
    return answer


def joined(chunks):
    """The message and finish reason of a streamed choice."""
    message, finish = {"content": "", "reasoning": "", "calls": []}, None
    for choice in (c for chunk in chunks for c in chunk["choices"]):
        delta, finish = choice["delta"], choice["finish_reason"] or finish
        message["content"] += delta.get("content") or ""
        message["reasoning"] += delta.get("reasoning_content", "")
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                assert call["index"] == len(message["calls"])
                message["calls"].append({"id": call["id"], "name": call["function"]["name"], "arguments": ""})
            message["calls"][call["index"]]["arguments"] += call["function"]["arguments"]
    return message, finish


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
@pytest.mark.parametrize("which", ["app", "knowing"])
def test_a_forced_call_is_a_call_that_follows_its_schema(request, which, choice):
    app = request.getfixturevalue(which)
    fields = {"tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False}
    choice = ask(app, **fields).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert choice["message"]["content"] is None
    assert call["type"] == "function"
    arguments = json.loads(call["function"]["arguments"])
    assert call["function"]["name"] == "stop" or arguments["unit"] in "cf"
    message, finish = joined(events(ask(app, **fields, stream=True).text)[:-1])
    assert finish == "tool_calls"
    assert message["calls"][0]["name"] == call["function"]["name"]
    assert message["calls"][0]["arguments"] == call["function"]["arguments"]
    assert message["content"] == message["reasoning"] == ""


def test_parallel_calls_come_in_a_list_with_their_indices(app):
    fields = {"tools": TOOLS, "tool_choice": "required"}
    calls = ask(app, **fields).json()["choices"][0]["message"]["tool_calls"]
    message, _ = joined(events(ask(app, **fields, stream=True).text)[:-1])
    assert [(c["name"], c["arguments"]) for c in message["calls"]] == [
        (c["function"]["name"], c["function"]["arguments"]) for c in calls
    ]
    assert len({c["id"] for c in calls}) == len(calls) >= 1


def test_tools_reach_the_template_or_the_system_message_which_is_said(app, knowing):
    text = request(knowing, "/apply-template", {"messages": HELLO, "tools": TOOLS}).json()["prompt"]
    assert text.startswith('TOOLS [{"type": "function", "function": {"name": "get_weather"')
    text = request(app, "/apply-template", {"messages": HELLO, "tools": TOOLS}).json()["prompt"]
    assert text.startswith("<|system|>\nYou can call these functions:\n")
    assert ask(app, tools=TOOLS, max_tokens=1).headers["x-tokamak-notes"] == NOTE_TOOLS
    assert "x-tokamak-notes" not in ask(knowing, tools=TOOLS, max_tokens=1).headers
    assert request(app, "/apply-template", {"messages": HELLO}).json()["prompt"].startswith("<|user|>")


def test_calls_and_results_go_back_into_the_conversation(app, knowing):
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"unit": "c"}'},
    }
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "20"},
    ]
    text = request(knowing, "/apply-template", {"messages": messages}).json()["prompt"]
    assert (
        '[assistant]<tool_call>{"name": "get_weather", "arguments": {"unit": "c"}}</tool_call>[tool]20'
        in text
    )
    text = request(app, "/apply-template", {"messages": messages}).json()["prompt"]
    assert "<|user|>\n<tool_response>\n20\n</tool_response>" in text
    assert "<tool_call>" in text


def test_json_modes_give_json_and_text_gives_text(app):
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [1, 22]}, "b": {"type": "boolean"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    for given in (
        {"response_format": asked},
        {"json_schema": schema},
        {"response_format": {"type": "json_schema", "schema": schema}},
    ):
        value = json.loads(ask(app, **given).json()["choices"][0]["message"]["content"])
        assert (value["a"] in (1, 22), isinstance(value["b"], bool)) == (True, True)
    said = ask(app, response_format={"type": "json_object"}).json()["choices"][0]
    assert said["message"]["content"].startswith("{")
    if said["finish_reason"] == "stop":
        assert isinstance(json.loads(said["message"]["content"]), dict)
    assert ask(app, choice=["yes", "no"]).json()["choices"][0]["message"]["content"] in ("yes", "no")
    assert ask(app, response_format={"type": "text"}).status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "zork"}},
            }
        },
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"not": {"type": "null"}}},
            }
        },
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "zork"}}}],
            "tool_choice": "required",
        },
        {"tools": TOOLS, "response_format": {"type": "json_object"}},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}},
        {"tools": [TOOLS[0], TOOLS[0]]},
        {"json_schema": {"type": "string", "pattern": "a" * 300_000}},
    ],
)
def test_what_cannot_be_kept_is_refused_and_nothing_is_generated(app, fields):
    made = app.state.metrics.generated_tokens.values[()]
    answer = request(app, CHAT, {"messages": HELLO, "max_tokens": 5, **fields})
    assert answer.status_code == 400, answer.text
    assert app.state.metrics.generated_tokens.values[()] == made


def test_reasoning_is_told_apart_unless_it_is_asked_for_as_text(knowing):
    message = ask(knowing, max_tokens=12).json()["choices"][0]["message"]
    assert message["reasoning_content"]
    assert message["content"] == ""
    streamed, _ = joined(events(ask(knowing, max_tokens=12, stream=True).text)[:-1])
    assert (streamed["reasoning"], streamed["content"]) == (message["reasoning_content"], "")
    assert (
        "reasoning_content"
        not in ask(knowing, max_tokens=12, reasoning_format="none").json()["choices"][0]["message"]
    )
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    assert ask(knowing, max_tokens=12, **off).json()["choices"][0]["message"]["content"]
    assert ask(knowing, max_tokens=12, reasoning_effort="none").json()["choices"][0]["message"]["content"]
    assert (
        request(knowing, CHAT, {"messages": HELLO, "chat_template_kwargs": {"bos_token": "x"}}).status_code
        == 400
    )


def test_what_has_no_effect_is_listed_and_a_foreign_name_of_a_field_works(app):
    answer = ask(app, user="me", metadata={"a": "b"}, store=False, max_tokens=1)
    assert answer.headers["x-tokamak-ignored"] == "user, metadata, store"
    assert "x-tokamak-ignored" not in ask(app, max_tokens=1).headers
    assert (
        ask(app, repeat_penalty=1.3).json()["choices"] == ask(app, repetition_penalty=1.3).json()["choices"]
    )
    said = ask(app, timings_per_token=True, max_tokens=4).json()["timings"]
    assert said["predicted_n"] == 4


def test_a_model_without_a_template_answers_in_a_plain_form_and_says_so(tmp_path):
    path = tiny.gguf(tmp_path / "m.gguf", metadata={"tokenizer.chat_template": None})
    with tokamak.load(path, threads=1) as llm:
        app = create_app(llm)
        messages = [{"role": "system", "content": "S"}, *HELLO]
        assert request(app, "/apply-template", {"messages": messages}).json()["prompt"] == (
            "System: S\nUser: How warm is it in Paris?\nAssistant:"
        )
        assert "no chat template" in ask(app, max_tokens=2).headers["x-tokamak-notes"]
