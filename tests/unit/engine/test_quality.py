"""Perplexity and divergence: the definition by hand, what is saved is what is compared, what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import tiny
import tokamak
from tokamak.cli import main as cli
from tokamak.engine.quality import BaseLogits, divergence, log_softmax, perplexity, save_logits
from tokamak.engine.windows import cut
from tokamak.errors import InvalidParams, ModelFileError

TEXT = tiny.TEXT


@pytest.fixture(scope="module")
def llm(tiny_gguf):
    with tokamak.load(tiny_gguf("llama", "f32"), threads=1, context=64) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def rough(tiny_gguf):
    with tokamak.load(tiny_gguf("llama", "q4_0"), threads=1, context=64) as loaded:
        yield loaded


def test_perplexity_is_that_of_the_second_halves_given_all_before(llm):
    ids = llm.tokenizer.encode(TEXT, add_special=True)
    assert ids[0] == llm.tokenizer.bos_id
    losses = []
    for start in range(0, len(ids) - 31, 32):
        window = ids[start : start + 32]
        logs = log_softmax(llm.logits([llm.tokenizer.bos_id, *window[1:]])).astype(np.float64)
        losses += [-logs[i, window[i + 1]] for i in range(16, 31)]
    found = perplexity(llm, TEXT, context=32)
    assert (found.tokens, found.windows, found.context) == (len(losses), len(losses) // 15, 32)
    assert found.perplexity == pytest.approx(math.exp(np.mean(losses)), rel=1e-9)
    error = np.std(losses, ddof=1) / math.sqrt(len(losses)) * found.perplexity
    assert found.error == pytest.approx(error, rel=1e-9)


def test_a_model_does_not_diverge_from_itself(llm):
    found = divergence(llm, llm, TEXT, context=32, chunks=3)
    assert (found.kl_max, found.same_top, found.rms_dp) == (0.0, 1.0, 0.0)
    assert found.perplexity == found.base_perplexity == perplexity(llm, TEXT, context=32, chunks=3).perplexity


def test_divergence_is_the_sum_over_the_vocabulary(llm, rough):
    found = divergence(rough, llm, TEXT, context=32, chunks=1)
    (ids,) = cut(TEXT, llm.tokenizer, 32, 1)
    p, q = (log_softmax(m.logits(ids))[16:-1].astype(np.float64) for m in (llm, rough))
    kl = (np.exp(p) * (p - q)).sum(axis=1)
    assert found.kl_mean == pytest.approx(kl.mean(), rel=1e-4)
    assert found.kl_max == pytest.approx(kl.max(), rel=1e-4)
    assert found.same_top == (p.argmax(axis=1) == q.argmax(axis=1)).mean()
    assert found.kl_mean > 0


def test_saved_logits_stand_for_the_model(llm, rough, tmp_path):
    save_logits(tmp_path / "base.npy", llm, TEXT, context=32, chunks=3)
    saved = BaseLogits.open(tmp_path / "base.npy")
    assert divergence(rough, saved, TEXT, context=32, chunks=2) == divergence(
        rough, llm, TEXT, context=32, chunks=2
    )
    with pytest.raises(InvalidParams, match="another text"):
        divergence(rough, saved, TEXT[9:], context=32, chunks=2)
    with pytest.raises(InvalidParams, match="holds 45 positions"):
        divergence(rough, saved, TEXT, context=32, chunks=4)


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"])
def test_another_file_holds_no_logits(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ModelFileError, match="no saved logits"):
        BaseLogits.open(tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", np.zeros(3))
    with pytest.raises(ModelFileError, match="not the records"):
        BaseLogits.open(tmp_path / "y.npy")


def test_a_text_shorter_than_a_window_is_refused(llm):
    with pytest.raises(InvalidParams, match="less than one window of 64"):
        perplexity(llm, "Once", context=64)
    with pytest.raises(InvalidParams, match="at least 4"):
        perplexity(llm, TEXT, context=3)


def test_models_that_read_other_tokens_do_not_compare(llm, tiny_gguf):
    with (
        tokamak.load(tiny_gguf("qwen2", "f32"), threads=1, context=64) as other,
        pytest.raises(InvalidParams, match="different tokens"),
    ):
        divergence(llm, other, TEXT, context=32, chunks=1)


def test_the_verb_prints_what_python_measures(llm, rough, tiny_gguf, tmp_path, capsys):
    (tmp_path / "t.txt").write_text(TEXT)
    words = ["--file", str(tmp_path / "t.txt"), "--window", "32", "--chunks", "2", "--threads", "1"]
    model, base = str(tiny_gguf("llama", "q4_0")), str(tiny_gguf("llama", "f32"))
    assert cli.main(["eval", "perplexity", model, *words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["perplexity"] == perplexity(rough, TEXT, context=32, chunks=2).perplexity
    assert cli.main(["eval", "kl", base, *words, "--save-logits", str(tmp_path / "b.npy")]) == 0
    assert cli.main(["eval", "kl", model, *words, "--base-logits", str(tmp_path / "b.npy"), "--json"]) == 0
    one = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert cli.main(["eval", "kl", model, *words, "--base", base, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == one
    assert cli.main(["eval", "kl", model, *words]) == 2
    assert cli.main(["eval", "perplexity", model, *words, "--context", "16"]) == 2
