"""Other ways to cut the same text: BPE with merges left out by chance, Unigram cuts drawn by their probability.

Models that are trained on them see rare pieces more often. Plain Python; draws depend on the seed and nothing else.
Source: Provilkov et al. 2020 (BPE dropout), Kudo 2018 (subword regularisation).
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.tokenizers.bpe import BYTE_TO_CHAR
from tokamak.tokenizers.spec import NORMAL, USER_DEFINED, TokenizerSpec

UNKNOWN_PENALTY = 10.0
_BYTES = {b: c.encode() for b, c in BYTE_TO_CHAR.items()}
Cut = Callable[[bytes, random.Random], list[int]]


def sampler(spec: TokenizerSpec, dropout: float, alpha: float, nbest: int) -> Cut:
    """A function that cuts a word by chance. Raises: InvalidParams, UnsupportedError for kinds that have one way only."""
    if spec.kind == "unigram":
        if nbest == 0 or nbest < -1 or not math.isfinite(alpha):
            raise InvalidParams(f"nbest = {nbest}, alpha = {alpha}: nbest is -1 (all) or at least 1")
        return _Unigram(spec, alpha, nbest).cut
    if not 0 <= dropout <= 1:
        raise InvalidParams(f"dropout = {dropout}: between 0 and 1")
    if spec.kind in ("bpe", "characters", "ranks", "spm"):
        return _Merges(spec, dropout).cut
    raise UnsupportedError(f"tokenizers of the kind {spec.kind!r} have one way to cut a text")


def encode(
    engine: Any, spec: TokenizerSpec, text: Any, cut: Cut, seed: int, add_special: bool, parse_special: bool
) -> list[int]:
    """Ids of a text whose words `cut` cuts."""
    chance = random.Random(seed)  # noqa: S311  not a secret
    ids: list[int] = []
    unknown = spec.unk_id if spec.fuse_unknown or spec.kind == "unigram" else None
    for word in engine.words(text, parse_special):
        found = [word] if isinstance(word, int) else cut(word, chance)
        for token_id in found:
            if unknown is None or token_id != unknown or ids[-1:] != [unknown]:
                ids.append(token_id)
    return [*spec.prefix, *ids, *spec.suffix] if add_special else ids


class _Pieces:
    """The vocabulary by its bytes, and what becomes of characters that are not in it."""

    def __init__(self, spec: TokenizerSpec) -> None:
        self.spec = spec
        self.ids: dict[bytes, int] = {}
        every = {token: i for i, token in enumerate(spec.tokens)}
        for token, i in every.items():
            if spec.roles[i] in (NORMAL, USER_DEFINED):
                self.ids[token] = i
        falls_back = spec.byte_fallback or spec.kind == "spm"
        names = {b: every.get(b"<0x%02X>" % b) for b in range(256)} if falls_back else {}
        self.fallback = {b: i for b, i in names.items() if i is not None}

    def unknown(self, character: bytes) -> list[int]:
        """Ids of a character that no token is."""
        if self.fallback and all(b in self.fallback for b in character):
            return [self.fallback[b] for b in character]
        return [] if self.spec.unk_id is None else [self.spec.unk_id]


class _Merges:
    """Each step takes the best merge there is, but each merge that comes up is passed over with probability `dropout`."""

    def __init__(self, spec: TokenizerSpec, dropout: float) -> None:
        self.spec, self.dropout = spec, dropout
        self.pieces = _Pieces(spec)
        self.ranks: Mapping[tuple[bytes, bytes], int] | None = None
        if spec.merges is not None and spec.kind in ("bpe", "characters"):
            pairs = (tuple(m.split(b"\0" if b"\0" in m else b" ", 1)) for m in spec.merges)
            self.ranks = {pair: rank for rank, pair in enumerate(pairs) if len(pair) == 2}

    def rank(self, left: bytes, right: bytes) -> float | None:
        """Lower merges first; None: no merge."""
        if self.ranks is not None:
            return self.ranks.get((left, right))
        found = self.pieces.ids.get(left + right)
        return None if found is None or self.spec.scores is None else -float(self.spec.scores[found])

    def symbols(self, word: bytes) -> list[bytes]:
        spec = self.spec
        if spec.kind in ("bpe", "ranks"):
            return [_BYTES[b] for b in word]
        characters = [c.encode("utf-8", "surrogateescape") for c in word.decode("utf-8", "surrogateescape")]
        prefix, suffix = spec.continuing_prefix.encode(), spec.word_suffix.encode()
        last = len(characters) - 1
        return [(prefix if i else b"") + c + (suffix if i == last else b"") for i, c in enumerate(characters)]

    def joined(self, left: bytes, right: bytes) -> bytes:
        return left + right.removeprefix(self.spec.continuing_prefix.encode())

    def cut(self, word: bytes, chance: random.Random) -> list[int]:
        symbols = self.symbols(word)
        while True:
            ranks = [self.rank(a, b) for a, b in pairwise(symbols)]
            order = sorted((r, i) for i, r in enumerate(ranks) if r is not None)
            place = next((i for _, i in order if chance.random() >= self.dropout), None)
            if place is None:
                break
            symbols[place : place + 2] = [self.joined(symbols[place], symbols[place + 1])]
        ids: list[int] = []
        for symbol in symbols:
            found = self.pieces.ids.get(symbol)
            ids += self.pieces.unknown(symbol) if found is None else [found]
        return ids


class _Unigram:
    """Cuts are drawn with probability proportional to exp(alpha x sum of scores), of all cuts or the `nbest` best."""

    def __init__(self, spec: TokenizerSpec, alpha: float, nbest: int) -> None:
        assert spec.scores is not None
        self.alpha, self.nbest = alpha, nbest
        self.pieces = _Pieces(spec)
        scores = spec.scores.tolist()
        usual = [scores[i] for i in range(len(scores)) if spec.roles[i] == NORMAL]
        lowest, highest = min(usual, default=0.0), max(usual, default=0.0)
        self.scores = [
            len(token) * highest - 0.1 if spec.float_sums and spec.roles[i] == USER_DEFINED else scores[i]
            for i, token in enumerate(spec.tokens)
        ]
        self.unknown_score = lowest - UNKNOWN_PENALTY
        self.longest = max((len(t.decode("utf-8", "replace")) for t in self.pieces.ids), default=1)

    def nodes(self, characters: Sequence[bytes]) -> list[list[tuple[int, int | None, float]]]:
        """For each end: (start, id or None for an unknown character, score)."""
        ends: list[list[tuple[int, int | None, float]]] = [[] for _ in range(len(characters) + 1)]
        for start in range(len(characters)):
            text = b""
            single = False
            for end in range(start + 1, min(len(characters), start + self.longest) + 1):
                text += characters[end - 1]
                found = self.pieces.ids.get(text)
                if found is not None:
                    ends[end].append((start, found, self.scores[found]))
                    single = single or end == start + 1
            if not single:
                ends[start + 1].append((start, None, self.unknown_score))
        return ends

    def cut(self, word: bytes, chance: random.Random) -> list[int]:
        characters = [c.encode("utf-8", "surrogateescape") for c in word.decode("utf-8", "surrogateescape")]
        ends = self.nodes(characters)
        path = self.drawn(ends, chance) if self.nbest == -1 else self.drawn_of_best(ends, chance)
        ids: list[int] = []
        for start, found in path:
            ids += self.pieces.unknown(characters[start]) if found is None else [found]
        return ids

    def drawn(
        self, ends: Sequence[Sequence[tuple[int, int | None, float]]], chance: random.Random
    ) -> list[tuple[int, int | None]]:
        """Sums of all cuts up to each place, then a walk back that takes each step by its share."""
        sums = [0.0]
        for nodes in ends[1:]:
            terms = [sums[start] + self.alpha * score for start, _, score in nodes]
            top = max(terms)
            sums.append(top + math.log(sum(math.exp(t - top) for t in terms)))
        path: list[tuple[int, int | None]] = []
        at = len(ends) - 1
        while at:
            weights = [math.exp(sums[s] + self.alpha * score - sums[at]) for s, _, score in ends[at]]
            start, found, _ = chance.choices(ends[at], weights)[0]
            path.append((start, found))
            at = start
        return path[::-1]

    def drawn_of_best(
        self, ends: Sequence[Sequence[tuple[int, int | None, float]]], chance: random.Random
    ) -> list[tuple[int, int | None]]:
        """The best `nbest` cuts up to each place; one of those of the whole."""
        best: list[list[tuple[float, tuple[tuple[int, int | None], ...]]]] = [[(0.0, ())]]
        for nodes in ends[1:]:
            ways = ((total + score, (*path, (s, i))) for s, i, score in nodes for total, path in best[s])
            best.append(heapq.nlargest(self.nbest, ways, key=lambda way: way[0]))
        top = best[-1][0][0]
        weights = [math.exp(self.alpha * (total - top)) for total, _ in best[-1]]
        return list(chance.choices(best[-1], weights)[0][1])
