"""Every instruction set of this machine x every weight format: value, exact integers, bit invariance."""

import os
import subprocess
import sys

import numpy as np
import pytest

from matrices import (
    INTEGER_FORMATS,
    KERNEL_FORMATS,
    WHOLE,
    decoded,
    dequantised_activations,
    group,
    magnitude,
    random_rows,
    set_scales,
)
from tokamak import _native
from tokamak.errors import InvalidParams, UnavailableError
from tokamak.quant import FORMATS

EPS = 2.0**-24  # half a unit in the last place of float32
ISAS = _native.isas()

each_isa = pytest.mark.parametrize("isa", ISAS)
each_format = pytest.mark.parametrize("name", KERNEL_FORMATS)


def packed(isa, name, rows, cols):
    return _native.PackedMatrix(isa, name, rows.reshape(-1), len(rows), cols)


def assert_close(isa, name, rows, x, bias=None):
    """Chain of one fma per group: n roundings, and at most 8 more in scales, minima, conversion and the oracle's weights."""
    weights, acts = (
        decoded(name, rows).astype(np.float64),
        dequantised_activations(_native, isa, name, x),
    )
    got = packed(isa, name, rows, x.shape[1]).matmul(x, bias)
    want = acts @ weights.T + (0.0 if bias is None else bias.astype(np.float64))
    chain = 2 * x.shape[1] // group(name) + 8
    allowed = chain * EPS * (np.abs(acts) @ magnitude(name, rows).T + (0.0 if bias is None else np.abs(bias)))
    assert np.all(np.abs(got - want) <= allowed + 1e-37), np.max(np.abs(got - want) / (allowed + 1e-37))


@each_isa
@each_format
@pytest.mark.parametrize("tokens", [1, 3, 7, 26])
def test_matmul_is_the_product_of_decoded_weights_and_decoded_activations(isa, name, tokens):
    rng = np.random.default_rng(tokens)
    rows = random_rows(name, 43, 1024, rng)
    assert_close(isa, name, rows, rng.standard_normal((tokens, 1024)).astype(np.float32))
    assert_close(
        isa,
        name,
        rows,
        rng.standard_normal((tokens, 1024)).astype(np.float32),
        np.linspace(-3, 3, 43, dtype=np.float32),
    )


@each_isa
@pytest.mark.parametrize("name", INTEGER_FORMATS)
@pytest.mark.parametrize("code", [0x00, 0xFF, 0x80, 0x7F, 0x55])
@pytest.mark.parametrize("tokens", [1, 9])
def test_largest_codes_and_activations_do_not_overflow(isa, name, code, tokens):
    """All codes equal and extreme, all activations +-127: the largest sums the integer kernels can meet."""
    fmt = FORMATS[name]
    rows = np.full((17, 512 // fmt.block_size * fmt.type_size), code, dtype=np.uint8)
    if name in WHOLE and code & code >> 1 & 0x55:
        pytest.skip("code 3 does not exist")
    set_scales(name, rows.reshape(-1, fmt.type_size), 0.5)
    signs = np.ones((tokens, 512), dtype=np.float32)
    signs[1::3] = -1
    signs[2::3] = np.where(np.arange(512) % 4 < 2, 1, -1)
    assert_close(isa, name, rows, signs)


@each_isa
@pytest.mark.parametrize("name", INTEGER_FORMATS)
@pytest.mark.parametrize("tokens", [1, 2, 5, 20])
def test_integer_sums_are_exact(isa, name, tokens):
    """Scales of one and few columns: every float step is an integer below 2^24, so nothing may round."""
    rng = np.random.default_rng(5)
    rows = random_rows(name, 21, 512, rng, scale=1.0)
    x = np.zeros((tokens, 512), dtype=np.float32)
    for start in range(0, 512, 32):
        x[:, start + rng.integers(0, 31)] = rng.integers(-127, 128, tokens)
        x[:, start + 31] = 127  # fixes the scale of every group at one
    acts = dequantised_activations(_native, isa, name, x)
    np.testing.assert_array_equal(np.abs(acts), np.abs(x))
    want = acts @ decoded(name, rows).astype(np.float64).T
    assert np.abs(want).max() < 2**24
    np.testing.assert_array_equal(packed(isa, name, rows, 512).matmul(x), want)


@each_isa
@each_format
def test_a_row_is_the_same_bits_alone_and_among_any_number_of_tokens(isa, name):
    rng = np.random.default_rng(1)
    cols = 512 if group(name) > 1 else 531
    matrix = packed(isa, name, random_rows(name, 53, cols, rng), cols)
    x = rng.standard_normal((200, cols)).astype(np.float32)
    alone = np.concatenate([matrix.matmul(x[t : t + 1]) for t in range(len(x))])
    for tokens in [*range(2, 18), 31, 200]:
        np.testing.assert_array_equal(matrix.matmul(x[:tokens]), alone[:tokens])
    np.testing.assert_array_equal(matrix.matmul(x[3:12]), alone[3:12])


@each_isa
@each_format
def test_panels_may_be_split_anywhere_and_rows_cut_anywhere(isa, name):
    rng = np.random.default_rng(2)
    rows = random_rows(name, 75, 256, rng)
    x = rng.standard_normal((7, 256)).astype(np.float32)
    whole = packed(isa, name, rows, 256)
    want = whole.matmul(x)
    for tokens in (1, 7):
        for cut in range(whole.panels + 1):
            low = whole.matmul(x[:tokens], panel_end=cut)
            high = whole.matmul(x[:tokens], panel_begin=cut)
            np.testing.assert_array_equal(np.where(np.isnan(low), high, low), want[:tokens])
            assert np.all(np.isnan(low) != np.isnan(high))
    for count in (1, 7, 8, 9, 15, 16, 17, 31):
        np.testing.assert_array_equal(packed(isa, name, rows[:count], 256).matmul(x), want[:, :count])


@each_isa
@each_format
@pytest.mark.parametrize("groups", [1, 2, 3, 5, 9])
def test_any_whole_number_of_groups_is_a_row(isa, name, groups):
    rng = np.random.default_rng(3)
    cols = groups * FORMATS[name].block_size
    x = rng.standard_normal((6, cols)).astype(np.float32)
    rows = random_rows(name, 9, cols, rng)
    assert_close(isa, name, rows, x)
    assert_close(isa, name, rows, x[:1])


@each_isa
@each_format
def test_unpacked_rows_are_the_bits_of_the_codec(isa, name):
    rows = random_rows(name, 19, 512, np.random.default_rng(4))
    matrix = packed(isa, name, rows, 512)
    got = np.stack([matrix.unpack_row(i) for i in range(19)])
    np.testing.assert_array_equal(got.view(np.uint32), decoded(name, rows).view(np.uint32))


@each_isa
def test_columns_that_are_no_whole_group_are_refused(isa):
    for name, cols in (("q4_k", 128), ("tq2_0", 300), ("q8_0", 16)):
        with pytest.raises(InvalidParams, match="multiples of"):
            _native.PackedMatrix(isa, name, np.zeros(64, np.uint8), 1, cols)
    with pytest.raises(InvalidParams, match="needs 2 \\* 34"):
        _native.PackedMatrix(isa, "q8_0", np.zeros(67, np.uint8), 2, 32)
    with pytest.raises(InvalidParams, match="no kernel"):
        _native.PackedMatrix(isa, "q3_x", np.zeros(64, np.uint8), 1, 32)


def test_a_name_that_is_no_instruction_set_is_refused():
    with pytest.raises(InvalidParams, match="unknown"):
        _native.quantize_activation("avx3", "q8_32", np.zeros(32, np.float32))
    for missing in {"avx2", "avx512vnni"} - set(ISAS):
        with pytest.raises(UnavailableError, match="not available"):
            _native.quantize_activation(missing, "q8_32", np.zeros(32, np.float32))


def chosen(isa):
    """What a new interpreter answers when TOKAMAK_ISA is `isa`: the table's name, or the name of the error."""
    program = """
from tokamak import _native, errors
try:
    print(_native.isa())
except errors.TokamakError as error:
    print(type(error).__name__)
"""
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TOKAMAK_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


@pytest.mark.parametrize("isa", [*ISAS, "avx3"])
def test_the_environment_forces_an_instruction_set_or_fails(isa):
    assert chosen(isa) == (isa if isa in ISAS else "InvalidParams")


@each_isa
def test_rounding_is_to_nearest_even(isa):
    x = np.zeros(256, dtype=np.float32)
    x[0], x[1:7] = -127, [0.5, 1.5, 2.5, -0.5, -1.5, -2.5]
    q, d = _native.quantize_activation(isa, "q8_256", x)
    assert d[0] == 1
    assert q[:7].tolist() == [-127, 0, 2, 2, 0, -2, -2]


@each_isa
def test_activations_equal_the_scalar_twin(isa):
    rng = np.random.default_rng(6)
    x = (rng.standard_normal(4096) * np.exp2(rng.integers(-40, 40, 4096))).astype(np.float32)
    x[256:512] = 0
    x[600:632] *= np.float32(1e-39)
    for kind in ("q8_32", "q8_256", "q8_row"):
        for got, want in zip(
            _native.quantize_activation(isa, kind, x),
            _native.quantize_activation("scalar", kind, x),
            strict=True,
        ):
            np.testing.assert_array_equal(got, want)


@each_isa
@each_format
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_activation_poisons_its_own_token_only(isa, name, bad):
    rng = np.random.default_rng(7)
    rows = random_rows(name, 20, 512, rng)
    x = rng.standard_normal((6, 512)).astype(np.float32)
    matrix = packed(isa, name, rows, 512)
    want = matrix.matmul(x)
    x[2, 77] = bad
    got = matrix.matmul(x)
    np.testing.assert_array_equal(np.delete(got, 2, axis=0), np.delete(want, 2, axis=0))
    assert not np.isfinite(got[2]).any()
    np.testing.assert_array_equal(np.isfinite(matrix.matmul(x[2:3])), False)


@each_isa
@each_format
def test_any_bytes_are_a_matrix(isa, name):
    """No byte pattern of a file may crash a kernel; infinite and NaN scales give what float arithmetic gives."""
    rng = np.random.default_rng(8)
    fmt = FORMATS[name]
    rows = rng.integers(0, 256, (33, 512 // fmt.block_size * fmt.type_size), dtype=np.uint8)
    matrix = packed(isa, name, rows, 512)
    x = rng.standard_normal((9, 512)).astype(np.float32)
    x[4] = np.copysign(np.float32(3e38), x[4])
    many = matrix.matmul(x)
    one = np.concatenate([matrix.matmul(x[t : t + 1]) for t in range(9)])
    np.testing.assert_array_equal(many, one)
    if name not in WHOLE:  # whose codec refuses the code that does not exist
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(matrix.unpack_row(32), fmt.decode(rows[32:])[0])
