"""llama.cpp's quantizer on the same file: the same formats, no smaller error here, and llama.cpp reads what is written."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tokamak
from reference_data import golden
from tokamak.loaders import open_gguf
from tokamak.quant import FORMATS
from tokamak.quant.error import rmse
from tokamak.quant.recipes import recipe

if importlib.util.find_spec("llama_cpp") is None:
    pytest.skip("llama_cpp is not installed", allow_module_level=True)

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "llama_quantize.py"
LOAD = (
    "import sys, llama_cpp\n"
    "m = llama_cpp.Llama(sys.argv[1], n_ctx=32, n_threads=1, verbose=False, logits_all=True)\n"
    "m.eval([1, 5, 9]); print(float(abs(m.scores[:3]).sum()))"
)


@pytest.fixture(scope="module")
def exact(tiny_gguf):
    return tiny_gguf("llama", "f16", hidden_size=256, intermediate_size=512, head_dim=64)


def run(*words):
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("to", ["q4_k_m", "q3_k_m", "q5_0", "iq4_xs", "q6_k"])
def test_same_formats_and_no_larger_error(exact, tmp_path, to):
    run(SCRIPT, exact, tmp_path / "theirs.gguf", recipe(to).file_type, 1)
    tokamak.quantize(exact, tmp_path / "ours.gguf", to, threads=1)
    before, ours, theirs = (
        open_gguf(p).tensors for p in (exact, tmp_path / "ours.gguf", tmp_path / "theirs.gguf")
    )
    assert {n: t.format for n, t in ours.items()} == {n: t.format for n, t in theirs.items()}
    for name, info in ours.items():
        if len(info.shape) > 1:
            x, mine, other = (
                FORMATS[t.format].decode(t.data().reshape(t.shape[0], -1))
                for t in (before[name], info, theirs[name])
            )
            assert rmse(x, mine) <= rmse(x, other), name


@pytest.mark.parametrize("to", ["q4_k_m", "iq2_xxs"])
def test_llama_cpp_reads_what_is_written(exact, tmp_path, to):
    tokamak.quantize(exact, tmp_path / "ours.gguf", to, threads=1)
    assert np.isfinite(float(run("-c", LOAD, tmp_path / "ours.gguf")))


HF = sorted((golden() / "arch").glob("*/hf")) if golden() else []
IDS_OF = (
    "import sys, json, llama_cpp\n"
    "m = llama_cpp.Llama(sys.argv[1], n_ctx=128, n_threads=1, verbose=False, logits_all=True)\n"
    "ids = json.loads(sys.argv[2]); m.eval(ids)\n"
    "print(json.dumps([m.tokenize(b'Once upon a time', add_bos=True), m.scores[len(ids) - 1].tolist()]))"
)


@pytest.mark.parametrize("name", ["llama", "llama3-tied-rope", "qwen2", "phi3", "gemma3", "gpt2"])
def test_llama_cpp_reads_a_converted_directory(tmp_path, name):
    folder = next((f for f in HF if f.parent.name == name), None)
    if folder is None:
        pytest.skip("no reference data: set TOKAMAK_SHARED")
    tokamak.quantize(folder, tmp_path / "o.gguf", "f32")
    with np.load(folder.parent / "golden.npz") as recorded:
        ids, expected = recorded["ids_0"], recorded["logits_0_hf"]
    words, logits = json.loads(run("-c", IDS_OF, tmp_path / "o.gguf", json.dumps(ids.tolist())))
    assert words == list(
        tokamak.Tokenizer.load(tmp_path / "o.gguf").encode("Once upon a time", add_special=True)
    )
    # llama.cpp keeps an f16 cache and looks gelu up in f16: up to 1e-2 of the deviation
    assert np.abs(np.array(logits) - expected[-1]).max() <= 2e-2 * expected.std()
