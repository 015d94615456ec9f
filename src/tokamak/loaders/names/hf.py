"""What Hugging Face directories call things, family by family, where that is not what GGUF's tables call them.

Tables only; `hf_config.py` and `hf.py` apply them. The parameter paths of `names.FAMILIES` are Hugging Face's own for most
families, so that a row here says little more than the architecture. A new family is a new row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokamak.loaders.names.hf_encoders import HF_ENCODERS
from tokamak.loaders.names.hf_family import HfFamily, named
from tokamak.loaders.names.hf_hybrids import HF_HYBRIDS
from tokamak.loaders.names.hf_more import HF_MORE
from tokamak.loaders.names.hf_recurrent import HF_RECURRENT
from tokamak.types import Array

__all__ = ["HF_FAMILIES", "HfFamily"]


_MIXTRAL = {
    "mlp.experts.gate_proj": "block_sparse_moe.experts.{}.w1.weight",
    "mlp.experts.up_proj": "block_sparse_moe.experts.{}.w3.weight",
    "mlp.experts.down_proj": "block_sparse_moe.experts.{}.w2.weight",
}
_EXPERTS = {f"mlp.experts.{n}_proj": f"mlp.experts.{{}}.{n}_proj.weight" for n in ("gate", "up", "down")}
_HALVES = {
    "mlp.experts.gate_proj": ("mlp.experts.gate_up_proj", 0),
    "mlp.experts.up_proj": ("mlp.experts.gate_up_proj", 1),
}
_GELU_TANH = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")
_GPT2_NAMES = {
    **named(embed_tokens="wte", embed_positions="wpe", norm="ln_f"),
    **named(input_layernorm="ln_1", post_attention_layernorm="ln_2"),
    **named(self_attn__qkv_proj="attn.c_attn", self_attn__o_proj="attn.c_proj"),
    **named(mlp__up_proj="mlp.c_fc", mlp__down_proj="mlp.c_proj"),
}
_GPT2_CONFIG = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "intermediate_size": "n_inner",
    "layer_norm_eps": "layer_norm_epsilon",
    "hidden_act": "activation_function",
}
_GPT2_FIXED = {
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "scale_attn_weights": (True,),
}
_GPT2_IGNORED = (".attn.bias", ".attn.masked_bias")
_BIASES = {"attention_bias": (False,), "mlp_bias": (False,)}

_ROUTED = {"num_experts": "n_routed_experts"}


def _latent(config: Mapping[str, Any]) -> dict[str, Any]:
    """Attention over latents as files have it: one key head, as wide as the latent and the part that turns."""
    nope, turns = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
    rank, values = config["kv_lora_rank"], config["v_head_dim"]
    return {
        "num_key_value_heads": 1,
        "head_dim": rank + turns,
        "partial_rotary_factor": turns / (rank + turns),
        "v_head_dim": rank,
        "key_length_mla": nope + turns,
        "value_length_mla": values,
    }


def _latent_routed(config: Mapping[str, Any]) -> dict[str, Any]:
    greedy = config.get("topk_method") == "greedy"
    sigmoid = (
        config.get("scoring_func", "sigmoid" if config["model_type"] == "deepseek_v3" else "") == "sigmoid"
    )
    groups = dict.fromkeys(("n_group", "topk_group")) if greedy else {}
    return _latent(config) | {"scoring_func": 2 if sigmoid else 1} | groups


def _key_part(x: Array, keys: Mapping[str, Any]) -> Array:
    """kv_b's rows of keys: [heads, rank, columns that do not turn]."""
    nope = keys["attention.key_length_mla"] - keys["rope.dimension_count"]
    heads, rank = keys["attention.head_count"], keys["attention.kv_lora_rank"]
    return x.reshape(heads, -1, rank)[:, :nope].transpose(0, 2, 1)


def _value_part(x: Array, keys: Mapping[str, Any]) -> Array:
    """kv_b's rows of values: [heads, columns of values, rank]."""
    heads, rank = keys["attention.head_count"], keys["attention.kv_lora_rank"]
    return x.reshape(heads, -1, rank)[:, -keys["attention.value_length_mla"] :]


_LATENT: dict[str, Any] = {
    "paired": True,
    "whole": {
        "attn_q.weight": "self_attn.q_proj.weight",
        "attn_q_b.weight": "self_attn.q_b_proj.weight",
        "attn_kv_a_mqa.weight": "self_attn.kv_a_proj_with_mqa.weight",
    },
    "made": {
        "self_attn.k_b": ("self_attn.kv_b_proj.weight", _key_part),
        "self_attn.v_b": ("self_attn.kv_b_proj.weight", _value_part),
    },
}
_DEEPSEEK = HfFamily(
    "deepseek2",
    stacks=_EXPERTS,
    halves=_HALVES,
    config=_ROUTED,
    derive=_latent_routed,
    understood=(
        *("qk_nope_head_dim", "qk_rope_head_dim", "qk_head_dim", "scoring_func", "topk_method", "seq_aux"),
        *("num_nextn_predict_layers", "ep_size", "aux_loss_alpha"),
    ),
    fixed={"moe_layer_freq": (1,), "rope_interleave": (True,), "attention_bias": (False,)},
    ahead=True,
    **_LATENT,
)


def _one_base(config: Mapping[str, Any]) -> dict[str, Any]:
    """Local layers turn by the base of the others, without their scaling: transformers 5 writes that as two ropes."""
    rope = config.get("rope_parameters") or {}
    whole, local = rope.get("full_attention", {}), rope.get("sliding_attention", {})
    same = (
        whole.get("rope_theta") == local.get("rope_theta") and local.get("rope_type", "default") == "default"
    )
    return {"rope_parameters": whole} if whole and same else {}


def _sigmoid(_: Mapping[str, Any]) -> dict[str, Any]:
    return {"scoring_func": 2}


def _side(side: str, mlp: int) -> dict[str, str]:
    """Names of the tensors of an encoder's or a decoder's layer; `mlp` is the number of its last part."""
    inner = {"self_attn": "layer.0.SelfAttention", "cross_attn": "layer.1.EncDecAttention"}
    paths = {
        f"{side}.layers.{ours}.{p}_proj.weight": f"{theirs}.{p}.weight"
        for ours, theirs in inner.items()
        for p in "qkvo"
    }
    norms = {"attn_norm": 0, "cross_norm": 1, "mlp_norm": mlp}
    paths |= {f"{side}.layers.{n}.weight": f"layer.{i}.layer_norm.weight" for n, i in norms.items()}
    dense = {"gate": "wi_0", "up": "wi", "down": "wo"}
    paths |= {
        f"{side}.layers.mlp.{n}_proj.weight": f"layer.{mlp}.DenseReluDense.{t}.weight"
        for n, t in dense.items()
    }
    table = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return {**paths, f"{side}.buckets": table, f"{side}.norm.weight": f"{side}.final_layer_norm.weight"}


_T5 = HfFamily(
    "t5",
    prefixes=("",),
    paths={**_side("encoder", 1), **_side("decoder", 2), "embed_tokens.weight": "shared.weight"},
    sides={"encoder.layers.": "encoder.block.", "decoder.layers.": "decoder.block."},
    others={
        f"{side}.layers.mlp.up_proj.weight": f"layer.{mlp}.DenseReluDense.wi_1.weight"
        for side, mlp in (("encoder", 1), ("decoder", 2))
    },
    config={
        "hidden_size": "d_model",
        "intermediate_size": "d_ff",
        "head_dim": "d_kv",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "rms_norm_eps": "layer_norm_epsilon",
        "num_buckets": "relative_attention_num_buckets",
        "hidden_act": "feed_forward_proj",
        "max_position_embeddings": "n_positions",
    },
    defaults={"max_position_embeddings": 512, "num_buckets": 32},
    acts=("relu", "gated-gelu", "gated-silu"),
    derive=lambda c: {"silu": True} if c.get("feed_forward_proj") == "gated-silu" else {},
    fixed={
        "relative_attention_max_distance": (128,),
        "dense_act_fn": ("relu", "gelu_new", "silu"),
        "is_gated_act": (True, False),
        "dropout_rate": (0.0, 0.1),
        "scale_decoder_outputs": (True, False),
    },
    ignored=("embed_tokens.weight", "EncDecAttention.relative_attention_bias.weight"),
)


HF_FAMILIES: Mapping[str, HfFamily] = {
    "t5": _T5,
    "mt5": _T5,
    **HF_ENCODERS,
    **HF_RECURRENT,
    **HF_HYBRIDS,
    **HF_MORE,
    "bitnet": HfFamily("bitnet-b1.58", acts=("relu2",)),
    "llama": HfFamily("llama"),
    "mistral": HfFamily("llama"),
    "mixtral": HfFamily(
        "llama",
        paths={"mlp.gate.weight": "block_sparse_moe.gate.weight"},
        stacks=_MIXTRAL,
        halves=_HALVES,
        config={"num_experts": "num_local_experts"},
    ),
    "qwen2": HfFamily("qwen2"),
    "qwen3": HfFamily("qwen3", fixed={"attention_bias": (False,)}),
    "qwen2_moe": HfFamily(
        "qwen2moe",
        stacks=_EXPERTS,
        halves=_HALVES,
        fixed={"norm_topk_prob": (False,), "decoder_sparse_step": (1,), "mlp_only_layers": ([],)},
    ),
    "qwen3_moe": HfFamily(
        "qwen3moe",
        config={"num_experts": "num_local_experts"},
        stacks=_EXPERTS,
        halves=_HALVES,
        fixed={
            "norm_topk_prob": (True,),
            "decoder_sparse_step": (1,),
            "mlp_only_layers": ([],),
            "attention_bias": (False,),
        },
    ),
    "olmoe": HfFamily(
        "olmoe",
        stacks=_EXPERTS,
        halves=_HALVES,
        fixed={"norm_topk_prob": (False,), "clip_qkv": (None,)} | _BIASES,
    ),
    "olmo2": HfFamily("olmo2", fixed=_BIASES),
    "granite": HfFamily("granite"),
    "granitemoe": HfFamily(
        "granitemoe",
        paths={
            "mlp.gate.weight": "block_sparse_moe.router.layer.weight",
            "mlp.experts.down_proj": "block_sparse_moe.output_linear.weight",
        },
        halves={
            "mlp.experts.gate_proj": ("block_sparse_moe.input_linear.weight", 0),
            "mlp.experts.up_proj": ("block_sparse_moe.input_linear.weight", 1),
        },
        config={"num_experts": "num_local_experts"},
        fixed=_BIASES,
    ),
    "phi": HfFamily(
        "phi2",
        paths={
            **named(norm="final_layernorm", self_attn__o_proj="self_attn.dense"),
            **named(mlp__up_proj="mlp.fc1", mlp__down_proj="mlp.fc2"),
        },
        acts=_GELU_TANH,
        fixed={"qk_layernorm": (False,)},
        defaults={"partial_rotary_factor": 0.5},
    ),
    "phi3": HfFamily("phi3", fixed={"attention_bias": (False,)}),
    "gemma": HfFamily("gemma", acts=_GELU_TANH, one_more=True, fixed={"attention_bias": (False,)}),
    "gemma3_text": HfFamily(
        "gemma3",
        acts=_GELU_TANH,
        one_more=True,
        config={"hidden_act": "hidden_activation"},
        locals_="sssssf",
        fixed={
            "attention_bias": (False,),
            "use_bidirectional_attention": (False,),
            "_sliding_window_pattern": (6,),
            "sliding_window_pattern": (6,),
        },
    ),
    "gpt2": HfFamily(
        "gpt2",
        prefixes=("transformer.", ""),
        paths=_GPT2_NAMES,
        layers="h",
        config=_GPT2_CONFIG,
        fixed=_GPT2_FIXED,
        acts=_GELU_TANH,
        transposed=True,
        ignored=_GPT2_IGNORED,
    ),
    "gpt_bigcode": HfFamily(
        "starcoder",
        prefixes=("transformer.", ""),
        paths=_GPT2_NAMES,
        layers="h",
        config=_GPT2_CONFIG,
        fixed={**_GPT2_FIXED, "multi_query": (True,)},
        defaults={"num_key_value_heads": 1},
        acts=_GELU_TANH,
        ignored=_GPT2_IGNORED,
    ),
    "gpt_neox": HfFamily(
        "gptneox",
        prefixes=("gpt_neox.", ""),
        paths={
            **named(embed_tokens="embed_in", norm="final_layer_norm", lm_head="embed_out"),
            **named(self_attn__qkv_proj="attention.query_key_value", self_attn__o_proj="attention.dense"),
            **named(mlp__up_proj="mlp.dense_h_to_4h", mlp__down_proj="mlp.dense_4h_to_h"),
        },
        config={"partial_rotary_factor": "rotary_pct", "rope_theta": "rotary_emb_base"},
        defaults={"partial_rotary_factor": 0.25},
        fixed={"attention_bias": (True,)},
        acts=("gelu",),
        mixed_heads=True,
        ignored=("rotary_emb.inv_freq", "attention.bias", "attention.masked_bias"),
    ),
    "stablelm": HfFamily(
        "stablelm",
        fixed={"qk_layernorm": (False,), "use_parallel_residual": (False,)},
        defaults={"partial_rotary_factor": 0.25},
    ),
    "cohere": HfFamily("command-r", paired=True, fixed={"use_qk_norm": (False,)} | _BIASES),
    "glm4": HfFamily("glm4", paired=True, defaults={"partial_rotary_factor": 0.5}),
    "arcee": HfFamily("arcee", acts=("relu2",), fixed=_BIASES),
    "ernie4_5": HfFamily(
        "ernie4_5", paired=True, config={"use_bias": "use_bias"}, fixed={"use_bias": (False,)}
    ),
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "gpt_oss": HfFamily(
        "gpt-oss",
        paths={
            **{f"mlp.experts.{n}_bias": f"mlp.experts.{n}_proj_bias" for n in ("gate", "up", "down")},
        },
        halves=_HALVES
        | {
            "mlp.experts.gate_bias": ("mlp.experts.gate_up_proj_bias", 0),
            "mlp.experts.up_bias": ("mlp.experts.gate_up_proj_bias", 1),
        },
        config={"num_experts": "num_local_experts"},
        derive=lambda c: {"moe_intermediate_size": c["intermediate_size"]},
        fixed={"swiglu_limit": (7.0,), "swiglu_alpha": (1.702,)},
        locals_="sf",
        alternating=True,
        understood=("experts_per_token",),
    ),
    "cohere2": HfFamily("cohere2", paired=True, locals_="sssf", fixed={"use_qk_norm": (False,)} | _BIASES),
    "gemma2": HfFamily(
        "gemma2",
        acts=_GELU_TANH,
        one_more=True,
        config={"hidden_act": "hidden_activation"},
        locals_="sf",
        fixed={"attention_bias": (False,), "use_bidirectional_attention": (False,)},
    ),
    "starcoder2": HfFamily(
        "starcoder2",
        paths=named(mlp__up_proj="mlp.c_fc", mlp__down_proj="mlp.c_proj"),
        acts=_GELU_TANH,
        config={"layer_norm_eps": "norm_epsilon"},
    ),
    "nemotron": HfFamily(
        "nemotron",
        acts=("relu2",),
        one_more=True,
        config={"layer_norm_eps": "norm_eps"},
        defaults={"partial_rotary_factor": 0.5},
        fixed=_BIASES,
    ),
    "smollm3": HfFamily("smollm3", fixed=_BIASES, understood=("no_rope_layers", "no_rope_layer_interval")),
    "seed_oss": HfFamily("seed_oss", understood=("residual_dropout",)),
    "hunyuan_v1_dense": HfFamily(
        "hunyuan-dense",
        paths=named(
            self_attn__q_norm="self_attn.query_layernorm", self_attn__k_norm="self_attn.key_layernorm"
        ),
    ),
    "olmo": HfFamily("olmo", fixed=_BIASES, defaults={"layer_norm_eps": 1e-5}),
    "exaone4": HfFamily("exaone4", locals_="sssf", understood=("sliding_window_pattern",)),
    "olmo3": HfFamily("olmo2", locals_="sssf", fixed=_BIASES, derive=_one_base),
    "phimoe": HfFamily(
        "phimoe",
        config={"num_experts": "num_local_experts", "layer_norm_eps": "rms_norm_eps"},
        paths={"mlp.gate.weight": "block_sparse_moe.gate.weight"},
        stacks=_MIXTRAL,
        halves=_HALVES,
        understood=("input_jitter_noise", "lm_head_bias"),
    ),
    "dots1": HfFamily(
        "dots1",
        config=_ROUTED,
        stacks=_EXPERTS,
        halves=_HALVES,
        derive=_sigmoid,
        fixed={"attention_bias": (False,), "moe_layer_freq": (1,)},
        understood=("topk_method", "scoring_func"),
    ),
    "glm4_moe": HfFamily(
        "glm4moe",
        config=_ROUTED,
        stacks=_EXPERTS,
        halves=_HALVES,
        derive=_sigmoid,
        understood=("use_qk_norm", "num_nextn_predict_layers"),
        ahead=True,
    ),
    "minimax_m2": HfFamily(
        "minimax-m2",
        config={"num_experts": "num_local_experts"},
        paths={
            "mlp.gate.weight": "block_sparse_moe.gate.weight",
            "mlp.gate.e_score_correction_bias": "block_sparse_moe.e_score_correction_bias",
        },
        stacks=_MIXTRAL,
        halves=_HALVES,
        derive=lambda c: {"scoring_func": 2, "moe_intermediate_size": c["intermediate_size"]},
        understood=("scoring_func", "rotary_dim", "use_qk_norm", "qk_norm_type", "use_routing_bias"),
    ),
    "ministral3": HfFamily(
        "mistral3",
        derive=lambda c: {
            "llama_4_scaling_beta": (c.get("rope_parameters") or {}).get("llama_4_scaling_beta")
        },
    ),
    "gptj": HfFamily(
        "gptj",
        prefixes=("transformer.", ""),
        layers="h",
        paths={
            **named(embed_tokens="wte", norm="ln_f", input_layernorm="ln_1"),
            **{f"self_attn.{n}_proj.weight": f"attn.{n}_proj.weight" for n in "qkv"},
            **named(self_attn__o_proj="attn.out_proj"),
            **named(mlp__up_proj="mlp.fc_in", mlp__down_proj="mlp.fc_out"),
        },
        config=_GPT2_CONFIG,
        acts=_GELU_TANH,
        paired=True,
        derive=lambda c: {"partial_rotary_factor": c["rotary_dim"] / (c["n_embd"] // c["n_head"])},
        understood=("rotary_dim",),
        ignored=(".attn.bias", ".attn.masked_bias", "embed_positions"),
    ),
    "bloom": HfFamily(
        "bloom",
        prefixes=("transformer.", ""),
        layers="h",
        paths={
            **named(embed_tokens="word_embeddings", embed_norm="word_embeddings_layernorm", norm="ln_f"),
            **named(self_attn__qkv_proj="self_attention.query_key_value"),
            **named(self_attn__o_proj="self_attention.dense"),
            **named(mlp__up_proj="mlp.dense_h_to_4h", mlp__down_proj="mlp.dense_4h_to_h"),
        },
        config={
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "layer_norm_eps": "layer_norm_epsilon",
        },
        derive=lambda _: {"max_position_embeddings": 2048},
        fixed={"slow_but_exact": (False,), "apply_residual_connection_post_layernorm": (False,)},
        mixed_heads=True,
    ),
}
