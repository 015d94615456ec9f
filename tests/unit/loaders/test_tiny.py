"""The models that every other suite tests with: they load, run, and differ between formats by rounding only."""

from __future__ import annotations

import numpy as np
import pytest

import tiny
from graphs import batch
from tokamak import executors, models
from tokamak.loaders import open_checkpoint
from tokamak.types import Limits

IDS = [1, 300, 301, 280, 299, 350, 20]


def logits(path):
    checkpoint = open_checkpoint(path)
    graph = models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=64)
    program = executors.get("reference").compile(
        graph, checkpoint.weights, Limits(num_blocks=2, block_size=32)
    )
    return program.run(batch(([0, 1], IDS, len(IDS)), every_row=True, block=32))


# Families whose table is all there is to a file.
PLAIN = [
    "llama",
    "qwen2",
    "qwen3",
    "qwen2moe",
    "qwen3moe",
    "mixtral",
    "phi2",
    "phi3",
    "bitnet",
    "bitnet-25",
    "bitnet-b1.58",
    "arcee",
    "command-r",
    "ernie4_5",
    "exaone4",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3",
    "glm4",
    "gpt2",
    "gptneox",
    "granite",
    "granitemoe",
    "minicpm",
    "olmoe",
    "olmo2",
    "stablelm",
    "starcoder",
    "olmo",
    "bloom",
    "mpt",
    "starcoder2",
    "internlm2",
    "smollm3",
    "cohere2",
    "nemotron",
    "orion",
    "xverse",
    "plamo",
    "seed_oss",
    "exaone",
    "hunyuan-dense",
    "hunyuan-moe",
    "dbrx",
    "bert",
    "nomic-bert",
    "modern-bert",
    "gemma-embedding",
]


@pytest.mark.parametrize("arch", PLAIN)
def test_every_family_loads_and_its_logits_are_not_degenerate(tiny_gguf, arch):
    out = logits(tiny_gguf(arch, "f16"))
    width = 64 if models.is_encoder(arch) else tiny.VOCAB_SIZE  # hidden states, not logits
    assert out.shape == (len(IDS), width)
    assert np.isfinite(out).all()
    assert 0.5 < out.std() < 20


def test_formats_approximate_one_model(tiny_gguf):
    exact = logits(tiny_gguf("llama", "f32"))
    # 8 bits per 32: relative step 1/127/2, random over two layers; 3 % of the deviation is ten times what it gives.
    assert 0 < np.abs(logits(tiny_gguf("llama", "q8_0")) - exact).std() / exact.std() < 0.03


def test_the_same_arguments_write_the_same_bytes(tmp_path):
    a, b = tiny.gguf(tmp_path / "a.gguf"), tiny.gguf(tmp_path / "b.gguf")
    assert a.read_bytes() == b.read_bytes()
    assert tiny.gguf(tmp_path / "c.gguf", seed=1).read_bytes() != a.read_bytes()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_vocabularies_have_the_promised_size_and_no_token_twice(kind):
    tokens = tiny.vocabulary(kind)["tokenizer.ggml.tokens"]
    assert len(tokens) == len(set(tokens)) == tiny.VOCAB_SIZE


@pytest.mark.parametrize("fmt", ["q4_k", "q6_k", "tq2_0", "q5_0", "bf16"])
def test_other_formats_write_and_load(tiny_gguf, fmt):
    path = tiny_gguf("llama", fmt, num_hidden_layers=1)
    assert open_checkpoint(path).weights["layers.0.mlp.up_proj.weight"].format == fmt
