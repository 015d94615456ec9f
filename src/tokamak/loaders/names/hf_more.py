"""Rows of `names.hf.HF_FAMILIES`: families whose directories differ from their files in more than names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tokamak.loaders.names.hf_family import HfFamily, named
from tokamak.types import Array

__all__ = ["HF_MORE"]


def _falcon(config: Mapping[str, Any]) -> dict[str, Any]:
    """One key head (7B), or as many as are written (40B)."""
    grouped = config.get("new_decoder_architecture")
    heads = config["num_attention_heads"]
    few = config.get("num_kv_heads", heads) if grouped else 1 if config.get("multi_query", True) else heads
    width = config.get("ffn_hidden_size") or 4 * config["hidden_size"]
    return {"num_key_value_heads": few, "intermediate_size": width}


def _mpt(config: Mapping[str, Any]) -> dict[str, Any]:
    attention = config.get("attn_config") or {}
    return {
        "intermediate_size": int(config.get("expansion_ratio", 4) * config["d_model"]),
        "alibi_bias_max": float(attention.get("alibi_bias_max", 8)),
        "clip_qkv": attention.get("clip_qkv"),
        **{f"attn_config.{n}": attention.get(n) for n in ("alibi", "qk_ln", "prefix_lm", "softmax_scale")},
        "attn_config.attn_type": attention.get("attn_type"),
    }


def _llama4(config: Mapping[str, Any]) -> dict[str, Any]:
    """Experts have the width that other families give to feed-forwards."""
    turning = config.get("no_rope_layers") or []
    layers = range(config["num_hidden_layers"])
    return {
        "intermediate_size": config["intermediate_size_mlp"],
        "moe_intermediate_size": config["intermediate_size"],
        "every_fourth_without_rope": turning in ([], [int((i + 1) % 4 != 0) for i in layers]),
    }


def _turned(second: int | None = None) -> Any:
    """Experts with outputs before inputs: all of them, or a half."""

    def change(x: Array, _: Mapping[str, Any]) -> Array:
        turned = x.transpose(0, 2, 1)
        half = turned.shape[1] // 2
        return turned if second is None else turned[:, half * second : half * (second + 1)]

    return change


def _same(value: Any) -> Any:
    """A value per layer that is the same for all, as one."""
    return value[0] if isinstance(value, list) and value and value == value[:1] * len(value) else value


def _hunyuan(config: Mapping[str, Any]) -> dict[str, Any]:
    own = _same(config.get("moe_intermediate_size")) or config["intermediate_size"]
    return {
        "moe_intermediate_size": own,
        "num_experts_per_tok": _same(config.get("moe_topk", 1)),
        "shared_expert_intermediate_size": own * _same(config.get("num_shared_expert", 1)),
    }


def _minicpm3(config: Mapping[str, Any]) -> dict[str, Any]:
    nope, turns = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
    return {"head_dim": nope + turns, "partial_rotary_factor": turns / (nope + turns)}


_FEED_FORWARD = named(
    mlp__gate_proj="feed_forward.gate_proj",
    mlp__up_proj="feed_forward.up_proj",
    mlp__down_proj="feed_forward.down_proj",
    mlp__gate="feed_forward.router",
    mlp__shared_expert__gate_proj="feed_forward.shared_expert.gate_proj",
    mlp__shared_expert__up_proj="feed_forward.shared_expert.up_proj",
    mlp__shared_expert__down_proj="feed_forward.shared_expert.down_proj",
)
_EXPERTS = {f"mlp.experts.{n}_proj": f"mlp.experts.{{}}.{n}_proj.weight" for n in ("gate", "up", "down")}
_HALVES = {
    "mlp.experts.gate_proj": ("mlp.experts.gate_up_proj", 0),
    "mlp.experts.up_proj": ("mlp.experts.gate_up_proj", 1),
}


def _gemma4(config: Mapping[str, Any]) -> dict[str, Any]:
    """Global layers have heads of their own width, which is written for each of them or once."""
    own = [part.get("head_dim") for part in (config.get("per_layer_config") or {}).values()]
    wide = {config.get("global_head_dim"), *own} - {None} or {config["head_dim"]}
    local = config["head_dim"]
    return {
        "head_dim": wide.pop(),
        **dict.fromkeys(("local_head_dim", "local_value_dim", "local_rotary_dim"), local),
        "global_layers_alike": not wide
        and config.get("num_global_key_value_heads") in (None, config["num_key_value_heads"]),
    }


def _gemma4_layers(config: Mapping[str, Any]) -> dict[str, Any]:
    local = [kind == "sliding_attention" for kind in config["layer_types"]]
    return {"attention.sliding_window_pattern": np.array(local, dtype=np.bool_)}


HF_MORE: Mapping[str, HfFamily] = {
    "falcon": HfFamily(
        "falcon",
        prefixes=("transformer.", ""),
        layers="h",
        paths={
            **named(embed_tokens="word_embeddings", norm="ln_f"),
            **named(self_attn__qkv_proj="self_attention.query_key_value"),
            **named(self_attn__o_proj="self_attention.dense"),
            **named(mlp__up_proj="mlp.dense_h_to_4h", mlp__down_proj="mlp.dense_4h_to_h"),
        },
        others=named(input_layernorm="ln_mlp"),
        config={"hidden_act": "activation", "layer_norm_eps": "layer_norm_epsilon"},
        defaults={"max_position_embeddings": 2048, "tie_word_embeddings": True},
        derive=_falcon,
        fixed={"alibi": (False,), "bias": (False,), "parallel_attn": (True,)},
        understood=(
            *("new_decoder_architecture", "multi_query", "num_kv_heads", "num_ln_in_parallel_attn"),
            "ffn_hidden_size",
        ),
        acts=("gelu",),
        mixed_heads=True,
    ),
    "mpt": HfFamily(
        "mpt",
        prefixes=("transformer.", ""),
        layers="blocks",
        paths={
            **named(embed_tokens="wte", norm="norm_f"),
            **named(input_layernorm="norm_1", post_attention_layernorm="norm_2"),
            **named(self_attn__qkv_proj="attn.Wqkv", self_attn__o_proj="attn.out_proj"),
            **named(mlp__up_proj="ffn.up_proj", mlp__down_proj="ffn.down_proj"),
        },
        config={
            "hidden_size": "d_model",
            "num_attention_heads": "n_heads",
            "num_hidden_layers": "n_layers",
            "max_position_embeddings": "max_seq_len",
            "layer_norm_eps": "layer_norm_epsilon",
        },
        defaults={"layer_norm_eps": 1e-5, "tie_word_embeddings": True},
        derive=_mpt,
        fixed={
            "attn_config.alibi": (True,),
            "attn_config.attn_type": ("multihead_attention",),
            **dict.fromkeys(("attn_config.qk_ln", "attn_config.prefix_lm"), (False,)),
            "attn_config.softmax_scale": (None,),
            "norm_type": ("low_precision_layernorm", "layernorm"),
            "embedding_fraction": (1.0,),
        },
        understood=(
            *("attn_config", "expansion_ratio", "learned_pos_emb", "no_bias", "init_device", "init_config"),
            *("emb_pdrop", "tokenizer_name", "verbose"),
        ),
        ignored=(),
    ),
    "llama4_text": HfFamily(
        "llama4",
        paths=_FEED_FORWARD,
        made={
            "mlp.experts.gate_proj": ("feed_forward.experts.gate_up_proj", _turned(0)),
            "mlp.experts.up_proj": ("feed_forward.experts.gate_up_proj", _turned(1)),
            "mlp.experts.down_proj": ("feed_forward.experts.down_proj", _turned()),
        },
        config={"num_experts": "num_local_experts"},
        derive=_llama4,
        paired=True,
        fixed={
            "attn_scale": (0.1,),
            "floor_scale": (8192,),
            "attn_temperature_tuning": (True, 4),
            "use_qk_norm": (True,),
            "no_rope_layer_interval": (4,),
            "attention_bias": (False,),
            "every_fourth_without_rope": (True,),
        },
        understood=("no_rope_layers", "moe_layers", "intermediate_size_mlp", "for_llm_compressor"),
    ),
    "ernie4_5_moe": HfFamily(
        "ernie4_5-moe",
        stacks=_EXPERTS,
        halves=_HALVES,
        values={
            "mlp.gate.e_score_correction_bias": (
                "mlp.moe_statics.e_score_correction_bias",
                lambda x, _: x.reshape(-1),
            )
        },
        config={
            "num_experts": "moe_num_experts",
            "num_experts_per_tok": "moe_k",
            "n_shared_experts": "moe_num_shared_experts",
            "first_k_dense_replace": "moe_layer_start_index",
        },
        defaults={"tie_word_embeddings": True},
        derive=lambda c: {
            "scoring_func": 1,
            "to_the_last": c.get("moe_layer_end_index", -1) in (-1, c["num_hidden_layers"] - 1),
        },
        extra=lambda c: {
            "expert_shared_feed_forward_length": c["moe_intermediate_size"] * c["moe_num_shared_experts"]
        },
        paired=True,
        fixed={"use_bias": (False,), "to_the_last": (True,)},
        understood=("moe_layer_end_index", "moe_norm_min", "moe_use_aux_free", "moe_gate"),
    ),
    "hunyuan_v1_moe": HfFamily(
        "hunyuan-moe",
        paths=named(
            self_attn__q_norm="self_attn.query_layernorm",
            self_attn__k_norm="self_attn.key_layernorm",
            mlp__gate="mlp.gate.wg",
        ),
        stacks=_EXPERTS,
        halves=_HALVES,
        derive=_hunyuan,
        fixed={"attention_bias": (False,)},
        understood=("moe_topk", "num_shared_expert"),
    ),
    "minicpm3": HfFamily(
        "minicpm3",
        whole={
            "attn_q_b.weight": "self_attn.q_b_proj.weight",
            "attn_kv_a_mqa.weight": "self_attn.kv_a_proj_with_mqa.weight",
            "attn_kv_b.weight": "self_attn.kv_b_proj.weight",
        },
        derive=_minicpm3,
        fixed={
            "scale_emb": (12,),
            "scale_depth": (1.4,),
            "dim_model_base": (256,),
            **dict.fromkeys(("attention_bias", "mlp_bias"), (False,)),
        },
        defaults={"tie_word_embeddings": True},
        understood=("qk_nope_head_dim", "qk_rope_head_dim", "qk_head_dim"),
    ),
    "gemma4_text": HfFamily(
        "gemma4",
        acts=("gelu_pytorch_tanh",),
        config={"hidden_act": "hidden_activation"},
        derive=_gemma4,
        extra=_gemma4_layers,
        defaults={"tie_word_embeddings": True},
        fixed={
            "attention_bias": (False,),
            "use_bidirectional_attention": (False, "vision"),
            "enable_moe_block": (False,),
            "use_double_wide_mlp": (False,),
            "attention_k_eq_v": (False, True),
            "global_layers_alike": (True,),
        },
        understood=(
            *("per_layer_config", "global_head_dim", "num_global_key_value_heads"),
            *("vocab_size_per_layer_input", "top_k_experts", "num_experts", "moe_intermediate_size"),
        ),
    ),
    "glm": HfFamily(
        "chatglm",
        paired=True,
        defaults={"partial_rotary_factor": 0.5},
        lacks=lambda tensor, _: tensor.startswith("attn_qkv"),
    ),
    "exaone": HfFamily(
        "exaone",
        prefixes=("transformer.", ""),
        layers="h",
        paths={
            **named(embed_tokens="wte", norm="ln_f"),
            **named(input_layernorm="ln_1", post_attention_layernorm="ln_2"),
            **{f"self_attn.{n}_proj.weight": f"attn.attention.{n}_proj.weight" for n in "qkv"},
            **named(self_attn__o_proj="attn.attention.out_proj", mlp__down_proj="mlp.c_proj"),
            **named(mlp__gate_proj="mlp.c_fc_0", mlp__up_proj="mlp.c_fc_1"),
        },
        config={
            "num_hidden_layers": "num_layers",
            "rms_norm_eps": "layer_norm_epsilon",
            "hidden_act": "activation_function",
        },
        fixed={"attention_bias": (False,), "mlp_bias": (False,)},
        understood=("embed_dropout",),
    ),
    "jais2": HfFamily("jais2", acts=("relu2",)),
}
