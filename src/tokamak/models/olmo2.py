"""OLMo 2 and 3 and EXAONE 4: norms after each branch instead of before it, and normed queries and keys.

OLMo norms all heads of a projection together, EXAONE 4 each head by itself. With a window every fourth layer sees all:
OLMo 3 scales rope there only, EXAONE 4 does not turn there.
"""

from __future__ import annotations

from typing import Any

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama, qwen3
from tokamak.models.config import Rope
from tokamak.models.llama import Config
from tokamak.nn import GatedMLP, Module, RMSNorm, Step

__all__ = ["Config", "Exaone4", "Olmo2"]

PERIOD = 4  # of layers that see all


class Attention(llama.Attention):
    """Norms over the whole projection before it is split into heads."""

    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.q_norm = RMSNorm(c.num_attention_heads * c.head_dim, c.rms_norm_eps)
        self.k_norm = RMSNorm(c.num_key_value_heads * c.head_dim, c.rms_norm_eps)

    def normed(self, q: Value, k: Value) -> tuple[Value, Value]:
        c = self.c
        q, k = self.q_norm(ops.merge_heads(q)), self.k_norm(ops.merge_heads(k))
        heads = (c.num_attention_heads, c.num_key_value_heads)
        return ops.split_heads(q, heads=heads[0]), ops.split_heads(k, heads=heads[1])


class Block(Module):
    """x + norm(attention(x)), then x + norm(mlp(x))."""

    attention: type[Module] = Attention

    def __init__(self, c: Config) -> None:
        self.self_attn = self.attention(c)  # type: ignore[call-arg]  # every attention takes a config
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = GatedMLP(c.hidden_size, c.intermediate_size)
        self.post_feedforward_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x: Value, step: Step) -> Value:
        x = ops.add(self.post_attention_layernorm(self.self_attn(x, step)), x)
        return ops.add(self.post_feedforward_layernorm(self.mlp(x)), x)


class Olmo2(llama.Llama):
    def layer(self, c: Config, index: int) -> Module:
        block = Block(c)
        attention: Any = block.self_attn
        if c.sliding_window and (index + 1) % PERIOD == 0:
            attention.window = 0
        elif c.sliding_window:
            attention.rope, attention.rope_name = (
                Rope(theta=c.rope.theta, context=c.rope.context),
                "rope.local",
            )
        return block


class ExaoneBlock(Block):
    attention = qwen3.Attention


class Exaone4(llama.Llama):
    def layer(self, c: Config, index: int) -> Module:
        block = ExaoneBlock(c)
        attention: Any = block.self_attn
        if c.sliding_window and (index + 1) % PERIOD == 0:
            attention.window, attention.rope = 0, None
        return block
