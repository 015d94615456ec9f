"""PLaMo 1: one norm feeds attention and a gated feed-forward in parallel."""

from __future__ import annotations

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama
from tokamak.models.llama import Config
from tokamak.nn import GatedMLP, Module, RMSNorm, Step

__all__ = ["Config", "Plamo"]


class Block(Module):
    """x + attention(norm(x)) + mlp(norm(x))."""

    def __init__(self, c: Config) -> None:
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = llama.Attention(c)
        self.mlp = GatedMLP(c.hidden_size, c.intermediate_size)

    def forward(self, x: Value, step: Step) -> Value:
        h = self.input_layernorm(x)
        return ops.add(ops.add(self.self_attn(h, step), self.mlp(h)), x)


class Plamo(llama.Llama):
    block = Block
