"""BitNet b1.58: Llama with a norm before each output projection; ternary weights are a format, not a family trait.

The feed-forward gates with relu^2 (2B-4T and later) or silu (the first models): in GGUF the architecture name tells.
"""

from __future__ import annotations

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama
from tokamak.models.llama import Config
from tokamak.nn import GatedMLP, Module, RMSNorm, Step

__all__ = ["BitNet", "BitNetSilu", "Config"]


class Attention(llama.Attention):
    """A norm over all heads before o_proj."""

    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.attn_sub_norm = RMSNorm(c.num_attention_heads * c.head_dim, c.rms_norm_eps)

    def forward(self, x: Value, step: Step) -> Value:
        return self.o_proj(self.attn_sub_norm(self.mix(x, step)))


class MLP(GatedMLP):
    """A norm before down_proj."""

    def __init__(self, c: Config, act: str) -> None:
        super().__init__(c.hidden_size, c.intermediate_size, act)
        self.ffn_sub_norm = RMSNorm(c.intermediate_size, c.rms_norm_eps)

    def forward(self, x: Value) -> Value:
        gate: Value = getattr(ops, self.act)(self.gate_proj(x))
        return self.down_proj(self.ffn_sub_norm(ops.mul(gate, self.up_proj(x))))


class Block(llama.Block):
    attention = Attention

    def feed_forward(self, c: Config) -> Module:
        return MLP(c, "relu2")


class SiluBlock(llama.Block):
    attention = Attention

    def feed_forward(self, c: Config) -> Module:
        return MLP(c, "silu")


class BitNet(llama.Llama):
    block = Block


class BitNetSilu(llama.Llama):
    block = SiluBlock
