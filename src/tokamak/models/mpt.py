"""MPT: BLOOM without biases and embedding norm, with exact gelu and clipped projections."""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import bloom, gpt2
from tokamak.models.rope import slopes
from tokamak.nn import MLP, Module, Step


@dataclass(frozen=True, slots=True)
class Config(bloom.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    clip_qkv: float = 0.0  # 0: no limit
    alibi_bias_max: float = 8.0


class Attention(gpt2.Attention):
    """Projections limited, scores that fall with distance."""

    def projected(self, x: Value) -> Value:
        qkv = super().projected(x)
        return ops.clip(qkv, limit=self.c.clip_qkv) if self.c.clip_qkv else qkv

    def attend(self, step: Step, q: Value, k: Value, v: Value) -> Value:
        return step.attend(
            q, k, v, scale=self.c.head_dim**-0.5, slopes=slopes(step, q, self.c.alibi_bias_max)
        )


class Block(gpt2.Block):
    attention = Attention

    def feed_forward(self, c: Config) -> Module:
        return MLP(c.hidden_size, c.intermediate_size, "gelu_erf")


class Mpt(bloom.Bloom):
    block = Block
