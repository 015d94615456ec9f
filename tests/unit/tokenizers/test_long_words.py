"""A very long word is kept as a whole; what comes again has the ids it had, and its neighbours have their own."""

import pytest

from tokamak.tokenizers import Tokenizer
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
