"""Beam search finds what transformers' `generate(num_beams=...)` finds: the same tokens, the same scores."""

import json
import warnings

import numpy as np
import pytest

import tokamak
from reference_data import unpacked

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.skipif(unpacked() is None, reason="the reference models are not unpacked")
PROMPTS = ["Once upon a time", "Lily and Tom went to"]


@pytest.fixture(scope="module")
def folder():
    return unpacked() / "models" / "derived-hf" / "stories260K-hf"


@pytest.fixture(scope="module")
def peer(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def llm():
    path = unpacked() / "models" / "stories260K" / "stories260Ktok512.gguf"
    with tokamak.load(path, context=256, kv_dtype="f32") as loaded:
        yield loaded


CASES = [  # width, length penalty, early stopping, tokens, shorter with this token as the end
    (4, 1.0, False, 24, 2), (4, 1.0, True, 40, 426), (4, 0.0, False, 40, 426), (3, 2.0, "never", 40, 426),
    (5, -1.0, False, 30, 426), (2, 1.0, "never", 40, 426), (6, 0.7, True, 30, 432),
]  # fmt: skip


@pytest.mark.parametrize(("width", "penalty", "early", "tokens", "end"), CASES)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_beams_are_those_of_transformers(llm, peer, prompt, width, penalty, early, tokens, end):
    ids = llm.tokenizer.encode(prompt)
    ours = llm.generate(
        ids, num_beams=width, n=width, length_penalty=penalty, early_stopping=early, max_tokens=tokens,
        ignore_eos=True, stop_token_ids=[end],
    )  # fmt: skip
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peer.generate(
            torch.tensor([ids]), num_beams=width, num_return_sequences=width, length_penalty=penalty, early_stopping=early,
            max_new_tokens=tokens, eos_token_id=end, pad_token_id=end, do_sample=False, output_scores=True,
            return_dict_in_generate=True, suppress_tokens=[2] if end != 2 else None,
        )  # fmt: skip
    rows = theirs.sequences[:, len(ids) :].tolist()
    expected = [row[: row.index(end) + 1] if end in row else row for row in rows]
    assert [c.token_ids for c in ours] == expected
    # float32 sums of up to 40 log-probabilities
    np.testing.assert_allclose([c.score for c in ours], theirs.sequences_scores.numpy(), rtol=2e-4, atol=2e-4)
    for c in ours:
        assert c.finish_reason == ("stop" if c.token_ids[-1] == end else "length")


def test_beams_are_those_recorded_for_a_random_model():
    folder = unpacked() / "models" / "tiny-random-gpt2"
    recorded = json.loads((folder / "expected.json").read_text())["beam"]
    with tokamak.load(folder, context=64, kv_dtype="f32") as llm:
        for ids, sequence in zip(recorded["input_ids"], recorded["sequences"], strict=False):
            out = llm.generate(ids, num_beams=4, max_tokens=20 - len(ids), early_stopping=True)
            assert [*ids, *out.token_ids] == sequence
