"""Ministral 3: Llama whose queries sharpen beyond the trained context."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokamak.ir.graph import Value
from tokamak.models import llama
from tokamak.models.rope import sharpened
from tokamak.nn import Step


@dataclass(frozen=True, slots=True)
class Config(llama.Config):
    """Sizes and constants, named as in Hugging Face configurations. llama_4_scaling_beta: 0 for no sharpening."""

    llama_4_scaling_beta: float = 0.0


class Attention(llama.Attention):
    def turned(self, step: Step, q: Value, k: Value) -> tuple[Value, Value]:
        q, k = super().turned(step, q, k)
        c, scaling = self.c, self.c.rope.scaling or {}
        trained = scaling.get("original_max_position_embeddings")
        if not c.llama_4_scaling_beta or not trained:
            return q, k
        far = np.floor(np.arange(c.rope.context) / trained)
        return sharpened(step, q, 1 + c.llama_4_scaling_beta * np.log(1 + far)), k


class Block(llama.Block):
    attention = Attention


class Mistral3(llama.Llama):
    block = Block
