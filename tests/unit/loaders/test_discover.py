"""Which tokenizer a model gets: the order of the strategies, shown by taking them away one by one."""

from __future__ import annotations

import json

import pytest

import tiny
import tokamak
from tokamak.errors import InvalidParams, TokenizerFileError, UnsupportedError
from tokamak.loaders import open_checkpoint
from tokamak.loaders.discover import find_tokenizer

NO_VOCABULARY = {
    key: None for key in tiny.vocabulary("llama") | tiny.vocabulary("gpt2") if key.startswith("tokenizer.")
}


def bare(tmp_path):
    """A model file without a vocabulary."""
    return tiny.gguf(tmp_path / "bare.gguf", metadata=NO_VOCABULARY)


def word_list(path, size):
    """A WordPiece vocabulary of `size` tokens."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "once", "upon", "##s"]
    path.write_text(
        "\n".join([*words, *(f"w{i}" for i in range(size - len(words)))]) + "\n", encoding="utf-8"
    )
    return path


def test_an_explicit_path_wins_over_the_embedded_vocabulary(tmp_path):
    model = tiny.gguf(tmp_path / "m.gguf", vocab="llama")
    other = tiny.gguf(tmp_path / "o.gguf", vocab="gpt2")
    found = find_tokenizer(open_checkpoint(model), other)
    assert found.strategy == "explicit"
    assert found.tokenizer == tokamak.Tokenizer.load(other)
    with tokamak.load(model, tokenizer=other) as llm:
        assert llm.tokenizer == tokamak.Tokenizer.load(other)
        assert llm.facts["tokenizer"] == "explicit"


def test_a_wrong_explicit_path_is_an_error_and_never_a_fallback(tmp_path):
    model = tiny.gguf(tmp_path / "m.gguf")
    broken = tmp_path / "tokenizer.json"
    broken.write_text(json.dumps({"model": 3}), encoding="utf-8")
    for path, error in ((tmp_path / "absent.json", InvalidParams), (broken, TokenizerFileError)):
        with pytest.raises((error, UnsupportedError), match=path.name):
            tokamak.load(model, tokenizer=path)


def test_a_tokenizer_of_another_model_is_refused_with_both_counts(tmp_path):
    words = word_list(tmp_path / "vocab.txt", tiny.VOCAB_SIZE + 1)
    with pytest.raises(TokenizerFileError, match=f"{tiny.VOCAB_SIZE + 1} tokens.*{tiny.VOCAB_SIZE} rows"):
        tokamak.load(tiny.gguf(tmp_path / "m.gguf"), tokenizer=words)


def test_the_embedded_vocabulary_comes_before_a_file_beside_the_model(tmp_path):
    word_list(tmp_path / "vocab.txt", 100)
    assert find_tokenizer(open_checkpoint(tiny.gguf(tmp_path / "m.gguf"))).strategy == "embedded"
    found = find_tokenizer(open_checkpoint(bare(tmp_path)))
    assert (found.strategy, found.tokenizer.vocab_size) == ("colocated", 100)


@pytest.mark.parametrize("name", ["merges.txt", "special_tokens_map.json"])
def test_an_incomplete_file_beside_the_model_does_not_count(tmp_path, name):
    (tmp_path / name).write_text("{}", encoding="utf-8")
    assert find_tokenizer(open_checkpoint(bare(tmp_path))).tokenizer is None


def test_without_any_tokenizer_text_is_refused_with_every_reason_in_order_and_ids_work(tmp_path):
    word_list(tmp_path / "vocab.txt", tiny.VOCAB_SIZE + 1)
    with tokamak.load(bare(tmp_path)) as llm:
        with pytest.raises(UnsupportedError) as caught:
            llm.generate("Once")
        reasons = [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]]
        assert reasons == ["explicit", "embedded", "colocated"]
        assert len(llm.generate([3, 4, 5], max_tokens=4, ignore_eos=True).token_ids) == 4


def test_a_mock_is_there_only_for_who_asks_for_it_by_name(tmp_path):
    checkpoint = open_checkpoint(bare(tmp_path))
    assert find_tokenizer(checkpoint).tokenizer is None
    with pytest.raises(InvalidParams):
        find_tokenizer(checkpoint, "mock")
    found = find_tokenizer(checkpoint, "mock:bytes")
    every = bytes(range(256)) + "\u00e9\U0001f600".encode()
    assert found.tokenizer.encode(every) == list(every)
    assert found.tokenizer.decode_bytes(list(every)) == every
    assert (found.strategy, found.tokenizer.notes[0][:6]) == ("mock", "a mock")
    with tokamak.load(tmp_path / "bare.gguf", tokenizer="mock:bytes") as llm:
        assert llm.facts["tokenizer"] == "mock"
        assert llm.generate("ab", max_tokens=1, ignore_eos=True).usage.prompt_tokens == 2
