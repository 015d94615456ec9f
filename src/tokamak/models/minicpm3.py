"""MiniCPM 3: MiniCPM's multipliers around DeepSeek 2's attention."""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.models import deepseek2, granite


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(granite.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    kv_lora_rank: int
    q_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int


class Block(granite.Block):
    attention = deepseek2.Attention


class MiniCPM3(granite.Granite):
    block = Block
