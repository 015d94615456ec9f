"""Texts to compare two tokenizers on, and who to ask when they differ."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokamak.errors import TokamakError

if TYPE_CHECKING:
    from tokamak.bench.peers import Peer
    from tokamak.tokenizers import Tokenizer

__all__ = ["TEXT", "collapsed", "original", "text_for"]

TEXT = (
    "The quick brown fox jumps over the lazy dog. In 1984, Dr. Smith's naïve café cost $3.50;\n"
    "\tdef f(x): return x * 2  # code\nÜber straße, 你好世界, привет 🙂 …"
)
WORDS = 64  # tokens of a text that is made of the vocabulary


def text_for(tokenizer: Tokenizer, text: str) -> str:
    """`text`, or one of words of the vocabulary where that has not all of its characters (which ends llama.cpp)."""
    try:
        lacking = tokenizer.spec.unk_id in tokenizer.encode(text)
    except TokamakError:
        lacking = True
    if lacking:
        special = set(tokenizer.special_tokens.values())
        step = max(1, tokenizer.vocab_size // (4 * WORDS))
        pieces = (tokenizer.decode([i]) for i in range(0, tokenizer.vocab_size, step) if i not in special)
        return "".join([p for p in pieces if p.isprintable() and p][:WORDS])
    return text


def original(path: str | os.PathLike[str]) -> Callable[[str], tuple[str, Sequence[int]]] | None:
    """Ids by sentencepiece itself and its name, for a directory whose only tokenizer is `tokenizer.model`."""
    model = Path(path) / "tokenizer.model"
    if not model.is_file() or (model.parent / "tokenizer.json").exists():
        return None
    try:
        import sentencepiece
    except ImportError:
        return None
    reader = sentencepiece.SentencePieceProcessor(model_file=str(model))

    def encode(text: str) -> tuple[str, Sequence[int]]:
        return f"sentencepiece {sentencepiece.__version__}", [reader.bos_id(), *reader.encode(text)]

    return encode


def collapsed(peer: Peer) -> Callable[[str], tuple[str, Sequence[int]]]:
    """Ids of a peer that skips the file's own normaliser, of the text as that leaves it: runs of spaces are one, none at the ends."""

    def encode(text: str) -> tuple[str, Sequence[int]]:
        plain = re.sub(" {2,}", " ", text).strip(" ")
        return "the file's own remove_extra_whitespaces", peer.tokens(plain) or []

    return encode
