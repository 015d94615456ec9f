"""The model in the package: loads without a network and writes a readable little story."""

from __future__ import annotations

from tokamak.engine.loading import default_model
from tokamak.loaders import open_checkpoint

MAX_NBYTES = 8_000_000


def test_the_model_is_small_enough_to_ship():
    assert default_model().stat().st_size <= MAX_NBYTES


def test_every_matrix_is_ternary_and_the_context_holds_a_thousand_tokens():
    checkpoint = open_checkpoint(str(default_model()))
    assert {w.format for name, w in checkpoint.weights.items() if "proj" in name} == {"tq2_0"}
    assert checkpoint.config["max_position_embeddings"] >= 1024
