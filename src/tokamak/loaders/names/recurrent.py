"""Rows of `names.FAMILIES`: recurrent families and hybrids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokamak.errors import ModelFileError
from tokamak.loaders.names.dense import SECTIONS
from tokamak.loaders.names.mixtures import ROUTED, ROUTING, scored
from tokamak.loaders.names.rows import (
    COUNTS,
    EXPERTS,
    GATED,
    HEAD_NORMS,
    LAYER_NORM,
    MODEL,
    MODEL_LN,
    MULTIPLIERS,
    NORMS,
    OTHER_BIASES,
    OUT,
    PLAIN,
    QKV,
    SHARED_EXPERT,
    SHARED_WIDTH,
    FamilyNames,
    Row,
    optional,
)


def at(prefix: str, *rows: Row) -> tuple[Row, ...]:
    """The same rows with parameters of another module."""
    return tuple(replace(row, path=f"{prefix}.{row.path}") for row in rows)


SSM_SIZES = {
    "ssm.conv_kernel": "conv_kernel",
    "ssm.state_size": "state_size",
    "ssm.inner_size": "mamba_inner_size",
}
MAMBA = (
    Row("ssm_in.weight", "in_proj.weight", "* hidden"),
    Row("ssm_conv1d.weight", "conv1d.weight", "ssm_inner conv_kernel"),
    Row("ssm_conv1d.bias", "conv1d.bias", "ssm_inner"),
    Row("ssm_x.weight", "x_proj.weight", "* ssm_inner"),
    Row("ssm_dt.weight", "dt_proj.weight", "ssm_inner time_step_rank"),
    Row("ssm_dt.bias", "dt_proj.bias", "ssm_inner"),
    Row("ssm_a", "A", "ssm_inner state_size"),
    Row("ssm_d", "D", "ssm_inner"),
    Row("ssm_out.weight", "out_proj.weight", "hidden ssm_inner"),
)
MAMBA2 = (
    Row("ssm_in.weight", "in_proj.weight", "* hidden"),
    Row("ssm_conv1d.weight", "conv1d.weight", "* conv_kernel"),
    Row("ssm_conv1d.bias", "conv1d.bias", "*"),
    Row("ssm_dt.bias", "dt_bias", "mamba_n_heads"),
    Row("ssm_a", "A", "mamba_n_heads one"),
    Row("ssm_d", "D", "mamba_n_heads one", view="mamba_n_heads"),
    Row("ssm_norm.weight", "norm", "mamba_n_groups *", optional=True),
    Row("ssm_out.weight", "out_proj.weight", "hidden mamba_inner_size"),
)
GROUPED = {"ssm.group_count": "mamba_n_groups", "ssm.time_step_rank": "mamba_n_heads"}


def inner_size(config: dict[str, Any]) -> dict[str, Any]:
    """The width of its only feed-forward is that of the state space."""
    return {"intermediate_size": config["mamba_inner_size"], "mamba_inner_size": None}


def ssm_inner(config: Mapping[str, Any]) -> dict[str, int]:
    return {"ssm_inner": config.get("mamba_inner_size", config.get("intermediate_size", 0))}


def delta_heads(config: dict[str, Any]) -> dict[str, Any]:
    """The keys of state spaces as what they mean for a delta rule, and which layers attend."""
    heads, inner = config["mamba_n_heads"], config["mamba_inner_size"]
    layers = config["num_hidden_layers"]
    if inner % heads:
        raise ModelFileError(f"key ssm.inner_size is {inner}, no multiple of ssm.time_step_rank, {heads}")
    recurrent = config.get("recurrent") or tuple(
        (i + 1) % max(1, config.get("full_attention_interval", 4)) != 0 for i in range(layers)
    )
    kinds = tuple("linear_attention" if r else "full_attention" for r in recurrent[:layers])
    return {
        "layer_types": kinds,
        "linear_num_key_heads": config["mamba_n_groups"],
        "linear_num_value_heads": heads,
        "linear_key_head_dim": config["state_size"],
        "linear_value_head_dim": inner // heads,
        "linear_conv_kernel_dim": config["conv_kernel"],
    } | dict.fromkeys(
        (
            *("mamba_inner_size", "mamba_n_heads", "mamba_n_groups", "state_size", "conv_kernel"),
            *("recurrent", "full_attention_interval"),
        )
    )


def delta_sizes(config: Mapping[str, Any]) -> dict[str, int]:
    keys = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    values = config["linear_num_value_heads"] * config["linear_value_head_dim"]
    return {
        "delta_heads": config["linear_num_value_heads"],
        "delta_values": values,
        "delta_qkv": 2 * keys + values,
        "delta_head": config["linear_value_head_dim"],
        "both": 2 * config["head_dim"],
        "q_both": 2 * config["head_dim"] * config["num_attention_heads"],
    }


DELTA = (
    Row("attn_qkv.weight", "self_attn.qkv_proj.weight", "delta_qkv hidden"),
    Row("attn_gate.weight", "self_attn.z_proj.weight", "delta_values hidden"),
    Row("ssm_conv1d.weight", "self_attn.conv1d.weight", "delta_qkv linear_conv_kernel_dim"),
    Row("ssm_dt.bias", "self_attn.dt_bias", "delta_heads"),
    Row("ssm_a", "self_attn.A", "delta_heads"),
    Row("ssm_alpha.weight", "self_attn.a_proj.weight", "delta_heads hidden"),
    Row("ssm_beta.weight", "self_attn.b_proj.weight", "delta_heads hidden"),
    Row("ssm_norm.weight", "self_attn.norm.weight", "delta_head"),
    Row("ssm_out.weight", "self_attn.out_proj.weight", "hidden delta_values"),
    # Queries and gates of a head together.
    Row("attn_q.weight", "self_attn.q_proj.weight", "q_both hidden", pick=("both", "zero", "head")),
    Row("attn_q.weight", "self_attn.gate_proj.weight", "q_both hidden", pick=("both", "head", "head")),
    *QKV[1:],
    OUT,
    *HEAD_NORMS,
)
DELTA_COUNTS = {**SSM_SIZES, **GROUPED}
DELTA_FAMILY: dict[str, Any] = {
    "some": {"full_attention_interval": "full_attention_interval"},
    "lists": {"attention.recurrent_layers": "recurrent"},
    "ignored": SECTIONS,
    "derive": delta_heads,
    "sizes": delta_sizes,
}
DELTA_NORMS = (
    NORMS[0],
    Row("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden"),
)


def short_conv(*feed_forward: Row, **attrs: Any) -> FamilyNames:
    return FamilyNames(
        (MODEL[0], Row("token_embd_norm.weight", "norm.weight", "hidden"), MODEL[2]),
        (
            *NORMS,
            *optional(*QKV, OUT, *HEAD_NORMS),
            *optional(
                Row("shortconv.conv.weight", "self_attn.conv", "hidden conv_taps"),
                Row("shortconv.in_proj.weight", "self_attn.in_proj.weight", "* hidden"),
                Row("shortconv.out_proj.weight", "self_attn.out_proj.weight", "hidden hidden"),
            ),
            *feed_forward,
        ),
        hybrid=True,
        **attrs,
    )


WKV = {
    "wkv.head_size": "head_size",
    "time_mix_extra_dim": "time_mix_extra_dim",
    "time_decay_extra_dim": "time_decay_extra_dim",
}


def _square(tensor: str, path: str) -> Row:
    return Row(f"{tensor}.weight", f"{path}.weight", "hidden hidden")


def _small(letter: str, path: str, rank: str) -> tuple[Row, ...]:
    """A product of two thin matrices and its bias."""
    return (
        Row(f"time_mix_{letter}0.weight", f"time_mix.{path}.bias", "hidden"),
        Row(f"time_mix_{letter}1.weight", f"time_mix.{path}.first.weight", f"{rank} hidden"),
        Row(f"time_mix_{letter}2.weight", f"time_mix.{path}.second.weight", f"hidden {rank}"),
    )


WKV_MODEL = (
    *MODEL_LN,
    Row("token_embd_norm.weight", "embed_norm.weight", "hidden"),
    Row("token_embd_norm.bias", "embed_norm.bias", "hidden"),
)
WKV_NORMS = (
    Row("attn_norm.weight", "ln1.weight", "hidden"),
    Row("attn_norm.bias", "ln1.bias", "hidden"),
    Row("attn_norm_2.weight", "ln2.weight", "hidden"),
    Row("attn_norm_2.bias", "ln2.bias", "hidden"),
)

RECURRENT: Mapping[str, FamilyNames] = {
    "mamba": FamilyNames(
        MODEL,
        (Row("attn_norm.weight", "norm.weight", "hidden"), *at("mixer", *MAMBA)),
        attends=False,
        hybrid=True,
        rope=False,
        counts={**SSM_SIZES, "ssm.time_step_rank": "time_step_rank"},
        flags={"ssm.dt_b_c_rms": "use_mixer_norms"},
        ignored=("attention.head_count",),
        derive=inner_size,
        sizes=ssm_inner,
    ),
    "mamba2": FamilyNames(
        MODEL,
        (Row("attn_norm.weight", "norm.weight", "hidden"), *at("mixer", *MAMBA2)),
        attends=False,
        hybrid=True,
        rope=False,
        counts={**SSM_SIZES, **GROUPED},
        ignored=("attention.head_count",),
        derive=lambda _: {"intermediate_size": None},
    ),
    "jamba": FamilyNames(
        MODEL,
        (
            *NORMS,
            *optional(*QKV, OUT, *GATED, *EXPERTS),
            *optional(
                *at("self_attn", *MAMBA),
                Row("ssm_dt_norm.weight", "self_attn.dt_norm.weight", "time_step_rank"),
                Row("ssm_b_norm.weight", "self_attn.b_norm.weight", "state_size"),
                Row("ssm_c_norm.weight", "self_attn.c_norm.weight", "state_size"),
            ),
        ),
        hybrid=True,
        counts={**COUNTS, **SSM_SIZES, "ssm.time_step_rank": "time_step_rank"},
        where={"ffn_gate_inp.weight": "has_experts"},
        sizes=ssm_inner,
    ),
    "falcon-h1": FamilyNames(
        MODEL,
        (
            NORMS[0],
            *optional(NORMS[1]),
            replace(NORMS[1], tensor="ffn_norm", optional=True),  # as its converter writes it
            *QKV,
            OUT,
            *GATED,
            *OTHER_BIASES[1:],
            *at("mamba", *MAMBA2),
        ),
        counts={**SSM_SIZES, **GROUPED},
    ),
    "nemotron_h": FamilyNames(
        MODEL,
        (NORMS[0], *optional(*QKV, OUT, *PLAIN, *at("mamba", *MAMBA2)), *OTHER_BIASES),
        hybrid=True,
        rope=False,
        counts={**SSM_SIZES, **GROUPED},
        fixed={"attention.layer_norm_epsilon": None},  # of heads that predict further tokens
        where={"ssm_in.weight": "has_mamba", "attn_q.weight": "has_attention"},
        derive=lambda _: {"layer_types": None},
    ),
    "granitehybrid": FamilyNames(
        MODEL,
        (
            *NORMS,
            *optional(*QKV, OUT, *at("self_attn", *MAMBA2)),
            *optional(*GATED),
            *optional(*(replace(row, path=row.path.replace("mlp.", "mlp.routed.")) for row in EXPERTS)),
            *optional(
                Row(
                    "ffn_gate_shexp.weight",
                    "mlp.shared_mlp.gate_proj.weight",
                    "shared_intermediate_size hidden",
                ),
                Row(
                    "ffn_up_shexp.weight", "mlp.shared_mlp.up_proj.weight", "shared_intermediate_size hidden"
                ),
                Row(
                    "ffn_down_shexp.weight",
                    "mlp.shared_mlp.down_proj.weight",
                    "hidden shared_intermediate_size",
                ),
            ),
        ),
        hybrid=True,
        interleaved=True,
        numbers=MULTIPLIERS,
        flags={"rope.scaling.finetuned": "use_rope"},
        counts={
            **SSM_SIZES,
            **GROUPED,
        },
        some={**COUNTS, "expert_shared_feed_forward_length": "shared_intermediate_size"},
    ),
    "lfm2": short_conv(*GATED, counts={"shortconv.l_cache": "conv_taps"}),
    "lfm2moe": short_conv(
        *optional(*GATED, *ROUTED),
        counts={**ROUTING["counts"], "shortconv.l_cache": "conv_taps"},
        some=ROUTING["some"],
        means={"norm_topk_prob": True},
        derive=scored,
    ),
    "rwkv6": FamilyNames(
        WKV_MODEL,
        (
            *WKV_NORMS,
            Row("time_mix_lerp_x.weight", "time_mix.lerp_x", "hidden"),
            Row("time_mix_lerp_fused.weight", "time_mix.lerp", "* one one hidden", view="five hidden"),
            Row("time_mix_w1.weight", "time_mix.w1.weight", "* hidden"),
            Row("time_mix_w2.weight", "time_mix.w2", "five hidden time_mix_extra_dim"),
            Row("time_mix_decay.weight", "time_mix.decay", "hidden"),
            Row("time_mix_decay_w1.weight", "time_mix.decay_w1.weight", "time_decay_extra_dim hidden"),
            Row("time_mix_decay_w2.weight", "time_mix.decay_w2.weight", "hidden time_decay_extra_dim"),
            Row("time_mix_first.weight", "time_mix.first", "* head_size"),
            *(
                _square(f"time_mix_{n}", f"time_mix.{n}")
                for n in ("receptance", "key", "value", "gate", "output")
            ),
            Row("time_mix_ln.weight", "time_mix.ln_weight", "hidden"),
            Row("time_mix_ln.bias", "time_mix.ln_bias", "hidden"),
            Row("channel_mix_lerp_k.weight", "channel_mix.lerp_k", "hidden"),
            Row("channel_mix_lerp_r.weight", "channel_mix.lerp_r", "hidden"),
            Row("channel_mix_key.weight", "channel_mix.key.weight", "inter hidden"),
            Row("channel_mix_value.weight", "channel_mix.value.weight", "hidden inter"),
            _square("channel_mix_receptance", "channel_mix.receptance"),
        ),
        attends=False,
        rope=False,
        counts=WKV,
        fixed={"rescale_every_n_layers": (0,)},
        ignored=("attention.head_count",),
        sizes=lambda _: {"five": 5},
        **LAYER_NORM,
    ),
    "rwkv7": FamilyNames(
        WKV_MODEL,
        (
            *WKV_NORMS,
            *(
                Row(
                    "time_mix_lerp_fused.weight",
                    f"time_mix.lerp_{name}",
                    "six one one hidden",
                    pick=("six", f"lerp_{name}", "one"),
                    view="hidden",
                )
                for name in "rwkvag"
            ),
            *_small("w", "decay", "decay_rank"),
            *_small("a", "rate", "learning_rank"),
            *_small("v", "lean", "value_rank"),
            Row("time_mix_g1.weight", "time_mix.gate1.weight", "gate_rank hidden"),
            Row("time_mix_g2.weight", "time_mix.gate2.weight", "hidden gate_rank"),
            *(Row(f"time_mix_{n}.weight", f"time_mix.{n}", "hidden") for n in ("k_k", "k_a")),
            Row("time_mix_r_k.weight", "time_mix.r_k", "hidden"),
            *(_square(f"time_mix_{n}", f"time_mix.{n}") for n in ("receptance", "key", "value", "output")),
            Row("time_mix_ln.weight", "time_mix.ln_weight", "hidden"),
            Row("time_mix_ln.bias", "time_mix.ln_bias", "hidden"),
            Row("channel_mix_lerp_k.weight", "channel_mix.lerp_k", "one one hidden", view="hidden"),
            Row("channel_mix_key.weight", "channel_mix.key.weight", "inter hidden"),
            Row("channel_mix_value.weight", "channel_mix.value.weight", "hidden inter"),
        ),
        attends=False,
        rope=False,
        counts={
            "wkv.head_size": "head_size",
            "attention.decay_lora_rank": "decay_rank",
            "attention.iclr_lora_rank": "learning_rank",
            "attention.value_residual_mix_lora_rank": "value_rank",
            "attention.gate_lora_rank": "gate_rank",
        },
        unread=tuple(f"blk.0.time_mix_v{i}.weight" for i in range(3)),
        fixed={"token_shift_count": (2,)},
        ignored=("attention.head_count",),
        sizes=lambda _: {"six": 6} | {f"lerp_{name}": i for i, name in enumerate("rwkvag")},
        **LAYER_NORM,
    ),
    "qwen35": FamilyNames(
        MODEL, (*DELTA_NORMS, *optional(*DELTA), *GATED), counts=DELTA_COUNTS, **DELTA_FAMILY
    ),
    "qwen35moe": FamilyNames(
        MODEL,
        (*DELTA_NORMS, *optional(*DELTA), *EXPERTS, *SHARED_EXPERT),
        counts={**SHARED_WIDTH, **DELTA_COUNTS},
        **DELTA_FAMILY,
    ),
}
