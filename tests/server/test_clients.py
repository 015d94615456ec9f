"""The official clients, over a socket, against the model that comes with the package."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from processes import serving

HELLO = [{"role": "user", "content": "Tell me a story."}]
COLOUR = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": "paint", "description": "Paint it", "parameters": COLOUR}}]


@pytest.fixture(scope="module")
def url():
    with serving(None, "--alias", "tiny") as (_, url):
        yield url


@pytest.fixture
def openai_client(url):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{url}/v1", api_key="not needed here", max_retries=0) as client:
        yield client


def test_openai_chats_streams_and_continues(openai_client):
    client = openai_client
    assert [m.id for m in client.models.list()] == ["tiny"]
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    answer = whole.choices[0]
    assert whole.usage.completion_tokens == len(answer.logprobs.content) == 12
    messages = [*HELLO, answer.message, {"role": "user", "content": "And then?"}]
    assert client.chat.completions.create(model="tiny", messages=messages, max_tokens=2).choices
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == answer.message.content
    text = client.completions.create(model="tiny", prompt="Once", max_tokens=3, extra_body={"top_k": 1})
    assert text.usage.completion_tokens == 3


def test_openai_hears_errors_as_its_own_types(openai_client):
    import openai

    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        openai_client.chat.completions.create(model="no-such-model", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        openai_client.chat.completions.create(model="tiny", messages=HELLO, temperature=-1)
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.completions.create(model="tiny", prompt="fish " * 5000)
    assert caught.value.code == "context_length_exceeded"


def test_openai_calls_tools_and_takes_structured_output(openai_client):
    client = openai_client
    asked = {
        "model": "tiny",
        "messages": HELLO,
        "tools": TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "paint"}},
    }
    (call,) = client.chat.completions.create(**asked).choices[0].message.tool_calls
    assert json.loads(call.function.arguments)["colour"] in ("red", "blue")
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.message.tool_calls[0].function.name == "paint"
    assert final.finish_reason == "tool_calls"
    answer = client.chat.completions.create(**asked).choices[0].message
    messages = [*HELLO, answer, {"role": "tool", "tool_call_id": answer.tool_calls[0].id, "content": "done"}]
    assert client.chat.completions.create(model="tiny", messages=messages, tools=TOOLS, max_tokens=4).choices
    form = {"type": "json_schema", "json_schema": {"name": "c", "schema": COLOUR, "strict": True}}
    text = (
        client.chat.completions.create(model="tiny", messages=HELLO, response_format=form)
        .choices[0]
        .message.content
    )
    assert json.loads(text)["colour"] in ("red", "blue")


def test_openai_responses_remember_stream_and_call(openai_client):
    import openai

    responses = openai_client.responses
    first = responses.create(
        model="tiny", input="Hello", instructions="Be short.", max_output_tokens=6, temperature=0
    )
    assert (first.status, first.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert first.usage.output_tokens == 6
    assert responses.retrieve(first.id).output_text == first.output_text
    (item,) = responses.input_items.list(first.id, order="asc")
    assert item.content[0].text == "Hello"
    second = responses.create(
        model="tiny", input="And then?", previous_response_id=first.id, max_output_tokens=4
    )
    assert second.usage.input_tokens > first.usage.input_tokens
    responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError):
        responses.create(model="tiny", input="x", previous_response_id="resp_none")
    form = {"format": {"type": "json_schema", "name": "c", "schema": COLOUR}}
    assert json.loads(responses.create(model="tiny", input="Hello", text=form).output_text)["colour"]
    tool = {"type": "function", **TOOLS[0]["function"]}
    called = responses.create(
        model="tiny", input="Hello", tools=[tool], tool_choice="required", parallel_tool_calls=False
    )
    (call,) = called.output
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    after = responses.create(
        model="tiny",
        input=[result],
        previous_response_id=called.id,
        tools=[tool],
        tool_choice="none",
        max_output_tokens=3,
    )
    assert after.output[0].type == "message"


def test_openai_response_events_are_typed_numbered_and_add_up(openai_client):
    responses = openai_client.responses
    with responses.stream(model="tiny", input="Hello", max_output_tokens=8, temperature=0) as stream:
        seen = list(stream)
    kinds = [event.type for event in seen]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:-1] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    text = "".join(event.delta for event in seen if event.type == "response.output_text.delta")
    whole = responses.create(model="tiny", input="Hello", max_output_tokens=8, temperature=0)
    assert text == seen[-1].response.output_text == whole.output_text
    tool = {"type": "function", **TOOLS[0]["function"]}
    asked = {
        "model": "tiny",
        "input": "Hello",
        "tools": [tool],
        "tool_choice": {"type": "function", "name": "paint"},
    }
    events = list(responses.create(**asked, stream=True))
    arguments = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
    assert json.loads(arguments)["colour"] in ("red", "blue")
    assert events[-1].response.output[0].arguments == arguments


def test_openai_responses_run_in_the_background(openai_client):
    responses = openai_client.responses
    response = responses.create(model="tiny", input="Hello", background=True, max_output_tokens=4)
    assert response.status == "queued"
    for _ in range(1000):
        response = responses.retrieve(response.id)
        if response.status not in ("queued", "in_progress"):
            break
    assert response.status == "incomplete"
    assert response.output_text
    again = list(responses.retrieve(response.id, stream=True))
    assert [event.sequence_number for event in again] == list(range(len(again)))
    assert "".join(e.delta for e in again if e.type == "response.output_text.delta") == response.output_text
    assert again[-1].response == response
    rest = list(responses.retrieve(response.id, stream=True, starting_after=3))
    assert rest == again[4:]
    begun = responses.create(model="tiny", input="Hello", background=True, max_output_tokens=64)
    followed = list(responses.retrieve(begun.id, stream=True))
    assert followed[-1].response.output_text == responses.retrieve(begun.id).output_text
    assert responses.input_tokens.count(model="tiny", input="Hello").input_tokens > 1


def test_anthropic_chats_streams_counts_and_calls_tools(url):
    anthropic = pytest.importorskip("anthropic")
    with anthropic.Anthropic(base_url=url, api_key="none needed", max_retries=0) as client:
        asked = {
            "model": "tiny",
            "max_tokens": 8,
            "messages": HELLO,
            "system": "Be short.",
            "extra_body": {"temperature": 0},
        }
        whole = client.messages.create(**asked)
        assert (whole.stop_reason, whole.usage.output_tokens) == ("max_tokens", 8)
        counted = client.messages.count_tokens(model="tiny", messages=HELLO, system="Be short.").input_tokens
        assert counted == whole.usage.input_tokens + whole.usage.cache_read_input_tokens
        with client.messages.stream(**asked) as stream:
            assert "".join(stream.text_stream) == whole.content[0].text
            final = stream.get_final_message()
        assert (final.stop_reason, final.usage.output_tokens) == ("max_tokens", 8)
        assert (
            client.messages.create(**{**asked, "max_tokens": 20_000}, stop_sequences=["a"]).stop_sequence
            == "a"
        )
        tool = {"name": "paint", "description": "Paint it", "input_schema": COLOUR}
        choice = {"type": "tool", "name": "paint"}
        with client.messages.stream(
            **{**asked, "max_tokens": 100}, tools=[tool], tool_choice=choice
        ) as stream:
            called = stream.get_final_message()
        (use,) = called.content
        assert (called.stop_reason, use.name) == ("tool_use", "paint")
        assert use.input["colour"] in ("red", "blue")
        result = {"type": "tool_result", "tool_use_id": use.id, "content": "done"}
        messages = [
            *HELLO,
            {"role": "assistant", "content": called.content},
            {"role": "user", "content": [result]},
        ]
        assert client.messages.create(model="tiny", max_tokens=3, messages=messages, tools=[tool]).content
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(model="no-such-model", max_tokens=1, messages=HELLO)
        with pytest.raises(anthropic.BadRequestError, match="context holds"):
            client.messages.create(
                model="tiny", max_tokens=1, messages=[{"role": "user", "content": "fish " * 5000}]
            )
        hosted = client.messages.create(model="claude-opus-4", max_tokens=1, messages=HELLO)
        assert hosted.model == "tiny"


def test_ollama_lists_chats_generates_and_calls_tools(url):
    ollama = pytest.importorskip("ollama")
    client = ollama.Client(host=url)
    assert [m.model for m in client.list().models] == [m.model for m in client.ps().models] == ["tiny"]
    assert client.show("tiny").modelinfo["general.architecture"] == "llama"
    few = {"num_predict": 8, "temperature": 0}
    whole = client.chat("tiny", HELLO, options=few)
    assert (whole.done_reason, whole.eval_count) == ("length", 8)
    pieces = list(client.chat("tiny:latest", HELLO, options=few, stream=True))
    assert "".join(p.message.content for p in pieces) == whole.message.content
    assert pieces[-1].done
    text = client.generate("tiny", "Once upon", raw=True, options=few).response
    assert (
        "".join(p.response for p in client.generate("tiny", "Once upon", raw=True, options=few, stream=True))
        == text
    )
    assert json.loads(client.chat("tiny", HELLO, format=COLOUR).message.content)["colour"] in ("red", "blue")
    assert client.chat("tiny", HELLO, tools=TOOLS, options=few).message.role == "assistant"
    assert client.generate("tiny", "").done_reason == "load"
    with pytest.raises(ollama.ResponseError, match="not here") as caught:
        client.chat("no-such-model", HELLO)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="num_ctx"):
        client.chat("tiny", HELLO, options={"num_ctx": 10**6})


def test_langchain_chats_streams_calls_tools_and_gives_structured_output(url):
    langchain = pytest.importorskip("langchain_openai")
    chat = langchain.ChatOpenAI(
        model="tiny", base_url=f"{url}/v1", api_key="none", max_tokens=60, temperature=0
    )
    assert chat.invoke("Hello").content
    assert len(list(chat.stream("Hello"))) > 3
    bound = chat.bind_tools(TOOLS, tool_choice="paint")
    assert bound.invoke("Hello").tool_calls[0]["args"]["colour"] in ("red", "blue")
    schema = {"title": "Colour", "description": "a colour", **COLOUR}
    for method in ("json_schema", "function_calling"):
        got = chat.with_structured_output(schema, method=method).invoke("Hello")
        assert got["colour"] in ("red", "blue")


@pytest.mark.skipif(not os.environ.get("TOKAMAK_SLOW_TESTS"), reason="takes half a minute")
def test_schemathesis_finds_no_server_error(url, tmp_path):
    """A short run over every route of our own document; bodies that fit it and bodies that do not."""
    pytest.importorskip("schemathesis")
    words = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"]
    words += [
        "--checks",
        "not_a_server_error",
        "--phases",
        "fuzzing",
        "-n",
        "3",
        "-m",
        "all",
        "--request-timeout",
        "60",
        "--seed",
        "1",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
