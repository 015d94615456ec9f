"""Encoder-decoder models against recorded logits and greedy texts of transformers, from GGUF and from safetensors."""

from __future__ import annotations

import numpy as np
import pytest

import tokamak
from recorded_models import READERS
from reference_data import golden

ROOT = golden()
pytestmark = pytest.mark.skipif(ROOT is None, reason="golden data is not beside the project")
CASES = [
    (name, form) for name in READERS for form in ("model-f16.gguf", "hf") if name == "t5" or form != "hf"
]


@pytest.mark.parametrize(
    ("executor", "kv_dtype", "limit"),
    [("reference", "f32", 1e-4), ("cpu", "f32", 1e-4), ("cpu", "f16", 1e-2)],
)
@pytest.mark.parametrize(("name", "form"), CASES)
def test_logits_and_greedy_texts_are_those_of_transformers(name, form, executor, kv_dtype, limit):
    folder = ROOT / "arch" / name
    with (
        np.load(folder / "golden.npz") as recorded,
        tokamak.load(folder / form, executor=executor, kv_dtype=kv_dtype) as llm,
    ):
        for case in ("0", "1"):
            source, ids = recorded[f"ids_{case}"].tolist(), recorded[f"dec_ids_{case}"].tolist()
            expected = recorded[f"logits_{case}_hf"]
            assert np.abs(llm.logits(ids, source=source) - expected).max() <= limit * expected.std()
        greedy = recorded["greedy_hf"].tolist()
        out = llm.generate(
            recorded["ids_0"].tolist(), max_tokens=len(greedy), temperature=0.0, ignore_eos=True
        )
        assert list(out.token_ids) == greedy
