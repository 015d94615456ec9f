"""Small graphs of every family and the batches to run them with; no files, no tokenizer."""

from __future__ import annotations

import numpy as np

from tokamak.executors.reference import ReferenceProgram
from tokamak.ir.graph import Graph, Type
from tokamak.models import FAMILIES
from tokamak.models.config import read
from tokamak.nn import trace
from tokamak.types import Batch, Limits

BLOCK, BLOCKS = 4, 16

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 97,
}
LLAMA = {**SIZES, "rms_norm_eps": 1e-5}
LAYER_NORM = {**SIZES, "layer_norm_eps": 1e-5}
MOE = {**LLAMA, "num_experts": 5, "num_experts_per_tok": 2}
LONGROPE = {"rope_type": "longrope", "short_factor": [1, 1, 2, 3], "long_factor": [1, 2, 4, 8]}

# name -> (architecture, configuration, whether linears have biases)
CASES: dict[str, tuple[str, dict, bool]] = {
    "llama": ("llama", LLAMA, False),
    "llama-tied": ("llama", {**LLAMA, "tie_word_embeddings": True}, False),
    "mistral": ("llama", {**LLAMA, "sliding_window": 5}, False),
    "qwen2": ("qwen2", LLAMA, True),
    "qwen3": ("qwen3", LLAMA, False),
    "phi2": ("phi2", {**LAYER_NORM, "rotary_dim": 4}, True),
    "phi3": (
        "phi3",
        {**LLAMA, "rope_scaling": {**LONGROPE, "original_max_position_embeddings": 64, "factor": 4.0}},
        False,
    ),
    "arcee": ("arcee", LLAMA, False),
    "command-r": ("command-r", {**LAYER_NORM, "tie_word_embeddings": True, "logit_scale": 0.5}, False),
    "exaone4": ("exaone4", LLAMA, False),
    "falcon": ("falcon", LAYER_NORM, False),
    "gemma": ("gemma", {**LLAMA, "tie_word_embeddings": True}, False),
    "gemma3": (
        "gemma3",
        {**LLAMA, "sliding_window": 5, "sliding_window_pattern": 2, "tie_word_embeddings": True},
        False,
    ),
    "glm4": ("glm4", {**LLAMA, "rotary_dim": 4}, True),
    "gpt2": ("gpt2", {**LAYER_NORM, "num_positions": 64}, True),
    "gptneox": ("gptneox", {**LAYER_NORM, "rotary_dim": 4, "use_parallel_residual": False}, True),
    "granite": (
        "granite",
        {**LLAMA, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 2.0},
        False,
    ),
    "granitemoe": (
        "granitemoe",
        {**MOE, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 2.0},
        False,
    ),
    "mixtral": ("mixtral", MOE, False),
    "olmoe": ("olmoe", MOE, False),
    "qwen2moe": (
        "qwen2moe",
        {**MOE, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40},
        False,
    ),
    "qwen3moe": ("qwen3moe", {**MOE, "moe_intermediate_size": 24}, False),
    "olmo2": ("olmo2", LLAMA, False),
    "stablelm": ("stablelm", LAYER_NORM, False),
    "bitnet": ("bitnet", LLAMA, False),
    "bitnet-b1.58": ("bitnet-b1.58", LLAMA, False),
}


def graph(name: str, context: int = 64) -> Graph:
    """The traced graph of a case with float weights."""
    return traced(*CASES[name], context=context)


def traced(architecture: str, config: dict, biased: bool, *, context: int = 64) -> Graph:
    """The graph of any configuration, all parameters in f32."""
    family = FAMILIES[architecture]
    model = family.model(read(family.config, config, context=context))
    shapes = dict(_shapes(model, ""))

    def find(path: str) -> Type | None:
        if path.endswith(".bias") and "norm" not in path and not biased:
            return None
        shape = shapes[path]
        return Type("f32", shape[0], tuple(shape[1:]))

    return trace(model, find)


def _shapes(module, prefix):
    for name, param in vars(module).items():
        if hasattr(param, "shape") and hasattr(param, "optional"):
            yield f"{prefix}{name}", param.shape
    for name, child in module.children():
        yield from _shapes(child, f"{prefix}{name}.")


def params(g: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights in f32, norms around one."""
    rng = np.random.default_rng(seed)
    return {
        n: (rng.standard_normal(v.type.shape) * 0.2 + ("norm.weight" in n)).astype(np.float32)
        for n, v in g.params.items()
    }


def reference(g: Graph, dtype=np.float64, plan=None, seed: int = 0) -> ReferenceProgram:
    """The oracle over a small cache."""
    return ReferenceProgram(g, params(g, seed), Limits(num_blocks=BLOCKS, block_size=BLOCK), dtype, plan)


def batch(*sequences: tuple[list[int], list[int], int], every_row: bool = False, block: int = BLOCK) -> Batch:
    """`sequences`: (block ids, all token ids so far, how many of them are new)."""
    ids, pos, slots, starts, lengths, tables, rows = [], [], [], [0], [], [], []
    width = max(len(blocks) for blocks, _, _ in sequences)
    for blocks, tokens, new in sequences:
        for p in range(len(tokens) - new, len(tokens)):
            ids.append(tokens[p])
            pos.append(p)
            slots.append(blocks[p // block] * block + p % block)
            if every_row or p == len(tokens) - 1:
                rows.append(len(ids) - 1)
        starts.append(len(ids))
        lengths.append(len(tokens))
        tables.append([*blocks, *[0] * (width - len(blocks))])
    arrays = (np.array(x, np.int32) for x in (ids, pos, slots, starts, lengths, tables, rows))
    return Batch(*arrays)


__all__ = ["BLOCK", "BLOCKS", "CASES", "batch", "graph", "params", "reference"]
