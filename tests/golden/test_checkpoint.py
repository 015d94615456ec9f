"""Real model files through the loader, the graph and the oracle: the logits that transformers and llama.cpp recorded.

The whole of the names table, the key mapping and the row order of Q and K stands or falls with these numbers.
"""

from __future__ import annotations

import numpy as np
import pytest

from graphs import batch
from reference_data import golden
from tokamak import executors, models
from tokamak.loaders import open_checkpoint
from tokamak.quant import FORMATS
from tokamak.types import Limits

FOLDER = golden()
pytestmark = pytest.mark.skipif(FOLDER is None, reason="no reference data: set TOKAMAK_SHARED")

FLOAT = {
    "llama": "f16",
    "llama-rope-linear": "f16",
    "llama3-tied-rope": "f16",
    "mistral": "f16",
    "mistral-swa": "f16",
    "qwen2": "f16",
    "qwen3": "f16",
    "phi": "f16",
    "phi3": "f16",
    "phi3-longrope-short": "f16",
    "phi3-swa": "f16",
    "bitnet": "f32",
    "bitnet-2b4t": "f32",
}
QUANTISED = [("llama", fmt) for fmt in ("q4_0", "q5_0", "q8_0", "q4_k_m", "q5_k_m", "q6_k", "tq2_0")]
QUANTISED += [(name, fmt) for name in ("qwen2", "qwen3", "phi") for fmt in ("q4_k_m", "q8_0")]
QUANTISED += [("bitnet", "tq1_0"), ("bitnet", "tq2_0")]
# What is recorded was computed in float32: its own rounding is 3e-6 of the deviation (row.json, `rel`).
TOLERANCE = 1e-4
# These were recorded by llama.cpp, which looks gelu up in a table of f16: eleven bits, 5e-4 of each activation.
GELU_TABLE = 2e-3


def logits_of(path, token_ids, context=256):
    checkpoint = open_checkpoint(path)
    graph = models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=context)
    limits = Limits(num_blocks=8, block_size=32)
    program = executors.get("reference").compile(graph, checkpoint.weights, limits)
    ids = token_ids.tolist()
    return program.run(batch((list(range(8)), ids, len(ids)), every_row=True, block=32))


def error(got, want):
    return np.abs(got - want).max() / want.std()


@pytest.mark.parametrize("name", FLOAT)
def test_logits_equal_those_of_transformers(name):
    recorded = np.load(FOLDER / "arch" / name / "golden.npz")
    path = FOLDER / "arch" / name / f"model-{FLOAT[name]}.gguf"
    # This file does not carry the window of 32 that its configuration had.
    rows = 32 if name == "mistral-swa" else None
    got = logits_of(path, recorded["ids_1"])
    assert error(got[:rows], recorded["logits_1_hf"][:rows]) < TOLERANCE


@pytest.mark.parametrize(("name", "fmt"), QUANTISED)
def test_logits_of_quantised_files_equal_the_same_weights_in_float(name, fmt):
    recorded = np.load(FOLDER / "arch" / name / "golden.npz")
    want = recorded[f"logits_1_{fmt}_dequant_f32"]  # of some formats the last 16 positions only
    got = logits_of(FOLDER / "arch" / name / f"model-{fmt}.gguf", recorded["ids_1"])
    assert error(got[-len(want) :], want) < (GELU_TABLE if name == "phi" else TOLERANCE)


def test_ternary_tensors_of_bitnet_cpp_run():
    """What bitnet.cpp computed has int8 activations, so it is near only: as near as it was to the float32 file (row.json)."""
    recorded = np.load(FOLDER / "arch" / "bitnet" / "golden.npz")
    got = logits_of(FOLDER / "arch" / "bitnet" / "model-i2_s.gguf", recorded["ids_1"])
    theirs = recorded["logits_1_i2_s_bitnetcpp"]
    assert np.abs(got - theirs).max() < 1.1 * 0.2556
    assert (got.argmax(1) == theirs.argmax(1)).mean() > 0.95


def test_every_fixture_of_a_known_family_opens_with_all_its_tensors():
    opened = 0
    for name in FLOAT:
        for path in sorted((FOLDER / "arch" / name).glob("*.gguf")):
            for weight in open_checkpoint(path).weights.values():
                rows = weight.rows()
                assert rows.nbytes == weight.nbytes
                fmt = FORMATS[weight.format]
                if not fmt.tail:
                    assert rows.shape == (int(np.prod(weight.shape[:-1])), fmt.row_nbytes(weight.shape[-1]))
            opened += 1
    assert opened > len(FLOAT)
