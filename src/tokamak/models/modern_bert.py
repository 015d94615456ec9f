"""ModernBERT: an encoder of pre-norm blocks with rope and gated gelu; every third layer global, the others local."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import bert
from tokamak.models.config import Rope
from tokamak.models.rope import rotate
from tokamak.nn import Embedding, LayerNorm, Linear, Module, Step


@dataclass(frozen=True, slots=True)
class Config(bert.Config):
    """Sizes and constants, named as in Hugging Face configurations. sliding_window: its half is seen on either side."""

    sliding_window: int = 0
    sliding_window_pattern: int = 3
    rope_local_base_freq: float = 10000.0
    rope: Rope = field(default_factory=Rope)


class Attention(bert.Attention):
    """Local or global: the layer's window and rope."""

    def __init__(self, c: Config, *, local: bool) -> None:
        super().__init__(c)
        self.window = c.sliding_window if local else 0
        self.name = "rope.local" if local else "rope.global"
        self.rope = Rope(theta=c.rope_local_base_freq, context=c.rope.context) if local else c.rope

    def forward(self, x: Value, step: Step) -> Value:
        c = self.c
        heads = c.num_attention_heads
        q, k, v = (ops.split_heads(p(x), heads=heads) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(step, self.rope, c.head_dim, q, k, name=self.name)
        mixed = step.attend(q, k, v, scale=c.head_dim**-0.5, window=self.window, causal=False)
        return self.o_proj(ops.merge_heads(mixed))


class FusedMLP(Module):
    """down(gelu(first half of gate_up x) * second half)."""

    def __init__(self, c: Config) -> None:
        self.size = c.intermediate_size
        self.gate_up_proj = Linear(c.hidden_size, 2 * c.intermediate_size)
        self.down_proj = Linear(c.intermediate_size, c.hidden_size)

    def forward(self, x: Value) -> Value:
        both = self.gate_up_proj(x)
        gate = ops.gelu_erf(ops.columns(both, start=0, stop=self.size))
        return self.down_proj(ops.mul(gate, ops.columns(both, start=self.size, stop=2 * self.size)))


class Block(Module):
    """Two residual branches behind their norms; the first layer's attention has none where the checkpoint has none."""

    def __init__(self, c: Config, index: int) -> None:
        self.input_layernorm = LayerNorm(c.hidden_size, c.layer_norm_eps, optional=True)
        self.post_attention_layernorm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.self_attn = Attention(c, local=bool(index % c.sliding_window_pattern))
        self.mlp = FusedMLP(c)

    def forward(self, x: Value, step: Step) -> Value:
        normed = self.input_layernorm(x) if self.input_layernorm.weight.bound else x
        x = ops.add(self.self_attn(normed, step), x)
        return ops.add(self.mlp(self.post_attention_layernorm(x)), x)


class Classifier(bert.Classifier):
    """out(norm(gelu(dense x))) of each row; the first token's counts."""

    def __init__(self, c: Config) -> None:
        super().__init__(c)
        self.norm = LayerNorm(c.hidden_size, c.layer_norm_eps)

    def forward(self, x: Value) -> Value:
        return self.out_proj(self.norm(ops.gelu_erf(self.dense(x))))


class ModernBert(Module):
    """Normed embeddings, blocks, final norm, and scores where there is a classifier."""

    def __init__(self, c: Config) -> None:
        self.embed_tokens = Embedding(c.vocab_size, c.hidden_size)
        self.embed_norm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.layers = [Block(c, i) for i in range(c.num_hidden_layers)]
        self.norm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.classifier = Classifier(c) if c.num_labels else None

    def forward(self, step: Step) -> Value:
        x = self.embed_norm(self.embed_tokens(step.token_ids))
        for layer in self.layers:
            x = layer(x, step)
        x = ops.take_rows(self.norm(x), step.logit_rows)
        return self.classifier(x) if self.classifier else x
