"""StableLM: Llama with layer norms and partial rope."""

from __future__ import annotations

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama, phi
from tokamak.models.phi import Config
from tokamak.nn import GatedMLP, LayerNorm, Module, Step

__all__ = ["Config", "StableLM"]


class Block(Module):
    """Two residual branches, each behind its layer norm."""

    def __init__(self, c: Config) -> None:
        self.input_layernorm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.self_attn = llama.Attention(c)
        self.post_attention_layernorm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.mlp = GatedMLP(c.hidden_size, c.intermediate_size)

    def forward(self, x: Value, step: Step) -> Value:
        x = ops.add(self.self_attn(self.input_layernorm(x), step), x)
        return ops.add(self.mlp(self.post_attention_layernorm(x)), x)


class StableLM(phi.Phi):
    block = Block
