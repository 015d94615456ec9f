"""Recipes against files that llama-quantize wrote: every tensor gets the same format."""

from __future__ import annotations

import pytest

from reference_data import golden
from tokamak import _native
from tokamak.quant import by_type_id
from tokamak.quant.recipes import RECIPES, Model

FOLDER = golden()
FILES = [
    path
    for path in (sorted((FOLDER / "arch").glob("*/model-*.gguf")) if FOLDER else [])
    if path.stem
    not in {"model-f16", "model-f32", "model-i2_s"}  # bitnet.cpp's i2_s has another recipe's number
]
pytestmark = pytest.mark.skipif(not FILES, reason="no reference data: set TOKAMAK_SHARED")
BY_FILE_TYPE = {r.file_type: r for r in RECIPES.values()}
WITH_IMPORTANCE = {"iq1_s", "iq2_xxs", "iq2_xs", "iq3_xxs"}  # made with an importance matrix


@pytest.mark.parametrize("path", FILES, ids=[f"{p.parent.name}-{p.stem}" for p in FILES])
def test_every_tensor_gets_the_format_llama_quantize_gave_it(path):
    file = _native.GgufFile(str(path))
    facts = file.metadata
    arch = facts["general.architecture"]
    recipe = BY_FILE_TYPE[facts["general.file_type"]]
    names = {tensor[0] for tensor in file.tensors}
    model = Model(
        num_layers=facts[f"{arch}.block_count"],
        gqa=facts[f"{arch}.attention.head_count"] // facts[f"{arch}.attention.head_count_kv"],
        num_experts=facts.get(f"{arch}.expert_count", 0),
        tied="output.weight" not in names,
        importance=recipe.name in WITH_IMPORTANCE,
    )
    for name, type_id, shape, *_ in file.tensors:
        expected = by_type_id(type_id).name
        assert (recipe.format_for(name, shape, model) or "f32") == expected, name
