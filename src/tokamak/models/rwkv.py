"""What RWKV 6 and 7 share: the row before this one, a norm of each head, and the stack around both mixes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamak.errors import GraphError
from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.nn import Embedding, LayerNorm, Linear, Module, Step


def moved(x: Value, step: Step) -> Value:
    """The row before minus this one; zeros lie before the first."""
    size = x.type.tail[0]
    before = np.tile(np.array([1, 0], np.float32), (size, 1))
    last = ops.causal_conv(x, step.const(f"before.{size}", before), *step.recall(1, size))
    return difference(last, x)


def difference(x: Value, y: Value) -> Value:
    """x - y."""
    return ops.add(ops.scale(y, factor=-1.0), x)


def per_head_norm(y: Value, weight: Value, bias: Value, *, eps: float) -> Value:
    """Layer norm of each head of [T, H, D], then weight and bias of all columns: [T, H * D]."""
    size = y.type.tail[1]
    ones = y.graph.const(f"ones.{size}", np.ones(size, np.float32))
    zeros = y.graph.const(f"zeros.{size}", np.zeros(size, np.float32))
    return ops.affine(ops.merge_heads(ops.layer_norm(y, ones, zeros, eps=eps)), weight, bias)


class Rwkv(Module):
    """Embedding, its norm, blocks, final norm, head."""

    def __init__(self, c: Any) -> None:
        self.embed_tokens = Embedding(c.vocab_size, c.hidden_size)
        self.embed_norm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.layers = [self.layer(c, i) for i in range(c.num_hidden_layers)]
        self.norm = LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.lm_head = Linear(c.hidden_size, c.vocab_size)

    def layer(self, c: Any, index: int) -> Module:  # noqa: ARG002  each version makes its own
        """One layer; each version says its own."""
        raise GraphError(f"{type(self).__name__} does not say what its layers are")

    def forward(self, step: Step) -> Value:
        x, values = self.embed_norm(self.embed_tokens(step.token_ids)), list[Value]()
        for layer in self.layers:  # values: of the layers before, for those that lean on them
            x = layer(x, step, values)
        return self.lm_head(ops.take_rows(self.norm(x), step.logit_rows))
