"""Llama with slopes on the scores instead of rope: Refact, and the 13B form of Baichuan."""

from __future__ import annotations

from tokamak.ir.graph import Value
from tokamak.models import llama
from tokamak.models.llama import Config
from tokamak.models.rope import slopes
from tokamak.nn import Step

__all__ = ["Config", "Refact"]


class Attention(llama.Attention):
    def turned(self, step: Step, q: Value, k: Value) -> tuple[Value, Value]:  # noqa: ARG002
        return q, k

    def attend(self, step: Step, q: Value, k: Value, v: Value) -> Value:
        return step.attend(q, k, v, scale=self.scale, slopes=slopes(step, q))


class Block(llama.Block):
    attention = Attention


class Refact(llama.Llama):
    block = Block
