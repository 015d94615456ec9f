"""Gemma 3 (text): Gemma with norms before and after each branch, normed heads, and local layers between global ones.

Five layers see a window and turn by the local base, the sixth sees everything and turns by the scaled global base.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import gemma, llama, qwen3
from tokamak.models.config import Rope
from tokamak.nn import GatedMLP, Module, RMSNorm, Step


@dataclass(frozen=True, slots=True)
class Config(llama.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    rope_local_base_freq: float = 10000.0
    sliding_window_pattern: int = 6


class Attention(qwen3.Attention):
    """Local or global: the layer's window and rope."""

    causal = True

    def __init__(self, c: Config, *, local: bool) -> None:
        super().__init__(c)
        self.window = c.sliding_window if local else 0
        self.rope_name = "rope.local" if local else "rope.global"
        if local:
            self.rope = Rope(theta=c.rope_local_base_freq, context=c.rope.context)

    def attend(self, step: Step, q: Value, k: Value, v: Value) -> Value:
        return step.attend(q, k, v, scale=self.scale, window=self.window, causal=self.causal)


class Block(Module):
    """Each branch: norm, work, norm, add."""

    attention = Attention

    def __init__(self, c: Config, *, local: bool) -> None:
        self.input_layernorm, self.post_attention_layernorm = (
            RMSNorm(c.hidden_size, c.rms_norm_eps) for _ in range(2)
        )
        self.pre_feedforward_layernorm, self.post_feedforward_layernorm = (
            RMSNorm(c.hidden_size, c.rms_norm_eps) for _ in range(2)
        )
        self.self_attn = self.attention(c, local=local)
        self.mlp = GatedMLP(c.hidden_size, c.intermediate_size, "gelu")

    def forward(self, x: Value, step: Step) -> Value:
        x = ops.add(self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), step)), x)
        return ops.add(self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x))), x)


class Gemma3(gemma.Gemma):
    layer_block: type[Block] = Block

    def layer(self, c: Config, index: int) -> Module:
        return self.layer_block(c, local=bool((index + 1) % c.sliding_window_pattern))


class BothWays(Attention):
    causal = False


class EncoderBlock(Block):
    attention = BothWays


class GemmaEmbedding(Gemma3):
    """EmbeddingGemma: every token sees every other, local layers half a window on either side; hidden states come out."""

    layer_block = EncoderBlock

    def forward(self, step: Step) -> Value:
        x = self.embed_tokens(step.token_ids)
        for layer in self.layers:
            x = layer(x, step)
        return ops.take_rows(self.norm(x), step.logit_rows)
