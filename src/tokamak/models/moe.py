"""What mixtures of experts share: a router with groups, correction and scaling, and experts that every row uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokamak.ir import ops
from tokamak.ir.graph import Value
from tokamak.models import llama
from tokamak.nn import Experts, GatedMLP, Module, Router


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedConfig(llama.Config):
    """Sizes and constants, named as in Hugging Face configurations."""

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    n_shared_experts: int = 0
    first_k_dense_replace: int = 0  # leading layers without experts
    scoring_func: str = "softmax"
    norm_topk_prob: bool = False
    routed_scaling_factor: float = 1.0
    n_group: int = 1
    topk_group: int = 1


class Routed(Module):
    """Experts by the configuration's rules, plus the shared ones as one wider feed-forward.

    Groups rank by their two best corrected scores (sigmoid) or their best (softmax).
    """

    def __init__(self, c: Any) -> None:
        used = c.num_experts_per_tok
        self.gate = Router(
            c.hidden_size,
            c.num_experts,
            num_used=used,
            score=c.scoring_func,
            normed=int(c.norm_topk_prob),
            scaling=c.routed_scaling_factor,
            groups=c.n_group or 1,
            top_groups=c.topk_group or 1,
            group_top=2 if c.scoring_func == "sigmoid" and (c.n_group or 1) < c.num_experts else 1,
        )
        self.experts = Experts(c.hidden_size, c.moe_intermediate_size, c.num_experts, num_used=used)
        width = c.n_shared_experts * c.moe_intermediate_size
        self.shared_experts = GatedMLP(c.hidden_size, width) if width else None

    def forward(self, x: Value) -> Value:
        routed = self.experts(x, self.gate(x))
        return ops.add(routed, self.shared_experts(x)) if self.shared_experts else routed
