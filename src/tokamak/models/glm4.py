"""GLM-4 (0414): norms before and after each branch, biases on q, k and v, rope on half of each head."""

from __future__ import annotations

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama, phi3
from tokamak.models.llama import Config
from tokamak.nn import Module, RMSNorm, Step

__all__ = ["Config", "Glm4"]


class Block(llama.Block):
    """Each branch: norm, work, norm, add."""

    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.post_self_attn_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_mlp_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def feed_forward(self, c: Config) -> Module:
        return phi3.MLP(c)

    def forward(self, x: Value, step: Step) -> Value:
        x = ops.add(self.post_self_attn_layernorm(self.self_attn(self.input_layernorm(x), step)), x)
        return ops.add(self.post_mlp_layernorm(self.mlp(self.post_attention_layernorm(x))), x)


class Glm4(llama.Llama):
    block = Block
