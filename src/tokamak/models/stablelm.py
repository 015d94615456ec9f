"""StableLM and Orion: Llama with layer norms and partial rope."""

from __future__ import annotations

from typing import Any

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama, phi
from tokamak.models.phi import Config
from tokamak.nn import GatedMLP, LayerNorm, Module, Step

__all__ = ["Config", "StableLM"]


class Block(Module):
    """Two residual branches, each behind its layer norm."""

    attention: type[Any] = llama.Attention

    def __init__(self, c: Config) -> None:
        self.input_layernorm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.self_attn = self.attention(c)
        self.post_attention_layernorm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.mlp = self.feed_forward(c)

    def feed_forward(self, c: Config) -> Module:
        """Families override it."""
        return GatedMLP(c.hidden_size, c.intermediate_size)

    def forward(self, x: Value, step: Step) -> Value:
        x = ops.add(self.self_attn(self.input_layernorm(x), step), x)
        return ops.add(self.mlp(self.post_attention_layernorm(x)), x)


class StableLM(phi.Phi):
    block = Block
