"""Safetensors files and directories that are broken or lie: refused by name, never believed."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.loaders import open_checkpoint
from tokamak.loaders.safetensors import open_file, open_tensors


def content(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_a_good_file_reads(tmp_path):
    values = np.arange(4, dtype=np.float32)
    (tmp_path / "m.safetensors").write_bytes(
        content(
            {"__metadata__": {"format": "pt"}, "a": entry(), "b": entry(offsets=(8, 16))}, values.tobytes()
        )
    )
    found = open_file(tmp_path / "m.safetensors")
    assert found["b"].values().tolist() == [2, 3]
    assert found["a"].format == "f32"
    found["a"].release()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"", "cannot be read"),
        (b"\x02\0\0\0", "no safetensors file"),
        (content({}, length=2**63), "no safetensors file"),
        (content({}, length=200_000_000), "no safetensors file"),
        (content({"a": entry()}, b"\0" * 8, length=1), "no safetensors file"),
        (content(b"[1, 2]  "), "no object"),
        (content(b"{nope}  "), "no valid JSON"),
        (content(b"\xff\xfe{}  "), "no valid JSON"),
        (content(b"[" * 100_000), "no valid JSON"),
        (content(b'{"a": 1, "a": 2}'), "names a key twice"),
        (content({"a": 3}), "no dtype known"),
        (content({"a": entry(dtype="Q4")}, b"\0" * 8), "no dtype known"),
        (content({"a": entry(shape=(-2,))}, b"\0" * 8), "has the shape"),
        (content({"a": entry(shape=(2.0,))}, b"\0" * 8), "has the shape"),
        (content({"a": entry(shape=[1] * 9)}, b"\0" * 8), "has the shape"),
        (content({"a": entry(shape=(2**40, 2**40))}, b"\0" * 8), "takes"),
        (content({"a": entry(shape=(3,))}, b"\0" * 8), "takes 12 bytes, not 8"),
        (content({"a": entry(offsets=(0, 8, 9))}, b"\0" * 8), "has the offsets"),
        (content({"a": entry(offsets=(True, 8))}, b"\0" * 8), "has the offsets"),
        (content({"a": entry(offsets=(8, 0))}, b"\0" * 8), "lies at bytes"),
        (content({"a": entry(offsets=(0, 8))}, b"\0" * 7), "lies at bytes"),
        (content({"a": entry(), "b": entry(offsets=(4, 12))}, b"\0" * 16), "overlaps"),
        (content({"a": entry(offsets=(4, 12))}, b"\0" * 16), "gap"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path, broken, message):
    (tmp_path / "m.safetensors").write_bytes(broken)
    with pytest.raises(ModelFileError, match=message) as caught:
        open_file(tmp_path / "m.safetensors")
    assert "m.safetensors" in str(caught.value)


def test_a_dtype_without_codec_is_refused_on_use(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(content({"a": entry((8,), dtype="F8_E4M3")}, b"\0" * 8))
    with pytest.raises(UnsupportedError, match="tensor a is F8_E4M3"):
        open_file(tmp_path / "m.safetensors")["a"].values()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "no weight_map"),
        ({"weight_map": {"a": "../m.safetensors"}}, "is said to be in"),
        ({"weight_map": {"a": "/etc/passwd"}}, "is said to be in"),
        ({"weight_map": {"a": 3}}, "is said to be in"),
        ({"weight_map": {"a": "none.safetensors"}}, "cannot be read"),
        ({"weight_map": {"x": "m.safetensors"}}, "does not have tensor 'x'"),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(tmp_path, index, message):
    (tmp_path / "m.safetensors").write_bytes(content({"a": entry()}, b"\0" * 8))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFileError, match=message):
        open_tensors(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(content({"a": entry()}, b"\0" * 8))
    with pytest.raises(ModelFileError, match="is in two files"):
        open_tensors(tmp_path)


CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 4,
    "max_position_embeddings": 16,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
TENSORS = {
    "model.embed_tokens.weight": (4, 8),
    "model.norm.weight": (8,),
    "model.layers.0.input_layernorm.weight": (8,),
    "model.layers.0.post_attention_layernorm.weight": (8,),
    **{f"model.layers.0.self_attn.{n}_proj.weight": (8, 8) for n in "qkvo"},
    **{f"model.layers.0.mlp.{n}_proj.weight": (8, 8) for n in ("gate", "up", "down")},
}


def write(folder, config=None, tensors=None, dtype="F32"):
    (folder / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    header, at = {}, 0
    for name, shape in (TENSORS if tensors is None else tensors).items():
        size = 4 * int(np.prod(shape))
        header[name] = entry(shape, (at, at + size), dtype)
        at += size
    (folder / "model.safetensors").write_bytes(content(header, b"\0" * at))
    return folder


def test_the_smallest_model_opens(tmp_path):
    checkpoint = open_checkpoint(write(tmp_path))
    assert checkpoint.config["hidden_size"] == 8
    assert checkpoint.weights["layers.0.self_attn.q_proj.weight"].rows().shape == (8, 32)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"model_type": "unknown"}, UnsupportedError, "model_type 'unknown' is not implemented"),
        ({"model_type": ["llama"]}, UnsupportedError, "is not implemented"),
        ({"hidden_size": -8}, ModelFileError, "hidden_size is -8"),
        ({"hidden_size": 8.5}, ModelFileError, "hidden_size is 8.5"),
        ({"hidden_size": 16}, ModelFileError, "has shape"),
        ({"num_hidden_layers": 2**31}, ModelFileError, "num_hidden_layers"),
        ({"num_hidden_layers": 2**30}, ModelFileError, r"has no tensor model\.layers\.1"),
        ({"rms_norm_eps": "small"}, ModelFileError, "rms_norm_eps is 'small'"),
        ({"hidden_act": "gelu"}, UnsupportedError, "activation 'gelu'"),
        ({"mystery_scale": 2.0}, UnsupportedError, "mystery_scale may change"),
        ({"quantization_config": {"bits": 4}}, UnsupportedError, "quantization_config"),
        ({"rope_scaling": {"rope_type": "spiral"}}, UnsupportedError, "rope type 'spiral'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, ModelFileError, "factor is 0"),
        ({"rope_scaling": 7}, ModelFileError, "rope_scaling is 7"),
        ({"rope_scaling": {"rope_type": "llama3"}}, ModelFileError, "freq_factor is None"),
        (
            {"rope_scaling": {"rope_type": "longrope", "long_factor": [1]}},
            ModelFileError,
            "must be 2 numbers",
        ),
        ({"tie_word_embeddings": False}, ModelFileError, r"no tensor lm_head\.weight"),
    ],
)
def test_configurations_that_do_not_hold_are_refused(tmp_path, config, error, message):
    with pytest.raises(error, match=message):
        open_checkpoint(write(tmp_path, config))


def test_tensors_that_nothing_uses_are_refused(tmp_path):
    with pytest.raises(UnsupportedError, match=r"model\.layers\.0\.secret\.weight are not used"):
        open_checkpoint(write(tmp_path, tensors={**TENSORS, "model.layers.0.secret.weight": (1,)}))


def test_integers_are_no_weights(tmp_path):
    with pytest.raises(UnsupportedError, match="is i32, expected a floating-point dtype"):
        open_checkpoint(write(tmp_path, dtype="I32"))


def test_a_directory_without_configuration_is_told(tmp_path):
    write(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UnsupportedError, match=r"without a config\.json"):
        open_checkpoint(tmp_path)
