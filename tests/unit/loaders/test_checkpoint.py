"""What a checkpoint says about a file: configuration, parameters, vocabulary size, and in words what is no model."""

from __future__ import annotations

import numpy as np
import pytest

import tiny
from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.loaders import TensorSource, Typed, open_checkpoint, open_gguf, write_gguf
from tokamak.loaders.config import resolve_vocab_size

FACTORS = np.linspace(1, 2, 8, dtype=np.float32)


def rewritten(path, source, metadata=None, tensors=(), drop=()):
    """`source` again with other metadata, without the tensors `drop` and with more."""
    model = open_gguf(source)
    types = model.parts[0].value_types
    values = {k: Typed(types[k], v) for k, v in model.metadata.items()} | (metadata or {})
    kept = [
        TensorSource(t.name, t.format, t.shape, t.data) for t in model.tensors.values() if t.name not in drop
    ]
    write_gguf(path, {k: v for k, v in values.items() if v is not None}, [*kept, *tensors])
    return path


def vector(name, values=FACTORS):
    return TensorSource(name, "f32", (len(values),), lambda: values.view(np.uint8))


def scaling(path):
    return open_checkpoint(path).config.get("rope_scaling")


def test_keys_become_names_of_hugging_face(tiny_gguf):
    config = open_checkpoint(tiny_gguf("llama", keys={"attention.sliding_window": 33}, context=77)).config
    assert config["hidden_size"] == 64
    assert config["intermediate_size"] == 128
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (4, 2, 16)
    assert (config["max_position_embeddings"], config["sliding_window"]) == (77, 33)
    assert (config["rope_theta"], config["rotary_dim"]) == (10000.0, 16)
    assert (config["vocab_size"], config["tie_word_embeddings"]) == (tiny.VOCAB_SIZE, False)


def test_what_is_absent_has_the_default_of_the_format(tiny_gguf):
    absent = ("attention.head_count_kv", "attention.key_length", "attention.value_length")
    keys = {
        **dict.fromkeys((*absent, "rope.freq_base", "rope.dimension_count")),
        "attention.sliding_window": 0,
    }
    config = open_checkpoint(tiny_gguf("llama", num_key_value_heads=4, keys=keys)).config
    assert (config["num_key_value_heads"], config["head_dim"]) == (4, 16)
    assert (config["rope_theta"], config["rotary_dim"]) == (10000.0, 16)
    assert "sliding_window" not in config
    assert "rope_scaling" not in config


def test_a_value_per_layer_counts_as_one_if_all_are_equal(tiny_gguf):
    keys = {"attention.head_count_kv": Typed("array[int32]", [2, 2])}
    assert open_checkpoint(tiny_gguf("llama", keys=keys)).config["num_key_value_heads"] == 2


@pytest.mark.parametrize(
    "keys", [{"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"rope.scale_linear": 4.0}]
)
def test_linear_scaling_in_both_spellings(tiny_gguf, keys):
    assert scaling(tiny_gguf("llama", keys=keys)) == {"rope_type": "linear", "factor": 4.0}


@pytest.mark.parametrize("kind", ["linear", "none"])
def test_scaling_by_one_or_none_is_no_scaling(tiny_gguf, kind):
    keys = {"rope.scaling.type": kind, "rope.scaling.factor": 1.0 if kind == "linear" else 3.0}
    assert scaling(tiny_gguf("llama", keys=keys)) is None


def test_yarn_multiplies_its_attention_factor_with_the_one_of_the_file(tiny_gguf):
    keys = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 128,
        "rope.scaling.yarn_beta_fast": 16.0,
    }
    plain = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    plain |= {"beta_fast": 16.0, "beta_slow": 1.0}
    assert scaling(tiny_gguf("qwen2", keys=keys)) == plain
    more = scaling(tiny_gguf("qwen2", keys=keys | {"rope.scaling.attn_factor": 0.5}))
    assert more == plain | {"attention_factor": pytest.approx(0.5 * (0.1 * np.log(4) + 1))}


def test_factor_tensors_go_to_the_configuration(tiny_gguf, tmp_path):
    one = rewritten(tmp_path / "a.gguf", tiny_gguf(), tensors=[vector("rope_freqs.weight")])
    assert (open_checkpoint(one).config["rope_freq_factors"] == FACTORS).all()
    both = [vector("rope_factors_long.weight", 2 * FACTORS), vector("rope_factors_short.weight")]
    got = scaling(rewritten(tmp_path / "b.gguf", tiny_gguf("phi3"), tensors=both))
    assert got["rope_type"] == "longrope"
    assert (got["long_factor"] == 2 * FACTORS).all()
    assert (got["short_factor"] == FACTORS).all()
    with pytest.raises(ModelFileError, match="not both"):
        open_checkpoint(rewritten(tmp_path / "c.gguf", tiny_gguf("phi3"), tensors=both[:1]))
    with pytest.raises(ModelFileError, match=r"rope_freqs\.weight has factors that are not positive"):
        open_checkpoint(
            rewritten(tmp_path / "d.gguf", tiny_gguf(), tensors=[vector("rope_freqs.weight", -FACTORS)])
        )


def test_rows_of_q_and_k_come_in_half_split_order_for_weights_and_biases(tiny_gguf, tmp_path):
    bias = vector("blk.0.attn_q.bias", np.arange(64, dtype=np.float32))
    weights = open_checkpoint(rewritten(tmp_path / "m.gguf", tiny_gguf(), tensors=[bias])).weights
    raw = open_gguf(tiny_gguf()).tensors["blk.0.attn_k.weight"]
    half_split = [*range(0, 16, 2), *range(1, 16, 2)]
    got = weights["layers.0.self_attn.k_proj.weight"].rows()
    assert (got[:16] == raw.data().reshape(32, -1)[half_split]).all()
    assert weights["layers.0.self_attn.q_proj.bias"].rows().view(np.float32)[0, 16:32].tolist() == [
        16 + i for i in half_split
    ]


def test_a_fused_phi2_matrix_is_cut_into_three(tiny_gguf, tmp_path):
    source = tiny_gguf("phi2")
    model, fused, names = open_gguf(source), [], []
    for layer in range(2):
        for kind, fmt in (("weight", "q8_0"), ("bias", "f32")):
            parts = [f"blk.{layer}.attn_{x}.{kind}" for x in "qkv"]
            content = np.concatenate([model.tensors[name].data() for name in parts])
            shape = (3 * 64, 64) if kind == "weight" else (3 * 64,)
            fused.append(TensorSource(f"blk.{layer}.attn_qkv.{kind}", fmt, shape, lambda c=content: c))
            names += parts
    cut = open_checkpoint(rewritten(tmp_path / "m.gguf", source, tensors=fused, drop=names)).weights
    apart = open_checkpoint(source).weights
    assert set(cut) == set(apart)
    for path, weight in apart.items():
        assert (cut[path].rows() == weight.rows()).all()
        assert (cut[path].shape, cut[path].nbytes) == (weight.shape, weight.nbytes)


def test_a_missing_tensor_is_named(tiny_gguf, tmp_path):
    for name in ("blk.1.ffn_up.weight", "token_embd.weight", "output_norm.weight"):
        with pytest.raises(ModelFileError, match=rf"m\.gguf: has no tensor {name}"):
            open_checkpoint(rewritten(tmp_path / "m.gguf", tiny_gguf(), drop=[name]))
    with pytest.raises(ModelFileError, match=r"blk\.0\.attn_q\.weight, .* or blk\.0\.attn_qkv\.weight"):
        open_checkpoint(rewritten(tmp_path / "m.gguf", tiny_gguf("phi2"), drop=["blk.0.attn_q.weight"]))


def test_an_unknown_tensor_is_named(tiny_gguf, tmp_path):
    with pytest.raises(UnsupportedError, match=r"tensors blk\.0\.attn_norm_2\.weight are not used"):
        open_checkpoint(
            rewritten(tmp_path / "m.gguf", tiny_gguf(), tensors=[vector("blk.0.attn_norm_2.weight")])
        )


def test_an_architecture_that_is_not_named_is_a_guess_and_said_to_be(tiny_gguf, tmp_path):
    nameless = rewritten(tmp_path / "m.gguf", tiny_gguf("qwen3"), {"general.architecture": None})
    checkpoint = open_checkpoint(nameless)
    assert checkpoint.architecture == "qwen3"
    assert "is a guess from the key qwen3.block_count" in checkpoint.notes[0]
    assert open_checkpoint(tiny_gguf("qwen3")).notes == ()
    both = rewritten(tmp_path / "b.gguf", nameless, {"phi3.block_count": 2})
    with pytest.raises(ModelFileError, match="no other key tells it"):
        open_checkpoint(both)


@pytest.mark.parametrize(
    ("num_tokens", "num_rows", "size"),
    [(100, 100, 100), (100, 128, 100), (None, 128, 128), (2_000_000, 2_000_000, 2_000_000)],
)
def test_vocabulary_size_is_the_number_of_tokens_else_of_rows(num_tokens, num_rows, size):
    assert resolve_vocab_size(num_tokens, num_rows) == size


@pytest.mark.parametrize(("num_tokens", "num_rows"), [(0, 10), (None, 2_000_001), (11, 10), (10, 2_000_001)])
def test_implausible_vocabulary_sizes_are_refused(num_tokens, num_rows):
    with pytest.raises(ModelFileError):
        resolve_vocab_size(num_tokens, num_rows)


def test_padding_rows_widen_the_logits_only(tiny_gguf, tmp_path):
    names = ("tokens", "scores", "token_type")
    metadata = open_gguf(tiny_gguf()).metadata
    fewer = {f"tokenizer.ggml.{n}": list(metadata[f"tokenizer.ggml.{n}"])[:380] for n in names}
    fewer["tokenizer.ggml.scores"] = np.array(fewer["tokenizer.ggml.scores"], np.float32)
    fewer["tokenizer.ggml.token_type"] = np.array(fewer["tokenizer.ggml.token_type"], np.int32)
    checkpoint = open_checkpoint(rewritten(tmp_path / "m.gguf", tiny_gguf(), fewer))
    assert (checkpoint.num_tokens, checkpoint.config["vocab_size"]) == (380, 384)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"PK\x03\x04 archive", UnsupportedError, "is a PyTorch file; loading one can run code"),
        (b"\x10\0\0\0\0\0\0\0{}              ", UnsupportedError, "is a safetensors file"),
        (b"tjgg\x03\0\0\0", UnsupportedError, "a ggml file from before GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\n", ModelFileError, "git lfs pull"),
        (b"\n<!DOCTYPE html>", ModelFileError, "is a web page"),
        (b"", ModelFileError, "starts with nothing"),
        (b"\x7fELF", ModelFileError, "starts with 7f 45 4c 46"),
    ],
)
def test_what_is_no_gguf_file_is_told_by_its_content(tmp_path, content, error, message):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(error, match=rf"model\.gguf: .*{message}"):
        open_checkpoint(path)


def test_a_directory_and_a_missing_file_are_told_apart(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UnsupportedError, match="directory with safetensors files but without a config"):
        open_checkpoint(tmp_path)
    with pytest.raises(ModelFileError, match="No such file"):
        open_checkpoint(tmp_path / "absent.gguf")
