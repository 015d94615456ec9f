"""Granite (dense) and MiniCPM: Llama with four multipliers: embedding, residual branches, attention scores, logits."""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama
from tokamak.nn import Step


@dataclass(frozen=True, slots=True)
class Config(llama.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    embedding_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_scaling: float = 1.0  # logits are divided by it


class Block(llama.Block):
    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.factor = c.residual_multiplier

    def forward(self, x: Value, step: Step) -> Value:
        branch = self.self_attn(self.input_layernorm(x), step)
        x = ops.add(ops.scale(branch, factor=self.factor), x)
        return ops.add(ops.scale(self.mlp(self.post_attention_layernorm(x)), factor=self.factor), x)


class Granite(llama.Llama):
    block = Block

    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.c = c

    def forward(self, step: Step) -> Value:
        x = ops.scale(self.embed_tokens(step.token_ids), factor=self.c.embedding_multiplier)
        for layer in self.layers:
            x = layer(x, step)
        logits = (self.lm_head or self.embed_tokens.as_linear)(ops.take_rows(self.norm(x), step.logit_rows))
        return ops.scale(logits, factor=1 / self.c.logits_scaling)
