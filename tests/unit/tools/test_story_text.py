"""The rules that decide which machine-written stories become training text."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from story_text import Draft, Rules, frequent_words, opening, prune, sentences_of, tidy, words_of

START = "Once upon a time, there was a little girl named Lily. "
BODY = (
    'She loved to play in the park. One day, she saw a big red ball near a tree. Her mom said, "Be careful!" '
    "Lily ran home and told her dad about it. They made a cake with milk and honey. The sun was warm, and birds sang. "
    "A small dog came to eat some food. Lily gave him water from her cup. He was happy and wagged his tail. "
    "Then they walked to the lake together. The water was cold but very clear. Lily found a shiny stone on the sand. "
    "She put it in her bag to show everyone at school. In the evening it started to rain. Mom closed the window. "
    "Dad told a story about a brave king. Lily listened until she was sleepy. She hugged her toy bear and smiled. "
    "Outside, the dog slept under a chair. It had been a good day for all of them."
)  # fmt: skip
RULES = Rules(
    known=frozenset(words_of(START + BODY)), common=frozenset(["the", "a", "she", "and", "to", "her"])
)


def fault(sentence: str, before: str = START) -> str | None:
    draft = Draft(Rules(RULES.known | {"saw", "thanked", "of"}, RULES.common), Counter())
    draft.add(before)
    return draft.fault(sentence)


def test_a_sound_story_is_kept_whole():
    assert prune(START + BODY, RULES, Counter()) == (START + BODY, "")


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("She saw a flooble.", "rare word"),
        ("She saw a big big tree.", "stutter"),
        ("The dog saw a dog.", "stutter"),
        ('Lily said, "Be careful, Lily!"', "talks to self"),
        ("She told Lily about it.", "meets self"),
        ("He was happy.", "wrong pronoun"),
        ("One day, Flo came.", "rare word"),
        ("Tim and Tom and Sam came.", "crowd"),
        ("She saw a girl named Lily.", "crowd"),
    ],
)
def test_a_sentence_at_fault_is_named(sentence, reason):
    assert fault(sentence) == reason


def test_a_man_in_the_story_may_be_he():
    assert fault("He was happy.", before=START + "She told her dad about it. ") is None


def test_a_sentence_said_before_may_not_return():
    assert fault("She loved to play.", before=START + "She loved to play. ") == "same sentence"


def test_faulty_sentences_are_dropped_and_the_rest_stays():
    marred = BODY.replace("Mom closed", "She saw a blorp. Mom closed")
    assert prune(START + marred, RULES, Counter())[0] == START + BODY


def test_a_story_that_ends_early_is_refused():
    assert prune(START + " ".join(BODY.split()[:60]) + ".", RULES, Counter()) == (None, "length")


def test_a_story_without_its_hero_at_the_end_is_refused():
    lost = BODY[:280] + BODY[280:].replace("Lily", "She")
    assert prune(START + lost, RULES, Counter()) == (None, "lost hero")


def test_worn_sentences_are_refused_once_the_corpus_has_enough_of_them():
    seen: Counter[str] = Counter()
    kept = [prune(START + BODY, RULES, seen)[1] == "" for _ in range(RULES.max_stale + 1)]
    assert all(kept[:-1])
    assert not kept[-1]


def test_quoted_speech_stays_with_the_sentences_beside_it():
    text = 'A cat sat. "Stop! Go home," said Tim. He ran.'
    assert sentences_of(text) == ["A cat sat. ", '"Stop! Go home," said Tim. ', "He ran."]


def test_tidy_leaves_single_spaces_and_no_empty_lines():
    assert tidy("  a  b \n\n c ") == "a b\nc"


def test_a_word_counts_once_per_story():
    assert frequent_words(["cat cat", "cat dog"], 2) == {"cat"}


def test_openings_depend_on_the_seed_only():
    first, again = random.Random(3), random.Random(3)
    assert [opening(first) for _ in range(20)] == [opening(again) for _ in range(20)]
