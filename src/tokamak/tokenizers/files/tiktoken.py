"""Vocabularies of byte strings by rank: .tiktoken files and Mistral's tekken.json. The authority is tiktoken.

A .tiktoken file holds neither pattern nor special tokens. Those that are published are known here by hash; others
need both from the caller.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokamak.errors import TokenizerFileError
from tokamak.tokenizers.bpe import BYTE_TO_CHAR
from tokamak.tokenizers.files.end_texts import END_TEXTS
from tokamak.tokenizers.patterns import CL100K, GPT2, LLAMA3, O200K, QWEN2
from tokamak.tokenizers.spec import ABSENT, CONTROL, NORMAL, AddedToken, Step, Strings, TokenizerSpec

_ALPHABET = {b: ord(c) for b, c in BYTE_TO_CHAR.items()}


@dataclass(frozen=True, slots=True)
class Published:
    """What a published vocabulary needs beside its file."""

    name: str
    pattern: str
    special: Mapping[str, int]
    bos: str | None = None
    eos: str | None = None


def _numbered(names: Sequence[str], first: int) -> dict[str, int]:
    return {name: first + i for i, name in enumerate(names)}


_CL100K = {
    "<|endoftext|>": 100257,
    "<|fim_prefix|>": 100258,
    "<|fim_middle|>": 100259,
    "<|fim_suffix|>": 100260,
    "<|endofprompt|>": 100276,
}
_LLAMA3_NAMES = [
    *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    *(
        "<|finetune_right_pad_id|>",
        "<|reserved_special_token_2|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
    ),
    *("<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
    *(f"<|reserved_special_token_{i}|>" for i in range(3, 248)),
]
_QWEN_NAMES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))]
_LLAMA4_NAMES = [
    *("<|begin_of_text|>", "<|end_of_text|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    *("<|header_start|>", "<|header_end|>", "<|eom|>", "<|eot|>", "<|step|>"),
    *(f"<|text_post_train_reserved_special_token_{i}|>" for i in range(6)),
    *("<|python_start|>", "<|python_end|>", "<|finetune_right_pad|>"),
    *(f"<|text_post_train_reserved_special_token_{i}|>" for i in range(6, 67)),
    *("<|image_start|>", "<|image_end|>"),
    *(f"<|vision_reserved_special_token_{i}|>" for i in range(2)),
    *("<|tile_x_separator|>", "<|tile_y_separator|>"),
    *(f"<|vision_reserved_special_token_{i}|>" for i in range(2, 6)),
    *("<|image|>", "<|vision_reserved_special_token_6|>", "<|patch|>"),
    *(f"<|vision_reserved_special_token_{i}|>" for i in range(7, 1048)),
]
PUBLISHED = {
    "d0bdbaf59b0762c8c807617e2d8ea51420eb1b1de266df2495be755c8e0ed6ed": Published(
        "llama4", O200K, _numbered(_LLAMA4_NAMES, 200000), "<|begin_of_text|>", "<|end_of_text|>"
    ),
    "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930": Published(
        "r50k_base", GPT2, {"<|endoftext|>": 50256}, eos="<|endoftext|>"
    ),
    "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069": Published(
        "p50k_base", GPT2, {"<|endoftext|>": 50256}, eos="<|endoftext|>"
    ),
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7": Published(
        "cl100k_base", CL100K, _CL100K, eos="<|endoftext|>"
    ),
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d": Published(
        "o200k_base", O200K, {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}, eos="<|endoftext|>"
    ),
    "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55": Published(
        "llama3", LLAMA3, _numbered(_LLAMA3_NAMES, 128000), "<|begin_of_text|>", "<|end_of_text|>"
    ),
    "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186": Published(
        "qwen", QWEN2, _numbered(_QWEN_NAMES, 151643), eos="<|endoftext|>"
    ),
}


def looks_like_tiktoken(data: bytes) -> bool:
    """Whether the first line is base64, a space, a number."""
    first = data[: data.find(b"\n")] if b"\n" in data[:400] else data[:400]
    parts = first.split(b" ")
    if len(parts) != 2 or not parts[1].strip().isdigit():
        return False
    try:
        base64.b64decode(parts[0], validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def ranks_of(data: bytes) -> dict[bytes, int]:
    """Byte strings and ranks of a .tiktoken file. Raises: TokenizerFileError for a line that is neither."""
    ranks: dict[bytes, int] = {}
    for i, line in enumerate(data.splitlines()):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (binascii.Error, ValueError) as e:
            raise TokenizerFileError(f"line {i + 1} is not a base64 token and a rank") from e
    return ranks


def spec_from_ranks(
    ranks: Mapping[bytes, int], pattern: str, special_tokens: Mapping[str, int]
) -> TokenizerSpec:
    """A vocabulary that is given as ranks, as `tiktoken.Encoding` takes it."""
    return _spec(ranks, Published("given", pattern, special_tokens))


def spec_from_tiktoken(
    data: bytes, pattern: str | None = None, special_tokens: Mapping[str, int] | None = None
) -> TokenizerSpec:
    """Read a .tiktoken file. Raises: TokenizerFileError if it is malformed, or not known and without a pattern."""
    ranks = ranks_of(data)
    digest = hashlib.sha256(data).hexdigest()
    known = PUBLISHED.get(digest)
    if known is None or pattern is not None or special_tokens is not None:
        if pattern is None:
            raise TokenizerFileError(
                f"this vocabulary is not known (sha256 {digest}), and the file has neither pattern nor special tokens: "
                "give pattern= and special_tokens="
            )
        known = Published("given", pattern, special_tokens or {})
    return _spec(ranks, known)


def spec_from_tekken(data: Mapping[str, Any]) -> TokenizerSpec:
    """Read a tekken.json: ids of ranks are shifted by the number of special tokens, and the vocabulary is cut."""
    try:
        config = data["config"]
        num_special = int(config["default_num_special_tokens"])
        size = int(config["default_vocab_size"]) - num_special
        ranks = {
            base64.b64decode(t["token_bytes"]): int(t["rank"]) + num_special for t in data["vocab"][:size]
        }
        names = {t["token_str"]: int(t["rank"]) for t in data.get("special_tokens") or ()}
        pattern = config["pattern"]
    except (KeyError, TypeError, ValueError, binascii.Error) as e:
        raise TokenizerFileError(f"not a tekken.json: {type(e).__name__}: {e}") from e
    if not names:  # files before version 7 leave them out
        fixed = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"]
        fixed += [
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
            "[TOOL_CALLS]",
            "[IMG]",
            "<pad>",
            "[IMG_BREAK]",
            "[IMG_END]",
        ]
        fixed += ["[PREFIX]", "[MIDDLE]", "[SUFFIX]"]
        fixed += [f"<SPECIAL_{i}>" for i in range(len(fixed), num_special)]
        names = _numbered(fixed[:num_special], 0)
    return _spec(ranks, Published("tekken", pattern, names, "<s>", "</s>"))


def _spec(ranks: Mapping[bytes, int], known: Published) -> TokenizerSpec:
    size = max([*ranks.values(), *known.special.values()], default=-1) + 1
    if size > 4_000_000 or min([*ranks.values(), *known.special.values()], default=0) < 0:
        raise TokenizerFileError("a rank lies outside what a vocabulary can have")
    tokens = [""] * size
    roles = np.full(size, ABSENT, np.uint8)
    for token, rank in ranks.items():
        tokens[rank] = token.decode("latin-1").translate(_ALPHABET)
        roles[rank] = NORMAL
    for name, i in known.special.items():
        tokens[i] = name
        roles[i] = CONTROL
    added = tuple(AddedToken(name, i, special=True) for name, i in known.special.items())
    ends = [i for name, i in known.special.items() if name in END_TEXTS or name == known.eos]
    bos = known.special.get(known.bos or "")
    return TokenizerSpec(
        kind="ranks",
        tokens=Strings.of(tokens),
        roles=roles,
        scores=-np.arange(size, dtype=np.float64),
        pre=known.name,
        pre_tokenizers=(_matches_only(known.pattern),),
        added=added,
        raw_added=True,
        ignore_merges=True,
        replace_invalid=True,
        byte_texts=True,
        prefix=() if bos is None else (bos,),
        bos_id=bos,
        eos_id=known.special.get(known.eos or ""),
        eog_ids=frozenset(ends),
    )


def _matches_only(pattern: str) -> Step:
    """tiktoken drops what the pattern does not match. The published patterns match everything."""
    if pattern in {GPT2, CL100K, O200K, LLAMA3, QWEN2}:
        return Step.of("Split", regex=pattern, behavior="Isolated")
    return Step.of("Split", regex=pattern, behavior="Removed", invert=True)
