"""Qwen 3 (dense): Llama with a norm on each query and key head."""

from __future__ import annotations

from tokamak.ir.graph import Value
from tokamak.models import llama
from tokamak.models.llama import Config
from tokamak.nn import RMSNorm

__all__ = ["Config", "Qwen3"]


class Attention(llama.Attention):
    """Norms over head_dim before rope."""

    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.q_norm, self.k_norm = (RMSNorm(c.head_dim, c.rms_norm_eps) for _ in range(2))

    def normed(self, q: Value, k: Value) -> tuple[Value, Value]:
        return self.q_norm(q), self.k_norm(k)


class Block(llama.Block):
    attention = Attention


class Qwen3(llama.Llama):
    block = Block
