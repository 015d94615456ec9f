"""Four-level formats that go by the type id of i2_s: codecs, how a file tells them, and what they run as."""

from __future__ import annotations

import numpy as np
import pytest

import tokamak
from tokamak import _native
from tokamak.errors import ModelFileError
from tokamak.executors.rows import matrix_rows, packed_format
from tokamak.loaders.gguf import Tensor, open_gguf
from tokamak.loaders.writer import TensorSource, Typed, write_gguf
from tokamak.quant import FORMATS, by_type_id, crumbs

RNG = np.random.default_rng(3)
LEVELS = {"i2_f16": (-2, -1, 0, 1), "qk256": (-2, -1, 1, 2)}


def values(name: str, shape: tuple[int, int]) -> np.ndarray:
    """What the format holds exactly; every block has its lowest level."""
    x = RNG.choice(np.array(LEVELS[name], np.float32), shape)
    x[:, ::32] = -2
    return x * np.float32(0.75 if name == "i2_f16" else 1)


@pytest.mark.parametrize("name", LEVELS)
def test_what_the_format_can_hold_comes_back(name):
    x = values(name, (6, 512))
    rows = FORMATS[name].encode(x)
    assert rows.shape == (6, 160 if name == "i2_f16" else 128)
    np.testing.assert_array_equal(FORMATS[name].decode(rows), x)


def test_bytes_by_hand():
    block = np.zeros((1, 10), np.uint8)
    block[0, 0] = 0b11_10_01_00  # elements 0..3: -2, -1, 0, 1; the others have code 0
    block[0, 8:] = np.array([0.5], "<f2").view(np.uint8)
    assert FORMATS["i2_f16"].decode(block)[0, :5].tolist() == [-1, -0.5, 0, 0.5, -1]
    block = np.zeros((1, 64), np.uint8)
    block[0, 0] = 0b11_10_01_00
    assert FORMATS["qk256"].decode(block)[0, :5].tolist() == [-2, -1, 1, 2, -2]


def test_other_weights_take_the_nearest_level():
    x = RNG.normal(size=(4, 256)).astype(np.float32)
    near = FORMATS["qk256"].decode(FORMATS["qk256"].encode(x))
    levels = np.array(LEVELS["qk256"], np.float32)
    np.testing.assert_array_equal(near, levels[np.abs(x[..., None] - levels).argmin(-1)])
    close = FORMATS["i2_f16"].decode(FORMATS["i2_f16"].encode(x))
    assert np.square(close - x).mean() < 0.2


@pytest.mark.parametrize("shape", [(4, 512), (3, 256), (64, 1024)])
@pytest.mark.parametrize("name", [*LEVELS, "i2_s"])
def test_a_file_tells_them_by_their_bytes(name, shape, tmp_path):
    x = values(name, shape) if name in LEVELS else RNG.integers(-1, 2, shape).astype(np.float32)
    rows = FORMATS[name].encode(x)
    sources = [TensorSource(n, name, shape, lambda: rows) for n in ("a", "b")]
    write_gguf(tmp_path / "m.gguf", {}, sources)
    tensors = open_gguf(tmp_path / "m.gguf").tensors
    assert [t.format for t in tensors.values()] == [name, name]
    assert all(t.nbytes == rows.size for t in tensors.values())


@pytest.mark.parametrize("name", LEVELS)
def test_they_run_as_q4_0_with_the_same_values(name, tmp_path):
    x = values(name, (16, 256))
    write_gguf(tmp_path / "m.gguf", {}, [TensorSource("a", name, x.shape, lambda: FORMATS[name].encode(x))])
    weight = Tensor(open_gguf(tmp_path / "m.gguf").tensors["a"], x.shape)
    assert packed_format(weight) == "q4_0"
    format_, data, scale = matrix_rows(weight, *x.shape)
    assert (format_, scale) == ("q4_0", 1.0)
    np.testing.assert_array_equal(FORMATS["q4_0"].decode(data), x)
    packed = _native.PackedMatrix("scalar", format_, data.reshape(-1), *x.shape, scale)
    probe = np.zeros((1, 256), np.float32)
    probe[0, 77] = 127
    np.testing.assert_allclose(packed.matmul(probe)[0], x[:, 77] * 127, rtol=1e-3)


def test_a_size_that_fits_none_is_refused_with_the_counts(tmp_path):
    source = TensorSource("a", "qk256", (3, 256), lambda: np.zeros((3, 64), np.uint8))
    write_gguf(tmp_path / "m.gguf", {}, [source])
    whole = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(whole[:-64])
    with pytest.raises(ModelFileError, match="128 bytes; 768 elements need 224, or 240 as i2_f16, or 192"):
        open_gguf(tmp_path / "m.gguf")


def test_the_type_id_alone_never_means_them():
    assert by_type_id(36).name == "i2_s"


def test_a_model_gives_the_bits_of_the_same_model_in_q4_0(tiny_gguf, tmp_path):
    path = tiny_gguf("bitnet", "i2_f16")
    model = open_gguf(path)
    types = model.value_types

    def source(t):
        if t.format != "i2_f16":
            return TensorSource(t.name, t.format, t.shape, t.data)
        rows = t.data().reshape(t.shape[0], -1)
        return TensorSource(t.name, "q4_0", t.shape, lambda: crumbs.to_q4_0(rows, FORMATS["i2_f16"].dtype))

    metadata = {k: Typed(types[k], v) for k, v in model.metadata.items()}
    write_gguf(tmp_path / "q4_0.gguf", metadata, [source(t) for t in model.tensors.values()])
    theirs, ours = (
        tokamak.load(p).generate("once upon", max_tokens=8, temperature=0, logprobs=3)
        for p in (tmp_path / "q4_0.gguf", path)
    )
    assert (ours.token_ids, ours.logprobs) == (theirs.token_ids, theirs.logprobs)
