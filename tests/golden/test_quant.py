"""Codecs against what ggml wrote and read: decoding bit for bit, encoding at least as close to the original."""

from __future__ import annotations

import numpy as np
import pytest

from reference_data import golden
from tokamak.quant import FORMATS, lookup
from tokamak.quant.error import rmse

FOLDER = golden()
pytestmark = pytest.mark.skipif(FOLDER is None, reason="no reference data: set TOKAMAK_SHARED")

DECODABLE = [name for name, f in FORMATS.items() if f.decoder and not f.tail]
ENCODABLE = [name for name in DECODABLE if FORMATS[name].encoder]
BYTE_EQUAL = ["f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q8_1", "q8_k", "tq1_0", "tq2_0"]


def recorded(name):
    path = FOLDER / "quant" / f"{name.upper()}.npz"
    if not path.exists():
        pytest.skip(f"no recording of {name}")
    with np.load(path) as archive:
        return dict(archive)


def cases(arrays):
    return [key.removesuffix(".bytes") for key in arrays if key.endswith(".bytes")]


@pytest.mark.parametrize("name", DECODABLE)
def test_layout_numbers_are_those_of_ggml(name):
    arrays, fmt = recorded(name), FORMATS[name]
    assert (fmt.type_id, fmt.block_size, fmt.type_size) == tuple(
        int(arrays[key]) for key in ("type_id", "block_size", "type_size")
    )


@pytest.mark.parametrize("name", DECODABLE)
def test_decoding_is_bit_equal(name):
    arrays = recorded(name)
    for case in cases(arrays):
        expected = arrays.get(f"{case}.dequant")
        if expected is None:  # activation formats that ggml does not read back
            continue
        nan = np.isnan(expected)
        for decode in (FORMATS[name].decode, FORMATS[name].decode_plain):
            y = decode(arrays[f"{case}.bytes"])
            assert np.array_equal(np.isnan(y), nan), case
            assert np.array_equal(y.view(np.uint32)[~nan], expected.view(np.uint32)[~nan]), case


@pytest.mark.parametrize("name", ENCODABLE)
def test_encoding_is_at_least_as_close(name):
    arrays, fmt = recorded(name), FORMATS[name]
    for case in cases(arrays):
        theirs = arrays.get(f"{case}.dequant")
        if theirs is None or not np.isfinite(theirs).all():  # huge: ggml itself stores no usable scale
            continue
        importance = arrays.get(f"{case}.imatrix")
        x = arrays[f"{case.removesuffix('_imatrix')}.x"]
        for encode in (fmt.encode, fmt.encode_plain):
            ours = fmt.decode(encode(x, importance))
            assert rmse(x, ours, importance) <= rmse(x, theirs, importance), case


@pytest.mark.parametrize("name", [n for n in BYTE_EQUAL if n in ENCODABLE])
def test_encoding_without_importance_writes_the_same_bytes(name):
    arrays = recorded(name)
    for case in cases(arrays):
        if f"{case}.x" in arrays:
            for encode in (FORMATS[name].encode, FORMATS[name].encode_plain):
                assert np.array_equal(encode(arrays[f"{case}.x"]), arrays[f"{case}.bytes"]), case


def test_i2_s_decodes_bit_equal_and_writes_the_same_bytes_for_ternary_weights():
    arrays, fmt = recorded("i2_s"), FORMATS["i2_s"]
    for case in cases(arrays):
        y = fmt.decode(arrays[f"{case}.bytes"][None])
        assert np.array_equal(y.reshape(arrays[f"{case}.dequant"].shape), arrays[f"{case}.dequant"]), case
        if case not in ("normal", "tiny"):  # not ternary: there bitnet.cpp stores the sign of all above 1e-6
            assert np.array_equal(fmt.encode(arrays[f"{case}.x"])[0], arrays[f"{case}.bytes"]), case


@pytest.mark.parametrize("name", ["tl1", "tl2"])
def test_lookup_layouts_decode_equal_and_write_the_same_bytes(name):
    arrays = recorded(name)
    decode, encode = {
        "tl1": (lookup.decode_tl1, lookup.encode_tl1),
        "tl2": (lookup.decode_tl2, lookup.encode_tl2),
    }[name]
    tiles = lookup.Tiles(int(arrays["BM"]), int(arrays["BK"]), int(arrays["bmm"]))
    t = decode(arrays["bytes"], (int(arrays["M"]), int(arrays["K"])), tiles)
    assert np.array_equal(t * arrays["scale"], arrays["x"])
    packed = encode(t, tiles)
    assert np.array_equal(packed, arrays["bytes"][: packed.size])
    assert not arrays["bytes"][packed.size :].any()
