"""Chat and text completions: what the engine says is what the client reads, whole and in events."""

from __future__ import annotations

import asyncio

import pytest

from http_client import client, encoded, events, request

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "Once upon a time"}]


def joined(chunks):
    """Text of each choice of the chunks of a stream."""
    texts = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            piece = choice["text"] if "text" in choice else choice["delta"].get("content", "")
            texts[choice["index"]] = texts.get(choice["index"], "") + piece
    return texts


def test_a_completion_is_what_the_engine_generates(app, llm):
    body = {"prompt": "Once upon", "max_tokens": 12, "seed": 5}
    got = request(app, TEXT, body).json()
    want = llm.generate("Once upon", max_tokens=12, seed=5)
    assert got["choices"] == [
        {"index": 0, "text": want.text, "logprobs": None, "finish_reason": want.finish_reason}
    ]
    usage = got["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (want.usage.prompt_tokens, 12)
    assert usage["total_tokens"] == usage["prompt_tokens"] + 12
    assert got["seed"] == 5
    assert got["model"] == "tiny"


def test_a_chat_is_what_the_engine_answers(app, llm):
    body = {"messages": HELLO, "max_completion_tokens": 10, "temperature": 0}
    got = request(app, CHAT, body).json()
    want = llm.chat(HELLO, max_tokens=10, temperature=0.0)
    assert got["object"] == "chat.completion"
    assert got["choices"][0]["message"] == {"role": "assistant", "content": want.text, "refusal": None}
    assert got["choices"][0]["finish_reason"] == "length"


def test_without_a_limit_a_chat_ends_with_the_context_and_a_text_after_16(app, llm):
    assert (
        request(app, TEXT, {"prompt": "Once", "ignore_eos": True}).json()["usage"]["completion_tokens"] == 16
    )
    body = {"messages": HELLO, "ignore_eos": True}
    assert request(app, CHAT, body).json()["usage"]["total_tokens"] == llm.context


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_the_pieces_of_a_stream_join_to_the_whole(app, path):
    body = {"max_tokens": 20, "seed": 3, "n": 2} | (
        {"messages": HELLO} if path == CHAT else {"prompt": "Once"}
    )
    whole = request(app, path, body).json()
    answer = request(app, path, body | {"stream": True, "stream_options": {"include_usage": True}})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, last, done = events(answer.text)
    assert done == "[DONE]"
    assert last["choices"] == []
    assert {k: v for k, v in last["usage"].items() if k != "prompt_tokens_details"} == {
        k: v for k, v in whole["usage"].items() if k != "prompt_tokens_details"
    }
    assert all(chunk["usage"] is None for chunk in chunks)
    want = {c["index"]: c["text"] if path == TEXT else c["message"]["content"] for c in whole["choices"]}
    assert joined(chunks) == want
    assert len(set(want.values())) == 2, "the samples of one request differ"
    ends = [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert ends == ["length", "length"]


def test_without_include_usage_a_stream_has_no_usage(app):
    body = {"prompt": "Once", "max_tokens": 3, "stream": True}
    assert all("usage" not in chunk for chunk in events(request(app, TEXT, body).text)[:-1])


def test_a_stop_string_is_not_part_of_the_text(app, llm):
    text = llm.generate("Once upon", max_tokens=30, temperature=0.0).text
    stop = text[8:11]
    body = {"prompt": "Once upon", "max_tokens": 30, "temperature": 0, "stop": [stop]}
    choice = request(app, TEXT, body).json()["choices"][0]
    assert choice["text"] == text[: text.index(stop)]
    assert choice["finish_reason"] == "stop"
    assert joined(events(request(app, TEXT, body | {"stream": True}).text)[:-1])[0] == choice["text"]


def test_many_prompts_keep_their_order(app, llm):
    ids = llm.tokenizer.encode("One day")
    prompts = [llm.tokenizer.encode("Once"), ids]
    body = {"prompt": prompts, "max_tokens": 6, "temperature": 0, "n": 2}
    got = request(app, TEXT, body).json()
    want = [llm.generate(p, max_tokens=6, temperature=0.0).text for p in prompts]
    assert [(c["index"], c["text"]) for c in got["choices"]] == list(enumerate([want[0]] * 2 + [want[1]] * 2))
    streamed = joined(events(request(app, TEXT, body | {"stream": True}).text)[:-1])
    assert streamed == {c["index"]: c["text"] for c in got["choices"]}


def test_chat_logprobs_are_the_engines_with_bytes(app, llm):
    body = {"messages": HELLO, "max_tokens": 5, "temperature": 0, "logprobs": True, "top_logprobs": 3}
    content = request(app, CHAT, body).json()["choices"][0]["logprobs"]["content"]
    want = llm.chat(HELLO, max_tokens=5, temperature=0.0, logprobs=3).logprobs
    assert [c["logprob"] for c in content] == [w.logprob for w in want]
    assert [[t["logprob"] for t in c["top_logprobs"]] for c in content] == [
        [p for _, p in w.top] for w in want
    ]
    assert [bytes(c["bytes"]) for c in content] == [llm.tokenizer.id_to_bytes(w.token_id) for w in want]
    streamed = [
        entry
        for chunk in events(request(app, CHAT, body | {"stream": True}).text)[:-1]
        for choice in chunk["choices"]
        for entry in (choice["logprobs"] or {"content": []})["content"]
    ]
    assert streamed == content


def test_echo_puts_the_prompt_and_its_logprobs_first(app, llm):
    body = {"prompt": "Once upon a time", "max_tokens": 4, "temperature": 0, "echo": True, "logprobs": 1}
    choice = request(app, TEXT, body).json()["choices"][0]
    want = llm.generate("Once upon a time", max_tokens=4, temperature=0.0, echo=True, logprobs=1)
    assert choice["text"] == want.text.removeprefix("<s>").removeprefix(" ")
    assert choice["text"].startswith("Once upon a time")
    logprobs = choice["logprobs"]
    assert logprobs["token_logprobs"] == [w.logprob for w in want.logprobs[1:]], (
        "bos is no text of the client's"
    )
    assert {len(logprobs[k]) for k in ("tokens", "top_logprobs", "text_offset")} == {len(want.logprobs) - 1}
    chunks = events(request(app, TEXT, body | {"stream": True}).text)[:-1]
    assert joined(chunks)[0] == choice["text"]
    offsets = [o for c in chunks for o in (c["choices"][0]["logprobs"] or {"text_offset": []})["text_offset"]]
    assert offsets == logprobs["text_offset"]


def test_a_bias_bans_a_token_and_a_negative_seed_is_a_seed(app, llm):
    first = llm.generate("Once", max_tokens=1, temperature=0.0).token_ids[0]
    body = {"prompt": "Once", "max_tokens": 1, "temperature": 0, "logit_bias": {str(first): -100}}
    answer = request(app, TEXT, body).json()
    assert answer["choices"][0]["text"] != llm.tokenizer.decode([first], continues=True)
    assert request(app, TEXT, {"prompt": "Once", "seed": -7}).json()["seed"] == 2**64 - 7


def test_a_repeated_prompt_reports_cached_tokens(app):
    body = {"messages": [{"role": "user", "content": "The fish " * 40}], "max_tokens": 1}
    request(app, CHAT, body)
    usage = request(app, CHAT, body).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == (usage["prompt_tokens"] - 1) // 32 * 32 > 0


def test_eight_streams_at_once_equal_their_solo_runs(app, llm):
    """Bit for bit: the log-probabilities are compared as numbers, not rounded."""
    bodies = [
        {
            "messages": [{"role": "user", "content": f"{'Tell me a story. ' * i}number {i}"}],
            "max_tokens": 24,
            "seed": i,
            "ignore_eos": True,
            "logprobs": True,
            "top_logprobs": 2,
            "stream": True,
        }
        for i in range(8)
    ]

    def facts(text):
        *chunks, done = events(text)
        assert done == "[DONE]"
        return [(c["delta"], c["logprobs"], c["finish_reason"]) for chunk in chunks for c in chunk["choices"]]

    solo = [facts(request(app, CHAT, body).text) for body in bodies]

    async def together():
        async with client(app) as c:
            answers = [c.post(CHAT, content=encoded(body)) for body in bodies]
            running = asyncio.gather(*answers)
            most = 0
            while not running.done():
                most = max(most, llm.stats()["running"])
                await asyncio.sleep(0.001)
            return [facts(answer.text) for answer in running.result()], most

    shared, most = asyncio.run(together())
    assert shared == solo
    assert most > 1, "the requests shared steps"
