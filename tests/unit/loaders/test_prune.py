"""Pruning: exactly the smallest weights become zero; structured, the right slices go and the rest computes the same."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tiny
import tokamak
from tokamak.cli import main as cli
from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.loaders import TensorSource, open_gguf, write_gguf
from tokamak.loaders.prune import prune, values_of
from tokamak.loaders.quantize import carried_metadata


@pytest.mark.parametrize("fmt", ["f32", "f16", "bf16"])
def test_exactly_the_smallest_become_zero(tiny_gguf, tmp_path, fmt):
    model = tiny_gguf("llama", fmt)
    result = prune(model, tmp_path / "o.gguf", 0.3)
    before, after = open_gguf(model).tensors, open_gguf(tmp_path / "o.gguf").tensors
    for name, info in before.items():
        x, y = values_of(info), values_of(after[name])
        if name.startswith("blk") and len(info.shape) == 2:
            assert (y == 0).sum() == max(round(0.3 * x.size), (x == 0).sum())
            assert np.array_equal(x[y != 0], y[y != 0])
            assert np.abs(x[y == 0]).max() <= np.abs(y[y != 0]).min()
        else:
            assert np.array_equal(x, y)
    assert result.zeros == pytest.approx(0.3, abs=1e-3)


def with_dead_channels(model, path):
    """The same model with 32 channels per layer and one key-value head that write nothing."""
    opened = open_gguf(model)
    rng = np.random.default_rng(0)
    dead = {layer: np.sort(rng.choice(128, 32, replace=False)) for layer in range(2)}
    sources = []
    for name, info in opened.tensors.items():
        x = values_of(info).copy()
        if name.endswith("ffn_down.weight"):
            x[:, dead[int(name.split(".")[1])]] = 0
        if name.endswith("attn_output.weight"):
            x[:, :32] = 0  # the two query heads of the first key-value head
        sources.append(TensorSource(name, "f32", info.shape, lambda x=x: x.reshape(-1).view(np.uint8)))
    write_gguf(path, carried_metadata(opened), sources)
    return dead


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3"])
def test_channels_and_heads_that_write_nothing_can_go(tiny_gguf, tmp_path, arch):
    model = tiny_gguf(arch, "f32")
    with_dead_channels(model, tmp_path / "dead.gguf")
    result = prune(tmp_path / "dead.gguf", tmp_path / "o.gguf", 0.5, structured=True)
    assert (result.channels, result.heads) == ((128, 64), (2, 1))
    result = prune(tmp_path / "dead.gguf", tmp_path / "o.gguf", 0.25, structured=True)
    assert (result.channels, result.heads) == ((128, 96), (2, 2))
    assert open_gguf(tmp_path / "o.gguf").tensors["blk.0.ffn_up.weight"].shape == (96, 64)
    ids = [1, 5, 9, 30, 200]
    with (
        tokamak.load(tmp_path / "dead.gguf", context=32, executor="reference") as whole,
        tokamak.load(tmp_path / "o.gguf", context=32, executor="reference") as less,
    ):
        expected = whole.logits(ids)
        assert np.abs(less.logits(ids) - expected).max() <= 1e-5 * expected.std()


@pytest.mark.parametrize("arch", ["llama", "qwen3", "phi3", "gpt2"])
def test_heads_that_write_nothing_go_with_all_that_belongs_to_them(tiny_gguf, tmp_path, arch):
    size = {"num_attention_heads": 4, "num_key_value_heads": 4 if arch in ("phi3", "gpt2") else 2}
    model = tiny_gguf(arch, "f32", intermediate_size=32, **size)
    width = 16 * 4 // size["num_key_value_heads"]
    opened, sources = open_gguf(model), []
    for name, info in opened.tensors.items():
        x = values_of(info).copy()
        if name.endswith("attn_output.weight"):
            x[:, width : 2 * width] = 0
        sources.append(TensorSource(name, "f32", info.shape, lambda x=x: x.reshape(-1).view(np.uint8)))
    write_gguf(tmp_path / "dead.gguf", carried_metadata(opened), sources)
    share = 1 / size["num_key_value_heads"]
    result = prune(tmp_path / "dead.gguf", tmp_path / "o.gguf", share, structured=True)
    assert result.heads == (size["num_key_value_heads"], size["num_key_value_heads"] - 1)
    assert result.channels == (32, 32)  # a group of columns stays whole
    ids = [1, 5, 9, 30, 200]
    with (
        tokamak.load(tmp_path / "dead.gguf", context=32, executor="reference") as whole,
        tokamak.load(tmp_path / "o.gguf", context=32, executor="reference") as less,
    ):
        expected = whole.logits(ids)
        assert np.abs(less.logits(ids) - expected).max() <= 1e-5 * expected.std()


@pytest.mark.parametrize(
    ("arch", "fmt", "sparsity", "structured", "error", "message"),
    [
        ("llama", "f32", 0.0, False, InvalidParams, "above 0 and below 1"),
        ("llama", "f32", 1.0, True, InvalidParams, "above 0 and below 1"),
        ("llama", "q8_0", 0.1, False, InvalidParams, "is q8_0; prune an f32"),
        ("llama", "f32", 0.01, True, InvalidParams, "leaves out none of 128 channels and 2"),
        ("qwen3moe", "f32", 0.5, True, UnsupportedError, "belongs to experts"),
    ],
)
def test_what_cannot_be_pruned_is_refused(
    tiny_gguf, tmp_path, arch, fmt, sparsity, structured, error, message
):
    with pytest.raises(error, match=message):
        prune(tiny_gguf(arch, fmt), tmp_path / "o.gguf", sparsity, structured=structured)
    assert not list(tmp_path.iterdir())


def test_the_verb_measures_before_and_after(tiny_gguf, tmp_path, capsys):
    (tmp_path / "t.txt").write_text(tiny.TEXT)
    words = ["prune", str(tiny_gguf("llama", "f32")), str(tmp_path / "o.gguf"), "--sparsity", "0.5"]
    words += [
        "--structured",
        "--file",
        str(tmp_path / "t.txt"),
        "--window",
        "32",
        "--chunks",
        "2",
        "--threads",
        "1",
    ]
    assert cli.main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["channels"] == [128, 64]
    assert facts["perplexity"] != facts["perplexity_before"]
    assert facts["nbytes"] < facts["source_nbytes"]
