"""Byte pair encoding in plain Python: what native/text/merge.cpp computes, for reading and for tests.

Words start as bytes (byte-level BPE) or characters (SentencePiece); then, while some adjacent pair has a
merge, the pair of lowest rank, leftmost among equals, becomes one symbol. Quadratic; the engine is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from tokamak.tokenizers.spec import BYTE, NORMAL, UNUSED, USER_DEFINED, TokenizerSpec

# Byte -> character of the GPT-2 byte alphabet: printable Latin-1 stands for itself, the rest for U+0100 and up.
_PRINTABLE = {*range(33, 127), *range(161, 173), *range(174, 256)}
BYTE_TO_CHAR = {b: chr(b) for b in sorted(_PRINTABLE)} | {
    b: chr(256 + n) for n, b in enumerate(b for b in range(256) if b not in _PRINTABLE)
}
CHAR_TO_BYTE = {c: b for b, c in BYTE_TO_CHAR.items()}


def merge_word(symbols: list[str], ranks: Mapping[tuple[str, str], float]) -> list[str]:
    """Merge a word's symbols until no adjacent pair has a rank. Returns a new list."""
    symbols = list(symbols)
    while True:
        known = [(ranks[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in ranks]
        if not known:
            return symbols
        i = min(known)[1]
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


class PlainBpe:
    """Encodes one word of a spec of kind "bpe", or one stretch of text without spaces to mark of kind "spm"."""

    def __init__(self, spec: TokenizerSpec) -> None:
        self.spec = spec
        self.vocab: dict[str, int] = {}
        added = {t.id for t in spec.added}
        for i, token in enumerate(spec.tokens):
            if i not in added or spec.roles[i] == USER_DEFINED:
                self.vocab.setdefault(token.decode("utf-8", "surrogateescape"), i)
        self.byte_ids = {i: n for n, i in self._byte_tokens().items()} if spec.kind == "spm" else {}
        self.pieces: dict[str, int] = {}
        self.ranks: dict[tuple[str, str], float] = {}
        if spec.kind == "bpe":
            lines = (m.decode() for m in spec.merges or ())
            self.ranks = {(a, b): r for r, (a, b) in enumerate(line.split(" ", 1) for line in lines)}
            self.pieces = self.vocab
        else:
            self._rank_pieces()

    def _byte_tokens(self) -> dict[int, int]:
        tokens = self.spec.tokens
        return {i: int(tokens[i][3:5], 16) for i in range(len(tokens)) if self.spec.roles[i] == BYTE}

    def _rank_pieces(self) -> None:
        """SentencePiece merges any pair whose concatenation is a piece, best score first."""
        scores = self.spec.scores
        for piece, i in self.vocab.items():
            if self.spec.roles[i] in (NORMAL, USER_DEFINED, UNUSED):
                self.pieces[piece] = i
        for piece, i in self.pieces.items():
            for cut in range(1, len(piece)):
                self.ranks[piece[:cut], piece[cut:]] = -float(scores[i]) if scores is not None else 0.0

    def encode(self, word: str) -> list[int]:
        """Ids of a word."""
        if self.spec.kind == "bpe":
            symbols = [BYTE_TO_CHAR[b] for b in word.encode("utf-8")]
            whole = "".join(symbols)
            if self.spec.ignore_merges and whole in self.vocab:
                return [self.vocab[whole]]
            return [self.pieces[s] for s in merge_word(symbols, self.ranks) if s in self.pieces]
        ids: list[int] = []
        for symbol in merge_word(list(word), self.ranks):
            ids += [self.pieces[symbol]] if symbol in self.pieces else self._fallback(symbol)
        return ids

    def _fallback(self, symbol: str) -> list[int]:
        data = symbol.encode("utf-8")
        if all(b in self.byte_ids for b in data):
            return [self.byte_ids[b] for b in data]
        return [] if self.spec.unk_id is None else [self.spec.unk_id]
