"""Directories with safetensors against recorded logits of transformers, read directly and after conversion."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import tokamak
from graphs import batch
from reference_data import golden
from tokamak import executors, models
from tokamak.errors import InvalidParams
from tokamak.ir.passes import optimize
from tokamak.loaders import open_checkpoint, open_gguf
from tokamak.loaders.names.hf import HF_FAMILIES
from tokamak.loaders.quantize import rounded
from tokamak.loaders.safetensors import read_bytes, read_object
from tokamak.types import Limits

FOLDERS = sorted((golden() / "arch").glob("*/hf")) if golden() else []
pytestmark = pytest.mark.skipif(not FOLDERS, reason="no reference data: set TOKAMAK_SHARED")
# float64 arithmetic against transformers in float32
LIMIT = 1e-4


def known(folder):
    config = read_object(read_bytes(folder / "config.json"), folder)
    return config["model_type"] in HF_FAMILIES


KNOWN = [f for f in FOLDERS if known(f)]
IDS = [f.parent.name for f in KNOWN]


def logits(path, ids, begun=None):
    """begun: ids of the text that a model writes which reads ids."""
    if begun is not None:
        with tokamak.load(path, executor="reference") as llm:
            return llm.logits(begun.tolist(), source=ids.tolist())
    checkpoint = open_checkpoint(path)
    graph = models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=512)
    limits = Limits(16, max_rows=128, kv_dtype="f32")
    program = executors.get("reference").compile(optimize(graph), checkpoint.weights, limits)
    return program.run(batch(([*range(16)], ids.tolist(), len(ids)), every_row=True, block=32))


@pytest.mark.parametrize("config", ["config.json", "config.v4.json"], ids=["v5", "v4"])
@pytest.mark.parametrize("folder", KNOWN, ids=IDS)
def test_logits_are_those_of_transformers(folder, config, tmp_path):
    for path in folder.iterdir():
        if not path.name.startswith("config"):
            (tmp_path / path.name).symlink_to(path)
    shutil.copy(folder / config, tmp_path / "config.json")
    with np.load(folder.parent / "golden.npz") as recorded:
        for case in ("0", "1"):
            kind = "logits" if f"logits_{case}_hf" in recorded else "tok"  # an encoder's states
            expected = recorded[f"{kind}_{case}_hf"]
            found = logits(tmp_path, recorded[f"ids_{case}"], recorded.get(f"dec_ids_{case}"))
            assert np.abs(found - expected).max() <= LIMIT * expected.std()


@pytest.mark.parametrize("folder", KNOWN, ids=IDS)
def test_a_converted_file_holds_the_same_model(folder, tmp_path):
    tokamak.quantize(folder, tmp_path / "o.gguf", None)
    with np.load(folder.parent / "golden.npz") as recorded:
        ids, begun = recorded["ids_1"], recorded.get("dec_ids_1")
    expected = logits(folder, ids, begun)
    # a GGUF file has epsilons in float32: 3e-8 of them
    assert np.abs(logits(tmp_path / "o.gguf", ids, begun) - expected).max() <= 1e-6 * expected.std()


@pytest.mark.parametrize("folder", KNOWN, ids=IDS)
def test_a_converted_file_says_what_the_recorded_one_says(folder, tmp_path):
    """Every key of the recorded file but names, sizes and the number of the mix; every tensor with its shape."""
    tokamak.quantize(folder, tmp_path / "o.gguf", "f16")
    ours, theirs = open_gguf(tmp_path / "o.gguf"), open_gguf(folder.parent / "model-f16.gguf")
    assert {n: t.shape for n, t in ours.tensors.items()} == {n: t.shape for n, t in theirs.tensors.items()}
    left_out = {"general.name", "general.size_label", "tokenizer.ggml.add_sep_token"}
    left_out |= {"phi3.rope.scaling.original_context_length"}  # of a rope that is not scaled
    if folder.parent.name in ("deepseek3", "gpt-oss"):
        left_out |= {"tokenizer.ggml.pre"}  # recorded as of the family, while this tokenizer is GPT-2's
    for key, value in theirs.metadata.items():
        if key in left_out or key in ("tokenizer.ggml.token_type", "tokenizer.ggml.unknown_token_id"):
            continue
        assert key in ours.metadata, key
        assert ours.value_types[key] == theirs.value_types[key], key
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            # rows of padding are no tokens; some converters give them another score
            assert np.array_equal(np.maximum(ours.metadata[key], -1000), np.maximum(value, -1000)), key
        elif isinstance(value, np.ndarray):
            assert np.array_equal(ours.metadata[key], value), key
        else:
            assert ours.metadata[key] == value, key
    types = (m.metadata["tokenizer.ggml.token_type"] for m in (ours, theirs))
    assert sum(a != b for a, b in zip(*types, strict=True)) <= 2  # turn markers count as special here


def test_text_runs_from_the_directory_and_from_the_file(tmp_path):
    folder = next(f for f in KNOWN if f.parent.name == "llama")
    tokamak.quantize(folder, tmp_path / "o.gguf", "q8_0")
    with (
        tokamak.load(folder, threads=1, context=64) as whole,
        tokamak.load(tmp_path / "o.gguf", context=64) as file,
    ):
        assert whole.tokenizer.encode("Once upon a time") == file.tokenizer.encode("Once upon a time")
        assert 0 < len(whole.generate("Once", max_tokens=3, temperature=0.0).token_ids) <= 3


def test_rounding_on_the_way_gives_the_bytes_of_a_converted_file(tmp_path):
    folder = next(f for f in KNOWN if f.parent.name == "llama")
    tokamak.quantize(folder, tmp_path / "o.gguf", "q8_0")
    written = open_checkpoint(tmp_path / "o.gguf")
    made = rounded(open_checkpoint(folder), "q8_0", 1)
    assert {w.format for w in made.weights.values()} == {"f32", "q8_0"}
    assert set(made.weights) == set(written.weights)
    for path, weight in made.weights.items():
        assert np.array_equal(weight.rows(), written.weights[path].rows()), path
    with pytest.raises(InvalidParams, match="is q8_0 already"):
        rounded(written, "q4_0", 1)
    with (
        tokamak.load(folder, to="q8_0", threads=1, context=64) as whole,
        tokamak.load(tmp_path / "o.gguf", threads=1, context=64) as file,
    ):
        assert np.array_equal(whole.logits([1, 2, 3]), file.logits([1, 2, 3]))
