"""Rows of `names.hf.HF_FAMILIES`: hybrids of attention and state spaces, whose settings come multiplied into matrices or layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tokamak.loaders.names.hf_family import HfFamily
from tokamak.loaders.names.hf_recurrent import NO_LIMIT, SCAN_UNREAD, UNREAD, inner_size, mamba2, with_names
from tokamak.types import Array

__all__ = ["HF_HYBRIDS"]


def _times(*names: str) -> Any:
    """The elements times settings of config.json; NAME.i is the i-th of a list."""

    def change(x: Array, keys: Mapping[str, Any]) -> Array:
        for name in names:
            setting, _, index = name.partition(".")
            value = keys["config.json"].get(setting)
            if value is not None:
                x = x * np.float32(value[int(index)] if index else value)
        return x

    return change


def _times_parts(x: Array, keys: Mapping[str, Any]) -> Array:
    """Rows of the gate, the input, B, C and the time steps, each times a factor of its own."""
    config = keys["config.json"]
    several = config.get("ssm_multipliers") or [1.0] * 5
    inner, states = keys["ssm.inner_size"], keys["ssm.group_count"] * keys["ssm.state_size"]
    rows = np.repeat(several, [inner, inner, states, states, keys["ssm.time_step_rank"]])
    factors: Array = (rows * config.get("ssm_in_multiplier", 1.0)).astype(np.float32)
    return x * factors[:, None]


def _side_by_side(config: Mapping[str, Any]) -> dict[str, Any]:
    scaled = {config.get(name, 1.0) for name in ("embedding_multiplier", "lm_head_multiplier")} != {1.0}
    return {
        "mamba_inner_size": config.get("mamba_d_ssm") or inner_size(config),
        "own_head": not (config.get("tie_word_embeddings") and scaled),
        "norm_behind_gate": not (config.get("mamba_rms_norm") and config.get("mamba_norm_before_gate", True)),
    }


_LETTERS = {
    "M": "mamba",
    "*": "attention",
    "-": "mlp",
    "linear_attention": "mamba",
    "full_attention": "attention",
}


def _kinds(config: Mapping[str, Any]) -> list[str]:
    """What each layer is: mamba, attention, mlp or something else."""
    told = config.get("hybrid_override_pattern") or config.get("layers_block_type") or []
    return [_LETTERS.get(kind, kind) for kind in told]


def _one_branch(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = config["mamba_num_heads"]
    return {
        "num_hidden_layers": len(_kinds(config)),
        "mamba_inner_size": heads * config["mamba_head_dim"],
        "mamba_n_heads": heads,
        "layers_known": set(_kinds(config)) <= {"mamba", "attention", "mlp"},
    }


def _widths(config: Mapping[str, Any]) -> dict[str, Any]:
    here = np.array([kind == "mlp" for kind in _kinds(config)])
    return {"feed_forward_length": np.where(here, config["intermediate_size"], 0).astype(np.int32)}


HF_HYBRIDS: Mapping[str, HfFamily] = {
    "falcon_h1": HfFamily(
        "falcon-h1",
        derive=_side_by_side,
        lacks=lambda tensor, _: tensor == "ffn_norm.weight",  # its reader wants it without the end
        config={"conv_kernel": "mamba_d_conv", "state_size": "mamba_d_state"},
        fixed={
            **dict.fromkeys(("attention_bias", "mlp_bias", "projectors_bias", "mamba_proj_bias"), (False,)),
            **dict.fromkeys(("mamba_conv_bias", "own_head", "norm_behind_gate"), (True,)),
            "time_step_limit": NO_LIMIT,
        },
        paths=with_names(
            mamba2("mamba", "mamba"), norm="final_layernorm", post_attention_layernorm="pre_ff_layernorm"
        )["paths"],
        values=mamba2("mamba", "mamba")["values"]
        | {
            "embed_tokens.weight": ("embed_tokens.weight", _times("embedding_multiplier")),
            "lm_head.weight": ("lm_head.weight", _times("lm_head_multiplier")),
            "self_attn.k_proj.weight": (
                "self_attn.k_proj.weight",
                _times("attention_in_multiplier", "key_multiplier"),
            ),
            **{
                f"self_attn.{n}_proj.weight": (
                    f"self_attn.{n}_proj.weight",
                    _times(f"attention_{'out' if n == 'o' else 'in'}_multiplier"),
                )
                for n in "qvo"
            },
            "mamba.in_proj.weight": ("mamba.in_proj.weight", _times_parts),
            "mamba.out_proj.weight": ("mamba.out_proj.weight", _times("ssm_out_multiplier")),
            "mlp.gate_proj.weight": ("feed_forward.gate_proj.weight", _times("mlp_multipliers.0")),
            "mlp.up_proj.weight": ("feed_forward.up_proj.weight", _times()),
            "mlp.down_proj.weight": ("feed_forward.down_proj.weight", _times("mlp_multipliers.1")),
        },
        understood=(
            *("embedding_multiplier", "lm_head_multiplier", "attention_in_multiplier", "key_multiplier"),
            *("attention_out_multiplier", "ssm_in_multiplier", "ssm_out_multiplier", "ssm_multipliers"),
            *("mlp_multipliers", "mamba_d_ssm", "mamba_d_head", "mamba_expand", "mamba_chunk_size"),
            *("mamba_rms_norm", "mamba_norm_before_gate", "mamba_use_mlp", "mlp_expansion_factor"),
            *("attn_layer_indices", *UNREAD),
        ),
    ),
    "nemotron_h": HfFamily(
        "nemotron_h",
        prefixes=("backbone.", "model.", ""),
        acts=("relu2",),
        derive=_one_branch,
        extra=_widths,
        attends=lambda c: [kind == "attention" for kind in _kinds(c)],
        config={
            "hidden_act": "mlp_hidden_act",
            "rms_norm_eps": "layer_norm_epsilon",
            "state_size": "ssm_state_size",
            "mamba_n_groups": "n_groups",
        },
        fixed={
            **dict.fromkeys(("attention_bias", "mlp_bias", "use_bias", "mamba_proj_bias"), (False,)),
            **dict.fromkeys(("use_conv_bias", "layers_known"), (True,)),
            "mamba_hidden_act": ("silu",),
            "residual_in_fp32": (True, False),
            "time_step_limit": NO_LIMIT,
        },
        paths=with_names(
            mamba2("mamba", "mixer"),
            embed_tokens="embeddings",
            norm="norm_f",
            input_layernorm="norm",
            mlp__up_proj="mixer.up_proj",
            mlp__down_proj="mixer.down_proj",
            **{f"self_attn__{n}_proj": f"mixer.{n}_proj" for n in "qkvo"},
        )["paths"],
        values=mamba2("mamba", "mixer")["values"],
        understood=(
            *("hybrid_override_pattern", "layers_block_type", "mamba_num_heads", "mamba_head_dim"),
            *("mamba_ssm_cache_dtype", "attention_head_dim", "moe_latent_size", "mtp_layers_block_type"),
            *("n_routed_experts", "n_shared_experts", "moe_intermediate_size", "num_experts_per_tok"),
            *("moe_shared_expert_intermediate_size", "moe_shared_expert_overlap", "n_group", "topk_group"),
            *("norm_topk_prob", "routed_scaling_factor", "num_nextn_predict_layers", *SCAN_UNREAD),
        ),
    ),
}
