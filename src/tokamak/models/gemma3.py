"""Gemma 3 (text): Gemma with norms before and after each branch, normed heads, and local layers between global ones.

Five layers see a window and turn by the local base, the sixth sees everything and turns by the scaled global base.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import gemma, llama, qwen3
from tokamak.models.config import Rope
from tokamak.models.rope import rotate
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
        self.local = local
        self.window = c.sliding_window if local else 0
        self.rope = Rope(theta=c.rope_local_base_freq, context=c.rope.context) if local else c.rope

    def mix(self, x: Value, step: Step) -> Value:
        c = self.c
        q = ops.split_heads(self.q_proj(x), heads=c.num_attention_heads)
        k = ops.split_heads(self.k_proj(x), heads=c.num_key_value_heads)
        v = ops.split_heads(self.v_proj(x), heads=c.num_key_value_heads)
        name = "rope.local" if self.local else "rope.global"
        q, k = rotate(step, self.rope, c.head_dim, *self.normed(q, k), name=name)
        mixed = step.attend(q, k, v, scale=c.head_dim**-0.5, window=self.window, causal=self.causal)
        return ops.merge_heads(mixed)


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
    layer: type[Block] = Block

    def __init__(self, c: Config) -> None:
        super().__init__(replace(c, num_hidden_layers=0))
        period = c.sliding_window_pattern
        self.layers = [self.layer(c, local=bool((i + 1) % period)) for i in range(c.num_hidden_layers)]


class BothWays(Attention):
    causal = False


class EncoderBlock(Block):
    attention = BothWays


class GemmaEmbedding(Gemma3):
    """EmbeddingGemma: every token sees every other, local layers half a window on either side; hidden states come out."""

    layer = EncoderBlock

    def forward(self, step: Step) -> Value:
        x = self.embed_tokens(step.token_ids)
        for layer in self.layers:
            x = layer(x, step)
        return ops.take_rows(self.norm(x), step.logit_rows)
