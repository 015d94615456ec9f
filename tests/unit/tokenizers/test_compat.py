"""`compat=`: whose Unicode tables are used. Recorded answers of tokenizers 1.0.0rc3; those of 0.23.3 are asked if it is there."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from reference_data import unpacked
from tokamak import _native
from tokamak.errors import InvalidParams, TokenizerFileError
from tokamak.tokenizers import Tokenizer
from tokamak.tokenizers.files.hf_json import spec_from_data
from tokamak.tokenizers.patterns import GPT2
from tokamak.tokenizers.unicode_tables import COMPAT, DEFAULT
from vocabularies import byte_level

LATER = "tokenizers-1.0"
TEXT = "a\u061db \u1b4ex \ua7f3y \U000113c2z \U000113b8\U000113c2 theccccccc"
RECORDED = {  # of TEXT by 1.0.0rc3
    "bert_base_cased": [101, 170, 100, 171, 100, 193, 100, 100, 100, 1103, 19515, 19515, 19515, 1665, 102],
    "xlnet_base_cased": [
        24,
        0,
        508,
        17,
        0,
        469,
        518,
        117,
        17,
        0,
        553,
        17,
        0,
        18,
        6814,
        6814,
        6814,
        369,
        4,
        3,
    ],
}
SPLIT = {"type": "Split", "pattern": {"Regex": GPT2}, "behavior": "Isolated", "invert": False}
CASES = [
    ("a\u061db", ["a\u061db"], ["a", "\u061d", "b"], {"pre_tokenizer": {"type": "BertPreTokenizer"}}),
    ("a\ua7f1", ["a", "\ua7f1"], ["a\ua7f1"], {"pre_tokenizer": SPLIT}),
    ("\ua7f3", ["\ua7f3"], ["F"], {"normalizer": {"type": "NFKD"}}),
    ("\U000113c2" * 2, ["\U000113c2" * 2], ["\U000113c5"], {"normalizer": {"type": "NFC"}}),
]
MODEL = {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}


def words(text, lane, parts):
    spec = spec_from_data({**parts, "model": MODEL})
    return [w.decode() for w in Tokenizer(replace(spec, compat=lane)).engine.words(text, False)]


@pytest.mark.parametrize(("text", "before", "after", "parts"), CASES, ids=["bert", "gpt2", "nfkd", "nfc"])
def test_each_lane_has_its_own_tables(text, before, after, parts):
    assert [words(text, lane, parts) for lane in (DEFAULT, LATER, DEFAULT)] == [before, after, before]


@pytest.mark.parametrize(("text", "before", "after", "parts"), CASES[:2], ids=["bert", "gpt2"])
def test_the_default_is_what_the_released_library_does(text, before, after, parts):
    original = pytest.importorskip("tokenizers").Tokenizer.from_str(
        json.dumps({"version": "1.0", "added_tokens": [], "model": MODEL} | parts)
    )
    assert [text[a:b] for a, b in original.encode(text).offsets] == before != after


def test_lanes_run_side_by_side_in_threads():
    text, before, after, parts = CASES[0]
    lanes = [DEFAULT, LATER] * 20
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda lane: words(text, lane, parts), lanes))
    assert made == [before, after] * 20


@pytest.mark.skipif(unpacked() is None, reason="no reference data beside the repository")
@pytest.mark.parametrize("name", RECORDED)
def test_the_later_lane_gives_the_ids_of_the_pre_release(name):
    path = unpacked() / f"tokenizers/kitoken/models/tokenizers/{name}.json"
    assert (
        Tokenizer.load(path, compat=LATER).encode(TEXT) == RECORDED[name] != Tokenizer.load(path).encode(TEXT)
    )


def test_a_tokenizer_keeps_its_lane_when_it_is_saved(tmp_path):
    tokenizer = Tokenizer(replace(byte_level(), compat=LATER))
    tokenizer.save(tmp_path / "t.json")
    assert Tokenizer.load(tmp_path / "t.json").spec.compat == LATER
    assert tokenizer != Tokenizer(byte_level())


def test_what_is_not_followed_is_refused(tmp_path):
    Tokenizer(byte_level()).save(tmp_path / "t.json")
    with pytest.raises(InvalidParams, match=", ".join(COMPAT)):
        Tokenizer.load(tmp_path / "t.json", compat="tokenizers-9")
    with pytest.raises(InvalidParams, match="tokenizers-9"):
        Tokenizer(replace(byte_level(), compat="tokenizers-9")).encode("a")


@pytest.mark.parametrize(
    ("properties", "runs"), [([], [0]), ([1], []), ([1], [1 << 8]), ([1], [1]), ([1], [0, 0])]
)
def test_broken_tables_are_refused(properties, runs):
    with pytest.raises(TokenizerFileError):
        _native.load_classes("broken", properties, runs)
