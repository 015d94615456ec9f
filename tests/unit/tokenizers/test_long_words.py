"""A very long word is kept as a whole; what comes again has the ids it had, and its neighbours have their own."""

import random

import pytest

from tokamak.tokenizers import Tokenizer
from tokamak.tokenizers.bpe import BYTE_TO_CHAR
from tokamak.tokenizers.files.hf_json import spec_from_data
from vocabularies import byte_level


@pytest.mark.parametrize("letters", ["a", "the", "你好世界", "😀🙂"])
@pytest.mark.parametrize("size", [999, 1001, 5000, 300_000])
def test_a_long_word_that_comes_again_has_the_same_ids(letters, size):
    word = (letters * size)[:size]
    tokenizer, fresh = Tokenizer(byte_level()), Tokenizer(byte_level(notes=("another engine",)))
    others = [word[:-1] + "e", "e" + word[1:], word[:-1]]
    first = tokenizer.encode(word)
    assert tokenizer.decode(first, skip_special=True) == word
    for other in others:
        assert tokenizer.decode(tokenizer.encode(other), skip_special=True) == other
    assert tokenizer.encode(word) == first == fresh.encode(word)


def test_a_part_of_a_word_is_not_a_token_that_merges_do_not_make():
    """Llama 3 has 588 such tokens: as words of their own they are looked up, inside of others they cannot come up."""
    tokens = [bytes([b]) for b in range(256)] + [
        "\u044f".encode(),
        "\u0436".encode(),
        "\u044f\u044f".encode(),
    ]
    text = {t: "".join(BYTE_TO_CHAR[b] for b in t) for t in tokens}
    merges = [[text[t[:1]], text[t[1:]]] for t in tokens[256:258]]
    model = {"type": "BPE", "vocab": {text[t]: i for i, t in enumerate(tokens)}, "merges": merges}
    data = {
        "model": model | {"ignore_merges": True},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        "decoder": {"type": "ByteLevel"},
    }
    tokenizer = Tokenizer(spec_from_data(data))
    assert tokenizer.encode("\u044f\u044f") == [258]
    for word, ids in (
        ("\u044f\u044f" + "\u0436" * 20, [256, 256] + [257] * 20),
        ("\u0436" * 20 + "\u044f\u044f", [257] * 20 + [256, 256]),
        ("\u044f\u0436" * 20, [256, 257] * 20),
    ):
        assert tokenizer.encode(word) == tokenizer.encode(word) == ids


def test_words_that_are_new_together_have_the_ids_that_they_have_apart():
    """New words are encoded many at a time, and the cache grows while they come."""
    rng = random.Random(4)
    sizes = [rng.choice((1, 2, 7, 14, 15, 16, 30, 31, 32, 60)) for _ in range(12_000)]
    words = [
        " " + "".join(rng.choices("helo wrdthe\u00e9\u4f60\u597d", k=size)).replace(" ", "") for size in sizes
    ]
    text = "".join(words)
    tokenizer = Tokenizer(byte_level(notes=("no words yet",)))
    assert tokenizer.encode(text) == tokenizer.encode(text) == list(tokenizer.encode_full(text).ids)
