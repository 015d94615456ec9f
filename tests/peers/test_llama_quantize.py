"""llama.cpp's quantizer on the same file: the same formats, no smaller error here, and llama.cpp reads what is written."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tokamak
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
