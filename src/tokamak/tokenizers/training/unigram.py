"""Unigram vocabularies: frequent substrings, pruned between rounds of expectation and maximisation, as `tokenizers` does.

Source: Kudo 2018, section 3.2; sizes and thresholds are those of tokenizers 0.23. Sums run in the order of the words, so the
result does not vary; the original's do in the last digits.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tokamak.errors import InvalidParams

Piece = tuple[str, float]  # text, log probability
UNKNOWN = "<UNK>"  # of the models between; it is not part of the result
UNKNOWN_PENALTY = 10.0
KEPT_FREQUENCY = 0.5  # expected occurrences below which a piece is dropped


@dataclass(frozen=True, slots=True)
class UnigramOptions:
    """What the trainer of the original takes, with its defaults."""

    vocab_size: int = 8000
    special_tokens: Sequence[str] = ()
    unknown_token: str | None = None
    initial_alphabet: Iterable[str] = ()
    shrinking_factor: float = 0.75  # of the pieces that a round of pruning leaves, in (0, 1)
    rounds: int = 2  # of expectation and maximisation between prunings
    max_piece_length: int = 16  # characters
    seed_size: int = 1_000_000  # pieces to begin with


def train_unigram(words: Mapping[str, int], options: UnigramOptions) -> tuple[list[Piece], int | None]:
    """(pieces in order of ids with their scores, id of the unknown token).

    words: how often each word occurs. Raises: InvalidParams if there are more characters than vocab_size.
    """
    if not 0 < options.shrinking_factor < 1 or options.rounds < 1:
        raise InvalidParams("shrinking_factor must lie between 0 and 1, and there must be rounds")
    sentences = [(word, count) for word, count in words.items() if word]
    required = sorted({c for word, _ in sentences for c in word} | set(options.initial_alphabet))
    if len(required) > options.vocab_size:
        raise InvalidParams(f"vocab_size = {options.vocab_size}, but there are {len(required)} characters")
    pieces: list[Piece] = [(UNKNOWN, math.nan), *_seeds(sentences, options)]
    wanted = options.vocab_size * 11 // 10
    while True:
        for _ in range(options.rounds):
            pieces = _maximised(pieces, _Model(pieces).expected(sentences))
        if len(pieces) <= wanted:
            break
        before = len(pieces)
        pieces = _pruned(pieces, sentences, max(wanted, int(len(pieces) * options.shrinking_factor)))
        if len(pieces) == before:
            break
    return _finished(pieces, required, options)


def _seeds(sentences: Sequence[tuple[str, int]], options: UnigramOptions) -> list[Piece]:
    """Characters, then repeated substrings by occurrences times length."""
    counts: Counter[str] = Counter()
    for word, count in sentences:
        for character in word:
            counts[character] += count
    characters = sorted(((n, c) for c, n in counts.items()), reverse=True)
    found = _repeated([word for word, _ in sentences], options.max_piece_length)
    longer = sorted(((n * len(text), text) for text, n in found.items()), reverse=True)
    room = max(0, options.seed_size - len(characters))
    seeds = [(c, float(n)) for n, c in characters] + [(text, float(n)) for n, text in longer[:room]]
    total = math.log(sum(n for _, n in seeds)) if seeds else 0.0
    return [(text, math.log(n) - total) for text, n in seeds]


def _repeated(words: Sequence[str], longest: int) -> dict[str, int]:
    """Substrings of two to `longest` characters that occur twice and cannot be made longer to the right without losing
    an occurrence: the inner nodes of the suffix tree of all words, ends of words being characters too.

    Of each such substring the original counts occurrences in different words, not how often the words occur.
    """
    level: dict[str, list[tuple[int, int]]] = {
        "": [(w, i) for w in range(len(words)) for i in range(len(words[w]))]
    }
    found: dict[str, int] = {}
    for length in range(1, longest + 2):
        longer: dict[str, list[tuple[int, int]]] = {}
        for text, places in level.items():
            groups: dict[str, list[tuple[int, int]]] = {}
            for w, i in places:
                end = i + length - 1
                groups.setdefault(words[w][end] if end < len(words[w]) else "", []).append((w, i))
            if len(text) > 1 and (len(groups) > 1):
                found[text] = len(places)
            for character, group in groups.items():
                if character and len(group) > 1:
                    longer[text + character] = group
        level = longer
    return found


class _Model:
    """Pieces with their scores, and the ways to cut a word."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.scores = [score for _, score in pieces]
        self.ids = {text: i for i, (text, _) in enumerate(pieces)}
        self.longest = max((len(text) for text, _ in pieces), default=1)
        self.unknown = min((s for s in self.scores if not math.isnan(s)), default=0.0) - UNKNOWN_PENALTY

    def nodes(self, word: str) -> list[list[tuple[int, int, float]]]:
        """For each end 0 to len(word): (start, id, score) of the pieces that end there, by start."""
        ends: list[list[tuple[int, int, float]]] = [[] for _ in range(len(word) + 1)]
        ids, scores, longest, size = self.ids, self.scores, self.longest, len(word)
        for start in range(size):
            single = False
            for end in range(start + 1, min(size, start + longest) + 1):
                found = ids.get(word[start:end])
                if found is not None:
                    ends[end].append((start, found, scores[found]))
                    single = single or end == start + 1
            if not single:
                ends[start + 1].append((start, 0, self.unknown))
        return ends

    def expected(self, sentences: Sequence[tuple[str, int]]) -> list[float]:
        """How often each piece is expected in the sentences, over all ways to cut them, by their probability."""
        expected = [0.0] * len(self.scores)
        for word, count in sentences:
            ends = self.nodes(word)
            forward, backward = _sums(ends)
            total = forward[-1]
            for end, nodes in enumerate(ends):
                for start, piece, score in nodes:
                    expected[piece] += count * math.exp(forward[start] + score + backward[end] - total)
        return expected

    def best(self, word: str, without: str | None = None) -> list[int] | None:
        """Ids of the most probable cut; `without`: not that piece as a whole. None if there is no other."""
        ends = self.nodes(word)
        if without is not None:
            ends[-1] = [node for node in ends[-1] if node[0] != 0]
        sums: list[float | None] = [0.0] + [None] * len(word)
        back: list[tuple[int, int]] = [(0, 0)] * (len(word) + 1)
        for end in range(1, len(word) + 1):
            for start, piece, score in ends[end]:
                before = sums[start]
                if before is None:
                    continue
                known = sums[end]
                if known is None or before + score > known:
                    sums[end], back[end] = before + score, (start, piece)
        if sums[-1] is None:
            return None
        path = []
        at = len(word)
        while at:
            at, piece = back[at]
            path.append(piece)
        return path[::-1]


def _log_add(a: float, b: float) -> float:
    low, high = (a, b) if a < b else (b, a)
    return high if high > low + 50 else high + math.log(math.exp(low - high) + 1)


def _sums(ends: Sequence[Sequence[tuple[int, int, float]]]) -> tuple[list[float], list[float]]:
    """Log of the summed probabilities of all cuts up to each place, and from it on."""
    size = len(ends)
    forward = [-math.inf] * size
    backward = [-math.inf] * size
    forward[0] = backward[-1] = 0.0
    for end in range(1, size):
        for start, _, score in ends[end]:
            forward[end] = _log_add(forward[end], forward[start] + score)
    for end in range(size - 1, 0, -1):
        for start, _, score in ends[end]:
            backward[start] = _log_add(backward[start], backward[end] + score)
    return forward, backward


def digamma(x: float) -> float:
    """Derivative of the logarithm of the gamma function, x > 0. Source: asymptotic series after shifting x to 7."""
    result = 0.0
    while x < 7:
        result -= 1 / x
        x += 1
    x -= 0.5
    square = 1 / (x * x)
    series = square / 24 - 7 * square**2 / 960 + 31 * square**3 / 8064 - 127 * square**4 / 30720
    return result + math.log(x) + series


def _maximised(pieces: Sequence[Piece], expected: Sequence[float]) -> list[Piece]:
    """New scores from expected frequencies, with the sparse prior of a Dirichlet process."""
    kept = [(pieces[i][0], n) for i, n in enumerate(expected) if i and n >= KEPT_FREQUENCY]
    total = digamma(sum(n for _, n in kept))
    return [pieces[0], *((text, digamma(n) - total) for text, n in kept)]


def _pruned(pieces: Sequence[Piece], sentences: Sequence[tuple[str, int]], size: int) -> list[Piece]:
    """Drop the pieces whose loss costs least likelihood, down to `size`."""
    model = _Model(pieces)
    keep = [True] * len(pieces)
    alternatives: list[list[int]] = [[] for _ in pieces]
    for i, (text, _) in enumerate(pieces):
        best = model.best(text) if i else []
        other = model.best(text, without=text) if best is not None and len(best) == 1 else None
        keep[i] = i > 0 and best is not None and len(best) == 1
        alternatives[i] = other or []
    frequency, weight = [0.0] * len(pieces), [0.0] * len(pieces)
    total_weight = 0.0
    for word, count in sentences:
        total_weight += count
        for piece in model.best(word) or ():
            frequency[piece] += count
            weight[piece] += count
    total = sum(frequency)
    kept: list[Piece] = [pieces[0]]
    losses: list[tuple[float, int]] = []
    for i in range(1, len(pieces)):
        if frequency[i] == 0 and not keep[i]:
            continue
        if not alternatives[i]:
            kept.append(pieces[i])
        elif weight[i] > 0:
            # The paper has the alternatives of this piece here; both originals take the number of all pieces.
            others = math.log(total + frequency[i] * (len(pieces) - 1))
            without = sum(math.log(frequency[n] + frequency[i]) - others for n in alternatives[i])
            loss = weight[i] / total_weight * (math.log(frequency[i]) - math.log(total) - without)
            losses.append((-loss, i))
    losses.sort(key=lambda item: item[0])
    return kept + [pieces[i] for _, i in losses[: max(0, size - len(kept))]]


def _finished(
    pieces: Sequence[Piece], required: Sequence[str], options: UnigramOptions
) -> tuple[list[Piece], int | None]:
    """Every character that must be there, then the best pieces, by score; special tokens in front."""
    specials = list(options.special_tokens)
    unknown: int | None = None
    if options.unknown_token is not None:
        if options.unknown_token not in specials:
            specials.insert(0, options.unknown_token)
        unknown = specials.index(options.unknown_token)
    scores = dict(pieces)
    lowest = min((s for s in scores.values() if not math.isnan(s)), default=0.0)
    missing = [c for c in required if c not in scores]
    chosen = {c: scores[c] for c in required if c in scores}
    chosen |= {c: lowest + 0.0001 * i for i, c in enumerate(missing)}
    room = options.vocab_size - len(specials)
    for text, score in pieces[1:]:
        if len(chosen) >= room:
            break
        chosen.setdefault(text, score)
    best = sorted(chosen.items(), key=lambda item: -item[1])
    return [*((text, 0.0) for text in specials), *best], unknown
