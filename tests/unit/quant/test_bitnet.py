"""The layouts of bitnet.cpp: i2_s, tl1, tl2."""

from __future__ import annotations

import numpy as np
import pytest

from tokamak.errors import InvalidParams, ModelFileError, UnsupportedError
from tokamak.quant import FORMATS, by_type_id, lookup

TERNARY = np.random.default_rng(0).integers(-1, 2, (256, 448)).astype(np.int8)


@pytest.mark.parametrize("name", ["i2_s", "i2_s_arm"])
def test_i2_s_is_exact_for_ternary_weights_and_one_row_for_the_tensor(name):
    x = TERNARY[:8, :256] * np.float32(0.375)
    rows = FORMATS[name].encode(x)
    assert rows.shape == (1, x.size // 4 + 32)
    assert np.array_equal(FORMATS[name].decode(rows).reshape(x.shape), x)


def test_i2_s_by_hand():
    row = np.zeros((1, 64), dtype=np.uint8)
    row[0, 0] = 0b10_01_00_01  # elements 0, 32, 64, 96: +1, 0, -1, 0; all others are code 0: -1
    row[0, 32:36] = np.array([2.5], dtype="<f4").view(np.uint8)
    expected = np.full(128, -2.5)
    expected[[0, 32, 64, 96]] = [2.5, 0, -2.5, 0]
    assert np.array_equal(FORMATS["i2_s"].decode(row)[0], expected)
    arm = FORMATS["i2_s_arm"].decode(row)[0]
    assert arm[[0, 16, 32, 48]].tolist() == [2.5, 0, -2.5, 0]


def test_the_type_id_of_i2_s_means_the_common_variant():
    assert by_type_id(36).name == "i2_s"


def test_codes_that_i2_s_never_has_are_refused():
    with pytest.raises(ModelFileError, match="value 3"):
        FORMATS["i2_s"].decode(np.full((1, 64), 0xFF, dtype=np.uint8))


def test_i2_s_without_its_scale_is_refused():
    with pytest.raises(InvalidParams, match="multiple of 32 bytes and 32"):
        FORMATS["i2_s"].decode(np.zeros((1, 16), dtype=np.uint8))


@pytest.mark.parametrize("tiles", [lookup.Tiles(128, 64), lookup.Tiles(128, 64, 64), lookup.Tiles(64, 32)])
def test_tl1_round_trips(tiles):
    packed = lookup.encode_tl1(TERNARY, tiles)
    assert packed.nbytes == TERNARY.size // 4
    assert np.array_equal(lookup.decode_tl1(packed, TERNARY.shape, tiles), TERNARY)


@pytest.mark.parametrize("tiles", [lookup.Tiles(128, 96), lookup.Tiles(256, 192)])
@pytest.mark.parametrize("columns", [448, 384])
def test_tl2_round_trips_with_and_without_a_tail(tiles, columns):
    t = TERNARY[:, :columns]
    packed = lookup.encode_tl2(t, tiles)
    assert np.array_equal(lookup.decode_tl2(np.append(packed, np.uint8(0)), t.shape, tiles), t)


def test_tl1_by_hand():
    t = np.zeros((32, 32), dtype=np.int8)
    t[0, :4] = [1, -1, -1, 0]
    packed = lookup.encode_tl1(t, lookup.Tiles(32, 32))
    assert packed[0] == (3 - 1 + 4) << 4 | (-3 + 4)
    assert (packed[1:] == 0x44).all()


def test_every_preset_fits_its_shape():
    for presets, name in ((lookup.TL1_TILES, "tl1"), (lookup.TL2_TILES, "tl2")):
        for shape in presets:
            assert lookup._tiles(name, presets, shape, None) == presets[shape]


@pytest.mark.parametrize("decode", [lookup.decode_tl1, lookup.decode_tl2])
def test_lookup_layouts_refuse_what_they_cannot_place(decode):
    with pytest.raises(UnsupportedError, match="no preset"):
        decode(np.zeros(10**5, dtype=np.uint8), (256, 448))
    with pytest.raises(UnsupportedError, match="do not fit"):
        decode(np.zeros(10**5, dtype=np.uint8), (200, 448), lookup.Tiles(128, 64))
    with pytest.raises(ModelFileError, match="needs"):
        decode(np.zeros(100, dtype=np.uint8), (256, 448), lookup.Tiles(128, 64))


@pytest.mark.parametrize("encode", [lookup.encode_tl1, lookup.encode_tl2])
def test_lookup_layouts_store_ternary_codes_only(encode):
    with pytest.raises(InvalidParams, match="-1, 0 and 1"):
        encode(np.full((256, 448), 2, dtype=np.int8), lookup.Tiles(128, 64))
