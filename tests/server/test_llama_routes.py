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
    assert chosen.json() == {"content": want, "predicted_n": 4}


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
