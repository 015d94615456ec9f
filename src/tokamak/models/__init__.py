"""Model families: a page of Python each, chosen by the architecture name of the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.ir.graph import Graph, Type
from tokamak.models import (
    arcee,
    bert,
    bitnet,
    command_r,
    falcon,
    gemma,
    gemma3,
    glm4,
    gpt2,
    gpt_neox,
    granite,
    granite_moe,
    llama,
    mixtral,
    modern_bert,
    nomic_bert,
    olmo2,
    olmoe,
    phi,
    phi3,
    qwen3,
    qwen_moe,
    stablelm,
)
from tokamak.models.config import read
from tokamak.nn import trace
from tokamak.types import Weight

__all__ = ["FAMILIES", "Family", "build", "is_encoder", "trained_context"]


@dataclass(frozen=True, slots=True)
class Family:
    """How one architecture is configured and what it computes."""

    config: type[Any]
    model: type[Any]  # a Module made from a config
    encodes: bool = False  # every token sees every other; hidden states or scores come out


FAMILIES: Mapping[str, Family] = {
    "llama": Family(llama.Config, llama.Llama),
    "qwen2": Family(llama.Config, llama.Llama),
    "qwen3": Family(qwen3.Config, qwen3.Qwen3),
    "phi2": Family(phi.Config, phi.Phi),
    "phi3": Family(phi3.Config, phi3.Phi3),
    "bert": Family(bert.Config, bert.Bert, encodes=True),
    "nomic-bert": Family(nomic_bert.Config, nomic_bert.NomicBert, encodes=True),
    "modern-bert": Family(modern_bert.Config, modern_bert.ModernBert, encodes=True),
    "gemma-embedding": Family(gemma3.Config, gemma3.GemmaEmbedding, encodes=True),
    "bitnet": Family(bitnet.Config, bitnet.BitNetSilu),
    "bitnet-25": Family(bitnet.Config, bitnet.BitNet),
    "bitnet-b1.58": Family(bitnet.Config, bitnet.BitNet),
    "arcee": Family(arcee.Config, arcee.Arcee),
    "baichuan": Family(llama.Config, llama.Llama),
    "command-r": Family(command_r.Config, command_r.CommandR),
    "ernie4_5": Family(llama.Config, llama.Llama),
    "exaone4": Family(olmo2.Config, olmo2.Exaone4),
    "falcon": Family(falcon.Config, falcon.Falcon),
    "gemma": Family(gemma.Config, gemma.Gemma),
    "gemma3": Family(gemma3.Config, gemma3.Gemma3),
    "glm4": Family(glm4.Config, glm4.Glm4),
    "gpt2": Family(gpt2.Config, gpt2.GPT2),
    "gptneox": Family(gpt_neox.Config, gpt_neox.GPTNeoX),
    "granite": Family(granite.Config, granite.Granite),
    "granitemoe": Family(granite_moe.Config, granite_moe.GraniteMoe),
    "mixtral": Family(mixtral.Config, mixtral.Mixtral),
    "minicpm": Family(granite.Config, granite.Granite),
    "olmoe": Family(olmoe.Config, olmoe.Olmoe),
    "qwen2moe": Family(qwen_moe.SharedConfig, qwen_moe.Qwen2Moe),
    "qwen3moe": Family(qwen_moe.Config, qwen_moe.Qwen3Moe),
    "olmo2": Family(olmo2.Config, olmo2.Olmo2),
    "stablelm": Family(stablelm.Config, stablelm.StableLM),
    "starcoder": Family(gpt2.Config, gpt2.GPT2),
}


def is_encoder(architecture: str) -> bool:
    """Whether a model of this architecture embeds texts instead of continuing them."""
    return architecture in FAMILIES and FAMILIES[architecture].encodes


def trained_context(config: Mapping[str, Any]) -> int:
    """Positions the model was made for, the upper bound of the default context; 0 if the checkpoint does not say.

    With longrope it is the original context: up to there the short factors hold and results equal transformers';
    a longer context has to be asked for and computes with the long factors throughout.
    """
    scaling = config.get("rope_scaling") or {}
    original = scaling.get("original_max_position_embeddings")
    if scaling.get("rope_type") == "longrope" and original:
        return int(original)
    return int(config.get("max_position_embeddings") or 0)


def build(
    architecture: str, config: Mapping[str, Any], weights: Mapping[str, Weight], *, context: int
) -> Graph:
    """The traced and checked graph of a checkpoint.

    config: Hugging Face names. context: positions the program is built for (some rope scalings depend on it).
    Raises: UnsupportedError for an architecture, key or tensor that is not implemented; ModelFileError for a
    configuration that contradicts the tensors.
    """
    if architecture not in FAMILIES:
        raise UnsupportedError(f"architecture {architecture!r} is not implemented; known: {sorted(FAMILIES)}")
    family = FAMILIES[architecture]
    config = {
        k: v for k, v in config.items() if k != "tie_word_embeddings" or "lm_head.weight" not in weights
    }
    settings = read(family.config, config, context=context)
    _plausible(settings)

    def find(path: str) -> Type | None:
        weight = weights.get(path)
        return Type(weight.format, weight.shape[0], tuple(weight.shape[1:])) if weight else None

    graph = trace(family.model(settings), find)
    if unused := sorted(set(weights) - set(graph.params)):
        shown = ", ".join(unused[:4]) + (f" and {len(unused) - 4} more" if len(unused) > 4 else "")
        raise UnsupportedError(f"architecture {architecture!r} does not use tensors {shown}")
    return graph


def _plausible(c: Any) -> None:
    """Refuse sizes that no arithmetic can be done with, before modules are made from them."""
    sizes = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
    )
    for name in (*sizes, "head_dim", "vocab_size"):
        if not 0 < getattr(c, name) <= 2**24:
            raise ModelFileError(f"{name} is {getattr(c, name)}, expected 1 .. 2^24")
    if c.num_hidden_layers > 2**12:
        raise ModelFileError(f"num_hidden_layers is {c.num_hidden_layers}, expected at most 4096")
    if c.num_attention_heads % c.num_key_value_heads:
        raise ModelFileError(
            f"num_attention_heads {c.num_attention_heads} is no multiple of num_key_value_heads {c.num_key_value_heads}"
        )
