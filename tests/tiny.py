"""Tiny models as GGUF files: every family, any format, random weights, a small vocabulary that really tokenises.

    path = tiny.gguf(tmp_path / "m.gguf", arch="qwen3", fmt="q4_k", num_hidden_layers=3)

Weights depend on (arch, sizes, seed) only, so two formats of one model approximate the same numbers. The names and
shapes of the tensors are those of `loaders/names/`. Sizes are multiples of 256 for formats that group by 256.
"""

from __future__ import annotations

import zlib
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from tokamak.loaders.config import extents
from tokamak.loaders.names import FAMILIES
from tokamak.loaders.writer import TensorSource, Typed, write_gguf
from tokamak.quant import FORMATS

VOCAB_SIZE = 384
TEXT = (
    "Once upon a time there was a little girl who lived near the river with her mother and her old grey cat. "
    "Every day she went to the water and looked for the big fish that the children of the village talked about. "
    "One day the fish came up and said: do not be afraid, I will give you three wishes if you let me go. "
    "She thought for a long time, and then she said that she wanted nothing but a friend. They lived happily ever after."
)
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
BITNET = ("bitnet", "bitnet-25", "bitnet-b1.58")
# Tensors that the table calls optional and these models have.
PRESENT = {
    "qwen2": {"attn_q.bias", "attn_k.bias", "attn_v.bias"},
    "phi2": {
        *("attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_q.bias", "attn_k.bias", "attn_v.bias"),
        *("attn_output.bias", "ffn_up.bias", "ffn_down.bias", "output.weight", "output.bias"),
    },
    "phi3": {"output.weight"},
    "llama": {"output.weight"},
    "bert": {
        "attn_q.weight",
        "attn_k.weight",
        "attn_v.weight",
        "attn_q.bias",
        "attn_output.bias",
        "ffn_up.bias",
    },
    "nomic-bert": {"attn_qkv.weight"},
    "modern-bert": {"attn_qkv.weight", "attn_norm.weight"},
}
WHOLE_HEADS = ("phi2", "phi3", "bert", "nomic-bert", "modern-bert", "t5")  # no grouped queries


def sizes(arch: str, fmt: str) -> dict[str, int]:
    """Defaults: two layers, four heads, grouped queries where the family has them."""
    wide = FORMATS[fmt].block_size == 256
    experts = {"num_experts": 4} if "expert_count" in FAMILIES[arch].counts else {}
    return experts | {
        "hidden_size": 256 if wide else 64,
        "intermediate_size": 512 if wide else 128,
        "num_hidden_layers": 32 if arch == "baichuan" else 2,  # readers know its 7B form by 32 layers
        "num_attention_heads": 4,
        "num_key_value_heads": 4 if arch in WHOLE_HEADS else 2,
        "head_dim": 64 if wide else 16,
    }


def gguf(
    path: Path | str,
    arch: str = "llama",
    fmt: str = "q8_0",
    *,
    vocab: str | None = None,
    tied: bool | None = None,
    context: int = 512,
    seed: int = 0,
    embed_fmt: str | None = None,
    keys: dict | None = None,
    metadata: dict | None = None,
    **overrides: int,
) -> Path:
    """Write a model and return its path.

    fmt: of all matrices; embed_fmt: of embedding and head, if another. vocab: "llama" (SentencePiece) or "gpt2" (byte-level
    BPE), by default what the family is published with. tied: no output.weight. keys: more `{arch}.*` keys, or None
    to remove one; metadata: the same for whole names. overrides: the sizes of `sizes`.
    """
    size = {**sizes(arch, fmt), **overrides}
    tied = arch in ("qwen2", "qwen3", *BITNET) if tied is None else tied
    vocab = vocab or ("gpt2" if arch in ("qwen2", "qwen3", "phi2") else "llama")
    values = {
        "general.architecture": arch,
        "general.type": "model",
        "general.name": f"tiny {arch} {fmt}",
        **{f"{arch}.{k}": v for k, v in {**model_keys(arch, size, context), **(keys or {})}.items()},
        **vocabulary(vocab),
        **(metadata or {}),
    }
    write_gguf(
        path,
        {k: v for k, v in values.items() if v is not None},
        tensors(
            arch, {**size, "max_position_embeddings": context}, fmt, embed_fmt or fmt, tied=tied, seed=seed
        ),
    )
    return Path(path)


def model_keys(arch: str, size: dict, context: int) -> dict:
    """The `{arch}.*` keys of these sizes."""
    keys = {
        "block_count": size["num_hidden_layers"],
        "context_length": context,
        "embedding_length": size["hidden_size"],
        "feed_forward_length": size["intermediate_size"],
        "attention.head_count": size["num_attention_heads"],
        "attention.head_count_kv": size["num_key_value_heads"],
        FAMILIES[arch].norm_key: 1e-5,
        "rope.freq_base": 10000.0,
        "rope.dimension_count": size["head_dim"],
        "attention.key_length": size["head_dim"],
        "attention.value_length": size["head_dim"],
    }
    for suffix in FAMILIES[arch].counts:
        keys[suffix] = {"expert_count": 4, "expert_used_count": 2}.get(suffix, size["intermediate_size"])
    keys |= {"decoder_start_token_id": 0} if FAMILIES[arch].stacks else {}
    return keys | ({"rope.dimension_count": size["head_dim"] // 2} if arch == "phi2" else {})


def tensors(arch: str, size: dict, fmt: str, embed_fmt: str, *, tied: bool, seed: int):
    """Every tensor of the family's table, optional ones only where PRESENT."""
    family = FAMILIES[arch]
    extent = extents(size, VOCAB_SIZE)
    present = PRESENT.get(arch, set()) | ({"output.weight"} if not tied else set())
    if tied:
        present = present - {"output.weight"}
    rows = [(row.tensor, row) for row in family.model]
    rows += [(f"blk.{i}.{row.tensor}", row) for i in range(size["num_hidden_layers"]) for row in family.layer]
    rows += [(f"{s.tensors}{i}.{row.tensor}", row) for s in family.stacks for i in range(2) for row in s.rows]
    for name, row in rows:
        if not row.optional or row.tensor in present:
            shape = tuple(extent[e] for e in row.shape.split())
            kind = embed_fmt if "vocab" in row.shape else fmt
            yield source(name, shape, kind if len(shape) > 1 else "f32", seed)


def source(name: str, shape: tuple[int, ...], fmt: str, seed: int) -> TensorSource:
    """Random values of a scale at which logits spread by about 3, in `fmt`."""

    def read():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        x = rng.standard_normal(shape).astype(np.float32)
        if len(shape) > 1:
            x *= (3.0 if name == "output.weight" else 1.0) / np.sqrt(shape[-1])
        else:
            x = 0.1 * x + (1.0 if "norm.weight" in name else 0.0)
        return FORMATS[fmt].encode(x.reshape(-1, shape[-1]).astype(np.float32))

    return TensorSource(name, fmt, shape, read)


def vocabulary(kind: str) -> dict:
    """Tokenizer metadata of VOCAB_SIZE tokens: "llama" or "gpt2"."""
    return spm_vocabulary() if kind == "llama" else bpe_vocabulary()


@cache
def spm_vocabulary() -> dict:
    """SentencePiece BPE: three control tokens, 256 bytes, pieces by rank of their merge, then the characters."""
    text = "▁" + TEXT.replace(" ", "▁")
    words = ["▁" + word for word in text.split("▁")[1:]]
    characters = sorted(set("".join(words)))
    merges = learn_merges(words, VOCAB_SIZE - 259 - len(characters))
    pieces = ["".join(pair) for pair in merges] + characters
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *pieces],
        "tokenizer.ggml.scores": Typed(
            "array[float32]", [0.0] * 259 + [float(-i) for i in range(len(pieces))]
        ),
        "tokenizer.ggml.token_type": Typed(
            "array[int32]", [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(pieces)
        ),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }


@cache
def bpe_vocabulary() -> dict:
    """Byte-level BPE: 256 bytes as GPT-2 writes them, merges, and an end token."""
    names = byte_names()
    words = [" " + word for word in TEXT.split(" ")]
    spelled = ["".join(names[b] for b in word.encode()) for word in words]
    merges = learn_merges(spelled, VOCAB_SIZE - 257)
    tokens = [names[b] for b in range(256)] + ["".join(pair) for pair in merges] + ["<|endoftext|>"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": Typed("array[int32]", [NORMAL] * (VOCAB_SIZE - 1) + [CONTROL]),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.bos_token_id": VOCAB_SIZE - 1,
        "tokenizer.ggml.eos_token_id": VOCAB_SIZE - 1,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }


def byte_names() -> list[str]:
    """The printable character that stands for each byte in byte-level vocabularies (GPT-2's table)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


def learn_merges(words: list[str], count: int) -> list[tuple[str, str]]:
    """`count` merges that make new strings, most frequent pair first, ties by the pair itself."""
    split = [list(word) for word in words]
    known, merges = {c for word in words for c in word}, []
    while len(merges) < count:
        pairs = Counter(pair for word in split for pair in pairwise(word))
        pairs = {p: n for p, n in pairs.items() if "".join(p) not in known}
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        known.add("".join(best))
        split = [merged(word, best) for word in split]
    return merges


def merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out
