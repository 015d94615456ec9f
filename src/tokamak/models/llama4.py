"""Llama 4 (text): three layers turn, norm their heads and see chunks; the fourth does neither and sharpens far queries.

Every `interleave_moe_layer_step`-th layer has experts, of which one weighs its input by a sigmoid, and a feed-forward that
every row uses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama, mixtral
from tokamak.models.rope import sharpened
from tokamak.nn import Experts, GatedMLP, Module, Router, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(mixtral.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    moe_intermediate_size: int
    interleave_moe_layer_step: int = 1
    no_rope_layer_interval: int = 4
    attention_chunk_size: int = 8192
    floor_scale: float = 8192.0
    attn_scale: float = 0.1


class Attention(llama.Attention):
    def __init__(self, c: Config, *, turns: bool) -> None:
        super().__init__(c)
        self.rope = c.rope if turns else None
        self.ones = np.ones(c.head_dim, np.float32)

    def turned(self, step: Step, q: Value, k: Value) -> tuple[Value, Value]:
        c = self.c
        if self.rope is None:
            far = np.floor((np.arange(c.rope.context) + 1) / c.floor_scale)
            return sharpened(step, q, np.log(far + 1) * c.attn_scale + 1), k
        weight = step.const(f"ones.{c.head_dim}", self.ones)
        q, k = (ops.rms_norm(x, weight, eps=c.rms_norm_eps) for x in super().turned(step, q, k))
        return q, k

    def attend(self, step: Step, q: Value, k: Value, v: Value) -> Value:
        chunk = self.c.attention_chunk_size if self.rope else 0
        return step.attend(q, k, v, scale=self.scale, chunk=chunk)


class SparseMLP(Module):
    def __init__(self, c: Config) -> None:
        used, width = c.num_experts_per_tok, c.moe_intermediate_size
        self.gate = Router(c.hidden_size, c.num_experts, num_used=used, score="sigmoid")
        self.experts = Experts(c.hidden_size, width, c.num_experts, num_used=used, weighs="input")
        self.shared_expert = GatedMLP(c.hidden_size, width)

    def forward(self, x: Value) -> Value:
        return ops.add(self.experts(x, self.gate(x)), self.shared_expert(x))


class Block(llama.Block):
    def __init__(self, c: Config, index: int) -> None:
        super().__init__(c)
        self.self_attn = Attention(c, turns=(index + 1) % c.no_rope_layer_interval != 0)
        if (index + 1) % c.interleave_moe_layer_step == 0:
            self.mlp = SparseMLP(c)


class Llama4(llama.Llama):
    def layer(self, c: Config, index: int) -> Module:
        return Block(c, index)
