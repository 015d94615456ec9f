"""Matrix kernels against ggml: the same activation bytes, the same decoded rows, products as near as its own kernels."""

import numpy as np
import pytest

from matrices import INTEGER_FORMATS, KERNEL_FORMATS, WHOLE
from reference_data import golden
from tokamak import _native
from tokamak.quant import FORMATS

FOLDER = golden()
pytestmark = pytest.mark.skipif(FOLDER is None, reason="no reference data: set TOKAMAK_SHARED")
RECORDED = [name for name in KERNEL_FORMATS[1:] if name not in WHOLE]  # i2_s is not ggml's
each_isa = pytest.mark.parametrize("isa", _native.isas())


def recorded(name):
    with np.load(FOLDER / "quant" / f"{name.upper()}.npz") as archive:
        return dict(archive)


@each_isa
@pytest.mark.parametrize("name", [name for name in RECORDED if name in INTEGER_FORMATS])
def test_activation_integers_and_scales_are_those_of_ggml(isa, name):
    arrays = recorded(name)
    kind = str(arrays["normal.dot_act_type"]).lower()
    groups = arrays["normal.dot_act_bytes"].view(FORMATS[kind].dtype)
    ours = "q8_256" if kind == "q8_k" else "q8_32"
    for row, want in zip(arrays["normal.dot_act"], groups, strict=True):
        q, d = _native.quantize_activation(isa, ours, row)
        np.testing.assert_array_equal(q, want["qs"].reshape(-1))
        np.testing.assert_array_equal(d, want["d"].astype(np.float32))


@each_isa
@pytest.mark.parametrize("name", RECORDED)
def test_unpacked_rows_are_those_of_ggml(isa, name):
    arrays = recorded(name)
    for key in (k.removesuffix(".bytes") for k in arrays if k.endswith(".bytes")):
        rows, want = arrays[f"{key}.bytes"], arrays[f"{key}.dequant"]
        matrix = _native.PackedMatrix(isa, name, rows.reshape(-1), len(rows), want.shape[1])
        got = np.stack([matrix.unpack_row(i) for i in range(len(rows))])
        np.testing.assert_array_equal(got, want)


@each_isa
@pytest.mark.parametrize("name", RECORDED)
def test_products_are_within_float_rounding_of_ggml(isa, name):
    """ggml adds the same integers with the same scales in another order: n = 2 * 512 / 32 roundings of 2^-24 at most.

    q4_1 and q5_1: it rounds the sum of every group of activations to f16, which costs its product with the minimum 2^-11.
    Float formats round activations there and not here, so they are compared with the exact product instead, over 512 fmas.
    """
    arrays = recorded(name)
    rows, x = arrays["normal.bytes"], arrays["normal.dot_act"]
    got = _native.PackedMatrix(isa, name, rows.reshape(-1), len(rows), x.shape[1]).matmul(x)
    magnitude = np.abs(x.astype(np.float64)) @ np.abs(arrays["normal.dequant"].astype(np.float64)).T
    if name in INTEGER_FORMATS:
        want, roundings = arrays["normal.dot"].T, 64
    else:
        want, roundings = x.astype(np.float64) @ arrays["normal.dequant"].astype(np.float64).T, 512
    allowed = roundings * 2.0**-24 * magnitude
    if "m" in (FORMATS[name].dtype.names or ()):
        m = rows.reshape(-1, FORMATS[name].type_size).view(FORMATS[name].dtype)["m"].reshape(len(rows), -1)
        sums = np.abs(x.reshape(len(x), -1, 32).sum(axis=2, dtype=np.float64)) + 32 * np.abs(x).max() / 254
        allowed = allowed + 2.0**-11 * sums @ np.abs(m.astype(np.float64)).T
    assert np.all(np.abs(got - want) <= allowed)
