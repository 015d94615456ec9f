"""Patterns of tokenizer.json against Oniguruma, through `tokenizers`: cut and replaced alike, or refused by name."""

import json
import random

import pytest

from tokamak.errors import UnsupportedError
from tokamak.tokenizers import Tokenizer
from tokamak.tokenizers.files.hf_json import spec_from_data
from tokamak.tokenizers.files.oniguruma import translated

WORDS = {"type": "WordLevel", "vocab": {"u": 0}, "unk_token": "u"}
EACH = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
READ = [
    *(
        "a*",
        "a?",
        "(?:a|)",
        "a*?",
        r"[^\s]*",
        "(?=a)",
        "(?!a)",
        r"\s*",
        "a|b*",
        ".*",
    ),  # that match nothing
    *("a$", r"\s+$", "a$|b", "[$]a", r"\$", r"\s++$|b", "[[a]$]"),
    *(r"\p{N}{1,3}+", r"\s{1,2}+|a", "a{1,2}+b", r"\p{L}{2}", "a{1,2}?b", "(?:ab){1,2}", "a?+a"),
    *("(?i:ab|k)", r"(?i:'s|'t)", "[a-c&&[^b]]", r"[^\p{L}\s]+"),
]
REFUSED = ["a{2}?", "a{,2}", "a{1,2}{2}", "a+{2}", r"\s{2}+", r"\pL+", "(?i:ss)", "(?i:[^a])", "(?i)fi"]


def texts():
    rng = random.Random(5)
    return [
        "".join(rng.choice("aabbcAB12$ .\n\t kK\u212asS'\u00e9\u6f22") for _ in range(9)) for _ in range(40)
    ]


@pytest.mark.parametrize("pattern", READ)
def test_a_pattern_cuts_and_replaces_as_the_original_has_it(pattern):
    module = pytest.importorskip("tokenizers")
    cuts = [{**EACH, "pattern": {"Regex": pattern}, "behavior": b} for b in ("Removed", "MergedWithPrevious")]
    replace = {"type": "Replace", "pattern": {"Regex": pattern}, "content": "yz"}
    for normalizer, pre_tokenizer in ((None, cuts[0]), (None, cuts[1]), (replace, EACH)):
        data = {"model": WORDS, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer}
        ours = Tokenizer(spec_from_data(data))
        original = module.Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], **data}))
        for text in texts():
            want = original.encode(text).offsets
            assert [tuple(s) for s in ours.encode_full(text).char_spans.tolist()] == want, text


@pytest.mark.parametrize("pattern", REFUSED)
def test_a_pattern_that_would_be_read_otherwise_is_refused_by_name(pattern):
    with pytest.raises(UnsupportedError, match="pattern"):
        translated(pattern)
