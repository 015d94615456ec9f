"""DeepSeek 2 and 3: keys and values of all heads from one small latent per position, and DeepSeek's feed-forwards.

Where the checkpoint has `k_b` and `v_b`, queries are brought into the latent's space and only the latent is cached
(absorbed form); where it has their product's other form, keys and values are written out (expanded form).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama, moe
from tokamak.models.rope import rotate
from tokamak.nn import Linear, Module, Param, RMSNorm, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(moe.RoutedConfig):
    """Sizes and constants, named as in Hugging Face configurations."""

    kv_lora_rank: int
    q_lora_rank: int = 0  # 0: queries come straight from the hidden row
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int


def score_scale(c: Any) -> float:
    """head_dim^-0.5, times yarn's factor squared where the checkpoint asks for it (mscale_all_dim)."""
    scaling = c.rope.scaling or {}
    weight, factor = scaling.get("mscale_all_dim") or 0.0, scaling.get("factor") or 1.0
    sharper = 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0
    return float(c.head_dim**-0.5 * sharper * sharper)


class Attention(Module):
    """Multi-head latent attention; parts that turn and parts that do not are projections of their own."""

    def __init__(self, c: Any) -> None:
        self.c, self.scale = c, score_scale(c)
        heads, rank, nope, turns = (
            c.num_attention_heads,
            c.kv_lora_rank,
            c.qk_nope_head_dim,
            c.qk_rope_head_dim,
        )
        source = c.q_lora_rank or c.hidden_size
        self.q_a_proj = Linear(c.hidden_size, c.q_lora_rank) if c.q_lora_rank else None
        self.q_a_layernorm = RMSNorm(c.q_lora_rank, c.rms_norm_eps) if c.q_lora_rank else None
        self.q_nope_proj, self.q_pe_proj = Linear(source, heads * nope), Linear(source, heads * turns)
        self.kv_a_proj, self.k_pe_proj = Linear(c.hidden_size, rank), Linear(c.hidden_size, turns)
        self.kv_a_layernorm = RMSNorm(rank, c.rms_norm_eps)
        self.k_b = Param(heads, rank, nope, optional=True)
        self.v_b = Param(heads, c.v_head_dim, rank, optional=True)
        self.k_nope_proj = Linear(rank, heads * nope, optional=True)
        self.v_proj = Linear(rank, heads * c.v_head_dim, optional=True)
        self.o_proj = Linear(heads * c.v_head_dim, c.hidden_size)

    def forward(self, x: Value, step: Step) -> Value:
        c, heads = self.c, self.c.num_attention_heads
        source = self.q_a_layernorm(self.q_a_proj(x)) if self.q_a_proj and self.q_a_layernorm else x
        q_nope = ops.split_heads(self.q_nope_proj(source), heads=heads)
        q_pe = ops.split_heads(self.q_pe_proj(source), heads=heads)
        k_pe = ops.split_heads(self.k_pe_proj(x), heads=1)
        q_pe, k_pe = rotate(step, c.rope, c.qk_rope_head_dim, q_pe, k_pe)
        latent = self.kv_a_layernorm(self.kv_a_proj(x))
        if self.k_b.bound:
            q = ops.join(ops.heads_linear(q_nope, self.k_b.value), q_pe)
            k = v = ops.split_heads(latent, heads=1)
            mixed = step.attend(q, ops.join(k, k_pe), v, scale=self.scale)
            return self.o_proj(ops.merge_heads(ops.heads_linear(mixed, self.v_b.value)))
        k = ops.join(ops.split_heads(self.k_nope_proj(latent), heads=heads), k_pe)
        v = ops.split_heads(self.v_proj(latent), heads=heads)
        mixed = step.attend(ops.join(q_nope, q_pe), k, v, scale=self.scale)
        return self.o_proj(ops.merge_heads(mixed))


class DenseBlock(llama.Block):
    attention = Attention


class Block(DenseBlock):
    def feed_forward(self, c: Config) -> Module:  # type: ignore[override]  # of this family's blocks
        return moe.Routed(c)


class DeepSeek2(llama.Llama):
    def layer(self, c: Config, index: int) -> Module:
        return DenseBlock(c) if index < c.first_k_dense_replace else Block(c)
