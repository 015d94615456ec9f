"""Write a synthetic GGUF model of a real shape: random groups straight as bytes, so that speed can be measured without a download.

    python benchmarks/make_model.py tinyllama.gguf --shape tinyllama --format q4_k_m

Codes are uniform, scales such that every matrix has a deviation of 1/sqrt(K): logits are finite and spread like a
real model's, text is noise. Mixes of types per layer are llama.cpp's (quant/recipes.py). The vocabulary is a real SentencePiece
one when --vocab names a GGUF file with it, else made up; it is padded with unused tokens to the shape's size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from tokamak.loaders import TensorSource, Typed, open_gguf, write_gguf
from tokamak.loaders.config import extents
from tokamak.loaders.names import FAMILIES, Row
from tokamak.quant import FORMATS
from tokamak.quant.recipes import Model, recipe

PIECE = 64 << 20  # bytes made at a time

SHAPES = {
    "tinyllama": {
        "arch": "llama",
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "rotary_dim": 64,
        "vocab_size": 32000,
        "context": 2048,
        "rope_theta": 10000.0,
        "tied": False,
    },
    "llama-3.2-1b": {
        "arch": "llama",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "rotary_dim": 64,
        "vocab_size": 128256,
        "context": 131072,
        "rope_theta": 500000.0,
        "tied": True,
    },
    "phi-2": {
        "arch": "phi2",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 80,
        "rotary_dim": 32,
        "vocab_size": 51200,
        "context": 2048,
        "rope_theta": 10000.0,
        "tied": False,
    },
    # llama.cpp knows "bitnet", which gates with silu where 2B-4T has relu^2: matrices and bytes are the same.
    "bitnet-2b-4t": {
        "arch": "bitnet",
        "hidden_size": 2560,
        "intermediate_size": 6912,
        "num_hidden_layers": 30,
        "num_attention_heads": 20,
        "num_key_value_heads": 5,
        "head_dim": 128,
        "rotary_dim": 128,
        "vocab_size": 128256,
        "context": 4096,
        "rope_theta": 500000.0,
        "tied": True,
    },
}
# The minimum that centres the codes, in units of d; the field it is in.
CENTRE = {"q2_k": 1.5, "q4_k": 7.5, "q5_k": 15.5, "q4_1": -7.5, "q5_1": -15.5}
PURE = "pure-"  # every matrix in one format, so that speed is that format's
# Four codes of 0, 1, 2 in a byte, as tq2_0 packs them: the code 3 has no meaning.
TERNARY = np.array(
    [a | b << 2 | c << 4 | d << 6 for a in range(3) for b in range(3) for c in range(3) for d in range(3)]
)


def random_groups(fmt: str, count: int, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """`count` groups of `fmt` as their bytes, of that deviation."""
    if fmt in ("f16", "f32", "bf16"):
        return FORMATS[fmt].encode(rng.standard_normal((1, count), np.float32) * deviation)[0]
    groups = np.frombuffer(rng.bytes(count * FORMATS[fmt].type_size), FORMATS[fmt].dtype).copy()
    if fmt == "tq2_0":
        groups["qs"] = TERNARY.astype(np.uint8)[groups["qs"] % 81]
    set_scales(fmt, groups, rng.uniform(0.8, 1.2, count) * deviation / unit_deviation(fmt))
    return groups.view(np.uint8)


def set_scales(fmt: str, groups: np.ndarray, scale: np.ndarray) -> None:
    """Write the float scale of every group where its format has it; powers of two for mxfp4 and nvfp4."""
    power = np.round(np.log2(scale))
    if fmt == "mxfp4":
        groups["e"] = power + 128
    elif fmt == "nvfp4":
        groups["d"] = ((power + 8).clip(1, 14).astype(np.uint8) * 8)[:, None]
    elif fmt == "iq1_m":
        bits = scale.astype(np.float16).view(np.uint16)[:, None] >> np.array([0, 4, 8, 12], np.uint16)
        groups["scales"] = (groups["scales"] & 0x0FFF) | ((bits & 15) << 12)
    elif "d" in groups.dtype.names:
        groups["d"] = scale
    if fmt in CENTRE:
        field = "dmin" if "dmin" in groups.dtype.names else "m"
        groups[field] = scale * CENTRE[fmt]


@cache
def unit_deviation(fmt: str) -> float:
    """Deviation of weights with uniform codes and a scale of one."""
    rng = np.random.default_rng(0)
    groups = np.frombuffer(rng.bytes(512 * FORMATS[fmt].type_size), FORMATS[fmt].dtype).copy()
    set_scales(fmt, groups, np.ones(512))
    return float(FORMATS[fmt].decode(groups.view(np.uint8).reshape(1, -1)).std())


def matrix(name: str, dims: tuple[int, ...], fmt: str, rng: np.random.Generator) -> TensorSource:
    def read() -> np.ndarray:
        left = int(np.prod(dims)) // FORMATS[fmt].block_size
        step = PIECE // FORMATS[fmt].type_size
        counts = [step] * (left // step) + [left % step]
        return np.concatenate([random_groups(fmt, n, dims[-1] ** -0.5, rng) for n in counts])

    return TensorSource(name, fmt, dims, read)


def vector(name: str, dims: tuple[int, ...], centre: float, rng: np.random.Generator) -> TensorSource:
    return TensorSource(
        name,
        "f32",
        dims,
        lambda: (centre + 0.05 * rng.standard_normal(dims)).astype(np.float32).view(np.uint8),
    )


def tensors(shape: dict, wanted: str, rng: np.random.Generator) -> Iterator[TensorSource]:
    """Every tensor of the shape, in the order of the names table."""
    pure = wanted.removeprefix(PURE) if wanted.startswith(PURE) else None
    mix = recipe("q8_0" if pure else wanted)
    gqa = shape["num_attention_heads"] // shape["num_key_value_heads"]
    model = Model(shape["num_hidden_layers"], gqa, tied=shape["tied"])
    shaped = {**shape, "max_position_embeddings": shape["context"]}
    family, sizes = FAMILIES[shape["arch"]], extents(shaped, shape["vocab_size"])
    rows: list[tuple[str, Row]] = [(row.tensor, row) for row in family.model]
    for layer in range(shape["num_hidden_layers"]):
        rows += [(f"blk.{layer}.{row.tensor}", row) for row in family.layer]
    for name, row in rows:
        if row.optional and not is_present(row.tensor, shape):
            continue
        dims = tuple(sizes[extent] for extent in row.shape.split())
        if len(dims) > 1:
            fmt = pure if pure and name.startswith("blk.") else mix.format_for(name, dims, model)
            yield matrix(name, dims, fmt or "f32", rng)
        else:
            yield vector(name, dims, 1.0 if "norm.weight" in name else 0.0, rng)
    if shape["arch"] == "llama" and shape["rope_theta"] == 500000.0:
        yield TensorSource("rope_freqs.weight", "f32", (shape["head_dim"] // 2,), llama3_factors(shape))


def is_present(tensor: str, shape: dict) -> bool:
    """Which optional tensors a model of this family has."""
    if tensor == "output.weight":
        return not shape["tied"]
    return shape["arch"] == "phi2" and "qkv" not in tensor and "gate" not in tensor


def llama3_factors(shape: dict) -> Callable[[], np.ndarray]:
    """Llama 3.2's frequency factors: 32 for slow columns, 1 for fast ones, a blend between (original context 8192)."""
    half = np.arange(0, shape["head_dim"], 2) / shape["head_dim"]
    wavelength = 2 * np.pi * shape["rope_theta"] ** half
    smooth = np.clip((8192 / wavelength - 1) / (4 - 1), 0, 1)
    factors = 1 / ((1 - smooth) / 32 + smooth)
    return lambda: factors.astype(np.float32).view(np.uint8)


def vocabulary(path: Path | None, size: int) -> dict[str, Typed]:
    """The tokenizer keys of a GGUF vocabulary, or of made-up pieces, padded to `size`."""
    if path is not None:
        model = open_gguf(path)
        types = model.parts[0].value_types
        keys = {k: Typed(types[k], v) for k, v in model.metadata.items() if k.startswith("tokenizer.")}
        tokens = keys["tokenizer.ggml.tokens"].value.tolist()
        scores = list(keys["tokenizer.ggml.scores"].value)
        kinds = list(keys["tokenizer.ggml.token_type"].value)
    else:
        letters = [
            f"▁{a}{b}{c}" for a in "abcdefghijklmnopqrst" for b in "aeiouy" for c in "bcdfghjklmnpqrstvwxz"
        ]
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", *letters]
        scores, kinds = (
            [float(-i) for i in range(len(tokens))],
            [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259),
        )
        keys = {"tokenizer.ggml.model": Typed("string", "llama")}
        keys |= {
            f"tokenizer.ggml.{k}_token_id": Typed("uint32", i)
            for k, i in (("bos", 1), ("eos", 2), ("unknown", 0))
        }
    padding = size - len(tokens)
    if padding < 0:
        raise SystemExit(f"the vocabulary has {len(tokens)} tokens, the shape only {size}")
    keys["tokenizer.ggml.tokens"] = Typed("array[string]", tokens + [f"[PAD{i}]" for i in range(padding)])
    keys["tokenizer.ggml.scores"] = Typed("array[float32]", scores + [-1e9] * padding)
    keys["tokenizer.ggml.token_type"] = Typed("array[int32]", kinds + [5] * padding)
    return keys


def metadata(shape: dict, wanted: str, vocab: Path | None) -> dict:
    arch = shape["arch"]
    keys = {
        "block_count": shape["num_hidden_layers"],
        "context_length": shape["context"],
        "embedding_length": shape["hidden_size"],
        "feed_forward_length": shape["intermediate_size"],
        "attention.head_count": shape["num_attention_heads"],
        "attention.head_count_kv": shape["num_key_value_heads"],
        "rope.dimension_count": shape["rotary_dim"],
        "rope.freq_base": shape["rope_theta"],
        FAMILIES[arch].norm_key: 1e-5,
    }
    return {
        "general.architecture": arch,
        "general.name": f"synthetic {arch} {wanted}",
        "general.file_type": recipe("q8_0" if wanted.startswith(PURE) else wanted).file_type,
        "general.quantization_version": 2,
        **{f"{arch}.{k}": v for k, v in keys.items()},
        **vocabulary(vocab, shape["vocab_size"]),
    }


def make_model(
    out: Path,
    shape: str,
    wanted: str,
    *,
    vocab: Path | None = None,
    layers: int | None = None,
    tokens: int | None = None,
    seed: int = 0,
) -> Path:
    """Write the model and return its path. layers, tokens: fewer (or more) than the shape has.

    wanted: a mix, or "pure-" and a format: then every matrix of the layers has it, embedding and head q8_0.
    """
    sizes = SHAPES[shape] | ({"num_hidden_layers": layers} if layers else {})
    sizes |= {"vocab_size": tokens} if tokens else {}
    rng = np.random.default_rng(seed)
    write_gguf(out, metadata(sizes, wanted, vocab), tensors(sizes, wanted, rng))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama")
    parser.add_argument("--format", default="q4_k_m", help="a mix such as q4_k_m, or pure-FORMAT")
    parser.add_argument("--vocab", type=Path, help="a GGUF file whose SentencePiece vocabulary is taken")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.perf_counter()
    make_model(args.out, args.shape, args.format, vocab=args.vocab, layers=args.layers, seed=args.seed)
    print(f"{args.out}: {args.out.stat().st_size / 1e9:.3f} GB in {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
