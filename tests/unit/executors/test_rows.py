"""How weights that are no rows of their own reach the packer."""

import numpy as np
import pytest

from tokamak import _native
from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.executors.rows import decoded, matrix_rows, packed_format
from tokamak.quant import FORMATS
from tokamak.quant.bitnet import encode_rows4
from tokamak.quant.lookup import encode_tl1, encode_tl2


class Bytes:
    """A types.Weight that holds its bytes."""

    def __init__(self, name, shape, data):
        self.format, self.shape, self.data = name, shape, data

    def rows(self):
        return self.data

    def release(self):
        pass


def ternary(shape, seed=0):
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(np.int8)


def product(weight, x):
    name, data, scale = matrix_rows(weight, *weight.shape)
    packed = _native.PackedMatrix("scalar", name, data.reshape(-1), *weight.shape, scale)
    return packed.matmul(x)


@pytest.mark.parametrize("name", ["i2_s", "i2_s_arm"])
def test_a_whole_tensor_is_cut_into_rows_and_keeps_its_scale(name):
    t = ternary((24, 256))
    data = FORMATS[name].encode(t.astype(np.float32) * np.float32(0.37))
    weight = Bytes(name, t.shape, data)
    np.testing.assert_array_equal(decoded(weight), t * np.float32(0.37))
    x = np.zeros((2, 256), np.float32)
    x[0, 5], x[1, 200] = 127, -127
    np.testing.assert_array_equal(product(weight, x)[0], (t[:, 5] * np.float32(127) * np.float32(0.37)))
    np.testing.assert_array_equal(product(weight, x)[1], (t[:, 200] * np.float32(-127) * np.float32(0.37)))


@pytest.mark.parametrize(("name", "encode"), [("tl1", encode_tl1), ("tl2", encode_tl2)])
def test_lookup_layouts_of_preset_shapes_are_the_same_matrix(name, encode):
    t = ternary((1536, 1536))
    weight = Bytes(name, t.shape, encode(t)[None])
    assert packed_format(weight) == "i2_s_arm"
    np.testing.assert_array_equal(decoded(weight), t)
    x = np.zeros((1, 1536), np.float32)
    x[0, 777] = 127
    np.testing.assert_array_equal(product(weight, x)[0], t[:, 777] * np.float32(127))


def test_four_rows_to_a_byte_are_the_same_matrix():
    t = ternary((16, 192))
    data = np.concatenate([encode_rows4(t), np.zeros(32, np.uint8)])
    data[-32:-28] = np.float32(0.25).reshape(1).view(np.uint8)
    weight = Bytes("i2_s_rows4", t.shape, data[None])
    np.testing.assert_array_equal(decoded(weight), t * np.float32(0.25))
    x = np.zeros((1, 192), np.float32)
    x[0, 70] = 127
    np.testing.assert_array_equal(product(weight, x)[0], t[:, 70] * np.float32(127) * np.float32(0.25))
    with pytest.raises(UnsupportedError, match="rows in fours"):
        decoded(Bytes("i2_s_rows4", (6, 32), data[None, :80]))


def test_rows_that_share_a_group_are_refused():
    data = FORMATS["i2_s"].encode(ternary((2, 64)).astype(np.float32))
    with pytest.raises(UnsupportedError, match="would span two rows"):
        matrix_rows(Bytes("i2_s", (2, 64), data), 2, 64)


def test_a_tensor_of_another_length_is_refused():
    with pytest.raises(ModelFileError, match="needs 96 bytes and has 90"):
        matrix_rows(Bytes("i2_s", (2, 128), np.zeros((1, 90), np.uint8)), 2, 128)


def test_the_code_that_no_writer_writes_is_refused():
    data = FORMATS["i2_s"].encode(ternary((2, 128)).astype(np.float32))
    data[0, 17] = 0x30
    with pytest.raises(ModelFileError, match="the value 3"):
        matrix_rows(Bytes("i2_s", (2, 128), data), 2, 128)
