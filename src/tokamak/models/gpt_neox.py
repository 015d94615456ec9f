"""GPT-NeoX and Pythia: fused q, k, v, partial rope, exact gelu; branches in parallel or one after the other."""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import phi, phi3
from tokamak.nn import MLP, LayerNorm, Module, Step


@dataclass(frozen=True, slots=True)
class Config(phi.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    use_parallel_residual: bool = True


class Block(Module):
    """Each branch behind its own layer norm."""

    def __init__(self, c: Config) -> None:
        self.parallel = c.use_parallel_residual
        self.input_layernorm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.self_attn = phi3.Attention(c)
        self.post_attention_layernorm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.mlp = MLP(c.hidden_size, c.intermediate_size, "gelu_erf")

    def forward(self, x: Value, step: Step) -> Value:
        y = ops.add(self.self_attn(self.input_layernorm(x), step), x)
        branch = self.mlp(self.post_attention_layernorm(x if self.parallel else y))
        return ops.add(branch, y)


class GPTNeoX(phi.Phi):
    block = Block
