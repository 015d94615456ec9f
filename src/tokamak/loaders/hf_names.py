"""What Hugging Face directories call things, family by family, where that is not what `names.py` calls them.

Tables only; `hf_config.py` and `hf.py` apply them. The parameter paths of `names.FAMILIES` are Hugging Face's own for most
families, so that a row here says little more than the architecture. A new family is a new row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["HF_FAMILIES", "HfFamily"]


@dataclass(frozen=True, slots=True)
class HfFamily:
    """How one `model_type` is written.

    architecture: of GGUF. prefixes: what may stand before the names of everything but the head. paths: names by the
    parameter path of `names.FAMILIES` (a layer's without "layers.N."), where they differ. layers: what the list of layers
    is called. config: names of configuration values by the name used here. defaults: of values that may be absent. fixed:
    values that are accepted of settings that change what is computed. acts: of the activation. paired: rows of Q and K lie
    in pairs already. transposed: weights are stored [inputs, outputs]. one_more: norms are stored less one. mixed_heads: the
    fused projection has Q, K and V of a head together. stacks: names of one expert's matrix, {} its number, by path.
    halves: (name, half) of gates and ups that are one tensor, by path. ignored: ends of names that nothing needs.
    bos: add_bos_token in files where the tokenizer does not say.
    """

    architecture: str
    prefixes: tuple[str, ...] = ("model.", "")
    paths: Mapping[str, str] = field(default_factory=dict)
    layers: str = "layers"
    config: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    acts: tuple[str, ...] = ("silu",)
    paired: bool = False
    transposed: bool = False
    one_more: bool = False
    mixed_heads: bool = False
    stacks: Mapping[str, str] = field(default_factory=dict)
    halves: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ("rotary_emb.inv_freq",)


def _named(**renamed: str) -> Mapping[str, str]:
    """Paths of modules, "__" for a dot, to names of modules: their weight and bias."""
    return {
        f"{ours.replace('__', '.')}.{kind}": f"{theirs}.{kind}"
        for ours, theirs in renamed.items()
        for kind in ("weight", "bias")
    }


_EXPERTS = {f"mlp.experts.{n}_proj": f"mlp.experts.{{}}.{n}_proj.weight" for n in ("gate", "up", "down")}
_HALVES = {
    "mlp.experts.gate_proj": ("mlp.experts.gate_up_proj", 0),
    "mlp.experts.up_proj": ("mlp.experts.gate_up_proj", 1),
}
_GELU_TANH = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")
_GPT2_NAMES = {
    **_named(embed_tokens="wte", embed_positions="wpe", norm="ln_f"),
    **_named(input_layernorm="ln_1", post_attention_layernorm="ln_2"),
    **_named(self_attn__qkv_proj="attn.c_attn", self_attn__o_proj="attn.c_proj"),
    **_named(mlp__up_proj="mlp.c_fc", mlp__down_proj="mlp.c_proj"),
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

HF_FAMILIES: Mapping[str, HfFamily] = {
    "bert": HfFamily(
        "bert",
        prefixes=("bert.", ""),
        layers="encoder.layer",
        paths={
            **_named(embed_tokens="embeddings.word_embeddings", embed_norm="embeddings.LayerNorm"),
            **_named(embed_positions="embeddings.position_embeddings"),
            **_named(token_types="embeddings.token_type_embeddings"),  # noqa: S106 no password
            **_named(self_attn__q_proj="attention.self.query", self_attn__k_proj="attention.self.key"),
            **_named(self_attn__v_proj="attention.self.value", self_attn__o_proj="attention.output.dense"),
            **_named(attention_norm="attention.output.LayerNorm", output_norm="output.LayerNorm"),
            **_named(mlp__up_proj="intermediate.dense", mlp__down_proj="output.dense"),
        },
        acts=("gelu",),
        fixed={"is_decoder": (False,), "position_embedding_type": ("absolute",)},
        ignored=("position_ids", "pooler.dense.weight", "pooler.dense.bias"),
    ),
    "llama": HfFamily("llama"),
    "mistral": HfFamily("llama"),
    "mixtral": HfFamily(
        "llama",
        paths={"mlp.gate.weight": "block_sparse_moe.gate.weight"},
        stacks={
            "mlp.experts.gate_proj": "block_sparse_moe.experts.{}.w1.weight",
            "mlp.experts.up_proj": "block_sparse_moe.experts.{}.w3.weight",
            "mlp.experts.down_proj": "block_sparse_moe.experts.{}.w2.weight",
        },
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
            **_named(norm="final_layernorm", self_attn__o_proj="self_attn.dense"),
            **_named(mlp__up_proj="mlp.fc1", mlp__down_proj="mlp.fc2"),
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
            **_named(embed_tokens="embed_in", norm="final_layer_norm", lm_head="embed_out"),
            **_named(self_attn__qkv_proj="attention.query_key_value", self_attn__o_proj="attention.dense"),
            **_named(mlp__up_proj="mlp.dense_h_to_4h", mlp__down_proj="mlp.dense_4h_to_h"),
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
}
