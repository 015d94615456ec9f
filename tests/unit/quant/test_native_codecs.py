"""Native codecs against their plain twins: the same numbers when they read, no worse ones when they write."""

from __future__ import annotations

import numpy as np
import pytest

from tokamak import _native
from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.quant import FORMATS
from tokamak.quant.error import rmse

NATIVE = [FORMATS[name] for name in _native.codec_formats()]
GROUPED = [f for f in NATIVE if f.block_size > 1]
ISAS = _native.codec_isas()
X = np.random.default_rng(3).standard_normal((7, 768)).astype(np.float32)
X[1] *= 1e-7  # scales that f16 holds as subnormals
X[2, :256] = 0
X[3] = np.repeat(X[3, ::16], 16)
IMPORTANCE = np.exp(np.random.default_rng(4).standard_normal(768)).astype(np.float32)


def ids(formats):
    return [f.name for f in formats]


def encode(fmt, x, importance=None, **options):
    weights = None if importance is None else fmt.weights(importance, x.shape[1])
    flat = x.reshape(-1).view(np.uint8)
    return _native.transcode(flat, "f32", fmt.name, x.shape[1], weights, **options).reshape(len(x), -1)


@pytest.mark.parametrize("fmt", NATIVE, ids=ids(NATIVE))
def test_reading_any_bytes_gives_what_the_twin_gives(fmt):
    rows = np.random.default_rng(5).integers(0, 256, (3, fmt.row_nbytes(768)), dtype=np.uint8)
    expected = fmt.decode_plain(rows)
    for isa in ISAS:
        y = _native.transcode(rows.reshape(-1), fmt.name, "f32", 768, isa=isa).view(np.float32)
        same = (y.reshape(expected.shape).view(np.uint32) == expected.view(np.uint32)) | np.isnan(expected)
        assert same.all(), isa
        assert np.array_equal(np.isnan(y.reshape(expected.shape)), np.isnan(expected))


@pytest.mark.parametrize("importance", [None, IMPORTANCE], ids=["plain", "weighted"])
@pytest.mark.parametrize("fmt", NATIVE, ids=ids(NATIVE))
def test_writing_is_as_close_as_the_twin(fmt, importance):
    ours = rmse(X, fmt.decode(fmt.encode(X, importance)), importance)
    twin = rmse(X, fmt.decode(fmt.encode_plain(X, importance)), importance)
    # Sums of floats in another order may choose another of two nearly equal candidates: 1e-4 of the error. The lattice
    # formats compare more points per vector than the twin does, which may lead the alternation elsewhere: 1 %.
    assert ours <= twin * (1.01 if fmt.name.startswith(("iq1", "iq2", "iq3")) else 1.0001)


@pytest.mark.parametrize("importance", [None, IMPORTANCE], ids=["plain", "weighted"])
@pytest.mark.parametrize("fmt", NATIVE, ids=ids(NATIVE))
def test_bytes_depend_neither_on_instruction_set_nor_on_threads_nor_on_cuts(fmt, importance):
    expected = encode(fmt, X, importance)
    for isa in ISAS:
        assert np.array_equal(encode(fmt, X, importance, isa=isa, threads=3), expected), isa
    one_by_one = np.concatenate([encode(fmt, row[None], importance) for row in X])
    assert np.array_equal(one_by_one, expected)


@pytest.mark.parametrize("fmt", GROUPED, ids=ids(GROUPED))
def test_a_value_that_is_not_finite_is_refused_with_its_row(fmt):
    x = X.copy()
    x[4, 700] = np.inf
    x[5, 1] = np.nan
    with pytest.raises(InvalidParams, match=f"row 4 has a value that is not finite; {fmt.name} cannot"):
        encode(fmt, x, threads=2)


@pytest.mark.parametrize("source", ["f16", "bf16", "q8_0", "q4_k"])
def test_transcoding_equals_reading_then_writing(source):
    rows = FORMATS[source].encode(X)
    there = _native.transcode(rows.reshape(-1), source, "q6_k", 768, threads=2)
    assert np.array_equal(there, FORMATS["q6_k"].encode(FORMATS[source].decode(rows)).reshape(-1))


def test_many_rows_over_threads_keep_their_places():
    x = np.random.default_rng(6).standard_normal((700, 512)).astype(np.float32)  # several chunks and a rest
    rows = FORMATS["q8_0"].encode(x, threads=3)
    assert np.array_equal(rows, FORMATS["q8_0"].encode_plain(x))
    assert np.array_equal(FORMATS["q8_0"].decode(rows, threads=3), FORMATS["q8_0"].decode_plain(rows))


def test_what_does_not_fit_is_refused():
    flat = np.zeros(4 * 256, dtype=np.uint8)
    with pytest.raises(UnsupportedError, match="i2_s has no native codec"):
        _native.transcode(flat, "f32", "i2_s", 256)
    for columns, importance, message in (
        (128, None, "do not fit groups of 1 and 256"),
        (512, None, "no whole number of rows"),
        (0, None, "do not fit"),
        (256, np.ones(255, np.float32), "one value per column"),
    ):
        with pytest.raises(InvalidParams, match=message):
            _native.transcode(flat, "f32", "q4_k", columns, importance)
