"""The official clients, over a socket, against the model that comes with the package."""

from __future__ import annotations

import json

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
