"""Qwen 3.5 and Qwen 3-Next: three layers of gated delta rule, then one of gated attention; feed-forward dense or mixed.

GGUF files hold norms as 1 + weight, and value heads in such an order that key heads repeat as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama, mamba, qwen3, qwen_moe
from tokamak.nn import Linear, Module, Param, RMSNorm, Step

L2_EPS = 1e-6  # of the norms of queries and keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(llama.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    layer_types: tuple[str, ...]
    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_conv_kernel_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeConfig(Config):
    """The same with experts."""

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int


class Attention(qwen3.Attention):
    """Each head's result times the sigmoid of a gate of its own."""

    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.gate_proj = Linear(c.hidden_size, c.num_attention_heads * c.head_dim)

    def forward(self, x: Value, step: Step) -> Value:
        return self.o_proj(ops.sigmoid_mul(self.mix(x, step), self.gate_proj(x)))


class DeltaNet(Module):
    """Gated delta rule over convolved queries, keys and values."""

    def __init__(self, c: Any) -> None:
        self.c = c
        self.keys = c.linear_num_key_heads * c.linear_key_head_dim
        self.values = c.linear_num_value_heads * c.linear_value_head_dim
        self.qkv_proj = Linear(c.hidden_size, 2 * self.keys + self.values)
        self.z_proj = Linear(c.hidden_size, self.values)
        self.a_proj, self.b_proj = (Linear(c.hidden_size, c.linear_num_value_heads) for _ in range(2))
        self.conv1d = mamba.Conv(2 * self.keys + self.values, c.linear_conv_kernel_dim)
        self.A, self.dt_bias = Param(c.linear_num_value_heads), Param(c.linear_num_value_heads)
        self.norm = RMSNorm(c.linear_value_head_dim, c.rms_norm_eps)
        self.out_proj = Linear(self.values, c.hidden_size)

    def forward(self, x: Value, step: Step) -> Value:
        c, heads, width = self.c, self.c.linear_num_value_heads, self.c.linear_key_head_dim
        h = self.conv1d(self.qkv_proj(x), step)
        q, k = (
            self.repeated(self.unit(ops.columns(h, start=i * self.keys, stop=(i + 1) * self.keys), factor))
            for i, factor in ((0, 1 / width), (1, width**-0.5))  # queries are scaled by width^-0.5 as well
        )
        v = ops.split_heads(
            ops.columns(h, start=2 * self.keys, stop=2 * self.keys + self.values), heads=heads
        )
        ones = step.const(f"ones.{heads}", np.ones(heads, np.float32))
        decay = ops.affine(ops.softplus(ops.affine(self.a_proj(x), ones, self.dt_bias.value)), self.A.value)
        state = step.recall(heads, width, c.linear_value_head_dim)
        y = ops.linear_attention(q, k, v, decay, *state, ops.sigmoid(self.b_proj(x)), rule="delta")
        return self.out_proj(ops.mul(ops.silu(self.z_proj(x)), ops.merge_heads(self.norm(y))))

    def unit(self, x: Value, factor: float) -> Value:
        """Heads of length sqrt(width) times `factor`."""
        heads = ops.split_heads(x, heads=self.c.linear_num_key_heads)
        return mamba.plain_norm(heads, L2_EPS / self.c.linear_key_head_dim, factor)

    def repeated(self, x: Value) -> Value:
        """All key heads again and again until there are as many as value heads."""
        times = self.c.linear_num_value_heads // self.c.linear_num_key_heads
        once = ops.split_heads(ops.merge_heads(x), heads=1)
        many = once
        for _ in range(times - 1):
            many = ops.join(many, once)
        return ops.split_heads(ops.merge_heads(many), heads=self.c.linear_num_value_heads)


class Block(llama.Block):
    """The branch that mixes rows is called self_attn in every layer."""

    def __init__(self, c: Any, index: int) -> None:
        super().__init__(c)
        attends = c.layer_types[index] == "full_attention"
        self.self_attn: Any = Attention(c) if attends else DeltaNet(c)
        if hasattr(c, "num_experts"):
            self.mlp: Module = qwen_moe.SharedMLP(c, normed=True)


class Qwen35(llama.Llama):
    def layer(self, c: Any, index: int) -> Module:
        return Block(c, index)
