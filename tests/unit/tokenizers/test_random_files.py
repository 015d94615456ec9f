"""tokenizer.json files made by chance, read by us and by `tokenizers`: ids, pieces, spans and decoded texts.

Not compared: spans of byte fallback with a prefix or suffix of words, whose bytes the original counts past the end of a word.
"""

import json
import os
import random

import pytest

from random_tokenizers import text, tokenizer_json
from tokamak.errors import TokamakError, UnsupportedError
from tokamak.tokenizers import Tokenizer
from tokamak.tokenizers.files.hf_json import spec_from_data

NUM_FILES = 4000 if os.environ.get("TOKAMAK_SLOW_TESTS") == "1" else 120


def both(seed):
    """The same file by both readers; None where one refuses it."""
    rng = random.Random(seed)
    data = tokenizer_json(rng)
    try:
        ours = Tokenizer(spec_from_data(data))
        ours.encode("")
        original = pytest.importorskip("tokenizers").Tokenizer.from_str(json.dumps(data))
    except (TokamakError, ValueError):
        return None
    if original.normalizer is not None:
        content = [t["content"] for t in data["added_tokens"] if t["normalized"]]
        if len({original.normalizer.normalize_str(c) for c in content}) < len(set(content)):
            return None  # of those with one normal form the original finds any, another in each run
    return rng, data, ours, original


def test_an_added_token_that_normalizes_to_nothing_is_refused_by_name():
    added = {"content": "<s", "single_word": False, "lstrip": False, "rstrip": True, "normalized": True}
    data = {
        "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
        "normalizer": {"type": "Replace", "pattern": {"Regex": "[<s]"}, "content": ""},
        "added_tokens": [{"id": 1, "special": False, **added}],
    }
    with pytest.raises(UnsupportedError, match="token 1 normalizes to nothing"):
        Tokenizer(spec_from_data(data)).encode("a")


def test_a_normalized_added_token_is_named_and_decoded_in_its_normalized_form():
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False) | {"normalized": True}
    data = {
        "model": {"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "x"},
        "normalizer": {"type": "Lowercase"},
        "added_tokens": [
            {"id": 1, "content": "Ab", "special": False, **flags},
            {"id": 2, "content": "CD", "special": True, **flags},
        ],
    }
    tok = Tokenizer(spec_from_data(data))
    assert (tok.id_to_token(1), tok.token_to_id("Ab")) == ("ab", 1)
    assert tok.encode_full("xaBx", parse_special=True).pieces == ["x", "ab", "x"]
    # The original leaves special tokens out by name, and this one has another.
    assert tok.decode([1, 0, 2], skip_special=True) == "ab x cd"
    original = pytest.importorskip("tokenizers").Tokenizer.from_str(json.dumps({**data, "version": "1.0"}))
    assert original.decode([1, 0, 2]) == "ab x cd"


def asked(call):
    """The answer of the original, or None where it panics."""
    try:
        return call()
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt):
            raise
        return None


def differences(made, count):
    """What differs, with the text; none for a file that one side refuses."""
    rng, data, ours, original = made
    model = data["model"]
    moved = model.get("byte_fallback") and (
        model.get("end_of_word_suffix") or model.get("continuing_subword_prefix")
    )  # bytes of the suffix count past the word there
    extra = [t["content"] for t in data["added_tokens"]] + ["ab", "a b"]
    found = []
    for _ in range(count):
        line, special = text(rng, extra), rng.random() < 0.5
        want = asked(lambda: original.encode(line, add_special_tokens=special))  # noqa: B023  called now
        if want is None:
            continue
        full = ours.encode_full(line, special, parse_special=True)
        if not full.ids.tolist() == want.ids == ours.encode(line, special, True):
            found.append(("ids", line, full.pieces, want.tokens))
        elif not special and full.pieces != want.tokens:  # files made by chance name what their template puts
            found.append(("pieces", line, full.pieces, want.tokens))
        elif max((end for _, end in want.offsets), default=0) > len(line):
            continue  # bytes of a suffix are counted past the end
        elif not moved and [tuple(s) for s in full.char_spans.tolist()] != want.offsets:
            found.append(("spans", line, full.char_spans.tolist(), want.offsets))
        for skip in (False, True):
            decoded = asked(lambda: original.decode(want.ids, skip_special_tokens=skip))  # noqa: B023
            if decoded is not None and ours.decode(want.ids, skip) != decoded:
                found.append(("text", want.tokens, ours.decode(want.ids, skip), decoded))
    return found


@pytest.mark.parametrize("part", range(4))
def test_files_made_by_chance_are_read_as_the_original_reads_them(part):
    read = 0
    for seed in range(part * NUM_FILES // 4, (part + 1) * NUM_FILES // 4):
        made = both(seed)
        if made is None:
            continue
        read += 1
        assert not differences(made, 25), (seed, {k: v for k, v in made[1].items() if k != "model"})
    assert read > NUM_FILES // 10
