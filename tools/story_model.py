"""The network of the embedded model in PyTorch: a small Llama whose matrices are ternary when they compute.

Only what training needs; running the trained file is the engine's task. Matrices are kept in float32 and
rounded on the way forward, so that the gradient reaches the float copy (straight-through estimation).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUP = 256  # elements that share a scale in tq2_0


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network; every matrix has a multiple of 256 columns, as tq2_0 needs."""

    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 5
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


def ternary(weight: Tensor) -> Tensor:
    """`weight` with every group of 256 columns rounded to {-s, 0, s}, s = mean |w| of the group, as f16 holds it.

    weight: f32[N, K], K a multiple of 256.  Source: Ma et al. 2024, "The Era of 1-bit LLMs", section 2 (absmean).
    """
    groups = weight.view(weight.shape[0], -1, GROUP)
    scale = groups.abs().mean(dim=2, keepdim=True).clamp(min=1e-5).half().float()
    return ((groups / scale).round().clamp(-1, 1) * scale).view_as(weight)


class TernaryLinear(nn.Module):
    """y = x W^T with W ternary on the way forward and float on the way back."""

    def __init__(self, num_in: int, num_out: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_out, num_in) * gain * num_in**-0.5)
        self.rounded: Tensor | None = None  # the ternary matrix while weights stand still

    def forward(self, x: Tensor) -> Tensor:
        weight = self.rounded
        if weight is None:
            weight = self.weight + (ternary(self.weight.detach()) - self.weight.detach())
        return functional.linear(x, weight)


class Attention(nn.Module):
    """Causal grouped-query attention with half-split rotary embeddings."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        hidden, kv = shape.hidden_size, shape.num_key_value_heads * shape.head_dim
        self.q_proj = TernaryLinear(hidden, hidden)
        self.k_proj = TernaryLinear(hidden, kv)
        self.v_proj = TernaryLinear(hidden, kv)
        self.o_proj = TernaryLinear(hidden, hidden, gain=(2 * shape.num_hidden_layers) ** -0.5)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        rows, length, hidden = x.shape
        split = (rows, length, -1, self.shape.head_dim)
        q = rotate(self.q_proj(x).view(split).transpose(1, 2), *rope)
        k = rotate(self.k_proj(x).view(split).transpose(1, 2), *rope)
        v = self.v_proj(x).view(split).transpose(1, 2)
        share = self.shape.num_attention_heads // self.shape.num_key_value_heads
        k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, length, hidden))


class Mlp(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = TernaryLinear(shape.hidden_size, shape.intermediate_size)
        self.up_proj = TernaryLinear(shape.hidden_size, shape.intermediate_size)
        gain = (2 * shape.num_hidden_layers) ** -0.5
        self.down_proj = TernaryLinear(shape.intermediate_size, shape.hidden_size, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.mlp = Mlp(shape)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope)
        return x + self.mlp(self.post_attention_layernorm(x))


class StoryModel(nn.Module):
    """Token ids i64[B, T] to hidden states f32[B, T, hidden]; `logits` maps those to the vocabulary (tied)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.05)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        cos, sin = rope_tables(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, token_ids: Tensor) -> Tensor:
        x = self.embed_tokens(token_ids)
        length = token_ids.shape[1]
        rope = (self.cos[:length], self.sin[:length])
        for layer in self.layers:
            x = layer(x, rope)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.embed_tokens.weight)

    def freeze(self, *, on: bool) -> None:
        """Keep the rounded matrices (for reading many batches without training), or forget them."""
        for module in self.modules():
            if isinstance(module, TernaryLinear):
                module.rounded = ternary(module.weight.detach()) if on else None


def rope_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """cos and sin f32[positions, head_dim / 2] of position * theta^(-2i / head_dim)."""
    steps = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
    angles = torch.outer(
        torch.arange(shape.max_position_embeddings, dtype=torch.float64), shape.rope_theta**-steps
    )
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x f32[B, H, T, D], element i paired with i + D / 2.  Source: Su et al. 2021."""
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal before it is taken; for matrices only.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 torch's signature
        for group in self.param_groups:
            beta = group["momentum"]
            for param in group["params"]:
                state = self.state[param]
                velocity = state.setdefault("velocity", torch.zeros_like(param))
                velocity.lerp_(param.grad, 1 - beta)
                update = orthogonal(param.grad.lerp(velocity, beta))
                param.add_(update, alpha=-group["lr"] * max(1.0, param.shape[0] / param.shape[1]) ** 0.5)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """A matrix with the singular vectors of `matrix` and singular values near 1 (0.7 to 1.2).

    Newton-Schulz iteration with the quintic 3.4445 x - 4.7750 x^3 + 2.0315 x^5.  Source: Jordan et al. 2024.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * gram + 2.0315 * gram @ gram) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
