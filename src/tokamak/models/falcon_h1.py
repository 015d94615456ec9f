"""Falcon-H1: attention and Mamba 2 side by side on the same normed input, then a gated feed-forward.

GGUF files hold the factors of the paper multiplied into the matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama, mamba2
from tokamak.nn import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(llama.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    mamba_inner_size: int
    mamba_n_heads: int
    mamba_n_groups: int
    state_size: int
    conv_kernel: int


class Block(llama.Block):
    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.mamba = mamba2.Mixer(c)

    def forward(self, x: Value, step: Step) -> Value:
        h = self.input_layernorm(x)
        x = ops.add(ops.add(self.self_attn(h, step), self.mamba(h, step)), x)
        return ops.add(self.mlp(self.post_attention_layernorm(x)), x)


class FalconH1(llama.Llama):
    block = Block
