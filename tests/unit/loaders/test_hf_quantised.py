"""Matrices of GPTQ, AWQ, compressed-tensors and BitNet against the formula of their formats, packed here field by field."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from graphs import batch
from tokamak import executors, models
from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.ir.passes import optimize
from tokamak.loaders import open_checkpoint
from tokamak.loaders.hf_quantised import unpacked
from tokamak.loaders.safetensors import open_file
from tokamak.quant import FORMATS
from tokamak.types import Limits

N, K, GROUP = 16, 256, 64
DTYPES = {"float32": "F32", "float16": "F16", "int32": "I32", "int64": "I64", "int8": "I8", "uint8": "U8"}
RNG = np.random.default_rng(7)


def write_tensors(path, tensors):
    header, data = {}, b""
    for name, values in tensors.items():
        raw = np.ascontiguousarray(values).tobytes()
        header[name] = {
            "dtype": DTYPES[values.dtype.name],
            "shape": list(values.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def words(fields, bits, axis, order=None):
    """int32 along an axis of small unsigned numbers, the first in the lowest bits, or in `order`."""
    fields = np.moveaxis(np.asarray(fields, np.uint64), axis, 0)
    per = 32 // bits
    out = np.zeros((-(-len(fields) // per), *fields.shape[1:]), np.uint64)
    for i in range(len(fields)):
        place = i % per if order is None else order.index(i % per)
        out[i // per] |= fields[i] << np.uint64(bits * place)
    return np.moveaxis(out.astype(np.uint32).view(np.int32), 0, axis)


def drawn(bits, *, symmetric, rows=N, columns=K, group=GROUP):
    codes = RNG.integers(0, 1 << bits, (rows, columns))
    shape = (rows, columns // group)
    zeros = np.full(shape, 1 << (bits - 1)) if symmetric else RNG.integers(1, 1 << bits, shape)
    return codes, zeros, (RNG.random(shape) * 0.02 + 0.001).astype(np.float16)


def gptq(codes, zeros, scales, bits, *, one=1, groups=None):
    return {
        "m.qweight": words(codes, bits, 1).T,
        "m.qzeros": words(zeros - one, bits, 0).T,
        "m.scales": scales.T,
        "m.g_idx": (np.arange(codes.shape[1]) // GROUP if groups is None else groups).astype(np.int32),
    }


def formula(codes, zeros, scales, groups):
    return scales[:, groups].astype(np.float32) * (codes - zeros[:, groups]).astype(np.float32)


def read(tmp_path, tensors, settings):
    write_tensors(tmp_path / "m.safetensors", tensors)
    found = unpacked(open_file(tmp_path / "m.safetensors"), {"quantization_config": settings})
    assert list(found) == ["m.weight"]
    weight = found["m.weight"]
    rows = weight.data().reshape(weight.shape[0], -1)
    weight.release()
    return weight.format, FORMATS[weight.format].decode(rows)


def check(found, expected):
    """Exact in blocks; f16 rounds to half a unit of its 11 bits."""
    kind, values = found
    assert np.abs(values - expected).max() <= (2**-11 * np.abs(expected).max() if kind == "f16" else 0)


@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
@pytest.mark.parametrize(
    ("bits", "symmetric", "kind"),
    [(4, True, "q4_0"), (4, False, "q8_0"), (8, True, "q8_0"), (8, False, "f16"), (2, True, "q4_0")],
)
def test_gptq_is_its_formula(tmp_path, bits, symmetric, kind, version):
    codes, zeros, scales = drawn(bits, symmetric=symmetric)
    if kind == "f16":
        zeros[0, 0] = 1  # codes less zeros reach 254, which int8 does not hold
    settings = {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "checkpoint_format": version}
    found = read(tmp_path, gptq(codes, zeros, scales, bits, one=int(version == "gptq")), settings)
    assert found[0] == kind
    check(found, formula(codes, zeros, scales, np.arange(K) // GROUP))


@pytest.mark.parametrize("symmetric", [True, False])
def test_gptq_in_order_of_activations_is_its_formula(tmp_path, symmetric):
    codes, zeros, scales = drawn(4, symmetric=symmetric)
    groups = RNG.permutation(np.arange(K) // GROUP)
    settings = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True}
    found = read(tmp_path, gptq(codes, zeros, scales, 4, groups=groups), settings)
    assert found[0] == "f16"
    check(found, formula(codes, zeros, scales, groups))


def test_awq_is_its_formula(tmp_path):
    codes, zeros, scales = drawn(4, symmetric=False)
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # nibble i holds this column of eight
    tensors = {
        "m.qweight": words(codes.T, 4, 1, order),
        "m.qzeros": words(zeros.T, 4, 1, order),
        "m.scales": scales.T,
    }
    settings = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}
    found = read(tmp_path, tensors, settings)
    assert found[0] == "q8_0"
    check(found, formula(codes, zeros, scales, np.arange(K) // GROUP))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_compressed_tensors_packed_are_their_formula(tmp_path, bits, symmetric):
    codes, zeros, scales = drawn(bits, symmetric=symmetric)
    tensors = {
        "m.weight_packed": words(codes, bits, 1),
        "m.weight_scale": scales,
        "m.weight_shape": np.array([N, K]),
    }
    if not symmetric:
        tensors["m.weight_zero_point"] = words(zeros, bits, 0)
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    check(read(tmp_path, tensors, settings), formula(codes, zeros, scales, np.arange(K) // GROUP))


@pytest.mark.parametrize("activations", [False, True])
def test_compressed_tensors_of_int8_are_their_formula(tmp_path, activations):
    codes, scales = RNG.integers(-128, 128, (N, K)), (RNG.random((N, 1)) * 0.02).astype(np.float16)
    tensors = {"m.weight": codes.astype(np.int8), "m.weight_scale": scales}
    if activations:
        tensors["m.input_scale"] = np.ones(1, np.float32)
    weights = {"num_bits": 8, "type": "int", "strategy": "channel"}
    settings = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}
    found = read(tmp_path, tensors, settings)
    assert found[0] == "q8_0"
    check(found, scales.astype(np.float32) * codes.astype(np.float32))


@pytest.mark.parametrize("kind", ["bitlinear", "autobitlinear"])
def test_bitnet_scales_divide_or_multiply(tmp_path, kind):
    t, scale = RNG.integers(-1, 2, (N, K)), np.array([0.25], np.float32)
    quarters = (t + 1).astype(np.uint8).reshape(4, N // 4, K)
    packed = sum(quarters[i] << np.uint8(2 * i) for i in range(4))
    settings = {"quant_method": "bitnet", "linear_class": kind, "quantization_mode": "offline"}
    found = read(tmp_path, {"m.weight": packed, "m.weight_scale": scale}, settings)
    assert found[0] == "tq2_0"
    check(found, (t * (4.0 if kind == "bitlinear" else 0.25)).astype(np.float32))


def test_scales_that_f16_does_not_hold_keep_the_matrix_in_f32(tmp_path):
    codes, zeros, scales = drawn(4, symmetric=True)
    tensors = gptq(codes, zeros, scales, 4) | {"m.scales": (scales.T.astype(np.float32) * 1e-6)}
    kind, values = read(tmp_path, tensors, {"quant_method": "gptq", "bits": 4, "group_size": GROUP})
    expected = formula(codes, zeros, scales.astype(np.float32) * 1e-6, np.arange(K) // GROUP)
    assert kind == "f32"
    assert np.allclose(values, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("change", "settings", "error", "message"),
    [
        ({}, {"quant_method": "hqq"}, UnsupportedError, "'hqq' are not read; known: gptq, awq"),
        ({}, {"quant_method": ["gptq"]}, UnsupportedError, "are not read"),
        ({}, {"bits": 3}, UnsupportedError, "bits is 3"),
        ({}, {"group_size": 7}, ModelFileError, "group_size is 7"),
        ({"m.qzeros": None}, {}, ModelFileError, r"no tensor m\.qzeros"),
        ({"m.qzeros": np.zeros((1, 2), np.int32)}, {}, ModelFileError, r"m\.qzeros has shape \[1, 2\]"),
        ({"m.scales": np.zeros((4, 3), np.float16)}, {}, ModelFileError, "no scales of 16 rows"),
        ({"m.g_idx": np.full(K, 99, np.int32)}, {}, ModelFileError, "outside 0 .. 3"),
        ({"m.qweight": np.zeros((32, N), np.int8)}, {}, ModelFileError, "expected 2 axes of I32"),
    ],
)
def test_what_does_not_hold_together_is_refused(tmp_path, change, settings, error, message):
    tensors = gptq(*drawn(4, symmetric=True), 4) | change
    with pytest.raises(error, match=message):
        read(
            tmp_path,
            {k: v for k, v in tensors.items() if v is not None},
            {"quant_method": "gptq", "bits": 4, "group_size": GROUP, **settings},
        )


CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 48,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
SHAPES = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (128, 64),
    "mlp.up_proj": (128, 64),
    "mlp.down_proj": (64, 128),
}


def logits(folder, executor, tensors, settings, **sizes):
    folder.mkdir()
    write_tensors(folder / "model.safetensors", tensors)
    extra = {} if settings is None else {"quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(CONFIG | sizes | extra))
    checkpoint = open_checkpoint(folder)
    graph = models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=64)
    program = executors.get(executor).compile(
        optimize(graph), checkpoint.weights, Limits(8, max_rows=32, kv_dtype="f32")
    )
    ids = list(range(1, 17))
    return program.run(batch(([*range(2)], ids, len(ids)), every_row=True, block=32))


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_gptq_directory_runs_as_its_weights_in_floats(tmp_path, symmetric):
    plain = {"model.embed_tokens.weight": RNG.standard_normal((48, 64)).astype(np.float32)}
    for name in ("norm", "layers.0.input_layernorm", "layers.0.post_attention_layernorm"):
        plain[f"model.{name}.weight"] = np.ones(64, np.float32)
    packed, floats = dict(plain), dict(plain)
    for module, (rows, columns) in SHAPES.items():
        codes, zeros, scales = drawn(4, symmetric=symmetric, rows=rows, columns=columns)
        name = f"model.layers.0.{module}"
        packed |= {k.replace("m.", f"{name}.", 1): v for k, v in gptq(codes, zeros, scales, 4).items()}
        floats[f"{name}.weight"] = formula(codes, zeros, scales, np.arange(columns) // GROUP)
    settings = {"quant_method": "gptq", "bits": 4, "group_size": GROUP}
    expected = logits(tmp_path / "f", "reference", floats, None)
    same = logits(tmp_path / "q", "reference", packed, settings)
    assert np.array_equal(same, expected)
    native = logits(tmp_path / "n", "cpu", packed, settings)
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (native, expected))
    cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    assert cosine.min() > 0.999  # activations of 8 bits


@pytest.mark.parametrize("kind", ["bitlinear", "autobitlinear"])
def test_a_ternary_llama_runs_as_its_weights_in_floats(tmp_path, kind):
    """As Falcon3 1.58 and Llama3 8B 1.58 are written: scales divide in the first form, multiply in the second."""
    plain = {"model.embed_tokens.weight": RNG.standard_normal((48, 256)).astype(np.float32)}
    for name in ("norm", "layers.0.input_layernorm", "layers.0.post_attention_layernorm"):
        plain[f"model.{name}.weight"] = np.ones(256, np.float32)
    packed, floats = dict(plain), dict(plain)
    for module in SHAPES:
        rows = 128 if module[-6] in "kv" and "attn" in module else 256
        t, scale = (
            RNG.integers(-1, 2, (rows, 256)),
            np.array([16.0 if kind == "bitlinear" else 0.0625], np.float32),
        )
        quarters = (t + 1).astype(np.uint8).reshape(4, rows // 4, 256)
        packed[f"model.layers.0.{module}.weight"] = sum(quarters[i] << np.uint8(2 * i) for i in range(4))
        packed[f"model.layers.0.{module}.weight_scale"] = scale
        floats[f"model.layers.0.{module}.weight"] = (t * 0.0625).astype(np.float32)
    settings = {"quant_method": "bitnet", "linear_class": kind, "quantization_mode": "offline"}
    sizes = {"hidden_size": 256, "intermediate_size": 256}
    expected = logits(tmp_path / "f", "reference", floats, None, **sizes)
    assert np.array_equal(logits(tmp_path / "q", "reference", packed, settings, **sizes), expected)
