"""Falcon: multi-query attention and gelu feed-forward in parallel; one norm for both (7B) or one each (40B)."""

from __future__ import annotations

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import phi, phi3
from tokamak.models.phi import Config
from tokamak.nn import MLP, LayerNorm, Module, Step

__all__ = ["Config", "Falcon"]


class Block(Module):
    """x + attention(ln_attn(x)) + mlp(ln_mlp(x)); in the 7B form both norms are input_layernorm."""

    def __init__(self, c: Config) -> None:
        self.input_layernorm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.ln_attn = LayerNorm(c.hidden_size, c.layer_norm_eps, optional=True)
        self.self_attn = phi3.Attention(c)
        self.mlp = MLP(c.hidden_size, c.intermediate_size, "gelu_erf")

    def forward(self, x: Value, step: Step) -> Value:
        h = self.input_layernorm(x)
        a = self.ln_attn(x) if self.ln_attn.weight.bound else h
        return ops.add(ops.add(self.self_attn(a, step), self.mlp(h)), x)


class Falcon(phi.Phi):
    block = Block
