"""Model families: a page of Python each, chosen by the architecture name of the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from tokamak.errors import InvalidParams, ModelFileError, UnsupportedError
from tokamak.ir.graph import Graph, Type
from tokamak.models import (
    arcee,
    bert,
    bitnet,
    bloom,
    chatglm,
    clip,
    cohere2,
    command_r,
    dbrx,
    deepseek,
    deepseek2,
    dots1,
    falcon,
    falcon_h1,
    gemma,
    gemma2,
    gemma3,
    gemma4,
    glm4,
    gpt2,
    gpt_neox,
    gpt_oss,
    granite,
    granite_hybrid,
    granite_moe,
    hunyuan,
    jais,
    jamba,
    lfm2,
    llama,
    llama4,
    maincoder,
    mamba,
    mamba2,
    minicpm3,
    minimax_m2,
    mistral3,
    mixtral,
    modern_bert,
    moe,
    mpt,
    nemotron,
    nemotron_h,
    nomic_bert,
    olmo,
    olmo2,
    olmoe,
    phi,
    phi3,
    phimoe,
    plamo,
    projectors,
    qwen3,
    qwen35,
    qwen_moe,
    refact,
    rwkv6,
    rwkv7,
    smollm3,
    stablelm,
    starcoder2,
    t5,
)
from tokamak.models.config import read
from tokamak.nn import Module, trace
from tokamak.types import Weight

__all__ = [
    "FAMILIES",
    "GATES",
    "PROJECTORS",
    "Family",
    "build",
    "build_image_encoder",
    "gated",
    "is_encoder",
    "known_as",
    "trained_context",
]


@dataclass(frozen=True, slots=True)
class Family:
    """How one architecture is configured and what it computes."""

    config: type[Any]
    model: type[Any]  # a Module made from a config
    encodes: bool = False  # every token sees every other; hidden states or scores come out
    reads: bool = False  # sequences attend to a source text besides their own


FAMILIES: Mapping[str, Family] = {
    "llama": Family(llama.Config, llama.Llama),
    "qwen2": Family(llama.Config, llama.Llama),
    "maincoder": Family(maincoder.Config, maincoder.Maincoder),
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
    "gemma4": Family(gemma4.Config, gemma4.Gemma4),
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
    "baichuan-13b": Family(refact.Config, refact.Refact),
    "bailingmoe": Family(moe.RoutedConfig, deepseek.DeepSeek),
    "bailingmoe2": Family(moe.RoutedConfig, dots1.Dots1),
    "bloom": Family(bloom.Config, bloom.Bloom),
    "chatglm": Family(chatglm.Config, chatglm.ChatGLM),
    "codeshell": Family(starcoder2.Config, starcoder2.CodeShell),
    "cohere2": Family(cohere2.Config, cohere2.Cohere2),
    "dbrx": Family(dbrx.Config, dbrx.Dbrx),
    "deepseek": Family(moe.RoutedConfig, deepseek.DeepSeek),
    "deepseek2": Family(deepseek2.Config, deepseek2.DeepSeek2),
    "dots1": Family(moe.RoutedConfig, dots1.Dots1),
    "ernie4_5-moe": Family(moe.RoutedConfig, deepseek.DeepSeek),
    "exaone": Family(llama.Config, llama.Llama),
    "gemma2": Family(gemma2.Config, gemma2.Gemma2),
    "glm4moe": Family(moe.RoutedConfig, dots1.Dots1),
    "gpt-oss": Family(gpt_oss.Config, gpt_oss.GptOss),
    "gptj": Family(phi.Config, phi.Phi),
    "hunyuan-dense": Family(llama.Config, hunyuan.Hunyuan),
    "hunyuan-moe": Family(hunyuan.SharedConfig, hunyuan.HunyuanMoe),
    "internlm2": Family(llama.Config, llama.Llama),
    "jais": Family(jais.Config, jais.Jais),
    "jais2": Family(nemotron.Config, nemotron.Nemotron),
    "llama4": Family(llama4.Config, llama4.Llama4),
    "minicpm3": Family(minicpm3.Config, minicpm3.MiniCPM3),
    "minimax-m2": Family(moe.RoutedConfig, minimax_m2.MiniMaxM2),
    "mistral3": Family(mistral3.Config, mistral3.Mistral3),
    "mpt": Family(mpt.Config, mpt.Mpt),
    "nemotron": Family(nemotron.Config, nemotron.Nemotron),
    "olmo": Family(olmo.Config, olmo.Olmo),
    "orion": Family(stablelm.Config, stablelm.StableLM),
    "paddleocr": Family(llama.Config, llama.Llama),
    "pangu-embedded": Family(llama.Config, llama.Llama),
    "phimoe": Family(phimoe.Config, phimoe.PhiMoe),
    "plamo": Family(plamo.Config, plamo.Plamo),
    "qwen": Family(llama.Config, llama.Llama),
    "qwen2vl": Family(llama.Config, llama.Llama),
    "qwen3vl": Family(qwen3.Config, qwen3.Qwen3),
    "qwen3vlmoe": Family(qwen_moe.Config, qwen_moe.Qwen3Moe),
    "refact": Family(refact.Config, refact.Refact),
    "seed_oss": Family(llama.Config, llama.Llama),
    "smollm3": Family(smollm3.Config, smollm3.SmolLM3),
    "starcoder2": Family(starcoder2.Config, starcoder2.StarCoder2),
    "xverse": Family(llama.Config, llama.Llama),
    "falcon-h1": Family(falcon_h1.Config, falcon_h1.FalconH1),
    "nemotron_h": Family(nemotron_h.Config, nemotron_h.NemotronH),
    "granitehybrid": Family(granite_hybrid.Config, granite_hybrid.GraniteHybrid),
    "jamba": Family(jamba.Config, jamba.Jamba),
    "lfm2": Family(lfm2.Config, lfm2.Lfm2),
    "lfm2moe": Family(lfm2.MoeConfig, lfm2.Lfm2),
    "mamba": Family(mamba.Config, mamba.Mamba),
    "mamba2": Family(mamba2.Config, mamba2.Mamba2),
    "qwen35": Family(qwen35.Config, qwen35.Qwen35),
    "qwen35moe": Family(qwen35.MoeConfig, qwen35.Qwen35),
    "rwkv6": Family(rwkv6.Config, rwkv6.Rwkv6),
    "rwkv7": Family(rwkv7.Config, rwkv7.Rwkv7),
    "t5": Family(t5.Config, t5.T5, reads=True),
}


PROJECTORS: Mapping[str, type[projectors.Projector]] = {  # of image encoders, named as in GGUF
    "mlp": projectors.Projector,
    "internvl": projectors.NormedProjector,
}


# One set of tensors, two gates of the feed-forward: the name tells which. llama.cpp knows the name of the last one only.
GATES: Mapping[str, Mapping[str, str]] = {
    name: {"relu2": "bitnet-b1.58", "silu": "bitnet"} for name in ("bitnet", "bitnet-25", "bitnet-b1.58")
}


def gated(architecture: str, activation: str) -> str:
    """The architecture of the same tensors whose feed-forward gates with `activation`.

    Raises: InvalidParams where there is none.
    """
    known = GATES.get(architecture, {})
    if activation not in known:
        raise InvalidParams(
            f"{architecture} has no form with activation {activation!r}; "
            + (f"known: {', '.join(known)}" if known else "its gate is settled")
        )
    return known[activation]


def known_as(architecture: str) -> str:
    """The name under which llama.cpp reads the same tensors; its own for most."""
    return GATES.get(architecture, {}).get("silu", architecture)


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
    return _traced(family.model(settings), weights, architecture)


def build_image_encoder(
    projector: str, config: Mapping[str, Any], tower: Mapping[str, Weight], weights: Mapping[str, Weight]
) -> tuple[Graph, Graph]:
    """The graphs of a tower, from pixels to hidden states, and of its projector (weights), to rows of a decoder.

    config: of `clip.Config`.  Raises: as `build`.
    """
    settings = read(clip.Config, config, context=0)
    _plausible(settings)
    seeing = _traced(clip.Tower(settings), tower, "of the image encoder")
    return seeing, _traced(PROJECTORS[projector](settings), weights, f"projector {projector}")


def _traced(model: Module, weights: Mapping[str, Weight], architecture: str) -> Graph:
    def find(path: str) -> Type | None:
        weight = weights.get(path)
        return Type(weight.format, weight.shape[0], tuple(weight.shape[1:])) if weight else None

    graph = trace(model, find)
    if unused := sorted(set(weights) - set(graph.params)):
        shown = ", ".join(unused[:4]) + (f" and {len(unused) - 4} more" if len(unused) > 4 else "")
        raise UnsupportedError(f"architecture {architecture!r} does not use tensors {shown}")
    return graph


def _plausible(c: Any) -> None:
    """Refuse sizes that no arithmetic can be done with, before modules are made from them."""
    for name in ("hidden_size", "num_hidden_layers", "head_dim", "vocab_size", "num_key_value_heads"):
        if not 0 < getattr(c, name, 1) <= 2**24:
            raise ModelFileError(f"{name} is {getattr(c, name)}, expected 1 .. 2^24")
    for field in fields(c):
        value = getattr(c, field.name)
        if isinstance(value, tuple) and len(value) != c.num_hidden_layers:
            raise ModelFileError(f"{field.name} names {len(value)} layers, there are {c.num_hidden_layers}")
        if field.type == "int" and not 0 <= value <= 2**24:
            raise ModelFileError(f"{field.name} is {value}, expected 0 .. 2^24")
    if c.num_hidden_layers > 2**12:
        raise ModelFileError(f"num_hidden_layers is {c.num_hidden_layers}, expected at most 4096")
    heads, kv_heads = getattr(c, "num_attention_heads", 1), getattr(c, "num_key_value_heads", 1)
    if not heads or heads % kv_heads:
        raise ModelFileError(f"num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}")
