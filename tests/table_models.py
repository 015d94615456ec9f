"""Tiny random models by the tables of `loaders/names/`, one case per family: files that other readers of GGUF open too."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

import tiny
from tokamak.loaders import TensorSource, write_gguf
from tokamak.loaders.config import extents, read_config
from tokamak.loaders.names import FAMILIES
from tokamak.loaders.writer import Typed

GELU = 5e-3
SIZES = {
    "block_count": 3,
    "context_length": 256,
    "embedding_length": 64,
    "feed_forward_length": 96,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "rope.dimension_count": 16,
    "rope.freq_base": 10000.0,
}
MOE = {"expert_count": 8, "expert_used_count": 3}
WIDE = MOE | {"expert_feed_forward_length": 48}
SHARED = WIDE | {"expert_shared_count": 1, "leading_dense_block_count": 1, "expert_weights_scale": 1.5}
SIGMOID = SHARED | {"expert_gating_func": 2, "expert_weights_norm": True}
WHOLE = {"attention.head_count_kv": 4}
LATENT = {
    "attention.head_count_kv": 4,
    "attention.q_lora_rank": 24,
    "attention.kv_lora_rank": 32,
    "attention.key_length": 24,
    "attention.value_length": 16,
    "rope.dimension_count": 8,
}
SSM = {"ssm.conv_kernel": 4, "ssm.state_size": 16, "ssm.inner_size": 128}


@dataclass(frozen=True)
class Case:
    """keys: beyond SIZES, None removes one. any: extents of "*" by tensor. without: optional tensors that are not there,
    by how their names end. only: {tensor: layers} that are in some layers only.
    """

    keys: dict = field(default_factory=dict)
    any: dict = field(default_factory=dict)
    without: tuple[str, ...] = (".bias",)
    only: dict = field(default_factory=dict)
    limit: float = 1e-4
    arch: str = ""


def mixed(first: int) -> dict:
    """Feed-forwards of a model whose layers have experts from `first` on."""
    dense, sparse = range(first), range(first, 99)
    names = ("gate", "up", "down")
    return (
        {f"ffn_{n}.weight": dense for n in names}
        | {f"ffn_{n}_exps.weight": sparse for n in names}
        | {f"ffn_{n}_shexp.weight": sparse for n in names}
        | {"ffn_gate_inp.weight": sparse, "exp_probs_b.bias": sparse}
    )


GROUPS = {"ssm.group_count": 2, "ssm.time_step_rank": 8}
MAMBA2 = {
    "ssm_in.weight": (128 * 2 + 2 * 2 * 16 + 8, 64),
    "ssm_conv1d.weight": (192, 4),
    "ssm_conv1d.bias": (192,),
    "ssm_norm.weight": (2, 64),
}
SSM_TENSORS = (*MAMBA2, "ssm_dt.bias", "ssm_a", "ssm_d", "ssm_out.weight")
NO_ROPE = {"rope.dimension_count": None, "rope.freq_base": None}
YARN = {"rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
CASES = {
    "baichuan-13b": Case({"block_count": 40, **WHOLE}, arch="baichuan"),
    "bailingmoe": Case(
        SHARED | {"leading_dense_block_count": 0}, only=mixed(0) | {"exp_probs_b.bias": range(0)}
    ),
    "bailingmoe2": Case(SIGMOID | {"expert_group_count": 4, "expert_group_used_count": 2}, only=mixed(1)),
    "chatglm": Case({"rope.dimension_count": 8}, without=()),
    "codeshell": Case(without=("ffn_gate.bias",), limit=GELU),
    "cohere2": Case(
        {"attention.sliding_window": 20, "block_count": 5, "logit_scale": 0.5},
        without=("norm.bias", "output.weight"),
    ),
    "dbrx": Case(MOE | {"attention.clamp_kqv": 0.8}, without=("norm.bias",)),
    "deepseek": Case(SHARED, only=mixed(1) | {"exp_probs_b.bias": range(0)}),
    "deepseek2": Case(
        {**LATENT, **SHARED, "attention.head_count_kv": 4},
        only=mixed(1) | {"attn_q.weight": range(0), "attn_k_b.weight": range(0), "attn_v_b.weight": range(0)},
    ),
    "dots1": Case(SIGMOID | WHOLE, only=mixed(1)),
    "ernie4_5-moe": Case(
        SHARED
        | {
            "expert_weights_scale": None,
            "expert_shared_feed_forward_length": 48,
            "interleave_moe_layer_step": 1,
        },
        only=mixed(1),
    ),
    "exaone": Case(),
    "exaone4": Case({"attention.sliding_window": 20, "block_count": 64}),
    "falcon-h1": Case(SSM | GROUPS, any=MAMBA2, without=("ffn_norm.weight", ".bias?")),
    "gemma2": Case(
        {
            "attention.sliding_window": 20,
            "attn_logit_softcapping": 20.0,
            "final_logit_softcapping": 10.0,
            "attention.key_length": 16,
            "attention.value_length": 16,
        },
        without=("output.weight",),
        limit=GELU,
    ),
    "glm4moe": Case(
        SIGMOID | {"rope.dimension_count": 8, "attention.key_length": 16, "attention.value_length": 16},
        only=mixed(1),
        without=(),
    ),
    "hunyuan-dense": Case(),
    "maincoder": Case(),
    "hunyuan-moe": Case(MOE | {"expert_feed_forward_length": 96} | {"expert_shared_feed_forward_length": 48}),
    "internlm2": Case(),
    "jais": Case({**WHOLE, **NO_ROPE, "attention.max_alibi_bias": 8.0}, without=()),
    "jais2": Case(without=("ffn_gate.bias",)),
    "lfm2moe": Case(
        SIGMOID
        | {
            "attention.head_count_kv": Typed("array[int32]", [0, 2, 0]),
            "shortconv.l_cache": 3,
            "expert_shared_count": None,
            "expert_weights_scale": None,
            "expert_weights_norm": None,
        },
        any={"shortconv.in_proj.weight": (192, 64)},
        only=mixed(1)
        | dict.fromkeys(
            (
                "attn_q.weight",
                "attn_k.weight",
                "attn_v.weight",
                "attn_output.weight",
                "attn_q_norm.weight",
                "attn_k_norm.weight",
            ),
            (1,),
        )
        | {f"shortconv.{n}.weight": (0, 2) for n in ("conv", "in_proj", "out_proj")},
        without=("output.weight",),
    ),
    "mamba2": Case(
        SSM
        | {
            **GROUPS,
            "feed_forward_length": 0,
            "attention.head_count": 0,
            "attention.head_count_kv": None,
            **NO_ROPE,
        },
        any=MAMBA2,
    ),
    "minicpm3": Case(
        LATENT | {"attention.head_count_kv": 4},
        only={"attn_q.weight": range(0), "attn_k_b.weight": range(0), "attn_v_b.weight": range(0)},
    ),
    "minimax-m2": Case(
        SIGMOID
        | {
            "expert_feed_forward_length": 96,
            "expert_shared_count": None,
            "leading_dense_block_count": None,
            "expert_weights_scale": None,
            "expert_weights_norm": None,
            "rope.dimension_count": 8,
        },
        only=mixed(0) | {f"ffn_{n}_shexp.weight": range(0) for n in ("gate", "up", "down")},
    ),
    "mistral3": Case(),
    "mpt": Case(
        {**WHOLE, **NO_ROPE, "attention.max_alibi_bias": 8.0, "attention.clamp_kqv": 0.8}, limit=GELU
    ),
    "nemotron": Case({"rope.dimension_count": 8}),
    "nemotron_h": Case(
        SSM
        | GROUPS
        | {
            "attention.head_count_kv": Typed("array[int32]", [0, 2, 0]),
            "feed_forward_length": Typed("array[int32]", [0, 0, 96]),
            "attention.layer_norm_epsilon": 1e-5,
        },
        any=MAMBA2,
        only=dict.fromkeys(SSM_TENSORS, (0,))
        | {f"attn_{n}.weight": (1,) for n in ("q", "k", "v", "output")}
        | {"ffn_up.weight": (2,), "ffn_down.weight": (2,)}
        | {f"{n}.bias": () for n in ("attn_output", "ffn_gate", "ffn_up", "ffn_down")},
        without=(),
    ),
    "olmo2": Case({"attention.sliding_window": 20, "block_count": 5, "rope.scaling.type": "yarn"} | YARN),
    "orion": Case(),
    "paddleocr": Case({"rope.dimension_sections": Typed("array[int32]", [4, 2, 2, 0])}),
    "pangu-embedded": Case(without=("ffn_gate.bias", "ffn_up.bias", "ffn_down.bias")),
    "plamo": Case(),
    "qwen": Case({**WHOLE, "feed_forward_length": 192}, without=()),
    "qwen2": Case(),
    "qwen2vl": Case(
        {
            "attention.layer_norm_rms_epsilon": 1e-12,
            "rope.dimension_sections": Typed("array[int32]", [4, 2, 2, 0]),
        }
    ),
    "qwen35moe": Case(
        SSM
        | {
            "ssm.inner_size": 64,
            "ssm.group_count": 2,
            "ssm.time_step_rank": 4,
            "full_attention_interval": 3,
            **WIDE,
            "expert_shared_feed_forward_length": 40,
            "rope.dimension_count": 8,
            "rope.dimension_sections": Typed("array[int32]", [2, 1, 1, 0]),
            "attention.key_length": 16,
            "attention.value_length": 16,
        },
        only=dict.fromkeys(
            (
                "attn_qkv.weight",
                "attn_gate.weight",
                "ssm_conv1d.weight",
                "ssm_dt.bias",
                "ssm_a",
                "ssm_alpha.weight",
                "ssm_beta.weight",
                "ssm_norm.weight",
                "ssm_out.weight",
            ),
            (0, 1),
        )
        | {f"attn_{n}.weight": (2,) for n in ("q", "k", "v", "output", "q_norm", "k_norm")},
        without=(),
    ),
    "qwen3vl": Case(
        {"rope.dimension_sections": Typed("array[int32]", [3, 3, 2, 0]), "n_deepstack_layers": 0}
    ),
    "qwen3vlmoe": Case(
        WIDE | {"rope.dimension_sections": Typed("array[int32]", [3, 3, 2, 0]), "n_deepstack_layers": 0}
    ),
    "refact": Case({**NO_ROPE, "attention.head_count_kv": 1}),
    "rwkv7": Case(
        {
            "attention.head_count": 0,
            "attention.head_count_kv": None,
            **NO_ROPE,
            "embedding_length": 128,
            "wkv.head_size": 64,  # its kernels assume that
            "attention.decay_lora_rank": 8,
            "attention.iclr_lora_rank": 12,
            "attention.value_residual_mix_lora_rank": 12,
            "attention.gate_lora_rank": 20,
        },
        without=(),
    ),
    "seed_oss": Case(),
    "smollm3": Case({"block_count": 5}),
    "starcoder2": Case(without=("ffn_gate.bias",), limit=GELU),
    "xverse": Case(),
}


def written(path, name: str, case: Case):
    """A file of float32 tensors by the family's table."""
    arch, family = case.arch or name, FAMILIES[name]
    keys = {**SIZES, family.norm_key: 1e-5, **case.keys}
    keys = {f"{arch}.{k}": v for k, v in keys.items() if v is not None}
    plain = {k: np.array(v.value) if isinstance(v, Typed) else v for k, v in keys.items()}
    config = read_config(plain, arch, family, {})
    config |= dict.fromkeys(family.where.values(), ())
    size = extents(config, tiny.VOCAB_SIZE, family)
    tensors = {}
    rows = [(row.tensor, row) for row in family.model]
    for i in range(config["num_hidden_layers"]):
        rows += [
            (f"blk.{i}.{row.tensor}", row)
            for row in family.layer
            if i in case.only.get(row.tensor, range(i + 1))
        ]
    for full, row in rows:
        spared = row.tensor.endswith("norm.bias") and "norm.bias" not in case.without
        left_out = row.tensor.endswith(case.without or "?") and not spared
        if row.optional and left_out and row.tensor not in case.only:
            continue
        shape = [case.any[row.tensor][j] if e == "*" else size[e] for j, e in enumerate(row.shape.split())]
        tensors[full] = source(full, tuple(shape))
    metadata = {"general.architecture": arch, "general.type": "model", **keys, **tiny.vocabulary("llama")}
    write_gguf(path, metadata, tensors.values())
    return path


def source(name: str, shape: tuple[int, ...]) -> TensorSource:
    """Norms near one, decays negative, matrices such that logits spread."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    x = rng.standard_normal(shape)
    if name.endswith("ssm_a"):
        x = -np.exp(0.3 * x)
    elif len(shape) > 1:
        x *= (3.0 if name == "output.weight" else 1.5) / np.sqrt(shape[-1])
    else:
        x = 0.1 * x + (1.0 if "norm.weight" in name or name.endswith("ssm_d") else 0.0)
    content = np.ascontiguousarray(x, np.float32)
    return TensorSource(name, "f32", shape, lambda: content.reshape(-1).view(np.uint8))
