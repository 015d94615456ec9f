"""Phi-3, Phi-4: Llama with query, key and value in one matrix, gate and up in another, and longrope."""

from __future__ import annotations

from typing import Any

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama
from tokamak.models.llama import Config
from tokamak.models.rope import rotate
from tokamak.nn import Linear, Module, Step

__all__ = ["Config", "Phi3"]


class Attention(Module):
    """Rows of qkv_proj: all query heads, then keys, then values."""

    def __init__(self, c: Any) -> None:
        self.c = c
        self.qkv_proj = Linear(
            c.hidden_size, (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim
        )
        self.o_proj = Linear(c.num_attention_heads * c.head_dim, c.hidden_size)

    def forward(self, x: Value, step: Step) -> Value:
        c = self.c
        qkv = self.qkv_proj(x)
        q_end = c.num_attention_heads * c.head_dim
        k_end = q_end + c.num_key_value_heads * c.head_dim
        spans = ((0, q_end), (q_end, k_end), (k_end, 2 * k_end - q_end))
        q, k, v = (
            ops.split_heads(ops.columns(qkv, start=a, stop=b), heads=(b - a) // c.head_dim) for a, b in spans
        )
        q, k = rotate(step, c.rope, c.head_dim, q, k)
        mixed = step.attend(q, k, v, scale=c.head_dim**-0.5, window=c.sliding_window)
        return self.o_proj(ops.merge_heads(mixed))


class MLP(Module):
    """Rows of gate_up_proj: gate, then up."""

    def __init__(self, c: Config) -> None:
        self.size = c.intermediate_size
        self.gate_up_proj = Linear(c.hidden_size, 2 * c.intermediate_size)
        self.down_proj = Linear(c.intermediate_size, c.hidden_size)

    def forward(self, x: Value) -> Value:
        both = self.gate_up_proj(x)
        gate = ops.columns(both, start=0, stop=self.size)
        up = ops.columns(both, start=self.size, stop=2 * self.size)
        return self.down_proj(ops.mul(ops.silu(gate), up))


class Block(llama.Block):
    attention = Attention

    def feed_forward(self, c: Config) -> Module:
        return MLP(c)


class Phi3(llama.Llama):
    block = Block
