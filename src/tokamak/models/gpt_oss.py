"""gpt-oss: experts with biases and clamped gates, sinks in the softmax, every other layer local."""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.ir.graph import Value
from tokamak.models import llama, mixtral
from tokamak.nn import Experts, Module, Param, Router, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(mixtral.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    moe_intermediate_size: int


class Attention(llama.Attention):
    """One more score per head, without a value."""

    def __init__(self, c: Config, *, local: bool) -> None:
        super().__init__(c)
        self.window = c.sliding_window if local else 0
        self.sinks = Param(c.num_attention_heads)

    def attend(self, step: Step, q: Value, k: Value, v: Value) -> Value:
        return step.attend(q, k, v, scale=self.scale, window=self.window, sinks=self.sinks.value)


class SparseMLP(Module):
    """Weights are the softmax over the chosen experts."""

    def __init__(self, c: Config) -> None:
        used = c.num_experts_per_tok
        self.router = Router(c.hidden_size, c.num_experts, num_used=used, normed=1)
        self.experts = Experts(
            c.hidden_size, c.moe_intermediate_size, c.num_experts, num_used=used, act="swiglu_clamped"
        )

    def forward(self, x: Value) -> Value:
        return self.experts(x, self.router(x))


class Block(llama.Block):
    def __init__(self, c: Config, *, local: bool) -> None:
        super().__init__(c)
        self.self_attn = Attention(c, local=local)

    def feed_forward(self, c: Config) -> Module:  # type: ignore[override]  # of this family's blocks
        return SparseMLP(c)


class GptOss(llama.Llama):
    def layer(self, c: Config, index: int) -> Module:
        return Block(c, local=index % 2 == 0)
