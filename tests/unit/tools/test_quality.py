"""The table of formats against quality has a row for each, and a change of nothing costs nothing."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tokamak.engine.loading import default_model

FILE = Path(__file__).resolve().parents[3] / "benchmarks" / "quality.py"


@pytest.fixture(scope="module")
def rows():
    spec = importlib.util.spec_from_file_location("quality_table", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["quality_table"] = module  # where its dataclasses look their names up
    spec.loader.exec_module(module)
    lines = []
    module.print = lines.append
    small = ["--window", "32", "--chunks", "2", "--rounds", "1", "--threads", "1"]
    assert (
        module.main([str(default_model()), *small, "--heads", "q8_0,q4_0", "--caches", "f32,q4_0", "--json"])
        == 0
    )
    yield {(row["kind"], row["asked"]): row for row in json.loads(lines[-1])}
    del sys.modules["quality_table"]


def test_every_format_has_a_row_with_its_bytes(rows):
    both = "embedding and head"
    assert set(rows) == {
        *((both, "as it is"), (both, "q8_0"), (both, "q4_0")),
        *(("cache", "f32"), ("cache", "q4_0")),
    }
    assert rows[both, "q8_0"]["nbytes"] == 34 * rows[both, "q4_0"]["nbytes"] // 18
    assert rows["cache", "f32"]["nbytes"] == 128 * rows["cache", "q4_0"]["nbytes"] // 18


def test_the_same_format_is_the_same_model_and_fewer_bits_are_farther(rows):
    both = "embedding and head"
    assert (rows[both, "q8_0"]["kl_mean"], rows[both, "q8_0"]["delta"]) == (0, 0)
    assert rows["cache", "f32"]["kl_mean"] == 0
    assert rows[both, "q4_0"]["kl_mean"] > 0
    assert rows["cache", "q4_0"]["kl_mean"] > 0
