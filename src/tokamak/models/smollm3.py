"""SmolLM 3: Llama in which every fourth layer has no rope."""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.models import llama
from tokamak.nn import Module


@dataclass(frozen=True, slots=True)
class Config(llama.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    no_rope_layer_interval: int = 4


class SmolLM3(llama.Llama):
    def layer(self, c: Config, index: int) -> Module:
        block = llama.Block(c)
        if (index + 1) % c.no_rope_layer_interval == 0:
            block.self_attn.rope = None
        return block
