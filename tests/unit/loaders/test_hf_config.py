"""Settings as published models write them: what is read of them, what is refused."""

from __future__ import annotations

import pytest

from tokamak.errors import UnsupportedError
from tokamak.loaders.hf_config import keys_of
from tokamak.loaders.names import FAMILIES
from tokamak.loaders.names.hf import HF_FAMILIES

GPT_OSS = {
    "model_type": "gpt_oss", "attention_bias": True, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu",
    "hidden_size": 2880, "initial_context_length": 4096, "intermediate_size": 2880, "max_position_embeddings": 131072,
    "layer_types": ["sliding_attention", "full_attention"] * 12, "num_attention_heads": 64, "num_experts_per_tok": 4,
    "num_hidden_layers": 24, "num_key_value_heads": 8, "num_local_experts": 32, "output_router_logits": False,
    "quantization_config": {"quant_method": "mxfp4"}, "rms_norm_eps": 1e-05, "rope_theta": 150000,
    "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "rope_type": "yarn", "truncate": False,
                     "original_max_position_embeddings": 4096},
    "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0, "tie_word_embeddings": False,
    "vocab_size": 201088,
}  # fmt: skip
UL2 = {
    "model_type": "t5", "d_ff": 16384, "d_kv": 256, "d_model": 4096, "decoder_start_token_id": 0,
    "dense_act_fn": "silu", "dropout_rate": 0.0, "feed_forward_proj": "gated-silu", "initializer_factor": 1.0,
    "is_encoder_decoder": True, "is_gated_act": True, "layer_norm_epsilon": 1e-06, "n_positions": 512,
    "num_decoder_layers": 32, "num_heads": 16, "num_layers": 32, "output_past": True,
    "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32, "tie_word_embeddings": False,
    "vocab_size": 32128,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "hidden_act": "silu",
    "num_attention_heads": 4, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "vocab_size": 320,
}  # fmt: skip


def keys(config):
    hf = HF_FAMILIES[config["model_type"]]
    found = keys_of(config, hf, FAMILIES[hf.architecture]).metadata
    return {name.removeprefix(f"{hf.architecture}."): value for name, value in found.items()}


def test_the_ramp_of_gpt_oss_is_not_rounded():
    said = keys(GPT_OSS)
    assert said["rope.scaling.type"] == "yarn"
    assert said["rope.scaling.yarn_truncate"] is False
    assert said["rope.scaling.original_context_length"] == 4096
    assert (said["expert_count"], said["attention.sliding_window"]) == (32, 128)


def test_the_gates_of_ul2_are_silu():
    said = keys(UL2)
    assert said["feed_forward_silu"] is True
    assert (said["embedding_length"], said["decoder_block_count"], said["decoder_start_token_id"]) == (
        4096,
        32,
        0,
    )
    assert "feed_forward_silu" not in keys(
        UL2 | {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new"}
    )


@pytest.mark.parametrize("names", [("rope_scaling", "type"), ("rope_parameters", "rope_type")])
def test_dynamic_scaling_is_told_in_a_key_of_our_own(names):
    outer, inner = names
    said = keys(LLAMA | {outer: {inner: "dynamic", "factor": 2.0}})
    assert said["rope.scaling.dynamic_factor"] == 2.0
    assert "rope.scaling.type" not in said


def test_a_scaling_or_an_activation_that_is_not_there_is_refused():
    with pytest.raises(UnsupportedError, match="'cubic' is not implemented"):
        keys(LLAMA | {"rope_scaling": {"type": "cubic", "factor": 2.0}})
    with pytest.raises(UnsupportedError, match="gated-tanh"):
        keys(UL2 | {"feed_forward_proj": "gated-tanh"})
