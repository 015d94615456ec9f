"""`tokamak.compat.llama_cpp` beside llama-cpp-python itself, on the same small file: the same texts, shapes and types."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import tiny
from reference_data import unpacked
from tokamak import errors
from tokamak.compat.llama_cpp import Llama, LlamaGrammar, LlamaPromptLookupDecoding, LlamaRAMCache
from tokamak.tokenizers.chat import ChatTemplate
from tokamak.tokenizers.chat_formats import FORMATS

PROMPT = "Once upon a time"
MESSAGES = [{"role": "user", "content": "Once upon"}]
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
}  # fmt: skip


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    return str(tiny.gguf(tmp_path_factory.mktemp("compat") / "m.gguf", context=256))


@pytest.fixture(scope="module")
def story():
    if unpacked() is None:
        pytest.skip("the reference models are not unpacked")
    return str(unpacked() / "models" / "stories260K" / "stories260Ktok512.gguf")


@pytest.fixture(scope="module")
def theirs(story):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    model = llama_cpp.Llama(story, n_ctx=256, n_threads=1, verbose=False, logits_all=True, type_k=0, type_v=0)
    yield model
    model.close()


@pytest.fixture(scope="module")
def ours(story):
    model = Llama(story, n_ctx=256, n_threads=1, verbose=False, logits_all=True, type_k=0, type_v=0)
    yield model
    model.close()


@pytest.fixture(scope="module")
def chat(chat_model):
    model = Llama(chat_model, n_ctx=256, verbose=False)
    yield model
    model.close()


def shape(value):
    """Keys and types, without the contents."""
    if isinstance(value, dict):
        return {k: shape(v) for k, v in value.items()}
    if isinstance(value, list):
        return [shape(v) for v in value[:1]]
    return type(value).__name__


class TestBesideTheOriginal:
    def test_greedy_text_usage_and_shape(self, ours, theirs):
        asked = {"max_tokens": 40, "temperature": 0}
        a, b = ours(PROMPT, **asked), theirs(PROMPT, **asked)
        assert a["choices"] == b["choices"]
        assert a["usage"] == b["usage"]
        assert shape(a) == shape(b)
        assert a["id"][:5] == b["id"][:5]

    def test_streamed_pieces_join_and_have_the_shape(self, ours, theirs):
        asked = {"max_tokens": 20, "temperature": 0, "stream": True}
        a, b = list(ours(PROMPT, **asked)), list(theirs(PROMPT, **asked))
        assert "".join(c["choices"][0]["text"] for c in a) == "".join(c["choices"][0]["text"] for c in b)
        assert shape(a[0]) == shape(b[0])
        assert a[-1]["choices"][0]["finish_reason"] == b[-1]["choices"][0]["finish_reason"] == "length"

    def test_echo_stops_and_token_ids_as_prompt(self, ours, theirs):
        for asked in (
            {"echo": True},
            {"stop": ["little"]},
            {"stop": "."},
            {"repeat_penalty": 1.3},
            {"logit_bias": {300: 5.0}},
        ):
            prompt = PROMPT if "echo" in asked else ours.tokenize(PROMPT.encode())  # theirs cannot echo ids
            a, b = (m(prompt, max_tokens=24, temperature=0, **asked) for m in (ours, theirs))
            assert a["choices"] == b["choices"], asked

    def test_log_probabilities(self, ours, theirs):
        a, b = (
            m(PROMPT, max_tokens=6, temperature=0, logprobs=3)["choices"][0]["logprobs"]
            for m in (ours, theirs)
        )
        assert (a["tokens"], a["text_offset"]) == (b["tokens"], b["text_offset"])
        np.testing.assert_allclose(a["token_logprobs"], b["token_logprobs"], atol=2e-3)
        for mine, other in zip(a["top_logprobs"], b["top_logprobs"], strict=True):
            assert list(mine)[:3] == list(other)[:3]
        assert set(a) == set(b)
        assert len(a["top_logprobs"]) == len(b["top_logprobs"]) == 6

    def test_tokens_and_numbers(self, ours, theirs):
        for text in (b"Once upon", b"", " ä€\n".encode()):
            for options in ({}, {"add_bos": False}, {"special": True}):
                assert ours.tokenize(text, **options) == theirs.tokenize(text, **options)
        ids = theirs.tokenize(b"Once upon a time")
        assert ours.detokenize(ids) == theirs.detokenize(ids)
        for name in ("n_ctx", "n_vocab", "token_bos", "token_eos", "n_embd"):
            assert getattr(ours, name)() == getattr(theirs, name)(), name

    def test_logits(self, ours, theirs):
        ids = theirs.tokenize(PROMPT.encode())
        for model in (ours, theirs):
            model.reset()
            model.eval(ids)
        # float32 on both sides; their cache is float32 here, but their products round otherwise
        np.testing.assert_allclose(ours.scores[: len(ids)], theirs.scores[: len(ids)], atol=2e-3)

    def test_generated_ids(self, ours, theirs):
        ids = theirs.tokenize(PROMPT.encode())

        def first(model):
            tokens = []
            for token in model.generate(ids, temp=0.0, top_k=1):
                tokens.append(token)
                if len(tokens) == 12:
                    return tokens
            return tokens

        assert first(ours) == first(theirs)


class TestChat:
    def test_an_answer_and_its_pieces(self, chat):
        whole = chat.create_chat_completion(
            MESSAGES, max_tokens=12, temperature=0, logprobs=True, top_logprobs=2
        )
        choice = whole["choices"][0]
        assert whole["object"] == "chat.completion"
        assert choice["message"]["role"] == "assistant"
        assert len(choice["logprobs"]["content"][0]["top_logprobs"]) == 2
        pieces = list(chat.create_chat_completion(MESSAGES, max_tokens=12, temperature=0, stream=True))
        deltas = [c["choices"][0]["delta"] for c in pieces]
        assert deltas[0] == {"role": "assistant"}
        assert "".join(d.get("content", "") for d in deltas) == choice["message"]["content"]
        assert pieces[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]

    def test_a_format_is_kept(self, chat):
        pytest.importorskip("llguidance", reason="llguidance is not installed")
        tokenizer = chat.tokenizer()
        blank = [i for i in range(tokenizer.vocab_size) if tokenizer.id_to_bytes(i).isspace()]
        schema = {
            "type": "object",
            "properties": {"a": {"type": "boolean"}},
            "required": ["a"],
            "additionalProperties": False,
        }
        out = chat.create_chat_completion(
            MESSAGES,
            max_tokens=60,
            response_format={"type": "json_object", "schema": schema},
            seed=1,
            logit_bias=dict.fromkeys(blank, -np.inf),  # white space is allowed without end
        )
        assert set(json.loads(out["choices"][0]["message"]["content"])) == {"a"}
        text = chat("x", max_tokens=9, grammar=LlamaGrammar.from_string('root ::= "ab" | "cd"'))["choices"][
            0
        ]["text"]
        assert text in ("ab", "cd")

    def test_a_chosen_tool_is_called(self, chat):
        pytest.importorskip("llguidance", reason="llguidance is not installed")
        choice = {"type": "function", "function": {"name": "look"}}
        asked = {"tools": [TOOL], "tool_choice": choice, "max_tokens": 80, "temperature": 0}
        message = chat.create_chat_completion(MESSAGES, **asked)["choices"][0]["message"]
        call = message["tool_calls"][0]
        assert (call["type"], call["function"]["name"], message["content"]) == ("function", "look", None)
        streamed = [
            c["choices"][0]["delta"] for c in chat.create_chat_completion(MESSAGES, stream=True, **asked)
        ]
        assert next(d for d in streamed if "tool_calls" in d)["tool_calls"][0]["function"] == call["function"]

    def test_stopping_criteria_end_the_text(self, chat):
        out = chat("Once", max_tokens=50, stopping_criteria=[lambda ids, _: len(ids) >= 12])
        assert out["usage"]["completion_tokens"] + out["usage"]["prompt_tokens"] <= 13


def test_vectors(chat):
    one = chat.embed("Once upon")
    many = chat.create_embedding(["Once upon", "The end"])
    assert [d["index"] for d in many["data"]] == [0, 1]
    np.testing.assert_array_equal(many["data"][0]["embedding"], one)
    assert np.linalg.norm(chat.embed("x", normalize=True)) == pytest.approx(1, abs=1e-6)
    assert many["usage"]["prompt_tokens"] == sum(len(chat.tokenize(t)) for t in (b"Once upon", b"The end"))


def test_a_state_is_taken_to_another_object(chat_model):
    first, second = Llama(chat_model, n_ctx=256), Llama(chat_model, n_ctx=256)
    prompt = "Once upon a time there was a little girl who lived near the river with her mother. " * 2
    text = first(prompt, max_tokens=8, temperature=0)
    second.load_state(first.save_state())
    assert second.n_tokens == first.n_tokens
    assert second(prompt, max_tokens=8, temperature=0)["choices"] == text["choices"]
    assert second.llm.stats()["prefix_hit_tokens"] > 32
    for model in (first, second):
        model.close()


def test_looking_back_changes_no_text(chat_model, chat):
    with_draft = Llama(chat_model, n_ctx=256, draft_model=LlamaPromptLookupDecoding(num_pred_tokens=4))
    asked = {"max_tokens": 24, "temperature": 0}
    assert with_draft(PROMPT, **asked)["choices"] == chat(PROMPT, **asked)["choices"]
    with_draft.close()


TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "More"},
]


@pytest.mark.parametrize("name", ["chatml", "llama-3", "mistral-instruct", "gemma"])
def test_a_named_form_is_that_of_the_peer(name):
    peer = pytest.importorskip("llama_cpp.llama_chat_format", reason="llama-cpp-python is not installed")
    form = {"llama-3": "format_llama3", "mistral-instruct": "format_mistral_instruct"}.get(
        name, f"format_{name}"
    )
    assert ChatTemplate(FORMATS[name]).render(TURNS) == getattr(peer, form)(TURNS).prompt


def test_a_named_form_replaces_the_template_of_the_model(chat_model):
    with_form = Llama(chat_model, n_ctx=256, chat_format="chatml")
    prompt = ChatTemplate(FORMATS["chatml"]).render(TURNS)
    ids = with_form.llm.tokenizer.encode_chat(TURNS, template=FORMATS["chatml"])
    assert with_form.detokenize(ids, special=True).decode().lstrip().endswith(prompt[-40:].lstrip())
    said = with_form.create_chat_completion(TURNS, max_tokens=6, temperature=0)
    plain = with_form.create_completion(ids, max_tokens=6, temperature=0)
    assert said["usage"] == plain["usage"]
    assert said["choices"][0]["message"]["content"] == plain["choices"][0]["text"]
    with_form.close()
    with pytest.raises(errors.UnsupportedError, match="chatml"):
        Llama(chat_model, chat_format="functionary")


def test_reading_and_drawing_by_hand(chat):
    chat.set_cache(LlamaRAMCache(capacity_bytes=1 << 20))
    ids = chat.tokenize(PROMPT.encode())
    chat.reset()
    chat.eval(ids)
    made = []
    for _ in range(4):
        made.append(chat.sample(temp=0.0))
        chat.eval(made[-1:])
    assert made == list(itertools.islice(chat.generate(ids, temp=0.0), 4))
    assert chat.n_tokens == len(ids) + 4


def test_what_is_unknown_or_not_implemented_is_refused(chat_model, chat, tmp_path):
    with pytest.raises(errors.InvalidParams, match="n_contexts"):
        Llama(chat_model, n_contexts=3)
    with pytest.raises(errors.UnsupportedError, match="lora_path"):
        Llama(chat_model, lora_path="x")
    with pytest.raises(errors.InvalidParams, match="temprature"):
        chat("a", temprature=1)
    with pytest.raises(errors.UnsupportedError, match="no folder here"):
        Llama.from_pretrained("somebody/model", "*.gguf")


def test_a_folder_here_is_a_repository(chat_model):
    model = Llama.from_pretrained(str(Path(chat_model).parent), "*.gguf", n_ctx=64)
    assert model.n_ctx() == 64
    model.close()


@pytest.mark.parametrize("is_chat", [False, True])
def test_pieces_bring_the_logprobs_of_their_tokens(chat, is_chat):
    asked = {"max_tokens": 12, "temperature": 0}
    if is_chat:
        asked |= {"logprobs": True, "top_logprobs": 2}
        whole = chat.create_chat_completion(MESSAGES, **asked)["choices"][0]["logprobs"]["content"]
        pieces = chat.create_chat_completion(MESSAGES, stream=True, **asked)
        found = [e for p in pieces for e in (p["choices"][0]["logprobs"] or {"content": []})["content"]]
    else:
        whole = chat(PROMPT, logprobs=2, **asked)["choices"][0]["logprobs"]
        pieces = [p["choices"][0]["logprobs"] for p in chat(PROMPT, logprobs=2, stream=True, **asked)]
        found = {name: [e for p in pieces if p for e in p[name]] for name in whole}
    assert found == whole
