"""`tokamak.compat.vllm`: the names and meanings of vLLM's offline interface."""

import dataclasses

import numpy as np
import pytest

import tiny
import tokamak
from tokamak import errors
from tokamak.compat.vllm import LLM, BeamSearchParams, SamplingParams, StructuredOutputsParams

GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return str(tiny.gguf(tmp_path_factory.mktemp("vllm") / "m.gguf", context=256))


@pytest.fixture(scope="module")
def llm(path):
    model = LLM(path, max_model_len=128)
    yield model
    model.llm.close()


def test_outputs_have_the_attributes_and_the_text_of_the_model(path, llm):
    outputs = llm.generate(["Once upon", "The end"], GREEDY)
    with tokamak.load(path, context=128) as own:
        expected = own.generate(["Once upon", "The end"], temperature=0.0, max_tokens=8, ignore_eos=True)
        assert [o.outputs[0].token_ids for o in outputs] == [c.token_ids for c in expected]
        assert outputs[0].prompt_token_ids == own.tokenizer.encode("Once upon")
    first = outputs[0]
    assert (first.prompt, first.finished, first.prompt_logprobs) == ("Once upon", True, None)
    assert (first.outputs[0].finish_reason, first.outputs[0].index, first.outputs[0].finished()) == (
        "length",
        0,
        True,
    )
    assert [o.request_id for o in outputs] == sorted({o.request_id for o in outputs})


def test_prompts_of_every_kind(llm):
    ids = llm.get_tokenizer().encode("Once upon")
    same = [
        llm.generate(p, GREEDY)[0].outputs[0].token_ids
        for p in ("Once upon", ids, {"prompt": "Once upon"}, {"prompt_token_ids": ids})
    ]
    assert all(s == same[0] for s in same)
    assert len(llm.generate([ids, {"prompt": "a"}], [GREEDY, SamplingParams(max_tokens=3)])) == 2


def test_log_probabilities_of_prompt_and_completion(llm):
    params = dataclasses.replace(GREEDY, logprobs=2, prompt_logprobs=1)
    (out,) = llm.generate("Once upon", params)
    done = out.outputs[0]
    assert out.prompt_logprobs[0] is None
    assert len(out.prompt_logprobs) == len(out.prompt_token_ids)
    assert len(done.logprobs) == len(done.token_ids)
    best = done.logprobs[0][done.token_ids[0]]
    assert best.rank == 1
    assert done.cumulative_logprob == pytest.approx(
        sum(e[t].logprob for e, t in zip(done.logprobs, done.token_ids, strict=True))
    )
    assert done.text == llm.generate("Once upon", GREEDY)[0].outputs[0].text


def test_several_samples_a_constraint_and_bans(llm):
    (out,) = llm.generate("a", SamplingParams(n=3, seed=1, max_tokens=6, ignore_eos=True))
    assert [o.index for o in out.outputs] == [0, 1, 2]
    allowed = llm.generate("a", SamplingParams(allowed_token_ids=[300, 301], max_tokens=6, seed=1))[
        0
    ].outputs[0]
    assert set(allowed.token_ids) <= {300, 301}
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    wanted = StructuredOutputsParams(choice=["yes", "no"])
    assert llm.generate("a", SamplingParams(structured_outputs=wanted))[0].outputs[0].text in ("yes", "no")


def test_a_processor_sees_what_was_made(llm):
    seen = []

    def force(ids, logits):
        seen.append(list(ids))
        logits[:] = -np.inf
        logits[300 + len(ids)] = 0
        return logits

    (out,) = llm.generate("abc", SamplingParams(logits_processors=[force], max_tokens=3))
    assert out.outputs[0].token_ids == [300, 301, 302]
    assert seen == [[], [300], [300, 301]]


def test_a_stop_is_part_of_the_text_if_asked(llm):
    whole = llm.generate("Once upon", GREEDY)[0].outputs[0].text
    stop = whole[2:4]
    for inside, expected in ((False, ""), (True, stop)):
        params = dataclasses.replace(GREEDY, stop=stop, include_stop_str_in_output=inside)
        (out,) = llm.generate("Once upon", params)
        assert out.outputs[0].text == whole[: whole.index(stop)] + expected
        assert (out.outputs[0].finish_reason, out.outputs[0].stop_reason) == ("stop", stop)
    assert out.metrics.finished_time >= out.metrics.arrival_time


def test_a_conversation(llm):
    messages = [{"role": "user", "content": "hi"}]
    (one,) = llm.chat(messages, GREEDY)
    two = llm.chat([messages, messages], GREEDY)
    assert [o.outputs[0].token_ids for o in two] == [one.outputs[0].token_ids] * 2
    tokenizer = llm.get_tokenizer()  # as transformers', it renders the template and adds nothing
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert one.prompt_token_ids == [tokenizer.bos_token_id, *rendered]


def test_beams_and_vectors(llm):
    (found,) = llm.beam_search(["Once upon"], BeamSearchParams(beam_width=3, max_tokens=5))
    scores = [s.cum_logprob for s in found.sequences]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert all(np.isfinite(scores))
    vectors = llm.embed(["a", "b"])
    assert [v.outputs.hidden_size for v in vectors] == [64, 64]


def test_what_is_unknown_or_not_implemented_is_refused(path, llm):
    with pytest.raises(errors.InvalidParams, match="tensor_paralel"):
        LLM(path, tensor_paralel_size=1)
    with pytest.raises(errors.UnsupportedError, match="tensor_parallel_size"):
        LLM(path, tensor_parallel_size=2)
    with pytest.raises(errors.InvalidParams, match="2 sampling_params"):
        llm.generate(["a"], [GREEDY, GREEDY])


def test_a_bad_word_of_several_tokens_never_comes_and_its_parts_may(llm):
    word = llm.get_tokenizer().encode("qz", add_special_tokens=False)
    assert len(word) > 1
    asked = SamplingParams(
        n=4, seed=1, max_tokens=40, top_k=0, temperature=50.0, ignore_eos=True, allowed_token_ids=word
    )
    for words in (None, ["qz"]):
        (done,) = llm.generate("qz q", dataclasses.replace(asked, bad_words=words))
        made = [out.token_ids for out in done.outputs]
        found = any(ids[i : i + len(word)] == word for ids in made for i in range(40))
        assert found == (words is None)
        assert set(word) == {token for ids in made for token in ids}


def test_a_token_outside_the_likeliest_has_its_rank(llm):
    asked = SamplingParams(temperature=2.0, seed=5, max_tokens=12, logprobs=1, ignore_eos=True)
    (done,) = llm.generate("Once upon", asked)
    prompt, out = done.prompt_token_ids, done.outputs[0]
    scores = llm.llm.logits([*prompt, *out.token_ids])[len(prompt) - 1 : -1]
    ranks = [e[t].rank for e, t in zip(out.logprobs, out.token_ids, strict=True)]
    assert ranks == [int((row > row[t]).sum()) + 1 for row, t in zip(scores, out.token_ids, strict=True)]
    assert max(ranks) > 1
