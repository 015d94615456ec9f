"""Rows of `names.hf.HF_FAMILIES`: encoders, and the heads that rank with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokamak.loaders.names.hf_family import HfFamily, named
from tokamak.types import Array

__all__ = ["HF_ENCODERS"]

_BERT = {
    **named(embed_tokens="embeddings.word_embeddings", embed_norm="embeddings.LayerNorm"),
    **named(embed_positions="embeddings.position_embeddings"),
    **named(token_types="embeddings.token_type_embeddings"),  # noqa: S106 no password
    **named(self_attn__q_proj="attention.self.query", self_attn__k_proj="attention.self.key"),
    **named(self_attn__v_proj="attention.self.value", self_attn__o_proj="attention.output.dense"),
    **named(attention_norm="attention.output.LayerNorm", output_norm="output.LayerNorm"),
    **named(mlp__up_proj="intermediate.dense", mlp__down_proj="output.dense"),
}
_FIXED = {
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "position_embedding_type": ("absolute",),
}
# What models that were trained to fill in masks, or to pool with a layer of their own, have besides.
_MASKED = (
    "position_ids",
    "pooler.dense.weight",
    "pooler.dense.bias",
    *(f"predictions.{end}" for end in ("bias", "decoder.weight", "decoder.bias")),
    *(f"predictions.transform.{n}.{end}" for n in ("dense", "LayerNorm") for end in ("weight", "bias")),
    *(f"seq_relationship.{end}" for end in ("weight", "bias")),
    *(f"lm_head.{n}" for n in ("bias", "dense.weight", "dense.bias", "layer_norm.weight", "layer_norm.bias")),
    *(f"lm_head.decoder.{end}" for end in ("weight", "bias")),
)
_SMALL = ("cls_token_id", "sentence_transformers", "sbert_ce_default_activation_function", "ner_model")
_NOMIC_FIXED = {
    **dict.fromkeys(("prenorm", "causal", "parallel_block", "parallel_block_tied_norm"), (False,)),
    **dict.fromkeys(("use_rms_norm", "rotary_emb_interleaved", "scale_attn_by_inverse_layer_idx"), (False,)),
    "scale_attn_weights": (True,),
}


def _after_padding(table: Array, _: Mapping[str, Any]) -> Array:
    """Positions are counted from the padding's id, 1, on: the first two rows belong to no text."""
    return table[2:]


def _scaled_nomic(config: Mapping[str, Any]) -> dict[str, Any]:
    """Longer texts than it was trained on would turn by other frequencies."""
    trained = config.get("max_trained_positions")
    return {"n_positions": trained} if config.get("rotary_scaling_factor") and trained else {}


def _roberta(prefix: str) -> HfFamily:
    return HfFamily(
        "bert",
        prefixes=(f"{prefix}.", ""),
        layers="encoder.layer",
        paths=_BERT,
        made={"embed_positions.weight": ("embeddings.position_embeddings.weight", _after_padding)},
        derive=lambda c: {"max_position_embeddings": c["max_position_embeddings"] - 2},
        understood=_SMALL,
        acts=("gelu",),
        fixed=_FIXED | {"pad_token_id": (1,)},
        ignored=_MASKED,
    )


HF_ENCODERS: Mapping[str, HfFamily] = {
    "bert": HfFamily(
        "bert",
        prefixes=("bert.", ""),
        layers="encoder.layer",
        paths={**_BERT, **named(classifier__dense="pooler.dense", classifier__out_proj="classifier")},
        behind=dict.fromkeys(("classifier.dense.weight", "classifier.dense.bias"), "classifier.weight"),
        understood=_SMALL,
        acts=("gelu",),
        fixed=_FIXED,
        ignored=_MASKED,
    ),
    "roberta": _roberta("roberta"),
    "camembert": _roberta("roberta"),
    "xlm-roberta": _roberta("roberta"),
    "nomic_bert": HfFamily(
        "nomic-bert",
        prefixes=("", "encoder."),
        paths={
            **named(embed_tokens="embeddings.word_embeddings", embed_norm="embeddings.LayerNorm"),
            **named(token_types="embeddings.token_type_embeddings"),  # noqa: S106 no password
            **named(attention_norm="post_attention_layernorm", output_norm="post_mlp_layernorm"),
        },
        others={
            **named(embed_norm="emb_ln", attention_norm="norm1", output_norm="norm2"),
            **named(self_attn__o_proj="attn.out_proj", mlp__gate_proj="mlp.fc12"),
            **named(mlp__up_proj="mlp.fc11", mlp__down_proj="mlp.fc2"),
        },
        whole={"attn_qkv.weight": "attn.Wqkv.weight"},
        config={
            "hidden_size": "n_embd",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "max_position_embeddings": "n_positions",
            "intermediate_size": "n_inner",
            "layer_norm_eps": "layer_norm_epsilon",
            "hidden_act": "activation_function",
            "rope_theta": "rotary_emb_base",
            "partial_rotary_factor": "rotary_emb_fraction",
        },
        derive=_scaled_nomic,
        understood=(
            *("max_trained_positions", "rotary_scaling_factor", "use_flash_attn", "use_xentropy"),
            *("fused_bias_fc", "fused_dropout_add_ln", "pad_vocab_size_multiple", *_SMALL),
        ),
        acts=("silu", "swiglu"),
        fixed=_NOMIC_FIXED,
    ),
    "modernbert": HfFamily(
        "modern-bert",
        paths={
            **named(embed_tokens="embeddings.tok_embeddings", embed_norm="embeddings.norm"),
            **named(norm="final_norm", input_layernorm="attn_norm", post_attention_layernorm="mlp_norm"),
            **named(self_attn__o_proj="attn.Wo", mlp__gate_up_proj="mlp.Wi", mlp__down_proj="mlp.Wo"),
            **named(classifier__dense="head.dense", classifier__norm="head.norm"),
            **named(classifier__out_proj="classifier"),
        },
        behind=dict.fromkeys(("classifier.dense.weight", "classifier.norm.weight"), "classifier.weight"),
        ranked={"classifier_pooling": "cls"},
        whole={"attn_qkv.weight": "attn.Wqkv.weight"},
        config={
            "layer_norm_eps": "norm_eps",
            "sliding_window": "local_attention",
            "sliding_window_pattern": "global_attn_every_n_layers",
            "rope_theta": "global_rope_theta",
            "rope_local_base_freq": "local_rope_theta",
            "hidden_act": "hidden_activation",
        },
        defaults={"sliding_window_pattern": 3, "rope_theta": 160000.0},
        locals_="fss",
        acts=("gelu",),
        fixed={"norm_bias": (False,), "attention_bias": (False,), "mlp_bias": (False,)}
        | {"classifier_activation": ("gelu",), "position_embedding_type": ("absolute",)},
        understood=(
            *("initializer_cutoff_factor", "decoder_bias", "classifier_bias", "classifier_pooling"),
            *("mlp_dropout", "sparse_pred_ignore_index", "reference_compile", *_SMALL),
        ),
        ignored=(
            *(f"head.{n}" for n in ("dense.weight", "dense.bias", "norm.weight", "norm.bias")),
            *("decoder.weight", "decoder.bias"),
        ),
    ),
}
