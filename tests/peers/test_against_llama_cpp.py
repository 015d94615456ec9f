"""Families against llama.cpp on tiny random files: what the tables name is what another reader of GGUF computes with.

Files come from the family's own table, so a missing tensor or key shows as well. Limit: float32 rounding on both sides,
1e-4 of the logits' deviation; llama.cpp looks gelu up in a table of halves, which costs up to 5e-3. Of qwen2vl it does not
read the epsilon, so there it is next to nothing.
"""

from __future__ import annotations

import numpy as np
import pytest

import tiny
from graphs import batch
from table_models import CASES, written
from tokamak import executors, models
from tokamak.ir.passes import optimize
from tokamak.loaders import open_checkpoint
from tokamak.types import Limits

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
from tokamak.bench.peers import LlamaCpp

IDS = np.random.default_rng(5).integers(3, tiny.VOCAB_SIZE, 50).tolist()


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_llama_cpp(tmp_path, name):
    case = CASES[name]
    path = written(tmp_path / "m.gguf", name, case)
    peer = LlamaCpp(path, context=64, threads=1)
    want = peer.logits(IDS)
    peer.close()
    checkpoint = open_checkpoint(path)
    graph = optimize(
        models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=256)
    )
    for executor in ("reference", "cpu"):
        limits = Limits(num_blocks=4, block_size=32, kv_dtype="f32")
        program = executors.get(executor).compile(graph, checkpoint.weights, limits)
        got = program.run(batch(([2, 0], IDS, len(IDS)), every_row=True, block=32))
        assert np.isfinite(got).all()
        assert want.std() > 0.1
        assert np.abs(got - want).max() / want.std() <= case.limit, executor
