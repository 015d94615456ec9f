"""Granite MoE: Granite's multipliers around Mixtral's experts."""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.models import granite, mixtral


@dataclass(frozen=True, slots=True)
class Config(mixtral.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    embedding_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_scaling: float = 1.0  # logits are divided by it


class Block(granite.Block):
    feed_forward = mixtral.Block.feed_forward  # type: ignore[assignment]  # takes this family's configuration


class GraniteMoe(granite.Granite):
    block = Block
