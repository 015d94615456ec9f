"""Small tokenizers made in memory: trained on a paragraph, so that merges are like real ones."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np

from tokamak.tokenizers import AddedToken, Step, Strings, TokenizerSpec
from tokamak.tokenizers.bpe import BYTE_TO_CHAR
from tokamak.tokenizers.patterns import GPT2, PRE_TOKENIZERS
from tokamak.tokenizers.pretokenize import split
from tokamak.tokenizers.spec import BYTE, CONTROL, UNKNOWN, USER_DEFINED, roles_of

TEXT = (
    """It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of
foolishness... The the theme: l'été à la mer, don't we'll I'd. Привет, мир! 你好世界。你好。 12 345 6789  x == y;
    return x + 1;\n\n\n😀😀 naïve café — the end of the thing that the others then thought through."""
    * 2
)


def byte_level(num_merges: int = 200, pre: str = "gpt-2", **fields: Any) -> TokenizerSpec:
    """A trained byte-level BPE with two special tokens and one user-defined."""
    words = Counter(split((GPT2,), TEXT))
    parts = {w: [BYTE_TO_CHAR[b] for b in w.encode()] for w in words}
    tokens = [BYTE_TO_CHAR[b] for b in range(256)]
    merges: list[str] = []
    for _ in range(num_merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in parts.items():
            for pair in pairwise(symbols):
                pairs[pair] += words[word]
        if not pairs:
            break
        (a, b), _count = max(pairs.items(), key=lambda item: (item[1], item[0]))
        merges.append(f"{a} {b}")
        if a + b not in tokens:
            tokens.append(a + b)
        for symbols in parts.values():
            for i in range(len(symbols) - 2, -1, -1):
                if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == (a, b):
                    symbols[i : i + 2] = [a + b]
    base = len(tokens)
    tokens += ["<|end|>", "<|start|>", "<tool>"]
    row = PRE_TOKENIZERS[pre]
    return TokenizerSpec(
        kind="bpe",
        tokens=Strings.of(tokens),
        roles=roles_of(len(tokens), [(base, CONTROL), (base + 1, CONTROL), (base + 2, USER_DEFINED)]),
        merges=Strings.of(merges),
        pre=pre,
        pre_tokenizers=row.steps,
        ignore_merges=row.ignore_merges,
        added=(
            AddedToken("<|end|>", base, special=True),
            AddedToken("<|start|>", base + 1, special=True),
            AddedToken("<tool>", base + 2),
        ),
        byte_texts=True,
        raw_added=True,
        replace_invalid=True,
        **{"bos_id": base + 1, "eos_id": base, "prefix": (base + 1,), "eog_ids": frozenset([base]), **fields},
    )


def sentencepiece(prefix_space: bool = True, bytes_too: bool = True, **fields: Any) -> TokenizerSpec:
    """A SentencePiece BPE: pieces are substrings of TEXT, scored by how early they were found."""
    text = "\u2581" + TEXT.replace(" ", "\u2581")
    found: Counter[str] = Counter()
    for length in range(2, 7):
        for i in range(len(text) - length):
            piece = text[i : i + length]
            if "\u2581" not in piece[1:] and "\n" not in piece:
                found[piece] += length - 1
    longer = [p for p, _ in found.most_common(150)]
    chars = [c for c, n in Counter(text).most_common() if n > 2]
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)] if bytes_too else []
    tokens = ["<unk>", "<s>", "</s>", *byte_tokens, *longer, *chars]
    marks = [(0, UNKNOWN), (1, CONTROL), (2, CONTROL), *((3 + b, BYTE) for b in range(len(byte_tokens)))]
    scores = np.zeros(len(tokens), np.float64)
    scores[3 + len(byte_tokens) :] = -np.arange(len(longer) + len(chars)) // 3  # equal scores in threes
    return TokenizerSpec(
        kind="spm",
        tokens=Strings.of(tokens),
        roles=roles_of(len(tokens), marks),
        scores=scores,
        added=tuple(AddedToken(t, i, special=True) for i, t in enumerate(tokens[:3])),
        raw_added=True,
        space_texts=True,
        normalizers=(Step.of("SentencePiece", add_dummy_prefix=prefix_space, keep_invalid=True),),
        strip_space=prefix_space,
        **{"unk_id": 0, "bos_id": 1, "eos_id": 2, "prefix": (1,), "eog_ids": frozenset([2]), **fields},
    )
