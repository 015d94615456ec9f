"""BitNet b1.58: Llama with a norm before each output projection; ternary weights are a format, not a family trait.

The feed-forward gates with relu^2 (2B-4T and later) or silu (the first models): in GGUF the architecture name tells.
"""

from __future__ import annotations

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama
from tokamak.models.llama import Config
from tokamak.nn import Linear, Module, RMSNorm, Step

__all__ = ["BitNet", "BitNetSilu", "Config"]


class Attention(llama.Attention):
    """A norm over all heads before o_proj."""

    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.attn_sub_norm = RMSNorm(c.num_attention_heads * c.head_dim, c.rms_norm_eps)

    def forward(self, x: Value, step: Step) -> Value:
        return self.o_proj(self.attn_sub_norm(self.mix(x, step)))


class MLP(Module):
    """relu(gate)^2 * up, norm, down."""

    def __init__(self, c: Config) -> None:
        self.gate_proj = Linear(c.hidden_size, c.intermediate_size)
        self.up_proj = Linear(c.hidden_size, c.intermediate_size)
        self.ffn_sub_norm = RMSNorm(c.intermediate_size, c.rms_norm_eps)
        self.down_proj = Linear(c.intermediate_size, c.hidden_size)

    def forward(self, x: Value) -> Value:
        return self.down_proj(self.ffn_sub_norm(ops.mul(self.act(self.gate_proj(x)), self.up_proj(x))))

    def act(self, gate: Value) -> Value:
        """The activation of the gate."""
        return ops.relu2(gate)


class SiluMLP(MLP):
    def act(self, gate: Value) -> Value:
        return ops.silu(gate)


class Block(llama.Block):
    attention = Attention
    mlp_type = MLP


class SiluBlock(llama.Block):
    attention = Attention
    mlp_type = SiluMLP


class BitNet(llama.Llama):
    block = Block


class BitNetSilu(llama.Llama):
    block = SiluBlock
