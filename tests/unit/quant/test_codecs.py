"""Weight formats without any reference data: layouts by hand, round trips, laws that every codec obeys."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.quant import FORMATS, by_type_id
from tokamak.quant.bits import pack, unpack
from tokamak.quant.error import cosine, rmse, round_trip

DECODABLE = [f for f in FORMATS.values() if f.decoder and not f.tail]  # whole-tensor formats: test_bitnet.py
ENCODABLE = [f for f in DECODABLE if f.encoder and f.name != "qk256"]  # which has no scale: test_crumbs.py
GROUPED = [f for f in ENCODABLE if f.block_size > 1]
WITHOUT_CODEC = [f for f in FORMATS.values() if not f.decoder]

# Largest relative rmse on normal data: a uniform code of b bits over about +-2.2 sigma (32 elements) has a step of
# 4.4 / 2**b sigma and an error of step / sqrt(12); the bounds are that plus a fifth. Ternary rounding of normal data by
# the largest of 256 (2.8 sigma) zeroes almost everything below 1.4 sigma: close to 0.85.
RELATIVE = {
    "f32": 0.0,
    "f16": 3e-4,
    "bf16": 2.5e-3,
    "q4_0": 0.10,
    "q4_1": 0.10,
    "q5_0": 0.05,
    "q5_1": 0.05,
    "q8_0": 0.006,
    "q8_1": 0.006,
    "q4_k": 0.09,
    "q5_k": 0.045,
    "q6_k": 0.022,
    "iq4_nl": 0.09,  # levels placed for normal data: 0.9 of q4_0
    "iq4_xs": 0.09,
    "mxfp4": 0.13,  # steps of a quarter to a third of the value, and a scale that is a power of two
    "nvfp4": 0.11,
    "q1_0": 0.62,  # sqrt(1 - 2 / pi) = 0.603 is the least error of one magnitude
    "q2_0": 0.55,
    "i2_f16": 0.55,
    # Lattices: bounds measured, a fifth above what the search reaches on this data.
    "iq3_s": 0.16,
    "iq3_xxs": 0.22,
    "iq2_s": 0.29,
    "iq2_xs": 0.34,
    "iq2_xxs": 0.39,
    "iq1_m": 0.5,
    "iq1_s": 0.54,
    "tq1_0": 0.9,
    "tq2_0": 0.9,
    "q2_k": 0.36,  # 16 elements: +-1.8 sigma in four codes
    "q3_k": 0.18,
    "q8_k": 0.009,  # 256 elements: +-2.8 sigma
}


def ids(formats):
    return [f.name for f in formats]


def normal(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def test_every_type_id_has_a_name_and_is_found_by_it():
    for name, fmt in FORMATS.items():
        assert fmt.name == name == name.lower()
        assert by_type_id(fmt.type_id).type_id == fmt.type_id
    assert [by_type_id(i).type_id for i in range(43)] == list(range(43))
    assert by_type_id(39).name == "mxfp4"


def test_an_unknown_type_id_is_refused_by_number():
    with pytest.raises(UnsupportedError, match="77"):
        by_type_id(77)


@pytest.mark.parametrize("fmt", WITHOUT_CODEC, ids=ids(WITHOUT_CODEC))
def test_a_format_without_codec_refuses_by_name(fmt):
    with pytest.raises(UnsupportedError, match=fmt.name):
        fmt.decode(np.zeros((1, fmt.type_size), dtype=np.uint8))
    with pytest.raises(UnsupportedError, match=fmt.name):
        fmt.encode(np.zeros((1, fmt.block_size), dtype=np.float32))


READ_ONLY = [f for f in DECODABLE if not f.encoder]  # integers, which are no weights


@pytest.mark.parametrize("fmt", READ_ONLY, ids=ids(READ_ONLY))
def test_a_format_that_can_only_be_read_refuses_to_be_written(fmt):
    with pytest.raises(UnsupportedError, match=f"{fmt.name}.*cannot be written"):
        fmt.encode(np.zeros((1, fmt.block_size), dtype=np.float32))


@pytest.mark.parametrize("fmt", DECODABLE, ids=ids(DECODABLE))
def test_the_numpy_layout_has_the_size_of_the_format(fmt):
    assert fmt.dtype.itemsize == fmt.type_size
    assert fmt.row_nbytes(4 * fmt.block_size) == 4 * fmt.type_size


@pytest.mark.parametrize("fmt", DECODABLE, ids=ids(DECODABLE))
def test_any_bytes_decode_without_warning_to_the_right_shape(fmt):
    rows = np.random.default_rng(1).integers(0, 256, (3, 5 * fmt.type_size), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = fmt.decode(rows)
    assert y.dtype == np.float32
    assert y.shape == (3, 5 * fmt.block_size)


@pytest.mark.parametrize("fmt", ENCODABLE, ids=ids(ENCODABLE))
def test_a_round_trip_of_normal_weights_stays_within_the_formats_error(fmt):
    assert round_trip(fmt, normal(8, 1024)).relative <= RELATIVE[fmt.name]


@pytest.mark.parametrize("fmt", ENCODABLE, ids=ids(ENCODABLE))
def test_rows_do_not_influence_each_other(fmt):
    x = normal(150, 512, seed=2) * np.logspace(-3, 3, 150, dtype=np.float32)[:, None]
    together = fmt.encode(x)
    assert np.array_equal(together[77:78], fmt.encode(x[77:78]))
    assert np.array_equal(fmt.decode(together)[77:78], fmt.decode(together[77:78]))


@pytest.mark.parametrize("fmt", ENCODABLE, ids=ids(ENCODABLE))
def test_zeros_decode_to_zeros(fmt):
    x = np.zeros((2, 512), dtype=np.float32)
    assert not fmt.decode(fmt.encode(x)).any()
    assert not fmt.decode(fmt.encode(x, np.ones(512, dtype=np.float32))).any()


@pytest.mark.parametrize("fmt", GROUPED, ids=ids(GROUPED))
def test_values_that_are_not_finite_are_refused_with_their_row(fmt):
    x = normal(3, fmt.block_size)
    for value in (np.nan, np.inf):
        x[2, 1] = value
        with pytest.raises(InvalidParams, match="row 2"):
            fmt.encode(x)


@pytest.mark.parametrize("fmt", GROUPED, ids=ids(GROUPED))
def test_rows_that_are_no_multiple_of_the_group_are_refused(fmt):
    with pytest.raises(InvalidParams, match=fmt.name):
        fmt.encode(normal(1, fmt.block_size + 1))
    with pytest.raises(InvalidParams, match=fmt.name):
        fmt.decode(np.zeros((1, fmt.type_size + 1), dtype=np.uint8))
    with pytest.raises(InvalidParams, match="int8"):
        fmt.decode(np.zeros((1, fmt.type_size), dtype=np.int8))


@pytest.mark.parametrize("bad", [np.ones(255), -np.ones(256), np.zeros(256), np.full(256, np.nan)])
def test_an_importance_of_wrong_shape_or_sign_is_refused(bad):
    with pytest.raises(InvalidParams, match="importance"):
        FORMATS["q4_k"].encode(normal(1, 256), bad)


@pytest.mark.parametrize("name", ["q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"])
def test_importance_lowers_the_weighted_error(name):
    x = normal(16, 512, seed=3)
    importance = np.random.default_rng(4).lognormal(0, 2, 512).astype(np.float32)
    fmt = FORMATS[name]
    with_importance = rmse(x, fmt.decode(fmt.encode(x, importance)), importance)
    assert with_importance < rmse(x, fmt.decode(fmt.encode(x)), importance)


@pytest.mark.parametrize("name", ["q4_k", "q5_k", "q6_k"])
def test_scales_beyond_f16_saturate_and_stay_finite(name):
    x = np.full((1, 256), 1e20, dtype=np.float32)
    assert np.isfinite(FORMATS[name].decode(FORMATS[name].encode(x))).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4]))
@settings(max_examples=30, deadline=None)
def test_unpack_undoes_pack(seed, bits):
    fields = np.random.default_rng(seed).integers(0, 1 << bits, (3, 8 // bits, 5), dtype=np.uint8)
    assert np.array_equal(unpack(pack(fields, bits), bits), fields)


@pytest.mark.parametrize("magnitude", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("fmt", GROUPED, ids=ids(GROUPED))
def test_encoding_what_was_decoded_costs_less_than_encoding(fmt, magnitude):
    """Decoded values lie on a grid that encoding can find again, or near another one."""
    x = normal(2, 512, seed=6) * np.float32(magnitude)
    once = fmt.decode(fmt.encode(x))
    twice = fmt.decode(fmt.encode(once))
    assert rmse(once, twice) <= 0.5 * rmse(x, once)


SEARCHED = [
    f for f in GROUPED if f.name not in {"q4_1", "q5_1"}
]  # those write ggml's bytes, worse than zeros here


@pytest.mark.parametrize("fmt", SEARCHED, ids=ids(SEARCHED))
@pytest.mark.parametrize("magnitude", [1e-6, 1e-7, 1e-8, 1e-20, 1e-40])
def test_values_below_the_range_of_f16_scales_are_never_worse_than_zeros(fmt, magnitude):
    x = normal(2, 512, seed=7) * np.float32(magnitude)
    # f16 codes of a value below half the least scale are zeros, those above may err by that half
    assert rmse(x, fmt.decode(fmt.encode(x))) <= max(rmse(x, np.zeros_like(x)), 2.0**-25)


def test_f16_and_bf16_round_to_even_and_keep_nan():
    ties = np.array([[1 + 2**-11, 1 + 3 * 2**-11, -(1 + 2**-11)]], dtype=np.float32)
    assert FORMATS["f16"].decode(FORMATS["f16"].encode(ties)).tolist() == [[1, 1 + 2**-9, -1]]
    ties = np.array([[1 + 2**-8, 1 + 3 * 2**-8, np.nan, np.inf]], dtype=np.float32)
    y = FORMATS["bf16"].decode(FORMATS["bf16"].encode(ties))
    assert y[0, :2].tolist() == [1, 1 + 2**-6]
    assert np.isnan(y[0, 2])
    assert y[0, 3] == np.inf


def test_f16_overflow_becomes_infinity():
    assert FORMATS["f16"].encode(np.array([[1e6]], dtype=np.float32)).view("<f2").tolist() == [[np.inf]]


def test_q4_0_by_hand():
    row = np.zeros((1, 18), dtype=np.uint8)
    row[0, :2] = np.array([0.5], dtype="<f2").view(np.uint8)
    row[0, 2:] = 0x88  # code 8: zero
    row[0, 2] = 0xF1  # element 0: code 1, element 16: code 15
    expected = np.zeros(32, dtype=np.float32)
    expected[0], expected[16] = 0.5 * (1 - 8), 0.5 * (15 - 8)
    assert np.array_equal(FORMATS["q4_0"].decode(row)[0], expected)


def test_q4_k_scales_by_hand():
    row = np.zeros((1, 144), dtype=np.uint8)
    row[0, 0:2] = row[0, 2:4] = np.array([1.0], dtype="<f2").view(np.uint8)
    row[0, 4 + 1] = 5  # group 1: scale 5
    row[0, 4 + 2] = 0b01_000000  # group 6: bit 4 of the scale
    row[0, 4 + 10] = 0x73  # group 6: scale + 3, minimum 7
    row[0, 16:] = 0x21  # even groups code 1, odd groups code 2
    y = FORMATS["q4_k"].decode(row).reshape(8, 32)
    assert y[:, 0].tolist() == [0, 10, 0, 0, 0, 0, 19 - 7, 0]
    assert (y == y[:, :1]).all()


def test_q6_k_planes_by_hand():
    row = np.zeros((1, 210), dtype=np.uint8)
    row[0, 208:] = np.array([1.0], dtype="<f2").view(np.uint8)
    row[0, 192:208] = 1
    row[0, 0] = 0xA5  # element 0 low bits 5, element 64 low bits 10
    row[0, 128] = 0b11_10_01_00  # upper bits of elements 0, 32, 64, 96
    y = FORMATS["q6_k"].decode(row)[0] + 32
    assert y[[0, 32, 64, 96]].tolist() == [5, 16, 32 + 10, 48]
    assert np.delete(y, [0, 32, 64, 96]).max() == 0


def test_tq2_0_is_exact_for_ternary_weights():
    t = np.random.default_rng(5).integers(-1, 2, (4, 512)).astype(np.float32) * np.float32(0.375)
    assert np.array_equal(FORMATS["tq2_0"].decode(FORMATS["tq2_0"].encode(t)), t)


def test_error_measures_by_hand():
    x = np.array([[3.0, 4.0]], dtype=np.float32)
    y = np.array([[3.0, 0.0]], dtype=np.float32)
    assert rmse(x, y) == pytest.approx(np.sqrt(8))
    assert rmse(x, y, np.array([1.0, 0.0])) == 0
    assert cosine(x, y) == pytest.approx(0.6)
    assert cosine(x, np.zeros_like(x)) == 0
    assert FORMATS["q4_k"].bits_per_weight == 4.5


def test_q5_0_by_hand():
    row = np.zeros((1, 22), dtype=np.uint8)
    row[0, :2] = np.array([2.0], dtype="<f2").view(np.uint8)
    row[0, 2] = 0b10  # fifth bit of element 1
    row[0, 4] = 0b1  # fifth bit of element 16
    row[0, 6] = 0x30  # element 16: low bits 3
    expected = np.full(32, -32, dtype=np.float32)
    expected[1], expected[16] = 0, 2 * 3
    assert np.array_equal(FORMATS["q5_0"].decode(row)[0], expected)


def test_q8_0_rounds_half_away_from_zero():
    x = np.zeros((1, 32), dtype=np.float32)
    x[0, :5] = [127, 0.5, 1.5, -0.5, -2.5]  # the scale is 1
    assert FORMATS["q8_0"].encode(x)[0, 2:7].view(np.int8).tolist() == [127, 1, 2, -1, -3]
