"""A text cut into raw pieces has the ids of the text as a whole.

`encode` looks pieces up by their raw bytes; `encode_full` normalizes and cuts the whole text, since it has to say
where each token came from. Both have to agree, when a piece is new and when it is known.
"""

import random

import pytest

from tokamak import Tokenizer
from tokamak.tokenizers.files.hf_json import spec_from_data

PIECES = [
    "a",
    "b",
    "é",
    "e\u0301",
    "中",
    "文",
    "，",
    ".",
    "'",
    "!",
    "ab",
    "Ab",
    "B",
    "##b",
    "1",
    "①",
    "\u0600",
    "ﬁ",
]
SPACES = [" ", "  ", "\t", "\n", " \n ", "\u00a0", "\u3000", "▁", "\u200b", "\x01", "\x0b"]


def wordpiece(**normalizer):
    vocab = [
        "[UNK]",
        "a",
        "b",
        "##b",
        "##a",
        "ab",
        "e",
        "é",
        "中",
        ".",
        "!",
        "'",
        "1",
        "fi",
        "A",
        "B",
        "Ab",
        "，",
    ]
    return {
        "model": {"type": "WordPiece", "vocab": {t: i for i, t in enumerate(vocab)}, "unk_token": "[UNK]"},
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            **normalizer,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
    }


def unigram(normalizers, pre_tokenizer):
    pieces = ["<unk>", "▁", "a", "b", "▁a", "ab", "▁ab", "e", ".", "!", "'", "中", "fi", "▁▁", "1", "\u00a0"]
    return {
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [[p, -1.5 - i / 7] for i, p in enumerate(pieces)]},
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": pre_tokenizer,
    }


def merges(normalizers, pre_tokenizer=None):
    vocab = ["<unk>", "▁", "a", "b", "▁a", "ab", "▁ab", ".", "▁▁", "中", "▁▁▁▁", "\n", "a\n", "'"]
    pairs = ["▁ ▁", "▁ a", "a b", "▁a b", "▁▁ ▁▁", "a \n"]
    return {
        "model": {
            "type": "BPE",
            "vocab": {t: i for i, t in enumerate(vocab)},
            "merges": pairs,
            "unk_token": "<unk>",
            "fuse_unk": True,
        },
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": pre_tokenizer,
    }


MARK = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
SPACED = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
WORDS = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, MARK]}
FILES = {
    "bert": wordpiece(lowercase=True),
    "bert cased": wordpiece(lowercase=False, strip_accents=False, clean_text=False),
    "words, NFKC": unigram([{"type": "NFKC"}, {"type": "StripAccents"}], WORDS),
    "words, Nmt": unigram([{"type": "Nmt"}], WORDS),
    "marks, NFKD": unigram([{"type": "NFKD"}], MARK),
    "marks, runs": unigram([{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}], MARK),
    "marks at the start": unigram([{"type": "NFC"}], MARK | {"prepend_scheme": "first"}),
    "llama": merges([{"type": "Prepend", "prepend": "▁"}, SPACED]),
    "metaspace, whole": merges([], MARK | {"split": False, "prepend_scheme": "first"}),
    "trimmed": unigram([{"type": "Strip", "strip_left": True, "strip_right": True}], MARK),
}


@pytest.mark.parametrize("name", FILES)
def test_pieces_have_the_ids_of_the_whole(name):
    tokenizer = Tokenizer.from_spec(spec_from_data(FILES[name]))
    r = random.Random(3)
    for _ in range(600):
        parts = [r.choice(PIECES if r.random() < 0.6 else SPACES) for _ in range(r.randint(1, 60))]
        text = "".join(parts)
        ids = tokenizer.encode(text)
        assert ids == tokenizer.encode_full(text).ids.tolist(), text
        assert ids == tokenizer.encode(text), text


@pytest.mark.parametrize("name", FILES)
def test_a_piece_longer_than_any_block_or_cache_entry(name):
    tokenizer = Tokenizer.from_spec(spec_from_data(FILES[name]))
    for text in (
        "a" * 63,
        " " + "a" * 64,
        "b " + "a" * 3000 + " b",
        "中" * 500,
        " " * 200 + "a",
        "a" + " " * 70,
    ):
        assert tokenizer.encode(text) == tokenizer.encode_full(text).ids.tolist()


@pytest.mark.parametrize(
    "normalizer", [None, {"handle_chinese_chars": False}, {"handle_chinese_chars": True}]
)
def test_chinese_is_cut_apart_only_where_the_file_says_so(normalizer):
    off = {"type": "BertNormalizer", "clean_text": True, "strip_accents": None, "lowercase": False}
    vocab = {w: i for i, w in enumerate(["[UNK]", "a", "\u4f60", "##\u4f60", "b"])}
    data = {
        "normalizer": None if normalizer is None else off | normalizer,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "vocab": vocab,
        }
        | {"max_input_chars_per_word": 100},
    }
    tokenizer = Tokenizer(spec_from_data(data))
    apart = bool(normalizer and normalizer["handle_chinese_chars"])
    assert tokenizer.encode("a\u4f60 b") == ([1, 2, 4] if apart else [1, 3, 4])
