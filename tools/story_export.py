"""Write a trained story model as GGUF: arch llama, ternary matrices in tq2_0, the tied embedding in q8_0, norms in f32.

python tools/story_export.py run/checkpoint.pt src/tokamak/assets/default.gguf
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from story_model import Shape, StoryModel, ternary

from tokamak.loaders.writer import TensorSource, Typed, write_gguf
from tokamak.quant import FORMATS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE_TYPE_TQ2_0 = 37  # general.file_type: mostly tq2_0
NORMAL, CONTROL = 1, 3  # tokenizer.ggml.token_type
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def file_name(parameter: str) -> str:
    """Tensor name in a GGUF file of a parameter path: "layers.0.mlp.up_proj.weight" -> "blk.0.ffn_up.weight"."""
    if parameter == "embed_tokens.weight":
        return "token_embd.weight"
    if parameter == "norm.weight":
        return "output_norm.weight"
    _, layer, rest = parameter.split(".", 2)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def interleaved(weight: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of a Q or K matrix in the order of files of arch llama: element i of a half beside element i + D / 2."""
    halves = weight.reshape(-1, 2, head_dim // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def tensors(model: StoryModel) -> Iterator[TensorSource]:
    """Every parameter in its format. The rounding is the one the network trained with, so tq2_0 is exact."""
    for name, parameter in model.state_dict().items():
        if "proj" in name:
            weight, form = ternary(parameter).numpy(), "tq2_0"
        else:
            weight, form = parameter.numpy(), "q8_0" if name.startswith("embed") else "f32"
        if "q_proj" in name or "k_proj" in name:
            weight = interleaved(weight, model.shape.head_dim)
        rows = FORMATS[form].encode(np.atleast_2d(weight))
        yield TensorSource(file_name(name), form, weight.shape, lambda rows=rows: rows)


def shape_metadata(shape: Shape) -> dict[str, Any]:
    return {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "tokamak little stories",
        "general.license": "apache-2.0",
        "general.file_type": FILE_TYPE_TQ2_0,
        "llama.vocab_size": shape.vocab_size,
        "llama.context_length": shape.max_position_embeddings,
        "llama.embedding_length": shape.hidden_size,
        "llama.block_count": shape.num_hidden_layers,
        "llama.feed_forward_length": shape.intermediate_size,
        "llama.attention.head_count": shape.num_attention_heads,
        "llama.attention.head_count_kv": shape.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": shape.rms_norm_eps,
        "llama.rope.dimension_count": shape.head_dim,
        "llama.rope.freq_base": shape.rope_theta,
    }


def tokenizer_metadata(tokenizer: Tokenizer) -> dict[str, Any]:
    """The byte-level BPE as tokenizer.ggml.* keys; token 0 ends a text and starts one."""
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": Typed("array[int32]", [CONTROL] + [NORMAL] * (len(tokens) - 1)),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
    }


def export(model: StoryModel, tokenizer: Tokenizer, path: Path) -> int:
    """Write the file; returns its size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(path, shape_metadata(model.shape) | tokenizer_metadata(tokenizer), tensors(model))
    return path.stat().st_size


def main() -> None:
    from tokenizers import Tokenizer
    from train_default_model import load  # which imports this module

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "checkpoint", type=Path, help="checkpoint.pt of a run; its tokenizer.json lies beside it"
    )
    parser.add_argument("gguf", type=Path)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.checkpoint.with_name("tokenizer.json")))
    print(f"{args.gguf}: {export(load(args.checkpoint), tokenizer, args.gguf)} bytes")


if __name__ == "__main__":
    main()
