"""Perplexity of a real model against llama.cpp's logits under the same definition."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

import tokamak
from reference_data import unpacked
from tokamak.engine.quality import perplexity

if importlib.util.find_spec("llama_cpp") is None:
    pytest.skip("llama_cpp is not installed", allow_module_level=True)
if unpacked() is None:
    pytest.skip("no unpacked reference data", allow_module_level=True)

MODEL = unpacked() / "models" / "derived-llamacpp" / "babyllama-tok105-f16.gguf"
TEXT = "Once upon a time, there was a little girl named Lily. She had a big red ball and a small dog. " * 12
PEER = """
import sys, numpy as np, llama_cpp
m = llama_cpp.Llama(sys.argv[1], n_ctx=128, n_batch=128, n_threads=1, verbose=False, logits_all=True)
ids = m.tokenize(sys.argv[2].encode(), add_bos=True)
loss = []
for start in range(0, len(ids) - 127, 128):
    window = [m.token_bos(), *ids[start + 1 : start + 128]]
    m.reset(); m.eval(window)
    z = np.array(m.scores[:128], dtype=np.float64)
    z = z - z.max(axis=1, keepdims=True)
    logs = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    loss += [-logs[i, window[i + 1]] for i in range(64, 127)]
print(len(loss), float(np.exp(np.mean(loss))))
"""


def test_perplexity_is_llama_cpps():
    done = subprocess.run(
        [sys.executable, "-c", PEER, str(MODEL), TEXT],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    count, theirs = done.stdout.split()
    with tokamak.load(MODEL, threads=1, kv_dtype="f16") as llm:
        ours = perplexity(llm, TEXT, context=128)
    assert ours.tokens == int(count)
    # f16 weights: llama.cpp rounds activations to f16 too, which moves a logit by up to 1e-3
    assert ours.perplexity == pytest.approx(float(theirs), rel=2e-3)
