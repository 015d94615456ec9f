"""Importance matrices measured on a text: against the oracle's own activations."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tiny
from tokamak import executors, models
from tokamak.cli import main as cli
from tokamak.engine.calibrate import measure_importance
from tokamak.engine.quality import divergence
from tokamak.engine.windows import cut
from tokamak.errors import InvalidParams
from tokamak.loaders import open_checkpoint, open_gguf
from tokamak.loaders.imatrix import open_imatrix
from tokamak.tokenizers import Tokenizer
from tokamak.types import Batch, Limits

TEXT = tiny.TEXT


def activations(path, ids):
    """Inputs of every linear op of the unoptimised graph, in float64: by parameter."""
    checkpoint = open_checkpoint(path)
    graph = models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=64)
    program = executors.get("reference").compile(
        graph, checkpoint.weights, Limits(2, max_rows=64, kv_dtype="f32")
    )
    rows = np.arange(len(ids), dtype=np.int32)
    batch = Batch(
        ids, rows, rows, np.array([0, len(ids)], np.int32), rows[-1:] + 1, np.array([[0, 1]], np.int32), rows
    )
    taps = program.taps(batch)
    return {n.inputs[1].name: taps[n.inputs[0].name] for n in graph.nodes if n.op == "linear"}


@pytest.mark.parametrize("executor", ["cpu", "reference"])
@pytest.mark.parametrize("arch", ["llama", "phi3"])
def test_sums_are_those_of_the_oracle(tiny_gguf, arch, executor):
    model = tiny_gguf(arch, "f32")
    found = measure_importance(model, TEXT, context=32, chunks=2, executor=executor, threads=1)
    windows = cut(TEXT, Tokenizer.load(model), 32, 2)
    checkpoint = open_checkpoint(model)
    seen = [activations(model, ids) for ids in windows]
    names = {p: checkpoint.weights[p].name for p in seen[0] if p in checkpoint.weights}
    assert {n for p, n in names.items() if p.startswith("layers")} == set(found.sums)
    for path, name in names.items():
        if name in found.sums:
            expected = sum((one[path] ** 2).sum(axis=0) for one in seen)
            # f32 kernels: a product over 128 columns is off by 1e-6 of its size, squares by twice that
            assert np.allclose(found.sums[name][0], expected, rtol=1e-4, atol=1e-6 * expected.max()), name
            assert found.counts[name].tolist() == [64.0]
    assert (found.num_chunks, found.chunk_size) == (2, 32)


def test_experts_count_the_rows_that_they_get(tiny_gguf):
    model = tiny_gguf("qwen3moe", "f32")
    found = measure_importance(model, TEXT, context=32, chunks=2, threads=1)
    for name in ("gate", "up", "down"):
        counts = found.counts[f"blk.0.ffn_{name}_exps.weight"]
        assert counts.shape == (4,)
        assert counts.sum() == 2 * 64  # two experts a row
    assert found.sums["blk.0.ffn_down_exps.weight"].shape == (4, 128)
    shape = open_gguf(model).tensors["blk.0.ffn_down_exps.weight"].shape
    assert found.of("blk.0.ffn_down_exps.weight", shape[0], shape[2]).shape == (4, 128)


def test_the_matrix_brings_a_quantised_model_nearer_to_the_original(tiny_gguf, tmp_path):
    import tokamak
    from tokamak.loaders.imatrix import write_imatrix

    model = tiny_gguf("llama", "f32")
    write_imatrix(tmp_path / "i.gguf", measure_importance(model, TEXT, context=32, threads=1))
    tokamak.quantize(model, tmp_path / "a.gguf", "q4_0", pure=True)
    tokamak.quantize(model, tmp_path / "b.gguf", "q4_0", pure=True, imatrix=tmp_path / "i.gguf")
    kl = []
    with tokamak.load(model, threads=1, context=64) as base:
        for name in ("a.gguf", "b.gguf"):
            with tokamak.load(tmp_path / name, threads=1, context=64) as llm:
                kl.append(divergence(llm, base, TEXT, context=32).kl_mean)
    assert kl[1] < kl[0]


def test_what_cannot_be_measured_is_refused(tiny_gguf):
    with pytest.raises(InvalidParams, match="trained for 512"):
        measure_importance(tiny_gguf("llama", "f32"), TEXT, context=1024)
    with pytest.raises(InvalidParams, match="less than one window"):
        measure_importance(tiny_gguf("llama", "f32"), "Once", context=32)


def test_the_verb_writes_a_file_that_reads_back(tiny_gguf, tmp_path, capsys):
    (tmp_path / "words.txt").write_text(TEXT)
    out = tmp_path / "i.gguf"
    words = ["imatrix", tiny_gguf("llama", "f32"), "--file", tmp_path / "words.txt", "-o", out]
    code = cli.main([*map(str, words), "--context", "32", "--chunks", "1", "--threads", "1", "--json"])
    assert code == 0
    assert json.loads(capsys.readouterr().out)["entries"] == 14
    read = open_imatrix(out)
    assert (read.datasets, read.num_chunks, read.chunk_size) == (("words.txt",), 1, 32)
