"""StarCoder 2 and CodeShell: layer norms, rope, a gelu feed-forward, biases; CodeShell has q, k, v in one matrix."""

from __future__ import annotations

from tokamak.models import gpt2, llama, phi, phi3
from tokamak.models.phi import Config

__all__ = ["CodeShell", "Config", "StarCoder2"]


class Block(gpt2.Block):
    attention = llama.Attention


class StarCoder2(phi.Phi):
    block = Block


class FusedBlock(gpt2.Block):
    attention = phi3.Attention


class CodeShell(phi.Phi):
    block = FusedBlock
