"""llama-server's routes, vectors and infilling: what its clients read is what the engine says."""

from __future__ import annotations

import base64

import numpy as np
import pytest

import tiny
import tokamak
from http_client import events, request
from tokamak.errors import InvalidParams
from tokamak.server.app import create_app
from tokamak.server.routes.embeddings import shortened
from tokamak.server.state import ServerConfig


def ask(app, path, **body):
    answer = request(app, path, body)
    assert answer.status_code == 200, answer.text
    return answer


def test_a_completion_says_what_the_engine_did(app, llm):
    got = ask(
        app, "/completion", prompt="Once upon", n_predict=8, seed=4, return_tokens=True, n_probs=2
    ).json()
    want = llm.generate("Once upon", max_tokens=8, seed=4, logprobs=2)
    assert (got["content"], got["tokens"], got["stop_type"]) == (want.text, want.token_ids, "limit")
    assert (got["tokens_predicted"], got["tokens_evaluated"]) == (8, want.usage.prompt_tokens)
    assert [e["logprob"] for e in got["completion_probabilities"]] == [e.logprob for e in want.logprobs]
    assert got["generation_settings"]["seed"] == 4
    assert got["timings"]["predicted_n"] == 8
    *chunks, last = events(ask(app, "/completion", prompt="Once upon", n_predict=8, seed=4, stream=True).text)
    assert "".join(chunk["content"] for chunk in chunks) == want.text
    assert (last["stop"], last["content"]) == (True, "")


def test_prompts_may_be_ids_mixed_and_many_and_fields_chosen(app, llm):
    ids = llm.tokenizer.encode("Once")
    few = {"n_predict": 4, "temperature": 0}
    want = llm.generate(ids, max_tokens=4, temperature=0.0).text
    assert ask(app, "/completion", prompt=ids, **few).json()["content"] == want
    many = ask(app, "/completions", prompt=["Once", ids, ["Once", ids[-1]]], **few).json()
    assert [m["content"] for m in many[:2]] == [want, want]
    chosen = ask(app, "/completion", prompt="Once", response_fields=["content", "timings/predicted_n"], **few)
    assert chosen.json() == {"content": want, "timings/predicted_n": 4}


def test_probabilities_after_the_samplers_add_up(app, llm):
    body = {"prompt": "Once", "n_predict": 4, "seed": 1, "n_probs": 5, "top_k": 5}
    got = ask(app, "/completion", **body, post_sampling_probs=True).json()
    assert len(got["completion_probabilities"]) == 4
    for entry in got["completion_probabilities"]:
        likely = {top["id"]: top["prob"] for top in entry["top_probs"]}
        assert likely[entry["id"]] == entry["prob"]
        assert sum(likely.values()) == pytest.approx(1.0)  # of the five that top_k leaves
        assert entry["bytes"] == list(llm.tokenizer.id_to_bytes(entry["id"]))
        assert "logprob" not in entry


def test_more_tokens_than_the_context_leaves_end_with_it_and_that_is_said(app, llm):
    ids = llm.tokenizer.encode("Once ") * 20
    ids = (
        ids[: llm.context - 4]
        if len(ids) >= llm.context
        else [*ids, *[ids[-1]] * (llm.context - 4 - len(ids))]
    )
    more = {"prompt": ids, "n_predict": 99, "ignore_eos": True}
    answer = ask(app, "/completion", **more)
    assert (answer.json()["tokens_predicted"], answer.json()["stop_type"], answer.json()["truncated"]) == (
        4,
        "limit",
        True,
    )
    assert "99" in answer.headers["x-tokamak-notes"]
    assert "leaves 4" in answer.headers["x-tokamak-notes"]
    assert (
        request(app, "/completion", {**more, "prompt": ids * 2}).status_code == 400
    )  # a prompt is never cut
    assert (
        request(app, "/v1/completions", {"prompt": ids, "max_tokens": 99}).status_code == 400
    )  # as OpenAI does


def test_a_bias_may_be_a_list_and_false_bans(app, llm):
    first = llm.generate("Once", max_tokens=1, temperature=0.0).token_ids[0]
    body = {"prompt": "Once", "n_predict": 1, "temperature": 0, "return_tokens": True}
    assert ask(app, "/completion", **body, logit_bias=[[first, False]]).json()["tokens"] != [first]
    assert request(app, "/completion", {**body, "logit_bias": [[first, True]]}).status_code == 400


def test_slots_props_and_adapters_are_told(app, llm):
    slots = request(app, "/slots").json()
    assert len(slots) == llm.program.limits.max_sequences
    assert {slot["state"] for slot in slots} == {"IDLE"}
    props = request(app, "/props").json()
    assert props["default_generation_settings"]["n_ctx"] == llm.context
    assert props["bos_token"] == "<s>"
    assert "/" not in props["model_path"]
    assert request(app, "/lora-adapters").json() == []
    assert request(app, "/lora-adapters", [{"id": 0, "scale": 1}]).status_code == 400


def test_a_generating_model_gives_vectors_of_its_hidden_states(app, llm):
    expected = llm.embed(["a", "Once upon"])
    answer = request(app, "/v1/embeddings", {"input": ["a", "Once upon"]}).json()
    given = np.array([entry["embedding"] for entry in answer["data"]], dtype=np.float32)
    assert np.array_equal(given, expected)
    assert request(app, "/embedding", {"content": "a"}).json()[0]["embedding"] == [expected[0].tolist()]


def test_a_model_without_ranks_or_marks_says_so(app):
    for path, body in (
        ("/v1/rerank", {"query": "a", "documents": ["b"]}),
        ("/infill", {"input_prefix": "a", "input_suffix": "b"}),
    ):
        answer = request(app, path, body)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "not_supported_error"), path
    answer = ask(app, "/v1/completions", prompt="a", suffix="b", max_tokens=1)
    assert answer.headers["x-tokamak-ignored"] == "suffix"


def test_vectors_can_be_shortened_and_stay_of_length_one():
    vectors = np.array([[3.0, 4.0, 12.0]], dtype=np.float32)
    assert shortened(vectors, 2) == pytest.approx(np.array([[0.6, 0.8]]))
    assert shortened(vectors, None) is vectors
    with pytest.raises(InvalidParams, match="dimensions"):
        shortened(vectors, 4)


@pytest.fixture(scope="module")
def encoder(tiny_gguf):
    with tokamak.load(tiny_gguf("bert"), threads=1) as loaded:
        yield loaded


def test_vectors_are_the_models_in_every_dialect(encoder):
    app, texts = create_app(encoder), ["Once upon", "the fish"]
    want = encoder.embed(texts)
    got = ask(app, "/v1/embeddings", input=texts, model="text-embedding-3-small").json()
    assert [e["embedding"] for e in got["data"]] == want.tolist()
    ids = encoder.tokenizer.encode(texts[0])
    assert got["usage"]["total_tokens"] == len(ids) + len(encoder.tokenizer.encode(texts[1]))
    packed = ask(app, "/v1/embeddings", input=ids, encoding_format="base64").json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(packed), "<f4").tolist() == want[0].tolist()
    assert ask(app, "/api/embed", model="gpt-4o", input=texts[:1]).json()["embeddings"] == want[:1].tolist()
    assert ask(app, "/embedding", content=texts[0]).json()[0]["embedding"] == want[:1].tolist()
    short = ask(app, "/v1/embeddings", input=texts[0], dimensions=3).json()["data"][0]["embedding"]
    assert np.linalg.norm(short) == pytest.approx(1.0, abs=1e-6)
    assert request(app, "/v1/completions", {"prompt": "a"}).status_code == 400
    assert request(app, "/v1/embeddings", {"input": ["a", 1]}).status_code == 400
    assert request(app, "/v1/rerank", {"query": "a", "documents": ["b"]}).status_code == 400


def test_documents_come_best_first(tiny_gguf):
    ranking = {"keys": {"pooling_type": 4}}
    with tokamak.load(tiny_gguf("bert", **ranking), threads=1) as llm:
        documents = ["the fish", "a cat", "the river"]
        got = ask(create_app(llm), "/v1/rerank", query="fish", documents=documents, top_n=2).json()["results"]
        scores = llm.rerank("fish", documents)
    order = sorted(range(3), key=lambda i: -scores[i])[:2]
    assert [(r["index"], r["relevance_score"]) for r in got] == [(i, float(scores[i])) for i in order]


def test_infilling_writes_between_two_texts(tmp_path):
    vocabulary = dict(tiny.spm_vocabulary())
    names = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
    tokens = list(vocabulary["tokenizer.ggml.tokens"])
    tokens[-3:] = names
    kinds = [*vocabulary["tokenizer.ggml.token_type"].value[:-3], 3, 3, 3]
    changed = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": tiny.Typed("array[int32]", kinds),
    }
    with tokamak.load(tiny.gguf(tmp_path / "m.gguf", metadata=changed), threads=1) as llm:
        app = create_app(llm)
        encode = lambda text: llm.tokenizer.encode(text, add_special=False)  # noqa: E731  # short
        before, after, middle = (llm.tokenizer.token_to_id(name) for name in names)
        want = [llm.tokenizer.bos_id, before, *encode("Once"), after, *encode("time"), middle]
        body = {"n_predict": 4, "temperature": 0}
        got = ask(app, "/infill", input_prefix="Once", input_suffix="time", **body).json()
        text = llm.generate(want, max_tokens=4, temperature=0.0, stop_token_ids=[before, after, middle]).text
        assert (got["content"], got["tokens_evaluated"]) == (text, len(want))
        same = ask(app, "/v1/completions", prompt="Once", suffix="time", max_tokens=4, temperature=0).json()
        assert same["choices"][0]["text"] == text


def test_a_prompt_may_be_an_object_without_pictures(app):
    few = {"n_predict": 3, "temperature": 0}
    want = ask(app, "/completion", prompt="Once", **few).json()["content"]
    assert ask(app, "/completion", prompt={"prompt_string": "Once"}, **few).json()["content"] == want
    both = ask(app, "/completion", prompt=["Once", {"prompt_string": "Once"}], **few).json()
    assert [one["content"] for one in both] == [want, want]
    shown = {"prompt_string": "a", "multimodal_data": ["x"]}
    assert request(app, "/completion", {"prompt": shown}).status_code == 400


def test_an_answer_that_is_begun_is_gone_on_with(app, llm):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Once upon"}]
    asked = {"messages": turns, "max_tokens": 4, "temperature": 0, "verbose": True}
    got = ask(app, "/chat/completions", **asked).json()
    assert got["__verbose"]["prompt"] == "<s> " + llm.tokenizer.render_chat(turns[:1]) + "Once upon"
    assert got["usage"]["prompt_tokens"] == len(llm.tokenizer.encode_chat(turns[:1], begun="Once upon"))
    counted = ask(app, "/v1/chat/completions/input_tokens", messages=turns).json()
    assert counted["input_tokens"] == got["usage"]["prompt_tokens"]
    answered = ask(app, "/chat/completions", **asked, continue_final_message=False).json()
    assert answered["__verbose"]["prompt"] == "<s> " + llm.tokenizer.render_chat(turns)
    both = {"add_generation_prompt": True, "continue_final_message": True}
    assert request(app, "/chat/completions", asked | both).status_code == 400
    assert request(app, "/chat/completions", asked | {"messages": [*turns, turns[1]]}).status_code == 400
    again = ask(app, "/v1/messages", messages=turns, max_tokens=4, temperature=0).json()
    assert again["content"][0]["text"] == got["choices"][0]["message"]["content"]


def test_what_does_not_fit_is_refused_with_both_counts(app, llm):
    error = request(app, "/v1/chat/completions", {"messages": [{"role": "user", "content": "a " * 9999}]})
    facts = error.json()["error"]
    assert (facts["type"], facts["code"]) == ("exceed_context_size_error", "context_length_exceeded")
    assert (facts["n_prompt_tokens"] > 9999, facts["n_ctx"]) == (True, llm.context)


def test_ends_of_text_that_are_banned_are_listed_as_biases(app, llm):
    body = {"prompt": "Once", "n_predict": 2}
    settings = ask(app, "/completion", **body, ignore_eos=True).json()["generation_settings"]
    assert [entry["token"] for entry in settings["logit_bias"]] == sorted(llm.tokenizer.eog_ids)
    assert ask(app, "/completion", **body).json()["generation_settings"]["logit_bias"] == []


def test_defaults_fill_what_a_request_leaves_out(llm):
    from tokamak.server.state import ServerConfig

    app = create_app(llm, ServerConfig(defaults={"temperature": 0.0, "max_tokens": 5, "seed": 7}))
    got = ask(app, "/completion", prompt="Once", return_tokens=True).json()
    assert got["tokens"] == llm.generate("Once", max_tokens=5, temperature=0.0).token_ids
    assert (got["generation_settings"]["seed"], got["generation_settings"]["n_predict"]) == (7, 5)
    assert ask(app, "/v1/completions", prompt="Once", max_tokens=2).json()["usage"]["completion_tokens"] == 2
    hello = [{"role": "user", "content": "a"}]
    chat = ask(app, "/v1/chat/completions", messages=hello, max_completion_tokens=3).json()
    assert chat["usage"]["completion_tokens"] <= 3
    assert request(app, "/props").json()["default_generation_settings"]["params"]["seed"] == 7


def test_peers_names_say_the_same_numbers(app):
    ask(app, "/completion", prompt="Once", n_predict=6)
    lines = [line for line in request(app, "/metrics").text.splitlines() if line[0] != "#"]
    numbers = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    assert numbers["llamacpp:tokens_predicted_total"] == numbers["vllm:generation_tokens_total"] == 6
    assert numbers["vllm:time_to_first_token_seconds_count"] == numbers["tokamak_ttft_seconds_count"] == 1
    assert numbers["tokamak_steps_total"] >= 6
    assert numbers["tokamak_weights_read_bytes_total"] > 0


def test_a_stream_says_how_much_of_the_prompt_is_read(app, llm):
    asked = {"prompt": "Once upon a time " * 16, "n_predict": 2, "stream": True, "timings_per_token": True}
    got = events(request(app, "/completion", {**asked, "return_progress": True}).text)
    said = [chunk for chunk in got if "prompt_progress" in chunk]
    num = len(llm.tokenizer.encode(asked["prompt"]))
    assert [(c["prompt_progress"]["processed"], c["prompt_progress"]["total"]) for c in said][
        :: len(said) - 1
    ] == [
        (0, num),
        (num, num),
    ]
    assert said[0]["timings"]["prompt_n"] == said[0]["timings"]["prompt_ms"] == 0
    assert got.index(said[-1]) < next(i for i, chunk in enumerate(got) if chunk["content"])
    assert not any("prompt_progress" in chunk for chunk in events(request(app, "/completion", asked).text))


def test_what_is_switched_off_is_501_behind_the_key(llm):
    app = create_app(llm, ServerConfig(closed=("/slots",), api_keys=("a-long-key",)))
    assert request(app, "/slots").status_code == 401
    assert request(app, "/slots", headers={"x-api-key": "a-long-key"}).status_code == 501


def test_pieces_of_a_text_are_one_text_and_tei_gets_a_list(encoder, tiny_gguf):
    parts = {"content": [{"type": "text", "text": "the "}, {"type": "text", "text": "fish"}]}
    one, other = ask(create_app(encoder), "/v1/embeddings", input=["the fish", parts]).json()["data"]
    assert one["embedding"] == other["embedding"]
    with tokamak.load(tiny_gguf("bert", keys={"pooling_type": 4}), threads=1) as llm:
        asked = {"query": "fish", "texts": ["the fish", "a cat"]}
        found = ask(create_app(llm), "/rerank", **asked).json()
        assert sorted(entry["index"] for entry in found) == [0, 1]
        assert request(create_app(llm), "/rerank", {"query": "fish"}).json()["error"]["param"] == "documents"


@pytest.mark.parametrize("origin", ["http://localhost", "http://127.0.0.1:3000", "http://[::1]:3000"])
def test_pages_of_this_machine_may_call_where_localhost_is_named(llm, origin):
    app = create_app(llm, ServerConfig(cors_origins=("localhost",)))
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    said = request(app, "/completion", method="OPTIONS", headers=asked).headers
    assert said["access-control-allow-origin"] == origin
    for other in ("http://localhost.evil.com", "http://notlocalhost", "http://[::1", "null"):
        said = request(app, "/completion", method="OPTIONS", headers={**asked, "Origin": other}).headers
        assert "access-control-allow-origin" not in said


def test_one_model_answers_every_name_only_if_it_is_told_to(llm):
    lax = create_app(llm, ServerConfig(any_name=True))
    assert ask(lax, "/v1/completions", model="made-up", prompt="a", max_tokens=1).status_code == 200
    asked = {"model": "made-up", "prompt": "a"}
    assert request(create_app(llm), "/v1/completions", asked).status_code == 404
