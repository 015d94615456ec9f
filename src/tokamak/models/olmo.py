"""OLMo 1: Llama with layer norms that have no parameters, and queries, keys and values clipped."""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama, phi, stablelm
from tokamak.nn import LayerNorm


@dataclass(frozen=True, slots=True)
class Config(phi.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    clip_qkv: float = 0.0  # 0: no limit


class Attention(llama.Attention):
    """Projections limited to [-clip_qkv, clip_qkv]."""

    def projected(self, x: Value) -> tuple[Value, Value, Value]:
        q, k, v = super().projected(x)
        if not self.c.clip_qkv:
            return q, k, v
        return tuple(ops.clip(y, limit=self.c.clip_qkv) for y in (q, k, v))  # type: ignore[return-value]


class Block(stablelm.Block):
    attention = Attention

    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.input_layernorm, self.post_attention_layernorm = (
            LayerNorm(c.hidden_size, c.layer_norm_eps, optional=True) for _ in range(2)
        )


class Olmo(phi.Phi):
    block = Block

    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.norm = LayerNorm(c.hidden_size, c.layer_norm_eps, optional=True)
