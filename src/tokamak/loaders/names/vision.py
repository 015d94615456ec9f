"""What files of image encoders call things: GGUF's tensors to parameter paths, Hugging Face's names to GGUF's, and what
stands around an image in a prompt. Tables only; `loaders/vision.py` and `loaders/hf_vision.py` apply them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Of every tower: a tensor's name, which may have .weight and .bias, and the path of the parameter.
TOWER: Mapping[str, str] = {
    "v.patch_embd": "patch_embedding",
    "v.position_embd": "embed_positions",
    "v.pre_ln": "pre_layernorm",
    "v.post_ln": "post_layernorm",
}
BLOCK: Mapping[str, str] = {  # behind "v.blk.N."
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ln1": "input_layernorm",
    "ln2": "post_attention_layernorm",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ls1": "attention_scale",
    "ls2": "mlp_scale",
}
CLASS = "v.class_embd"
# Projectors that files name and nothing here computes, with what they would need.
REFUSED: Mapping[str, str] = {
    "gemma3": "rows of an image that see each other in the decoder",
    "ldp": "convolutions",
    "ldpv2": "convolutions",
    "resampler": "queries of its own",
    "adapter": "a convolution",
    "qwen2vl_merger": "positions of three axes",
    "qwen2.5vl_merger": "positions of three axes",
    "qwen3vl_merger": "positions of three axes",
    "pixtral": "rope of two axes",
}


@dataclass(frozen=True, slots=True)
class VisionNames:
    """How files with one projector are written.

    tensors: of the projector, as TOWER. act: of its matrices, "gelu_erf" or "gelu". tower_act: where clip.use_gelu is set.
    merge: patches of a side that become one row (0: what the file says). before, after: text around an image where the
    chat template writes none. tokens: what the placeholder of a row may be called in the vocabulary. mode, tiles: see
    `Preprocessing`. last: whether the norm behind the last layer is applied.
    """

    tensors: Mapping[str, str]
    act: str = "gelu_erf"
    tower_act: str = "gelu"
    merge: int = 1
    before: str = ""
    after: str = ""
    tokens: tuple[str, ...] = ()
    mode: str = "squash"
    tiles: tuple[int, int] = (1, 1)
    last: bool = True


VISION: Mapping[str, VisionNames] = {
    "mlp": VisionNames(
        {"mm.0": "linear_1", "mm.2": "linear_2"},
        after="\n",
        tokens=("<image>",),
        mode="crop",
        last=False,
    ),
    "internvl": VisionNames(
        {"mm.model.mlp.0": "norm", "mm.model.mlp.1": "linear_1", "mm.model.mlp.3": "linear_2"},
        tower_act="gelu_erf",
        merge=0,
        before="<img>",
        after="</img>\n",
        tiles=(1, 12),
        tokens=("<IMG_CONTEXT>",),
        last=False,
    ),
}


@dataclass(frozen=True, slots=True)
class HfVisionNames:
    """How one `model_type` with an image encoder is written in Hugging Face directories.

    projector: of VISION. towers: defaults of vision_config by its `model_type`, and
    "select", the vision_feature_select_strategy that leaves out no patch but a class token. tower, block, projection: GGUF's names by theirs, behind
    the prefixes of the tower, of its layers (`layers`), of the projector. text: the
    `model_type` of its text_config where that says none. feature: the hidden states that are used, counted from the last.
    unread: beginnings of names of the tower that nothing here needs.
    """

    projector: str
    towers: Mapping[str, Mapping[str, object]]
    tower: Mapping[str, str]
    block: Mapping[str, str]
    projection: Mapping[str, str]
    layers: str = "encoder.layers."
    unread: tuple[str, ...] = ("head.", "embeddings.position_ids", "embeddings.mask_token")
    text: str = "llama"
    feature: int = -1


_CLIP = {
    "embeddings.class_embedding": CLASS,
    "embeddings.patch_embedding.weight": "v.patch_embd.weight",
    "embeddings.patch_embedding.bias": "v.patch_embd.bias",
    "embeddings.position_embedding.weight": "v.position_embd.weight",
    **{f"pre_layrnorm.{end}": f"v.pre_ln.{end}" for end in ("weight", "bias")},
    **{f"post_layernorm.{end}": f"v.post_ln.{end}" for end in ("weight", "bias")},
}
_CLIP_BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
_INTERN = {
    "embeddings.cls_token": CLASS,
    "embeddings.patch_embeddings.projection.weight": "v.patch_embd.weight",
    "embeddings.patch_embeddings.projection.bias": "v.patch_embd.bias",
    "embeddings.position_embeddings": "v.position_embd.weight",
}
_INTERN_BLOCK = {
    "attention.q_proj": "attn_q",
    "attention.k_proj": "attn_k",
    "attention.v_proj": "attn_v",
    "attention.projection_layer": "attn_out",
    "layernorm_before": "ln1",
    "layernorm_after": "ln2",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
    "lambda_1": "ls1",
    "lambda_2": "ls2",
}

# What transformers takes for settings of a text_config that leaves them out, by its `model_type`.
TEXT_DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "rms_norm_eps": 1e-6,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
    }
}

HF_VISION: Mapping[str, HfVisionNames] = {
    "llava": HfVisionNames(
        "mlp",
        {
            "clip_vision_model": {"layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"},
            "siglip_vision_model": {
                "layer_norm_eps": 1e-6,
                "hidden_act": "gelu_pytorch_tanh",
                "select": "full",
            },
        },
        _CLIP,
        _CLIP_BLOCK,
        {"linear_1": "mm.0", "linear_2": "mm.2"},
        feature=-2,
    ),
    "internvl": HfVisionNames(
        "internvl",
        {"internvl_vision": {"layer_norm_eps": 1e-6, "hidden_act": "gelu"}},
        _INTERN,
        _INTERN_BLOCK,
        {"layer_norm": "mm.model.mlp.0", "linear_1": "mm.model.mlp.1", "linear_2": "mm.model.mlp.3"},
        layers="encoder.layer.",
        text="qwen2",
    ),
}
