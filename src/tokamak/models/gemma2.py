"""Gemma 2: Gemma with norms before and after each branch, capped scores and logits, and every other layer local."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import gemma, gemma3, llama
from tokamak.nn import GatedMLP, Module, RMSNorm, Step


@dataclass(frozen=True, slots=True)
class Config(llama.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    attn_logit_softcapping: float = 0.0  # 0: none
    final_logit_softcapping: float = 0.0


class Attention(llama.Attention):
    """Capped scores; local layers have a window."""

    def __init__(self, c: Any, *, local: bool) -> None:
        super().__init__(c)
        self.window = c.sliding_window if local else 0

    def attend(self, step: Step, q: Value, k: Value, v: Value) -> Value:
        cap = self.c.attn_logit_softcapping
        return step.attend(q, k, v, scale=self.scale, window=self.window, softcap=cap)


class Block(gemma3.Block):
    """Gemma 3's four norms."""

    def __init__(self, c: Config, *, local: bool) -> None:
        (
            self.input_layernorm,
            self.post_attention_layernorm,
            self.pre_feedforward_layernorm,
            self.post_feedforward_layernorm,
        ) = (RMSNorm(c.hidden_size, c.rms_norm_eps) for _ in range(4))
        self.self_attn = Attention(c, local=local)  # type: ignore[assignment]  # without head norms
        self.mlp = GatedMLP(c.hidden_size, c.intermediate_size, "gelu")


class Gemma2(gemma.Gemma):
    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.cap = c.final_logit_softcapping

    def layer(self, c: Config, index: int) -> Module:
        return Block(c, local=index % 2 == 0)

    def forward(self, step: Step) -> Value:
        logits = super().forward(step)
        return ops.softcap(logits, cap=self.cap) if self.cap else logits
