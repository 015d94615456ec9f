"""What a caller controls beyond the next token, on real small models: drafts, healing, infill, saved prompts, the best of several."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import tiny
import tokamak
from reference_data import unpacked
from tokamak import errors

PROMPT = "Once upon a time, there was a little girl named Lily. She loved"
STORIES = pytest.mark.skipif(unpacked() is None, reason="the reference models are not unpacked")


def story(name):
    folder = unpacked() / "models"
    return {
        "stories": folder / "stories260K" / "stories260Ktok512.gguf",
        "large": folder / "derived-llamacpp" / "babyllama-tok105-f16.gguf",
        "draft": folder / "derived-llamacpp" / "babyllama-tok105-q4_0.gguf",
    }[name]


@pytest.fixture(scope="module")
def llm():
    with tokamak.load(context=512, seed=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random model whose vocabulary has marks for infill."""
    folder = tmp_path_factory.mktemp("control")
    names = {"fim_pre": 40, "fim_suf": 41, "fim_mid": 42, "fim_pad": 43}
    keys = {f"tokenizer.ggml.{name}_token_id": i for name, i in names.items()}
    return tiny.gguf(folder / "m.gguf", metadata=keys)


class TestSpeculation:
    @STORIES
    @pytest.mark.parametrize(
        "asked",
        [{"temperature": 0}, {"temperature": 0.8, "seed": 7}, {"temperature": 1.2, "top_k": 0, "seed": 3}],
    )
    def test_a_real_draft_model_changes_no_text(self, asked):
        with tokamak.load(story("large"), context=256) as plain:
            expected = plain.generate("Once upon", max_tokens=60, logprobs=2, **asked)
        with tokamak.load(story("large"), context=256, draft=story("draft")) as llm:
            out = llm.generate("Once upon", max_tokens=60, logprobs=2, **asked)
            assert (out.text, out.logprobs) == (expected.text, expected.logprobs)
            assert (
                out.usage.accepted_tokens > out.usage.drafted_tokens / 3
            )  # a quantised copy is nearly as good
            assert "".join(llm.stream("Once upon", max_tokens=60, **asked)) == expected.text
            off = llm.generate("Once upon", max_tokens=60, speculation="off", **asked)
            assert (off.text, off.usage.drafted_tokens) == (expected.text, 0)

    @STORIES
    def test_a_draft_model_of_another_vocabulary_is_refused(self):
        with pytest.raises(errors.InvalidParams, match="another vocabulary"):
            tokamak.load(story("large"), draft=story("stories"))

    def test_looking_back_changes_no_text(self, llm):
        prompt = PROMPT + " the cat and the dog. The cat and the dog"
        for asked in ({"temperature": 0}, {"temperature": 0.7, "seed": 5}):
            plain = llm.generate(prompt, max_tokens=60, **asked)
            assert (
                llm.generate(prompt, max_tokens=60, speculation="lookup", **asked).token_ids
                == plain.token_ids
            )

    def test_a_draft_that_is_not_there_is_refused(self, llm):
        with pytest.raises(errors.InvalidParams, match="without a draft model"):
            llm.generate(PROMPT, speculation="draft")


class TestHealing:
    def test_the_completion_spells_what_was_taken_back(self, llm):
        tokenizer = llm.tokenizer
        for text in ("Once upon a ti", "Lily loved to pl", "They went to the pa", "She said, 'Hel"):
            ids = tokenizer.encode(text)
            out = llm.generate(text, token_healing=True, max_tokens=12, temperature=0)
            spelled = tokenizer.decode(out.token_ids, continues=True)
            kept = ids[: out.usage.prompt_tokens]
            known = tokenizer.decode(ids)[len(tokenizer.decode(kept)) :]
            assert spelled.startswith(known) or out.usage.prompt_tokens == len(ids)
            assert out.text == spelled[len(known) :]

    def test_a_word_cut_in_two_is_finished_as_one(self, llm):
        healed = llm.generate("Once upon a ti", token_healing=True, max_tokens=4, temperature=0)
        assert healed.text.startswith("me")
        streamed = "".join(llm.stream("Once upon a ti", token_healing=True, max_tokens=4, temperature=0))
        assert streamed == healed.text

    def test_a_prompt_from_whose_end_no_token_goes_on_is_left_alone(self, llm):
        asked = {"max_tokens": 8, "temperature": 0}
        pieces = [llm.tokenizer.id_to_bytes(i) for i in range(llm.tokenizer.vocab_size)]
        last = max(range(len(pieces)), key=lambda i: len(pieces[i]))  # the longest token begins no longer one
        ids = [*llm.tokenizer.encode("Once upon a"), last]
        healed = llm.generate(ids, token_healing=True, **asked)
        assert healed.usage.prompt_tokens == len(ids)
        assert healed.text == llm.generate(ids, **asked).text


class TestInfill:
    def test_the_prompt_has_the_marks_of_the_file(self, model):
        with tokamak.load(model) as llm:
            ids = llm.infill_ids("ab", "cd")
            a, b = (llm.tokenizer.encode(t, add_special=False) for t in ("ab", "cd"))
            assert ids == [llm.tokenizer.bos_id, 40, *a, 41, *b, 42]
            first = llm.infill_ids("ab", "cd", suffix_first=True, files=[("f.py", "x")])
            assert first[-len(a) - len(b) - 3 :] == [41, *b, 40, *a, 42]
            out = llm.infill("ab", "cd", max_tokens=5, logit_bias={43: 100.0})
            assert (out.finish_reason, out.stop_reason) == ("stop", 43)

    def test_a_model_that_was_not_taught_it_says_so(self, llm):
        with pytest.raises(errors.UnsupportedError, match="not taught to fill in"):
            llm.infill("a", "b")

    def test_the_infill_stage_runs_in_the_chain(self, llm):
        order = ["top_k", "top_p", "infill"]
        out = llm.generate(PROMPT, samplers=order, max_tokens=12, seed=1)
        assert out.token_ids == llm.generate(PROMPT, samplers=order, max_tokens=12, seed=1).token_ids


class TestBestOf:
    def test_the_best_of_several_are_given_best_first(self, llm):
        asked = {"max_tokens": 12, "seed": 3, "temperature": 1.3, "ignore_eos": True}
        every = llm.generate(PROMPT, n=6, logprobs=0, **asked)
        means = [np.mean([e.logprob for e in c.logprobs]) for c in every]
        order = np.argsort(-np.array(means), kind="stable")[:2].tolist()
        best = llm.generate(PROMPT, n=2, best_of=6, **asked)
        assert [c.index for c in best] == order
        assert [c.token_ids for c in best] == [every[i].token_ids for i in order]
        assert best[0].logprobs is None
        assert llm.generate(PROMPT, best_of=6, **asked).token_ids == best[0].token_ids

    def test_it_is_refused_where_text_comes_before_the_end(self, llm):
        with pytest.raises(errors.InvalidParams, match="best_of"):
            llm.stream(PROMPT, best_of=2)


class TestGuidance:
    def test_scale_one_is_the_plain_model_and_more_leads_away(self, llm):
        asked = {"max_tokens": 20, "temperature": 0}
        plain = llm.generate(PROMPT, **asked)
        assert llm.generate(PROMPT, guidance_scale=1.0, **asked).token_ids == plain.token_ids
        away = llm.generate(PROMPT, guidance_scale=3.0, negative_prompt="The end.", **asked)
        assert away.token_ids != plain.token_ids
        with pytest.raises(errors.InvalidParams, match="together"):
            llm.generate(PROMPT, guidance_scale=2.0)


class TestSavedPrompts:
    LONG = (PROMPT + " to play in the park with her friend Tom. ") * 8

    def test_another_process_finds_the_prompt_and_says_the_same(self, tmp_path):
        path = tmp_path / "p.kv"
        code = (
            "import sys, json, tokamak\n"
            "with tokamak.load(context=512, seed=1) as llm:\n"
            "    ids = llm.load_state(sys.argv[1]) if sys.argv[2] == 'load' else []\n"
            "    out = llm.generate(sys.argv[3], max_tokens=16, temperature=0, logprobs=1)\n"
            "    saved = llm.save_state(sys.argv[1], sys.argv[3]) if sys.argv[2] == 'save' else 0\n"
            "    lp = [e.logprob for e in out.logprobs]\n"
            "    print(json.dumps([len(ids), saved, out.usage.cached_tokens, out.text, lp]))\n"
        )

        def run(what):
            command = [sys.executable, "-c", code, str(path), what, self.LONG]
            return json.loads(subprocess.run(command, check=True, capture_output=True, env=os.environ).stdout)

        _, saved, cold, text, logprobs = run("save")
        found, _, warm, again, same = run("load")
        assert (cold, found, warm) == (0, saved, saved)
        assert saved % 32 == 0
        assert saved > 64
        assert (again, same) == (text, logprobs)

    def test_a_file_that_is_damaged_or_of_another_kind_is_refused(self, tmp_path, llm, model):
        path = tmp_path / "p.kv"
        assert llm.save_state(path, self.LONG) > 0
        whole = path.read_bytes()
        for name, data in {
            "cut": whole[: len(whole) // 2],
            "changed": whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:],
            "empty": b"",
            "other": b"GGUF" + whole[4:],
            "long header": whole[:13] + (1 << 60).to_bytes(8, "little") + whole[21:],
        }.items():
            path.write_bytes(data)
            with pytest.raises(errors.FileRefused, match=r"p\.kv"):
                llm.load_state(path)
            assert name
        path.write_bytes(whole)
        with (
            tokamak.load(context=512, kv_dtype="q8_0") as other,
            pytest.raises(errors.FileRefused, match="kv_dtype 'f16'"),
        ):
            other.load_state(path)
        with tokamak.load(model, context=512) as other, pytest.raises(errors.FileRefused, match="model"):
            other.load_state(path)
        assert len(llm.load_state(path)) % 32 == 0

    def test_a_salt_keeps_saved_prompts_apart(self, tmp_path, llm):
        path = tmp_path / "p.kv"
        text = "Tom and Sam were playing by the lake when a big frog jumped out. " * 6
        llm.save_state(path, text, salt="a")
        llm.load_state(path, salt="b")
        assert llm.generate(text, max_tokens=1, cache_salt="c").usage.cached_tokens == 0
        assert llm.generate(text, max_tokens=1, cache_salt="b").usage.cached_tokens > 64
        assert llm.stats()["blocks_held"] == 0


def test_parameters_survive_being_written_down():
    params = tokamak.SamplingParams(
        temperature=0.3, samplers=["temp", "top_k", "typ_p"], stop=["a", "b"], logit_bias={5: -1.0}, json_schema={"type": "object"},
        early_stopping="never", num_beams=1, seed=3,
    )  # fmt: skip
    again = tokamak.SamplingParams(**json.loads(json.dumps(params.as_dict(), default=str), object_hook=_ints))
    assert again == params
    assert again.samplers == ("temperature", "top_k", "typical")
    assert tokamak.SamplingParams().as_dict() == {}
    with pytest.raises(errors.InvalidParams, match="functions"):
        tokamak.SamplingParams(logits_processor=[lambda _, x: x]).as_dict()


def _ints(found):
    return {int(k) if k.isdecimal() else k: v for k, v in found.items()}


class TestPacing:
    def test_streams_a_long_prompt_and_vectors_share_the_steps_and_give_the_same(self, llm):
        texts = [" ".join([PROMPT] * 6), PROMPT]
        alone = llm.generate(texts[0], max_tokens=8, temperature=0.0)
        vectors = llm.embed(texts)
        with (
            tokamak.load(context=512, seed=1, inter_token_target_ms=0.001) as paced,
            paced.stream(PROMPT, max_tokens=300, temperature=0.0, ignore_eos=True) as running,
        ):
            next(running)
            assert np.array_equal(paced.embed(texts), vectors)
            assert paced.generate(texts[0], max_tokens=8, temperature=0.0).token_ids == alone.token_ids

    @pytest.mark.parametrize("target", [0, -1.0, float("nan"), float("inf")])
    def test_a_target_that_is_no_time_is_refused(self, target):
        with pytest.raises(errors.InvalidParams, match="inter_token_target_ms"):
            tokamak.load(inter_token_target_ms=target)
