"""From a file to text through every layer: `tokamak.load`, on tiny models and on a real one."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

import reference_data
import tiny
import tokamak

EXECUTORS = ["reference", *(["cpu"] if find_spec("tokamak.executors.cpu") else [])]
GREEDY = tokamak.SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
PROMPTS = [
    "Once upon a time",
    "the fish",
    "a little girl who lived near the river",
    "three wishes",
    "her old grey cat",
]
CASES = [(e, a, f) for e in EXECUTORS for a, f in (("llama", "f32"), ("llama", "q4_k"), ("qwen2", "q8_0"))]
CASES.remove(
    ("reference", "llama", "q4_k")
)  # the oracle decodes weights once, so it only repeats f32, slowly


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def model(request, tiny_gguf):
    executor, arch, fmt = request.param
    path = tiny_gguf(arch, fmt)
    return lambda **options: tokamak.load(path, executor=executor, threads=1, **options)


@pytest.fixture(scope="module")
def llm(model):
    with model() as llm:
        yield llm


def test_text_gives_text_that_is_the_decoded_tokens(llm):
    out = llm.generate(PROMPTS[0], GREEDY)
    assert (len(out.token_ids), out.finish_reason) == (12, "length")
    assert out.text == llm.tokenizer.decode(out.token_ids, continues=True)
    assert out.usage.prompt_tokens == len(llm.tokenizer.encode(PROMPTS[0]))


def test_pieces_of_a_stream_join_to_the_text(llm):
    assert "".join(llm.stream(PROMPTS[0], GREEDY)) == llm.generate(PROMPTS[0], GREEDY).text


def test_greedy_takes_the_largest_logit_of_every_position(llm):
    ids = llm.tokenizer.encode(PROMPTS[0])
    out = llm.generate(ids, GREEDY, ignore_eos=False, max_tokens=6)
    logits = llm.logits([*ids, *out.token_ids])
    assert out.token_ids == logits[len(ids) - 1 : -1].argmax(axis=1).tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_together_and_alone_give_the_same(llm, temperature):
    params = GREEDY.replaced(temperature=temperature, seed=3, logprobs=1)
    together = llm.generate(PROMPTS * 2, params)
    alone = [llm.generate(p, params) for p in PROMPTS] * 2
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]
    assert [c.logprobs for c in together] == [c.logprobs for c in alone]


def test_chunks_of_seven_rows_give_the_same_bits(model, llm):
    ids = llm.tokenizer.encode(tiny.TEXT)[:60]
    with model(max_batch_rows=7, max_sequences=4) as chunked:
        assert np.array_equal(chunked.logits(ids), llm.logits(ids))
        assert chunked.generate(ids, GREEDY).token_ids == llm.generate(ids, GREEDY).token_ids


def test_a_warm_prefix_gives_the_same_bits(model):
    with model() as llm:
        ids = llm.tokenizer.encode(tiny.TEXT)[:70]
        params = GREEDY.replaced(logprobs=3)
        cold = llm.generate(ids, params)
        warm = llm.generate(ids, params)
        assert (cold.usage.cached_tokens, warm.usage.cached_tokens) == (0, 64)
        assert (warm.token_ids, warm.logprobs) == (cold.token_ids, cold.logprobs)


def test_blocks_freed_by_cancelled_requests_change_nothing(model):
    with model(context=128, prefix_cache_nbytes=0) as llm:
        expected = llm.generate(PROMPTS[2], GREEDY.replaced(logprobs=3))
        for prompt in PROMPTS * 2:
            stream = llm.stream(prompt, GREEDY, max_tokens=60)
            next(stream)
            stream.close()
            got = llm.generate(PROMPTS[2], GREEDY.replaced(logprobs=3))
            assert (got.token_ids, got.logprobs) == (expected.token_ids, expected.logprobs)


def test_samples_of_one_prompt_equal_themselves_alone(llm):
    params = GREEDY.replaced(temperature=1.0, seed=11, n=3)
    three = llm.generate(PROMPTS[0], params)
    assert three[0].token_ids == llm.generate(PROMPTS[0], params, n=1).token_ids
    assert len({tuple(c.token_ids) for c in three}) == 3


def test_a_chat_is_rendered_by_the_models_own_template(llm):
    reply = llm.chat([{"role": "user", "content": "Once upon a time"}], GREEDY)
    rendered = llm.tokenizer.encode_chat([{"role": "user", "content": "Once upon a time"}])
    assert reply.token_ids == llm.generate(rendered, GREEDY).token_ids


def test_the_context_is_a_limit_with_both_counts(model):
    with model(context=20) as llm, pytest.raises(tokamak.ContextOverflow, match=r"19 .*20"):
        llm.generate([5] * 19, GREEDY)


@pytest.fixture(scope="module", params=EXECUTORS)
def stories(request):
    """A real model: what it writes is compared with llama2.c, with a float32 cache."""
    folder = reference_data.unpacked()
    if folder is None:
        pytest.skip("the real models of ../shared are not unpacked")
    folder = folder / "models/stories260K"
    expected = json.loads((folder / "expected.json").read_text())
    path = folder / "stories260Ktok512.gguf"
    with tokamak.load(path, executor=request.param, kv_dtype="f32", context=512) as loaded:
        yield loaded, expected


def test_a_real_model_gives_the_greedy_ids_of_llama2_c(stories):
    llm, expected = stories
    ids = expected["computed_here"]["greedy_256_ids"]
    out = llm.generate(ids[:1], GREEDY, ignore_eos=False, max_tokens=len(ids) - 1)
    assert out.token_ids == ids[1:]


def test_a_real_model_gives_the_greedy_texts_of_llama2_c(stories):
    llm, expected = stories
    cases = [case for case in expected["cases"] if case["temperature"] == 0]
    assert len(cases) == 3
    for case in cases:
        prompt, wanted = case["prompt"], case.get("text") or case["text_prefix"]
        out = llm.generate(prompt, GREEDY, ignore_eos=False, max_tokens=case["steps"])
        assert (prompt + out.text).startswith(wanted)
