"""Image encoders: the towers of CLIP, SigLIP and InternViT. What brings their rows into a decoder: `projectors.py`.

A patch is a row: its pixels, unfolded, come with the step as a vector, so the patch convolution is a matrix. A tower with a class
token has one row more, the first, for which no pixels come; what stands for them is in the table of positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models.bert import Attention
from tokamak.nn import MLP, Embedding, LayerNorm, Linear, Module, Param, Step


@dataclass(frozen=True, slots=True)
class Config:
    """hidden_act: "quick_gelu", "gelu" (tanh) or "gelu_erf". num_positions: rows of an image, the class token's included.

    pre_norm, post_norm: whether the tower has norms before and after its layers. merged: neighbours that a row of the projector
    holds side by side. projector_size: between its matrices. projected_size: width of the decoder.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    head_dim: int
    patch_size: int
    num_positions: int
    layer_norm_eps: float
    hidden_act: str
    projected_size: int
    projector_size: int = 0
    projector_act: str = "gelu_erf"
    num_channels: int = 3
    merged: int = 1
    pre_norm: bool = False
    post_norm: bool = False


class QuickMLP(MLP):
    """down(u sigmoid(1.702 u)), u = up x."""

    def forward(self, x: Value) -> Value:
        up = self.up_proj(x)
        return self.down_proj(ops.sigmoid_mul(up, ops.scale(up, factor=1.702)))


class Scaled(Module):
    """What a branch adds, column by column; as it is where the checkpoint has no scale."""

    def __init__(self, size: int) -> None:
        self.weight = Param(size, optional=True)

    def forward(self, x: Value) -> Value:
        return ops.affine(x, self.weight.value) if self.weight.bound else x


class Block(Module):
    """Norm, work, add, twice."""

    def __init__(self, c: Config) -> None:
        self.input_layernorm, self.post_attention_layernorm = (
            LayerNorm(c.hidden_size, c.layer_norm_eps) for _ in range(2)
        )
        self.self_attn = Attention(c)  # type: ignore[arg-type]  # which reads the fields that both have
        quick = c.hidden_act == "quick_gelu"
        self.mlp = (QuickMLP if quick else MLP)(c.hidden_size, c.intermediate_size, c.hidden_act)
        self.attention_scale, self.mlp_scale = Scaled(c.hidden_size), Scaled(c.hidden_size)

    def forward(self, x: Value, step: Step) -> Value:
        x = ops.add(self.attention_scale(self.self_attn(self.input_layernorm(x), step)), x)
        return ops.add(self.mlp_scale(self.mlp(self.post_attention_layernorm(x))), x)


class Tower(Module):
    """Patches of pixels to hidden states of the rows asked for."""

    def __init__(self, c: Config) -> None:
        self.pixels = c.num_channels * c.patch_size**2
        self.patch_embedding = Linear(self.pixels, c.hidden_size)
        self.embed_positions = Embedding(c.num_positions, c.hidden_size)
        norm = (c.hidden_size, c.layer_norm_eps)
        self.pre_layernorm = LayerNorm(*norm) if c.pre_norm else None
        self.layers = [Block(c) for _ in range(c.num_hidden_layers)]
        self.post_layernorm = LayerNorm(*norm) if c.post_norm else None

    def forward(self, step: Step) -> Value:
        patches = self.patch_embedding(step.given(self.pixels))
        x = ops.add(self.embed_positions(step.positions), patches)
        x = self.pre_layernorm(x) if self.pre_layernorm else x
        for layer in self.layers:
            x = layer(x, step)
        x = self.post_layernorm(x) if self.post_layernorm else x
        return ops.take_rows(x, step.logit_rows)
