"""Judging machine-written children's stories, sentence by sentence: what may become training text.

Small story models write broken words, loops, heroes who talk to themselves. The rules here are plain
counts over words and names; they know nothing of any model. Used by `sample_stories.py`.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

SEPARATOR = "<|endoftext|>"  # alone on a line between the stories of a file
WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
SENTENCE = re.compile(
    r"(?:\"[^\"]*\"|[^.!?\"])+(?:[.!?]+|(?<=[.!?]\")(?= [A-Z\"]|\n|$))\s*"
)  # quoted speech stays whole
QUOTED = re.compile(r"\"[^\"]*(?:\"|$)")
NAMED = re.compile(r"(girl|boy)?,? (?:named|called) ([A-Z][a-z]+)")
CAPITAL = re.compile(r"[A-Z][a-z]+")
INNER_CAPITAL = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+")  # in the middle of a sentence: a name

GIRLS = ("Lily", "Mia", "Sue", "Lucy", "Anna", "Amy", "Sarah", "Emma", "Jane", "Daisy", "Ella", "Molly")
BOYS = ("Tim", "Tom", "Ben", "Max", "Jack", "Timmy", "Sam", "Bob", "Billy", "Joe", "Johnny", "Spot")
ANIMALS = (
    "dog",
    "cat",
    "bird",
    "bunny",
    "bear",
    "fish",
    "frog",
    "mouse",
    "fox",
    "lion",
    "duck",
    "pig",
    "squirrel",
    "rabbit",
    "monkey",
)
ADJECTIVES = (
    "little",
    "little",
    "little",
    "small",
    "big",
    "kind",
    "happy",
    "brave",
    "smart",
    "curious",
    "young",
    "friendly",
)
STARTS = (
    "Once upon a time, there was a",
    "Once upon a time, there was a",
    "One day, a",
    "Once there was a",
    "Once upon a time, in a big forest, there lived a",
)
BARE_STARTS = ("One day", "Once", "There was a", "One sunny day", "Once upon a time, there lived a")

NAMES = frozenset(name.lower() for name in GIRLS + BOYS)
FAMILY = frozenset(["Mom", "Mommy", "Dad", "Daddy", "Mr", "Mrs", "Mama", "Papa", "Grandma", "Grandpa"])
REPEATABLE = frozenset(["very", "ha", "so", "no", "many", "really", "bye", "yes", "that", "had"])
HERS, HIS = frozenset(("she", "her", "herself")), frozenset(("he", "his", "him", "himself"))
MEN = frozenset(["boy", "boys", "dad", "daddy", "man", "brother", "king", "prince", "grandpa", "papa"]) | {
    n.lower() for n in BOYS
}
WOMEN = frozenset(
    ["girl", "girls", "mom", "mommy", "woman", "sister", "queen", "princess", "grandma", "mama"]
)
WOMEN = WOMEN | {n.lower() for n in GIRLS}
SPEECH = re.compile(r"(\w+)(?: \w+){0,2} (?:said|asked|replied|shouted|told)\b[^\"]*\"([^\"]*)")


def words_of(text: str) -> list[str]:
    """Lower-case words in order; an apostrophe stays inside its word."""
    return WORD.findall(text.lower())


def frequent_words(stories: list[str], min_stories: int) -> frozenset[str]:
    """Words that at least `min_stories` different stories use; a broken word is seldom broken the same way twice."""
    counts: Counter[str] = Counter()
    for story in stories:
        counts.update(set(words_of(story)))
    return frozenset(word for word, n in counts.items() if n >= min_stories)


def sentences_of(text: str) -> list[str]:
    """Sentences in order, each with the space after it; speech in quotes stays with the sentences beside it.

    Text after the last full stop is left out.
    """
    return SENTENCE.findall(text)


def phrases_of(words: list[str]) -> set[tuple[str, ...]]:
    """Every four words in a row."""
    return set(zip(words, words[1:], words[2:], words[3:], strict=False))


def tidy(story: str) -> str:
    """One space between words, one newline between paragraphs, nothing at the ends."""
    lines = (" ".join(line.split()) for line in story.splitlines())
    return "\n".join(line for line in lines if line)


def opening(rng: random.Random) -> str:
    """The first words of a story, to give the model different heroes; a third are left to the model."""
    share = rng.random()
    if share < 0.28:
        return "Once upon a time"
    if share < 0.36:
        return rng.choice(BARE_STARTS)
    kind = rng.random()
    if kind < 0.45:
        who, name = "girl", rng.choice(GIRLS)
    elif kind < 0.85:
        who, name = "boy", rng.choice(BOYS)
    else:
        who, name = rng.choice(ANIMALS), rng.choice(BOYS + GIRLS)
    return f"{rng.choice(STARTS)} {rng.choice(ADJECTIVES)} {who} named {name}."


@dataclass(frozen=True, slots=True)
class Rules:
    """What a story may use and how long it may be."""

    known: frozenset[str]  # every word a story may use
    common: frozenset[str]  # words too frequent to say what a story is about
    min_words: int = 146  # shorter stories are refused
    max_words: int = 280
    min_distinct_trigrams: float = (
        0.85  # distinct trigrams / trigrams of a whole story; a loop falls far below
    )
    max_names: int = 3
    max_thing: int = 7  # how often "the ball" may return in one story
    max_stale: int = 60  # how often one sentence may return in the whole corpus


@dataclass(slots=True)
class Draft:
    """A story in the making: knows who is in it, and judges what might come next."""

    rules: Rules
    seen: Counter[str]  # sentences of the whole corpus, shared between drafts
    text: str = ""
    words: list[str] = field(default_factory=list)
    phrases: set[tuple[str, ...]] = field(default_factory=set)  # every four words in a row

    def add(self, sentence: str) -> None:
        """Go on with `sentence`, whatever `fault` says of it."""
        words = words_of(sentence)
        self.text += sentence
        self.words += words
        self.phrases |= phrases_of(words)

    def fault(self, sentence: str) -> str | None:
        """Why `sentence` may not follow, in one or two words, or None."""
        words = words_of(sentence)
        if not sentence.isascii() or not words:
            return "no words"
        if any(word not in self.rules.known and word not in NAMES for word in words):
            return "rare word"
        if any(a == b and a not in REPEATABLE for a, b in pairwise(words)):
            return "stutter"
        narrated = words_of(QUOTED.sub(" ", sentence))
        counts = Counter(word for word in narrated if word not in self.rules.common or word in NAMES)
        if counts and max(counts.values()) > 1:
            return "stutter"
        return self._repeats(sentence, words) or self._people(sentence, words, set(narrated))

    def _repeats(self, sentence: str, words: list[str]) -> str | None:
        if sentence.strip(' "\n') in self.text:
            return "same sentence"
        begun = len(self.words) > 25  # openings may be alike
        if begun and len(words) > 6 and self.seen[sentence.strip()] >= self.rules.max_stale:
            return "stale"
        return "loop" if len(phrases_of(words) & self.phrases) > max(1, len(words) // 4) else None

    def _people(self, sentence: str, words: list[str], narrated: set[str]) -> str | None:
        everyone = {*self.words, *words}
        listed = {word.capitalize() for word in everyone & NAMES}
        introduced = NAMED.findall(self.text + sentence)
        names = [name for _, name in introduced]
        if len(listed) > self.rules.max_names or len(names) > 2 or len(set(names)) < len(names):
            return "crowd"
        if any(n not in FAMILY and n not in listed for n in INNER_CAPITAL.findall(sentence)):
            return "stranger"
        for speaker, speech in SPEECH.findall(sentence):
            if speaker in listed and speaker in CAPITAL.findall(speech):
                return "talks to self"
        if not introduced or not introduced[0][0]:
            return None
        kind, hero = introduced[0]
        own = re.search(
            rf"(?i)\b{'she' if kind == 'girl' else 'he'} (?:\w+ ){{1,2}}{hero}\b", QUOTED.sub(" ", sentence)
        )
        others = narrated & (HIS if kind == "girl" else HERS)
        missing = not everyone & (MEN if kind == "girl" else WOMEN)
        return "meets self" if own else "wrong pronoun" if others and missing else None

    def whole_fault(self) -> str | None:
        """Why the finished text is unfit, or None."""
        if not self.rules.min_words <= len(self.words) <= self.rules.max_words:
            return "length"
        if self.text.count('"') % 2 or self.text.rstrip('" \n')[-1:] not in {".", "!", "?"}:
            return "punctuation"
        trigrams = Counter(zip(self.words, self.words[1:], self.words[2:], strict=False))
        if len(trigrams) < self.rules.min_distinct_trigrams * trigrams.total():
            return "loop"
        things = Counter(re.findall(r"\bthe (\w+)", self.text))
        if things and max(things.values()) > self.rules.max_thing:
            return "one thing"
        named = NAMED.search(self.text)
        if named and named.group(2) not in self.text[int(len(self.text) * 0.66) :]:
            return "lost hero"
        return None

    def accept(self) -> str:
        """The finished story; its sentences count as seen from now on."""
        self.seen.update(s.strip() for s in sentences_of(self.text))
        return tidy(self.text)


def prune(story: str, rules: Rules, seen: Counter[str], max_dropped: float = 0.4) -> tuple[str | None, str]:
    """Drop the sentences at fault, then judge the rest: (story, "") or (None, the reason).

    The first two sentences say who the story is about; a fault there, or more than the share `max_dropped`
    of sentences at fault, refuses the story. `seen` counts the sentences of all stories kept so far.
    """
    draft, dropped, sentences = Draft(rules, seen), 0, sentences_of(tidy(story))
    for index, sentence in enumerate(sentences):
        reason = draft.fault(sentence)
        if reason is None:
            draft.add(sentence)
        elif index < 2:
            return None, f"start: {reason}"
        else:
            dropped += 1
    if dropped > max_dropped * len(sentences):
        return None, "too many faults"
    reason = draft.whole_fault()
    return (draft.accept(), "") if reason is None else (None, reason)
