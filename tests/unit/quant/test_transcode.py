"""Format to format: the same as reading and writing, however it is cut."""

from __future__ import annotations

import numpy as np
import pytest

from tokamak.errors import InvalidParams
from tokamak.quant import FORMATS
from tokamak.quant import transcode as module
from tokamak.quant.transcode import transcode

X = np.random.default_rng(0).standard_normal((9, 256)).astype(np.float32)
WEIGHTS = np.linspace(0.1, 3, 256, dtype=np.float32)


@pytest.mark.parametrize("target", ["q4_k", "iq2_s", "f32", "bf16"])
def test_pieces_give_what_the_whole_gives(monkeypatch, target):
    rows = FORMATS["f16"].encode(X)
    expected = FORMATS[target].encode(FORMATS["f16"].decode(rows), WEIGHTS)
    assert np.array_equal(transcode(rows, "f16", target, WEIGHTS, threads=2), expected)
    monkeypatch.setattr(module, "PIECE", 1 << 13)
    assert np.array_equal(transcode(rows, "f16", target, WEIGHTS), expected)


def test_the_same_format_is_a_copy():
    rows = FORMATS["q4_k"].encode(X)
    out = transcode(rows, "q4_k", "q4_k")
    assert np.array_equal(out, rows)
    assert not np.shares_memory(out, rows)


@pytest.mark.parametrize(("source", "target"), [("f32", "i2_s"), ("i2_s", "q8_0")])
def test_whole_tensor_formats_are_refused(source, target):
    with pytest.raises(InvalidParams, match="whole tensors"):
        transcode(np.zeros((1, 1024), np.uint8), source, target)


def test_a_bad_value_is_named_with_its_place(monkeypatch):
    x = X.copy()
    x[7, 3] = np.nan
    monkeypatch.setattr(module, "PIECE", 1 << 10)
    with pytest.raises(InvalidParams, match="rows from 4 on: row 3 has a value that is not finite"):
        transcode(x.view(np.uint8), "f32", "q8_0")
