"""Rows of `names.hf.HF_FAMILIES`: recurrent families and hybrids, and what their tensors become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tokamak.loaders.names.hf_family import HfFamily, named
from tokamak.types import Array

__all__ = ["HF_RECURRENT", "NO_LIMIT", "SCAN_UNREAD", "UNREAD", "inner_size", "mamba2", "with_names"]

ENDLESS = 1 << 20  # the context that files of models without positions name
NO_LIMIT = ([0.0, float("inf")], [0.0, {"__float__": "Infinity"}])
UNREAD = ("use_associative_scan", "use_mambapy", "use_mamba_kernels", "num_logits_to_keep")


def _rate(x: Array, _: Mapping[str, Any]) -> Array:
    return -np.exp(x)


def _rate_column(x: Array, _: Mapping[str, Any]) -> Array:
    return -np.exp(x)[:, None]


def _column(x: Array, _: Mapping[str, Any]) -> Array:
    return x[:, None]


def _taps(x: Array, _: Mapping[str, Any]) -> Array:
    """A convolution per channel: [channels, 1, taps]."""
    return x[:, 0]


def _by_group(x: Array, keys: Mapping[str, Any]) -> Array:
    return x.reshape(keys["ssm.group_count"], -1)


def _mamba(ours: str, theirs: str) -> dict[str, Any]:
    """Arguments of HfFamily for a state space with a rate per channel and state."""
    plain = named(**{f"{ours}__{n}": f"{theirs}.{n}" for n in ("in_proj", "x_proj", "dt_proj", "out_proj")})
    norms = named(**{f"{ours}__{n}_norm": f"{theirs}.{n}_layernorm" for n in ("dt", "b", "c")})
    paths = {f"{ours}.conv1d.bias": f"{theirs}.conv1d.bias", f"{ours}.D": f"{theirs}.D"}
    values = {
        f"{ours}.A": (f"{theirs}.A_log", _rate),
        f"{ours}.conv1d.weight": (f"{theirs}.conv1d.weight", _taps),
    }
    return {"paths": {**plain, **norms, **paths}, "values": values}


def mamba2(ours: str, theirs: str) -> dict[str, Any]:
    """Arguments of HfFamily for a state space with a rate per head."""
    plain = named(**{f"{ours}__{n}": f"{theirs}.{n}" for n in ("in_proj", "out_proj")})
    paths = {f"{ours}.conv1d.bias": f"{theirs}.conv1d.bias", f"{ours}.dt_bias": f"{theirs}.dt_bias"}
    values = {
        f"{ours}.A": (f"{theirs}.A_log", _rate_column),
        f"{ours}.D": (f"{theirs}.D", _column),
        f"{ours}.conv1d.weight": (f"{theirs}.conv1d.weight", _taps),
        f"{ours}.norm": (f"{theirs}.norm.weight", _by_group),
    }
    return {"paths": {**plain, **paths}, "values": values}


def with_names(parts: dict[str, Any], **paths: str) -> dict[str, Any]:
    """The arguments with further paths."""
    return parts | {"paths": {**parts["paths"], **named(**paths)}}


def inner_size(config: Mapping[str, Any], expand: str = "mamba_expand") -> int:
    return int(config.get(expand, 2) * config["hidden_size"])


def _rank(config: Mapping[str, Any], name: str) -> int:
    """The rank of time steps, "auto" as transformers counts it."""
    rank = config.get(name, "auto")
    return -(-int(config["hidden_size"]) // 16) if rank == "auto" else rank


def _by_types(kind: str) -> Any:
    return lambda config: [name == kind for name in config.get("layer_types") or []]


def _jamba_attends(config: Mapping[str, Any]) -> list[bool]:
    period, offset = config.get("attn_layer_period", 8), config.get("attn_layer_offset", 4)
    return [i % period == offset for i in range(config["num_hidden_layers"])]


def _granite_attends(config: Mapping[str, Any]) -> list[bool]:
    return [name in ("attention", "full_attention") for name in config.get("layer_types") or []]


def _lfm2(config: Mapping[str, Any]) -> dict[str, Any]:
    """The width of the feed-forward: two thirds of what is written, up to a multiple."""
    width = config.get("block_ff_dim") or config["intermediate_size"]
    if config.get("block_auto_adjust_ff_dim", True):
        width = int(config.get("block_ffn_dim_multiplier", 1.0) * int(2 * width / 3))
        multiple = config.get("block_multiple_of", 256)
        width = -(-width // multiple) * multiple
    return {"intermediate_size": width}


def _granite(config: Mapping[str, Any]) -> dict[str, Any]:
    mixed = bool(config.get("num_local_experts"))
    heads = config.get("mamba_n_heads", 128)
    found = {"use_rope": config.get("position_embedding_type") == "rope", "mamba_n_heads": heads}
    found |= {"mamba_inner_size": inner_size(config), "num_experts": config.get("num_local_experts") or 0}
    wide = {} if mixed else {"intermediate_size": config["shared_intermediate_size"]}
    return (
        found | wide | ({} if mixed else dict.fromkeys(("num_experts_per_tok", "shared_intermediate_size")))
    )


def _granite_lacks(tensor: str, keys: Mapping[str, Any]) -> bool:
    """The feed-forward of every row is called shared where there are experts, else it is the only one."""
    alone = tensor in ("ffn_gate.weight", "ffn_up.weight", "ffn_down.weight")
    return alone if keys.get("expert_count") else "shexp" in tensor


def _half(second: int) -> Any:
    return lambda x, _: x[len(x) // 2 * second : len(x) // 2 * (second + 1)]


def _value_order(keys: Mapping[str, Any]) -> Array:
    """Value heads so that key heads repeat as a whole, from an order where each repeats at once."""
    heads, key_heads = keys["ssm.time_step_rank"], keys["ssm.group_count"]
    return np.arange(heads).reshape(key_heads, -1).T.reshape(-1)


def _values(x: Array, keys: Mapping[str, Any]) -> Array:
    """Rows of value heads."""
    return x.reshape(keys["ssm.time_step_rank"], -1, *x.shape[1:])[_value_order(keys)].reshape(x.shape)


def _value_columns(x: Array, keys: Mapping[str, Any]) -> Array:
    return _values(x.T, keys).T


def _mixed_values(x: Array, keys: Mapping[str, Any]) -> Array:
    """Rows of queries and keys, then of values."""
    first = 2 * keys["ssm.group_count"] * keys["ssm.state_size"]
    return np.concatenate([x[:first], _values(x[first:], keys)])


def _qwen35(config: Mapping[str, Any]) -> dict[str, Any]:
    types = config.get("layer_types") or []
    interval = types.index("full_attention") + 1 if "full_attention" in types else 4
    value_heads = config["linear_num_value_heads"]
    wanted = ["linear_attention" if (i + 1) % interval else "full_attention" for i in range(len(types))]
    return {
        "mamba_inner_size": value_heads * config["linear_value_head_dim"],
        "mamba_n_heads": value_heads,
        "mamba_n_groups": config["linear_num_key_heads"],
        "state_size": config["linear_key_head_dim"],
        "conv_kernel": config.get("linear_conv_kernel_dim", 4),
        "full_attention_interval": interval,
        "layer_types_in_order": types == wanted,
    } | ({"intermediate_size": config["moe_intermediate_size"]} if config.get("num_experts") else {})


def _sections(config: Mapping[str, Any]) -> dict[str, Any]:
    """Columns that turn by each axis of an image, which other readers ask for; for text they are all the same."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    part = rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    several = rope.get("mrope_section") or [int(config["head_dim"] * part) // 2]
    return {"rope.dimension_sections": np.array([*several, 0, 0, 0][:4], dtype=np.int32)}


_MAMBA = _mamba("mixer", "mixer")
_STATE_SPACE: dict[str, Any] = {
    "prefixes": ("backbone.", "model.", ""),
    "config": {"rms_norm_eps": "layer_norm_epsilon"},
    "defaults": {"max_position_embeddings": ENDLESS},
    "others": {"norm.weight": "norm.weight"},
}
_SCAN_FIXED = {"use_bias": (False,), "use_conv_bias": (True,), "residual_in_fp32": (True, False)}
SCAN_UNREAD = (
    *(
        "rescale_prenorm_residual",
        "time_step_floor",
        "time_step_init_scheme",
        "time_step_max",
        "time_step_min",
    ),
    *("time_step_scale", "expand", "rms_norm", "chunk_size", "ssm_cfg", "d_model", "d_inner", "n_layer"),
    *UNREAD,
)
_SHORT_CONV: dict[str, Any] = {
    "paths": named(
        norm="embedding_norm",
        input_layernorm="operator_norm",
        post_attention_layernorm="ffn_norm",
        mlp__gate_proj="feed_forward.w1",
        mlp__up_proj="feed_forward.w3",
        mlp__down_proj="feed_forward.w2",
        mlp__gate="feed_forward.gate",
        self_attn__o_proj="self_attn.out_proj",
        self_attn__q_norm="self_attn.q_layernorm",
        self_attn__k_norm="self_attn.k_layernorm",
        self_attn__in_proj="conv.in_proj",
        self_attn__out_proj="conv.out_proj",
    )
    | {"mlp.gate.e_score_correction_bias": "feed_forward.expert_bias"},
    "values": {"self_attn.conv": ("conv.conv.weight", _taps)},
    "attends": _by_types("full_attention"),
    "defaults": {"tie_word_embeddings": True, "rope_theta": 1e6},
    "fixed": {
        "conv_bias": (False,),
        "use_expert_bias": (True, False),
        "norm_topk_prob": (True,),
        "routed_scaling_factor": (1.0,),
    },
}

_QWEN35 = HfFamily(
    "qwen35",
    derive=_qwen35,
    extra=_sections,
    one_more=True,
    paths=named(self_attn__out_proj="linear_attn.out_proj", self_attn__norm="linear_attn.norm"),
    made={
        "self_attn.qkv_proj.weight": ("linear_attn.in_proj_qkv.weight", _mixed_values),
        "self_attn.z_proj.weight": ("linear_attn.in_proj_z.weight", _values),
        "self_attn.a_proj.weight": ("linear_attn.in_proj_a.weight", _values),
        "self_attn.b_proj.weight": ("linear_attn.in_proj_b.weight", _values),
        "self_attn.out_proj.weight": ("linear_attn.out_proj.weight", _value_columns),
    },
    values={
        "self_attn.dt_bias": ("linear_attn.dt_bias", _values),
        "self_attn.A": ("linear_attn.A_log", lambda x, keys: -np.exp(_values(x, keys))),
        "self_attn.conv1d.weight": (
            "linear_attn.conv1d.weight",
            lambda x, keys: _mixed_values(x[:, 0], keys),
        ),
    },
    fixed={"attention_bias": (False,), "layer_types_in_order": (True,), "attn_output_gate": (True,)},
    understood=(
        *("linear_conv_kernel_dim", "linear_key_head_dim", "linear_num_key_heads"),
        *("linear_num_value_heads", "linear_value_head_dim", "mamba_ssm_dtype", "mtp_num_hidden_layers"),
        "mtp_use_dedicated_embeddings",
    ),
)


HF_RECURRENT: Mapping[str, HfFamily] = {
    "mamba": HfFamily(
        "mamba",
        derive=lambda c: {
            "mamba_inner_size": inner_size(c, "expand"),
            "time_step_rank": _rank(c, "time_step_rank"),
        },
        fixed=_SCAN_FIXED,
        understood=(*SCAN_UNREAD, "intermediate_size"),
        values=_MAMBA["values"],
        **_STATE_SPACE | {"paths": with_names(_MAMBA, embed_tokens="embeddings", norm="norm_f")["paths"]},
    ),
    "falcon_mamba": HfFamily(
        "mamba",
        derive=lambda c: {
            "mamba_inner_size": inner_size(c, "expand"),
            "time_step_rank": _rank(c, "time_step_rank"),
            "use_mixer_norms": True,
        },
        fixed=_SCAN_FIXED,
        understood=(*SCAN_UNREAD, "intermediate_size", "mixer_rms_eps"),
        values=_MAMBA["values"],
        **_STATE_SPACE | {"paths": with_names(_MAMBA, embed_tokens="embeddings", norm="norm_f")["paths"]},
    ),
    "mamba2": HfFamily(
        "mamba2",
        derive=lambda c: {"mamba_inner_size": inner_size(c, "expand")},
        fixed=_SCAN_FIXED | {"time_step_limit": NO_LIMIT},
        understood=(*SCAN_UNREAD, "time_step_rank"),
        values=mamba2("mixer", "mixer")["values"],
        **_STATE_SPACE
        | {
            "paths": with_names(mamba2("mixer", "mixer"), embed_tokens="embeddings", norm="norm_f")["paths"],
            "config": {
                "rms_norm_eps": "layer_norm_epsilon",
                "mamba_n_groups": "n_groups",
                "mamba_n_heads": "num_heads",
            },
        },
    ),
    "jamba": HfFamily(
        "jamba",
        derive=lambda c: {
            "mamba_inner_size": inner_size(c),
            "time_step_rank": _rank(c, "mamba_dt_rank"),
        },
        config={"conv_kernel": "mamba_d_conv", "state_size": "mamba_d_state"},
        fixed={"mamba_conv_bias": (True,), "mamba_proj_bias": (False,)},
        attends=_jamba_attends,
        stacks={
            f"mlp.experts.{n}_proj": f"feed_forward.experts.{{}}.{n}_proj.weight"
            for n in ("gate", "up", "down")
        },
        understood=(
            *("attn_layer_offset", "attn_layer_period", "expert_layer_offset", "expert_layer_period"),
            *("mamba_expand", "mamba_dt_rank", *UNREAD),
        ),
        **with_names(
            _mamba("self_attn", "mamba"),
            norm="final_layernorm",
            post_attention_layernorm="pre_ff_layernorm",
            mlp__gate_proj="feed_forward.gate_proj",
            mlp__up_proj="feed_forward.up_proj",
            mlp__down_proj="feed_forward.down_proj",
            mlp__gate="feed_forward.router",
        ),
    ),
    "lfm2": HfFamily(
        "lfm2",
        derive=_lfm2,
        config={"conv_taps": "conv_L_cache", "rms_norm_eps": "norm_eps"},
        understood=(
            *("block_auto_adjust_ff_dim", "block_ffn_dim_multiplier", "block_multiple_of", "block_ff_dim"),
            *("full_attn_idxs", "theta", "conv_dim", "conv_dim_out", "block_dim", "block_mlp_init_scale"),
            *("block_norm_eps", "block_out_init_scale", "block_use_swiglu", "block_use_xavier_init"),
            *("conv_use_xavier_init", "use_pos_enc", "num_heads"),
        ),
        **_SHORT_CONV,
    ),
    "lfm2_moe": HfFamily(
        "lfm2moe",
        derive=lambda _: {"scoring_func": 2},
        config={
            "conv_taps": "conv_L_cache",
            "rms_norm_eps": "norm_eps",
            "first_k_dense_replace": "num_dense_layers",
        },
        stacks={
            f"mlp.experts.{n}_proj": f"feed_forward.experts.{{}}.{w}.weight"
            for n, w in (("gate", "w1"), ("up", "w3"), ("down", "w2"))
        },
        **_SHORT_CONV,
    ),
    "granitemoehybrid": HfFamily(
        "granitehybrid",
        derive=_granite,
        config={"conv_kernel": "mamba_d_conv", "state_size": "mamba_d_state"},
        defaults={"mamba_n_groups": 1},
        fixed={
            "mamba_conv_bias": (True,),
            "mamba_proj_bias": (False,),
            "attention_bias": (False,),
            "position_embedding_type": ("rope", "nope"),
            "time_step_limit": NO_LIMIT,
        },
        attends=_granite_attends,
        lacks=_granite_lacks,
        halves={
            "mlp.routed.experts.gate_proj": ("block_sparse_moe.input_linear.weight", 0),
            "mlp.routed.experts.up_proj": ("block_sparse_moe.input_linear.weight", 1),
        },
        made={
            f"mlp{shared}.{n}_proj.weight": ("shared_mlp.input_linear.weight", _half(i))
            for shared in ("", ".shared_mlp")
            for i, n in enumerate(("gate", "up"))
        },
        understood=("mamba_expand", "mamba_d_head", "mamba_chunk_size", "num_local_experts"),
        **with_names(
            mamba2("self_attn", "mamba"),
            mlp__routed__gate="block_sparse_moe.router.layer",
            mlp__down_proj="shared_mlp.output_linear",
            mlp__shared_mlp__down_proj="shared_mlp.output_linear",
        )
        | {"others": {"mlp.routed.experts.down_proj": "block_sparse_moe.output_linear.weight"}},
    ),
    "qwen3_5_text": _QWEN35,
    "qwen3_5_moe_text": replace(
        _QWEN35,
        architecture="qwen35moe",
        stacks={f"mlp.experts.{n}_proj": f"mlp.experts.{{}}.{n}_proj.weight" for n in ("gate", "up", "down")},
        halves={
            f"mlp.experts.{n}_proj": ("mlp.experts.gate_up_proj", i) for i, n in enumerate(("gate", "up"))
        },
    ),
}
