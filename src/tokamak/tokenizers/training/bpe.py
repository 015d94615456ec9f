"""Byte-pair merges from counted words, with the order and the ties of `tokenizers` 0.23.

    while there is room: take the pair of symbols that occurs most often, of several the one of the lowest ids;
    make it one symbol wherever it stands

A pair is found again when it arises anew, so entries of the queue know the words they are about; a pair that is taken
twice keeps its later rank. The original is this loop in Rust; source of the rules: its behaviour, and Sennrich et al. 2016.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tokamak.errors import InvalidParams

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class BpeOptions:
    """What the trainer of the original takes, with its defaults."""

    vocab_size: int = 30000
    min_frequency: int = 0  # of a pair
    special_tokens: Sequence[str] = ()
    initial_alphabet: Iterable[str] = ()  # characters that are there whatever the texts have
    limit_alphabet: int | None = None  # characters, the rarest go
    continuing_prefix: str = ""  # of symbols that do not start a word
    word_suffix: str = ""  # of symbols that end a word
    max_token_length: int | None = None  # characters


@dataclass(slots=True)
class BpeResult:
    """tokens in order of ids; merges as pairs of ids, in order of rank."""

    tokens: list[str] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    merges: list[Pair] = field(default_factory=list)

    def add(self, token: str) -> int:
        """Id of a token, new or known."""
        found = self.ids.setdefault(token, len(self.tokens))
        if found == len(self.tokens):
            self.tokens.append(token)
        return found


def train_bpe(words: Mapping[str, int], options: BpeOptions) -> BpeResult:
    """words: how often each word occurs. Raises: InvalidParams if the alphabet alone is more than vocab_size."""
    result = BpeResult()
    for token in options.special_tokens:
        result.add(token)
    for character in alphabet(words, options):
        result.add(character)
    symbols = [_symbols(word, result, options) for word in words]
    if len(result.tokens) > options.vocab_size:
        raise InvalidParams(
            f"vocab_size = {options.vocab_size}, but special tokens and characters are {len(result.tokens)}"
        )
    ranks: dict[Pair, None] = {}
    for pair in _Merging(symbols, list(words.values()), options).run(result):
        ranks.pop(pair, None)  # taken again: the later rank counts
        ranks[pair] = None
    result.merges = list(ranks)
    return result


def alphabet(words: Mapping[str, int], options: BpeOptions) -> list[str]:
    """Characters in order of code points, without the rarest beyond limit_alphabet."""
    counts: defaultdict[str, float] = defaultdict(int)
    for word, count in words.items():
        for character in word:
            counts[character] += count
    counts |= dict.fromkeys(options.initial_alphabet, float("inf"))
    kept = sorted(counts, key=lambda c: (counts[c], c))
    if options.limit_alphabet is not None:
        kept = kept[max(0, len(kept) - options.limit_alphabet) :]
    return sorted(kept)


def _symbols(word: str, result: BpeResult, options: BpeOptions) -> list[tuple[int, int]]:
    """(id, characters) of a word; characters outside the alphabet are left out."""
    symbols = []
    for i, character in enumerate(word):
        if character not in result.ids:
            continue
        token = (options.continuing_prefix if i else "") + character
        if i == len(word) - 1:
            token += options.word_suffix
        symbols.append((result.add(token), 1))
    return symbols


class _Merging:
    """The loop, with the counts of pairs and where they are."""

    def __init__(self, words: list[list[tuple[int, int]]], counts: list[int], options: BpeOptions) -> None:
        self.words, self.counts, self.options = words, counts, options
        self.pairs: defaultdict[Pair, int] = defaultdict(int)
        self.queue: list[tuple[int, Pair, int, set[int]]] = []  # -count, pair, serial number, words
        self.serial = 0
        where: defaultdict[Pair, set[int]] = defaultdict(set)
        for w, word in enumerate(words):
            for (a, _), (b, _) in pairwise(word):
                self.pairs[a, b] += counts[w]
                where[a, b].add(w)
        self.push(where)

    def push(self, where: Mapping[Pair, set[int]]) -> None:
        for pair, places in where.items():
            if self.pairs[pair] > 0:
                self.serial += 1
                heapq.heappush(self.queue, (-self.pairs[pair], pair, self.serial, places))

    def run(self, result: BpeResult) -> Iterable[Pair]:
        """Take pairs, in order, and name the new tokens in `result`."""
        prefix = self.options.continuing_prefix
        while len(result.tokens) < self.options.vocab_size and self.queue:
            count, pair, serial, places = heapq.heappop(self.queue)
            if -count != self.pairs[pair]:
                heapq.heappush(self.queue, (-self.pairs[pair], pair, serial, places))
                continue
            if -count < 1 or self.options.min_frequency > -count:
                break
            left, right = result.tokens[pair[0]], result.tokens[pair[1]]
            token = result.add(left + (right.removeprefix(prefix) if prefix else right))
            yield pair
            where: defaultdict[Pair, set[int]] = defaultdict(set)
            for w in places:
                self.merge(w, pair, token, where)
            self.push(where)

    def merge(self, w: int, pair: Pair, token: int, where: defaultdict[Pair, set[int]]) -> None:
        """Make `pair` one symbol in word w; the pair itself keeps its count, as in the original."""
        word, count, pairs = self.words[w], self.counts[w], self.pairs
        limit = self.options.max_token_length or 1 << 60
        merged: list[tuple[int, int]] = []
        i = 0
        while i < len(word):
            if i + 1 == len(word) or word[i][0] != pair[0] or word[i + 1][0] != pair[1]:
                merged.append(word[i])
                i += 1
                continue
            length = word[i][1] + word[i + 1][1]
            if merged:
                before = merged[-1]
                pairs[before[0], pair[0]] -= count
                if before[1] + length < limit:
                    pairs[before[0], token] += count
                    where[before[0], token].add(w)
            if i + 2 < len(word):
                after = word[i + 2]
                pairs[pair[1], after[0]] -= count
                if after[1] + length < limit:
                    pairs[token, after[0]] += count
                    where[token, after[0]].add(w)
            merged.append((token, length))
            i += 2
        self.words[w] = merged
